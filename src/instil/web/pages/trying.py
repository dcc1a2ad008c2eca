"""The page on which the base model and the tuned one answer the same prompt, side by side.

Both are served by `instil serve`, a process of its own on a free port of this machine, with a
secret that it shares with the page alone. A blind round hides which answer is whose until one was
chosen; the choices are kept in `.instil/votes/`.

Tests: `tests/web/test_runs.py`.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import requests
from starlette.concurrency import iterate_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from instil.config.recipe import load_recipe
from instil.errors import InstilError
from instil.files import append_line
from instil.results.names import TUNED
from instil.results.run import RunSummary
from instil.stages.runfiles import RECIPE, load_tasks
from instil.stats.intervals import SHARE
from instil.stats.sequential import betting_interval
from instil.tasks.task import find_template, load_task
from instil.tasks.template import expression_names, names
from instil.web.jobs import Job, begin, command_line
from instil.web.pages.runs import TABS, run_folder
from instil.web.pages.start import jobs_of, summary_of
from instil.web.site import Site, aside, form, here, told

_ADDRESS = re.compile(r"serving (http://127\.0\.0\.1:\d+)/v1")
_SECRET = ".token"
_OVER = "this round is over, or an answer failed: begin another"
VOTES = Path(".instil", "votes")
BASE = "base"
"""The other side; the tuned one is called as its arm is."""


@dataclass(frozen=True, slots=True)
class Server:
    """A run's models, as `instil serve` offers them."""

    address: str
    """Without /v1."""
    token: str
    """What it asks for."""

    def post(self, path: str, body: Mapping[str, Any], *, stream: bool = False) -> Any:
        """Ask it; the answer is to be closed."""
        return requests.post(
            f"{self.address}{path}",
            json=body,
            headers={"Authorization": f"Bearer {self.token}"},
            stream=stream,
            timeout=(5, 300),
        )

    def models(self) -> list[str]:
        """Return its models' names: the tuned one, then the base."""
        headers = {"Authorization": f"Bearer {self.token}"}
        listed = requests.get(f"{self.address}/v1/models", headers=headers, timeout=10).json()
        return [model["id"] for model in listed["data"]]


def server_of(site: Site, name: str) -> tuple[Job | None, Server | None]:
    """Return the job that serves a run, and its server once that is ready."""
    for job in jobs_of(site, name, commands=("serve",)):
        if job.running:
            address = _ADDRESS.search(job.output)
            token = job.place / _SECRET
            if address and token.is_file():
                return job, Server(address[1], token.read_text(encoding="ascii"))
            return job, None
    return None, None


def _command(name: str) -> list[str]:
    return ["serve", name, "--port", "0"]


async def show(request: Request) -> Response:
    """`GET /try/{name}`: the page."""
    site = here(request)
    folder, name = run_folder(request)

    def look() -> Response:
        job, server = server_of(site, name)
        failed = next(iter(jobs_of(site, name, commands=("serve",))), None) if job is None else None
        summary = summary_of(site, folder)
        return site.page(
            "try.html.jinja",
            name=name,
            tab="try",
            tabs=TABS,
            job=job,
            ready=server is not None,
            failed=failed if failed and failed.code not in (0, 130, None) else None,
            line=command_line(_command(name)),
            columns=_columns(folder, summary),
            example=next((turn.messages[-1].shown for turn in summary.turns), ""),
            votes=counted(site, name),
        )

    return await aside(look)


def _columns(folder: Path, summary: RunSummary) -> list[str]:
    """Return the columns that a row of the run's only task is asked with; none: several tasks."""
    try:
        (use,) = load_recipe(folder / RECIPE).tasks
        (task,) = load_tasks(folder).values() or (load_task(use.use),)
        (result,) = summary.tasks
        judged = next(arm.template for arm in result.arms if arm.name == TUNED)
        template = find_template(task, judged)
    except (InstilError, ValueError):
        return []
    wanted = (names(template.prompt) | names(template.system)) - {"choices", "row", task.target}
    for name, expression in reversed([*task.fields.items()]):  # each sees those before it
        if name in wanted:
            wanted = (wanted - {name}) | expression_names(expression)
    return sorted(wanted) or [task.text]


async def state(request: Request) -> Response:
    """`GET /try-state/{name}`: whether the models are ready."""
    site = here(request)
    _, name = run_folder(request)
    job, server = await aside(lambda: server_of(site, name))
    return JSONResponse({"ready": server is not None, "running": job is not None})


async def load(request: Request) -> Response:
    """`POST /try/{name}`: serve the models."""
    site = here(request)
    _, name = run_folder(request)
    await form(request)

    def start() -> None:
        if server_of(site, name)[0] is None:
            token = secrets.token_urlsafe(32)
            job = begin(site.workplace.folder, _command(name), env={"INSTIL_TOKEN": token})
            path = job.place / _SECRET
            path.touch(mode=0o600)
            path.write_text(token, encoding="ascii")

    await aside(start)
    return site.go("try", name)


async def unload(request: Request) -> Response:
    """`POST /try-stop/{name}`: stop serving."""
    site = here(request)
    _, name = run_folder(request)
    await form(request)

    def stop() -> None:
        job, _ = server_of(site, name)
        if job is not None:
            job.stop(wait=15)

    await aside(stop)
    return site.go("try", name)


