"""`instil push`, to a stand-in of the hub's HTTP interface on loopback."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from huggingface_hub import constants
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from typer.testing import CliRunner

from instil.cli.main import app
from instil.errors import RunError
from instil.ship.formats import Format
from instil.ship.push import push


class Hub:
    """Takes repositories and commits, and keeps what it was sent."""

    def __init__(self) -> None:
        self.created: list[dict[str, object]] = []
        self.files: dict[str, bytes] = {}
        self.status = 200

    async def create(self, request: Request) -> JSONResponse:
        if self.status != 200:
            return JSONResponse({"error": "no"}, self.status)
        self.created.append(await request.json())
        name = self.created[-1]
        owner = name.get("organization") or "me"
        return JSONResponse({"url": f"{request.base_url}{owner}/{name['name']}"})

    async def preupload(self, request: Request) -> JSONResponse:
        asked = (await request.json())["files"]
        files = [
            {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
            for f in asked
        ]
        return JSONResponse({"files": files})

    async def commit(self, request: Request) -> JSONResponse:
        for line in (await request.body()).splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                value = entry["value"]
                self.files[value["path"]] = base64.b64decode(value["content"])
            if entry["key"] == "deletedFile":
                del self.files[entry["value"]["path"]]
        return JSONResponse(
            {"commitUrl": f"{request.base_url}me/reviews/commit/1", "commitOid": "1" * 40}
        )

    async def tree(self, request: Request) -> JSONResponse:
        entries = [
            {"type": "file", "path": path, "size": len(data), "oid": "0" * 40}
            for path, data in self.files.items()
        ]
        return JSONResponse(entries)

    async def card(self, request: Request) -> JSONResponse:
        return JSONResponse({"errors": [], "warnings": []})

    async def info(self, request: Request) -> JSONResponse:
        if self.status != 200:
            return JSONResponse({"error": "no"}, self.status)
        name = f"{request.path_params['owner']}/{request.path_params['name']}"
        return JSONResponse({"id": name, "sha": "0" * 40, "siblings": [], "private": True})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    there = Hub()
    routes = [
        Route("/api/validate-yaml", there.card, methods=["POST"]),
        Route("/api/repos/create", there.create, methods=["POST"]),
        Route("/api/models/{owner}/{name}/preupload/{rev}", there.preupload, methods=["POST"]),
        Route("/api/models/{owner}/{name}/commit/{rev}", there.commit, methods=["POST"]),
        Route("/api/models/{owner}/{name}/tree/{rev}", there.tree),
        Route("/api/models/{owner}/{name}", there.info),
        Route("/api/models/{owner}/{name}/revision/{rev}", there.info),
    ]
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", address)
    monkeypatch.setenv("HF_TOKEN", "hf_xxx")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield there
    server.should_exit = True
    thread.join()
    listening.close()


@pytest.mark.enable_socket
def test_an_adapter_is_sent_whole_and_private(done_lora: Path, hub: Hub):
    listed = []
    assert push(done_lora, "me/reviews", on_files=listed.extend)
    (made,) = hub.created
    assert made["name"] == "reviews"
    assert made.get("private") is True or made.get("visibility") == "private"
    assert {each.name for each in listed} == set(hub.files)
    for name in ("adapter_model.safetensors", "tokenizer.json", "adapter_config.json"):
        assert hub.files[name] == (done_lora / "model" / name).read_bytes()
    assert b"## Certificate" in hub.files["README.md"]


@pytest.mark.enable_socket
def test_another_form_leaves_nothing_of_the_one_before(done_lora: Path, hub: Hub):
    push(done_lora, "me/reviews")
    hub.files["logo.png"] = b"mine"
    assert "adapter_config.json" in hub.files
    push(done_lora, "me/reviews", form=Format.MERGED)
    assert not [name for name in hub.files if name.startswith("adapter_")]
    assert "model.safetensors" in hub.files
    assert hub.files["logo.png"] == b"mine"


@pytest.mark.enable_socket
def test_a_dry_run_sends_nothing(done_lora: Path, hub: Hub):
    found = CliRunner().invoke(app, ["push", str(done_lora), "me/reviews", "--dry-run"])
    assert found.exit_code == 0, found.output
    assert "adapter_model.safetensors" in found.output
    assert "nothing was sent" in found.output
    assert (hub.created, hub.files) == ([], {})


def test_quantizing_goes_with_files_that_can_be(done_lora: Path):
    asked = ["push", str(done_lora), "me/x", "--dry-run", "--quantize", "q8_0"]
    assert CliRunner().invoke(app, asked).exit_code == 2


@pytest.mark.enable_socket
def test_what_the_hub_refuses(done_lora: Path, hub: Hub):
    hub.status = 401
    with pytest.raises(RunError, match="401"):
        push(done_lora, "me/reviews")
    for name in ("reviews", "a/b/c", "me/..", "me/re views"):
        with pytest.raises(RunError, match="cannot be a name"):
            push(done_lora, name)
