"""`instil init`: a task file and a recipe for a file of one's own rows."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from instil.cli.terminal import say
from instil.types import OnBadRow

if TYPE_CHECKING:
    from instil.init.starter import Starter


def init(
    data: Annotated[
        str,
        typer.Argument(
            help="Labelled rows: CSV, TSV, JSON, JSONL, Parquet, Arrow or Excel, packed or not, a "
            "SQLite database, or hub:OWNER/NAME."
        ),
    ],
    text: Annotated[str, typer.Option(metavar="COLUMN", help="The column with the text.")] = "",
    label: Annotated[
        str, typer.Option(metavar="COLUMN", help="The column with the label or rating.")
    ] = "",
    target: Annotated[
        str, typer.Option(metavar="COLUMN", help="The column with the text to write (free text).")
    ] = "",
    group: Annotated[
        str,
        typer.Option(
            metavar="COLUMN",
            help="Rows alike in it are not split up; 'none': no such column.",
        ),
    ] = "",
    label_names: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VALUE=WORD,...",
            help="Words for the label's values, as in 0=serious,1=sarcastic; may be repeated.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the task. [default: the file's]")
    ] = None,
    model: Annotated[
        str, typer.Option(help="The base model (`instil models`).")
    ] = "smollm2-135m-instruct",
    folder: Annotated[
        Path, typer.Option(help="Where the two files go.", show_default="here")
    ] = Path(),
    encoding: Annotated[str, typer.Option(help="Of a text file of rows.")] = "utf-8",
    on_bad_row: Annotated[
        OnBadRow, typer.Option(help="skip leaves rows out that cannot be used, and counts them.")
    ] = OnBadRow.ERROR,
    force: Annotated[bool, typer.Option("--force", help="Write over existing files.")] = False,
) -> None:
    """Look at a file of rows and write a task file and a recipe for it, both with comments.

    Guesses which column is the text, the label or the text to write, and the group; the options
    overrule the guess.
    """
    from instil.init.inspect import Wishes
    from instil.init.starter import write_starter
    from instil.init.words import parse_words

    words = parse_words(label_names or ())
    wishes = Wishes(text=text, label=label, target=target, group=group, label_names=words)
    starter = write_starter(
        data,
        folder=folder,
        wishes=wishes,
        name=name,
        model=model,
        encoding=encoding,
        on_bad_row=on_bad_row,
        overwrite=force,
    )
    show_starter(starter)


def show_starter(starter: Starter) -> None:
    """Print what was guessed and why, what was written, and the next commands."""
    for reason in starter.guess.reasons:
        say(reason)
    for warning in starter.guess.warnings:
        say(f"warning: {warning}", err=True)
    say(f"\nwrote {starter.task_file}\n      {starter.recipe_file}")
    recipe = shlex.quote(str(starter.recipe_file))
    say(f"\nnext: instil check {recipe}\n      instil run {recipe}")