async def ask(request: Request) -> Response:
    """`POST /ask/{name}`: stream an answer of one side: tuned, base, or a or b of a round.

    An answer that failed ends its round, so that nobody's choice counts it.
    """
    site = here(request)
    _, name = run_folder(request)
    said = await form(request)
    _, server = await aside(lambda: server_of(site, name))
    if server is None:
        return Response("the models are not loaded", 409, media_type="text/plain")
    side = said.get("side", TUNED)
    side = _rounds(site).get((said.get("round", ""), side), side)
    if side not in (TUNED, BASE):
        return Response(_OVER, 409, media_type="text/plain")

    def failed(why: str) -> str:
        _ended(site, said.get("round", ""))
        return why

    def pieces() -> Iterator[str]:
        models = server.models()
        body = {
            "model": models[0] if side == TUNED else models[-1],
            "messages": [{"role": "user", "content": said.get("prompt", "")}],
            "stream": True,
        }
        with server.post("/v1/chat/completions", body, stream=True) as answer:
            if answer.status_code != 200:
                yield failed(_error(answer))
                return
            for line in answer.iter_lines():
                if line.startswith(b"data: {"):
                    event = json.loads(line[6:])
                    if "error" in event:
                        yield failed(event["error"]["message"])
                        return
                    yield event["choices"][0]["delta"].get("content", "")

    async def text() -> AsyncIterator[str]:
        try:
            async for piece in iterate_in_threadpool(pieces()):
                yield piece
        except requests.RequestException as error:
            yield failed(f"the server does not answer: {type(error).__name__}")

    return StreamingResponse(text(), media_type="text/plain; charset=utf-8")


def _error(answer: Any) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the server answers with {answer.status_code}"


async def classify(request: Request) -> Response:
    """`POST /classify/{name}`: the label of a row, by the run's own template."""
    site = here(request)
    _, name = run_folder(request)
    said = await form(request)
    _, server = await aside(lambda: server_of(site, name))
    if server is None:
        return Response("the models are not loaded", 409, media_type="text/plain")
    row = {key.removeprefix("column:"): v for key, v in said.items() if key.startswith("column:")}

    def look() -> Response:
        try:
            with server.post("/v1/classify", {"row": row}) as answer:
                if answer.status_code != 200:
                    return site.page("classified.part.html.jinja", error=_error(answer), found=None)
                labelled = answer.json()
        except requests.RequestException as error:
            return site.page("classified.part.html.jinja", error=told(error)[0], found=None)
        shares = sorted(labelled["probabilities"].items(), key=lambda each: -each[1])
        return site.page("classified.part.html.jinja", error="", found=labelled, shares=shares)

    return await aside(look)


# --- blind -----------------------------------------------------------------------------------


def _rounds(site: Site) -> dict[tuple[str, str], str]:
    """The rounds under way: (round, a or b) -> whose answer that is."""
    rounds: dict[tuple[str, str], str] = site.memory.setdefault("rounds", {})
    return rounds


def _ended(site: Site, round: str) -> tuple[str, str]:
    """End a round: whose answers a and b were; empty where it is over."""
    rounds = _rounds(site)
    return rounds.pop((round, "a"), ""), rounds.pop((round, "b"), "")


async def blind(request: Request) -> Response:
    """`POST /blind/{name}`: begin a round, in which a and b are the two models in a drawn order."""
    site = here(request)
    await form(request)
    rounds, id = _rounds(site), secrets.token_urlsafe(8)
    while len(rounds) > 200:
        del rounds[next(iter(rounds))]
    sides = (TUNED, BASE) if secrets.randbelow(2) else (BASE, TUNED)
    rounds[id, "a"], rounds[id, "b"] = sides
    return JSONResponse({"round": id})


async def vote(request: Request) -> Response:
    """`POST /vote/{name}`: which answer of a round is better: a, b, or neither."""
    site, said = here(request), await form(request)
    _, name = run_folder(request)
    better = said.get("better", "")
    a, b = _ended(site, said.get("round", ""))
    if not a or better not in ("a", "b", "same"):
        return Response(_OVER, 409, media_type="text/plain")
    winner = {"a": a, "b": b, "same": "same"}[better]

    def keep() -> Response:
        line = {"prompt": said.get("prompt", ""), "a": a, "b": b, "better": winner}
        append_line(votes_file(site, name), line)
        return site.page("votes.part.html.jinja", votes=counted(site, name), a=a, b=b)

    return await aside(keep)


def votes_file(site: Site, name: str) -> Path:
    """Return where the votes on a run are kept."""
    return site.workplace.folder / VOTES / f"{quote(name, safe='')}.jsonl"


def counted(site: Site, name: str) -> dict[str, Any]:
    """Return how the votes stand.

    The interval, of the tuned model's share, holds however often one looks at it and whenever one
    stops: people go on voting until something shows. A line that is no vote is passed over.
    """
    path = votes_file(site, name)
    # Bytes: a text's own U+2028 ends no line of the file.
    lines = path.read_bytes().splitlines() if path.is_file() else []
    better = [vote for line in lines if (vote := _vote(line))]
    tuned, base = better.count(TUNED), better.count(BASE)
    choices = np.repeat([1.0, 0.0], [tuned, base])
    interval = betting_interval(choices, span=SHARE) if tuned + base else None
    return {"tuned": tuned, "base": base, "same": better.count("same"), "interval": interval}


def _vote(line: bytes) -> str:
    """Return which model a line of votes prefers; empty: it is damaged."""
    try:
        vote = json.loads(line)
    except ValueError:
        return ""
    better = vote.get("better") if isinstance(vote, dict) else None
    return better if isinstance(better, str) else ""
