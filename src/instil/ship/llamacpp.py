"""A GGUF file run by llama.cpp, in a process of its own that listens on loopback.

The package `xllamacpp` carries llama.cpp. Its C++ ends the process on what it cannot load, and
writes a log of its own: so it is kept apart, and asked over HTTP as any other server is.

Tests: `tests/ship/test_gguf_families.py`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from instil.errors import RunError

_SECONDS = 600
"""Longest time to load a file; then it is given up."""
_SEPARATOR = "\x1e"


@contextmanager
def llama_server(
    model: Path, *, adapter: Path | None = None, context: int = 0, threads: int = 0
) -> Iterator[str]:
    """Run a GGUF file; yields the address, as long as the block lasts.

    Args:
        model: The file.
        adapter: A LoRA adapter, as a GGUF file too.
        context: Tokens that a prompt and its answer may have; 0: as many as the model takes.
        threads: Of the processor; 0: llama.cpp decides.

    Raises:
        RunError: xllamacpp is not installed, or llama.cpp cannot load the file.
    """
    if find_spec("xllamacpp") is None:
        raise RunError(
            "a GGUF file is run by llama.cpp, and the package xllamacpp is not installed",
            fix='pip install "instil[gguf]"',
        )
    asked = {
        "model": str(model.resolve()),
        "adapter": str(adapter.resolve()) if adapter else "",
        "context": context,
        "threads": threads,
    }
    command = [sys.executable, "-m", "instil.ship.llamacpp", json.dumps(asked)]
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            lines = (line for line in child.stdout if line.startswith(_SEPARATOR))
            timer = threading.Timer(_SECONDS, child.kill)
            timer.start()
            try:
                address = next(lines, "").strip().removeprefix(_SEPARATOR)
            finally:
                timer.cancel()
            if not address:
                log.seek(0)
                said = log.read().decode("utf-8", "replace").strip().splitlines()
                errors = [line for line in said if " E " in line] or said
                raise RunError(
                    "llama.cpp cannot run this file",
                    where=str(model),
                    found=" ".join(errors[-1].split()) if errors else "it said nothing",
                    fix="export it anew; another version of llama.cpp may not know the family",
                )
            yield address
        finally:
            child.stdin.close()  # its signal to end
            try:
                child.wait(timeout=10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            child.stdout.close()


def _serve(asked: dict[str, object]) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = asked["model"]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = asked["context"]
    params.n_parallel = 1
    params.warmup = False
    params.use_jinja = True
    params.cache_prompt = False
    params.ui = False
    # Keys and values in 32 bits and attention by the plain formula: what is compared is the file.
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    if asked["threads"]:
        params.cpuparams.n_threads = asked["threads"]
    if asked["adapter"]:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(asked["adapter"], 1.0)]
    server = xllamacpp.Server(params)
    print(f"{_SEPARATOR}{server.listening_address}", flush=True)
    sys.stdin.read()  # until the parent closes it, or ends


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
