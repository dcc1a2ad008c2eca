"""`instil report`: the report of a run, made anew from what the run found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from instil.cli.options import place
from instil.cli.terminal import say


def report(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", parser=place, help="A run directory, or the folder of a study."
        ),
    ],
) -> None:
    """Rebuild a report and print where it lies; nothing is computed again."""
    if (run / "study.json").is_file():
        from instil.study.studies import rebuild_study

        say(f"report: {rebuild_study(run)}")
        return
    from instil import pipeline

    say(f"report: {pipeline.rebuild_report(run)}")
