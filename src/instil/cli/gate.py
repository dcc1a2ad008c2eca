"""`instil gate`: may this run's model go out? For CI."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from instil.cli.options import RunFolder
from instil.cli.terminal import say

NOT_PASSED = 4
"""The exit code where a run does not pass."""


def gate(
    run: RunFolder,
    least: Annotated[
        list[str] | None,
        typer.Option(
            "--min",
            metavar="METRIC=VALUE",
            help="The lower end of the tuned model's interval must reach it: accuracy=0.85.",
        ),
    ] = None,
    beats: Annotated[
        list[str] | None,
        typer.Option(metavar="ARM", help="It must be shown to beat this arm: prompting, tfidf ..."),
    ] = None,
    forgets: Annotated[
        float | None,
        typer.Option(min=0, metavar="POINTS", help="No greater loss over the guard is shown."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(metavar="OTHER", help="It is not shown worse than this run."),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="The run must be made from this recipe.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all of it there too.")
    ] = None,
) -> None:
    """Hold a run against what is asked of a model that goes out; exit code 4: it does not pass.

    --min and --beats pass where the whole interval says so; --forgets and --against fail where the
    whole interval lies on the wrong side, --against also where a task or most test rows are gone.
    """
    if forgets is not None and not math.isfinite(forgets):
        raise typer.BadParameter("it is no number of points", param_hint="--forgets")
    from instil.ship.gate import gate as hold

    wanted: dict[str, float] = {}
    for text in least or ():
        name, equals, number = text.partition("=")
        if name in wanted:
            raise typer.BadParameter(f"{name} is given twice", param_hint="--min")
        try:
            wanted[name] = float(number)
        except ValueError:
            wanted[name] = math.nan
        if not (equals and name and math.isfinite(wanted[name])):
            raise typer.BadParameter(f"{text!r} is not METRIC=VALUE", param_hint="--min")
    decided = hold(
        run, least=wanted, beats=beats or (), forgets=forgets, against=against, recipe=recipe
    )
    for check in decided.checks:
        task = f"{check.task}: " if check.task else ""
        say(f"{'passed' if check.passed else 'failed'}  {check.asked}  {task}{check.said}")
    if json_file is not None:
        import json

        from instil.files import write_whole

        write_whole(json_file, json.dumps(decided.as_json(), indent=1).encode())
    say("the gate is passed" if decided.passed else "the gate is not passed")
    if not decided.passed:
        raise typer.Exit(NOT_PASSED)
