"""`instil compare`: two runs on the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from instil.cli.options import place
from instil.cli.terminal import say


def compare(
    a: Annotated[
        Path, typer.Argument(metavar="RUN", parser=place, help="The run compared against.")
    ],
    b: Annotated[Path, typer.Argument(metavar="RUN", parser=place, help="The run of interest.")],
) -> None:
    """Compare two runs, paired by example, with intervals and exact tests."""
    from instil import pipeline
    from instil.cli.show import comparisons_table, make_console

    make_console().print(comparisons_table(pipeline.compare_runs(a, b)))
    for note in pipeline.comparison_notes(a, b):
        say(note)
