"""`instil ui`: a page to see data, runs and models, on this machine alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from instil.cli.serve import require_server
from instil.cli.terminal import say


def ui(
    folder: Annotated[
        Path, typer.Argument(help="What the page shows, and where it writes.", show_default="here")
    ] = Path(),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 0,
    model: Annotated[
        str, typer.Option(help="The base model of new recipes (`instil models`).")
    ] = "smollm2-135m-instruct",
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address alone.")
    ] = False,
) -> None:
    """Open a page on the data, recipes and runs of a folder; whatever it does, a command does.

    Only this machine can reach it, and only by the whole address, which holds a secret. Runs are
    processes of their own: closing the page, or ending this command with Ctrl-C, stops none.
    """
    from instil.errors import RunError

    require_server()
    if not folder.is_dir():
        raise RunError("this is not a folder", where=str(folder), fix="name the one with your data")
    from instil.web.app import serve

    def ready(address: str) -> None:
        say(f"open {address} (Ctrl-C ends the page; runs go on)")
        if not no_browser:
            import webbrowser

            webbrowser.open(address)

    serve(folder, port=port, model=model, on_ready=ready)
