"""What the commands of studies share: their options, and where a study goes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from instil.cli import terminal

if TYPE_CHECKING:
    from rich.table import Table


def numbers(text: str, *, option: str, least: int = 0) -> tuple[int, ...]:
    """Read whole numbers from `least` on with commas, each once and in the order given."""
    try:
        found = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        found = []
    if not found or min(found) < least:
        example = ",".join(str(least + n) for n in range(3))
        raise typer.BadParameter(
            f"{text!r}: give whole numbers such as {example}", param_hint=option
        )
    return tuple(dict.fromkeys(found))


def names(text: str | None) -> list[str] | None:
    """Read names with commas; None stays None."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def study_folder(recipe: Path, *, changes: Sequence[str], folder: Path | None, kind: str) -> Path:
    """Return where a study goes, unless the user says: beside the runs of its recipe."""
    from instil.config.recipe import load_recipe, run_name

    if folder is not None:
        return folder
    return Path(load_recipe(recipe, overrides=changes).output) / f"{run_name(recipe)}-{kind}"


def say(text: str) -> None:
    """Show a line beside the result: on stderr, as progress is."""
    terminal.say(text, err=True)


def show_study(tables: Iterable[Table], verdict: Iterable[str], *, folder: Path) -> None:
    """Print what a study found: its tables, its verdict, and where the report lies."""
    from instil.cli.show import make_console

    console = make_console()
    for table in tables:
        console.print(table)
    for sentence in verdict:
        console.print(sentence)
    console.print(f"\nreport: {folder / 'report.html'}")
