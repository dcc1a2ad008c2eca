"""`instil serve`: a run's model behind an OpenAI-compatible address."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Annotated

import typer

from instil.cli.options import RunFolder
from instil.cli.terminal import say
from instil.config.recipe import Dtype


def serve(
    run: RunFolder,
    host: Annotated[
        str, typer.Option(help="Where to listen; others than this machine need INSTIL_TOKEN.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    no_base: Annotated[
        bool, typer.Option("--no-base", help="Serve the tuned model alone.")
    ] = False,
    dtype: Annotated[
        Dtype | None,
        typer.Option(
            help="What to compute in: float32 gives every request the answer that it gets alone. "
            "[default: as the recipe says]"
        ),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 1024,
    queue: Annotated[
        int, typer.Option(min=1, help="Requests under way; more are turned away.")
    ] = 256,
) -> None:
    """Serve a run's model and its base model: chat, completions, and labels of rows.

    OpenAI-compatible (/v1/models, /v1/chat/completions, /v1/completions), and /v1/classify, which
    asks a row through the run's own template. Where the environment variable INSTIL_TOKEN is set,
    clients send it as their API key. Ctrl-C or SIGTERM ends it when what is under way is done.
    """
    from instil.errors import RunError

    if not (find_spec("starlette") and find_spec("uvicorn")):
        fix = 'pip install "instil[serve]"'
        raise RunError("starlette and uvicorn are not installed", fix=fix)
    from instil.ship.server.app import Limits
    from instil.ship.server.serve import make_service, require_token
    from instil.ship.server.serve import serve as begin

    token = os.environ.get("INSTIL_TOKEN", "")
    require_token(host, token)
    limits = Limits(queue=queue, tokens=max_tokens)
    service = make_service(run, base=not no_base, dtype=dtype or "", limits=limits)
    say(f"models: {', '.join(service.engine.models)}", err=True)

    def ready(address: str) -> None:
        say(f"serving {address} (Ctrl-C ends it)")

    begin(service, host=host, port=port, token=token, on_ready=ready)
