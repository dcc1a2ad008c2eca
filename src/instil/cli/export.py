"""`instil export`: a run's model in a folder of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from instil.cli.terminal import say


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder that does not exist yet.")],
    merge: Annotated[
        bool,
        typer.Option("--merge", help="Merge the adapter into the weights: one model, no PEFT."),
    ] = False,
) -> None:
    """Write a run's model for use without instil: weights or adapter, tokenizer, template, card."""
    from instil.cli.predict import refuse_existing

    refuse_existing(out, force=False, fix="name a folder that does not exist yet")

    from instil.ship.export import export as write

    say(f"model: {write(run, out=out, merge=merge)}")
