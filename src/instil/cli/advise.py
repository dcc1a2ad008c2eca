"""`instil advise`: prompt, probe, tune, or more rows: which, before any long training."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from instil.cli.failures import INTERRUPTED
from instil.cli.options import Changes, place
from instil.cli.terminal import say

if TYPE_CHECKING:
    from instil.results.advice import Advice

RECIPES = (".yaml", ".yml")


def advise(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="The recipe; or a file of rows, as `instil init` takes it."
        ),
    ],
    changes: Changes = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            parser=place,
            help="The run directory, or an address for it. [default: runs/NAME-OF-THE-RECIPE]",
        ),
    ] = None,
) -> None:
    """Say what to do with a task before any long training, and the chance that it is wrong.

    Tries prompts, TF-IDF, a linear probe and a quarter of the training on the validation rows. The
    run that this begins can be resumed: nothing of it is done twice.
    """
    from instil import pipeline
    from instil.cli.folders import place_run
    from instil.cli.progress import make_progress
    from instil.config.recipe import load_recipe
    from instil.signals import ENDING, interrupt, on_signals

    recipe = Path(source) if source.endswith(RECIPES) else _started(source)
    wanted = load_recipe(recipe, overrides=changes or [])
    there = place_run(recipe, wanted, folder=folder, again=True)
    if there.passed:
        say(there.passed, err=True)
    if there.finished:
        say(f"this recipe has been run, so that nothing is left to advise: {there.folder}")
        return
    go_on = f"instil run --resume {shlex.quote(str(there.folder))}"
    try:
        with on_signals(interrupt, *ENDING), make_progress() as progress:
            found = pipeline.advise_recipe(
                wanted, folder=there.folder, resume=there.begun, progress=progress
            )
    except KeyboardInterrupt:
        say("\nstopped; the same command resumes", err=True)
        raise typer.Exit(INTERRUPTED) from None
    _show(found)
    say(f"\nto train all the same, or because of it: {go_on}")


def _started(source: str) -> Path:
    """Write a task and a recipe for a file of rows; return the recipe's path.

    Raises:
        DataError: The rows cannot be used, or there is such a recipe already.
    """
    from instil.cli.init_ import show_starter
    from instil.errors import DataError
    from instil.init.inspect import Wishes
    from instil.init.starter import task_id, write_starter

    known = Path(f"{task_id(Path(source).name)}.recipe.yaml")
    if known.exists():
        raise DataError(
            "there is a recipe for these rows already",
            where=str(known),
            fix=f"instil advise {shlex.quote(str(known))}",
        )
    try:
        starter = write_starter(source, folder=Path(), wishes=Wishes())
    except DataError as error:
        # What it proposes are options of `init`.
        line = f"instil init {shlex.quote(source)}, then instil advise {shlex.quote(str(known))}"
        raise DataError(
            *(replace(p, fix=f"{p.fix} (of {line})") if p.fix else p for p in error.problems)
        ) from None
    show_starter(starter)
    return starter.recipe_file


def _show(found: tuple[Advice, ...]) -> None:
    from instil.cli.show import filled_table, make_console
    from instil.report.sections.advice import advice_lines, advice_table

    console = make_console()
    for advice in found:
        shown = advice_table(advice)
        rows = ([cell.text for cell in row] for row in shown.rows)
        console.print(filled_table(shown.caption, shown.titles, rows, words=shown.titles[:1]))
        for line in advice_lines(advice):
            console.print(line)
