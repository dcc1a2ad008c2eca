"""`instil report`: the report of a run, made anew from what the run found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]) -> None:
    """Rebuild a run's report and print where it lies; nothing is computed again."""
    from instil import pipeline

    typer.echo(f"report: {pipeline.rebuild_report(run)}")
