"""`instil predict`: a run's model on one text, or on a file of rows.

Tests: `tests/cli/test_commands.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from instil.cli.options import RunFolder
from instil.cli.terminal import say, say_answer

if TYPE_CHECKING:
    from instil.ship.predict import Predicted


def predict(
    run: RunFolder,
    text: Annotated[
        str | None,
        typer.Argument(help="The input text of a row; - reads it from stdin.", show_default=False),
    ] = None,
    rows: Annotated[
        Path | None,
        typer.Option(help="A file of rows (CSV, TSV, JSON, JSONL, Parquet) in place of TEXT."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where predictions go: .jsonl, or .csv or .tsv for a table. "
            "[default: ROWS.predictions.jsonl]"
        ),
    ] = None,
    template: Annotated[
        str, typer.Option(help="The template to ask with. [default: the run's own]")
    ] = "",
    raw: Annotated[
        bool, typer.Option("--raw", help="TEXT is the whole prompt: send it as it stands.")
    ] = False,
    encoding: Annotated[
        str,
        typer.Option(
            help="Of a text file of rows. [default: UTF-8 where the file is, else the task's own]"
        ),
    ] = "",
    max_error: Annotated[
        float | None,
        typer.Option(
            help="Answer only rows sure enough for this share of wrong answers (0.05: 5 %), shown "
            "with 95 % confidence on validation; the others stay empty."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over an existing file.")] = False,
) -> None:
    """Let a run's tuned model answer one text, asked through a template, or every row of a file."""
    if (text is None) == (rows is None):
        raise typer.BadParameter("give either one text or --rows FILE", param_hint="TEXT")
    only_rows = (
        ("--out", out),
        ("--encoding", encoding),
        ("--max-error", max_error is not None),
        ("--force", force),
    )
    for option, given in only_rows:
        if rows is None and given:
            raise typer.BadParameter("it goes with --rows", param_hint=option)
    if raw and (rows or template):
        raise typer.BadParameter("it goes with TEXT, and no template", param_hint="--raw")
    from instil.ship.predict import predict_file, predict_text

    if rows is None:
        asked = text or ""
        if text == "-":  # bytes that are not UTF-8 become halves of pairs
            asked = sys.stdin.buffer.read().decode("utf-8-sig", "surrogateescape")
        say_answer(predict_text(run, asked, template=template, raw=raw).text)
        return
    out = out or rows.with_name(f"{rows.stem}.predictions.jsonl")
    if out.suffix.lower() not in (".jsonl", ".csv", ".tsv"):
        wanted = f"predictions are JSON Lines or a table: {out.with_suffix('.jsonl')} (.csv, .tsv)"
        raise typer.BadParameter(wanted, param_hint="--out")
    refuse_existing(out, force=force)
    from instil.cli.progress import make_progress

    with make_progress() as progress:
        stage = progress.add_task("rows answered", total=None, note="")
        written = predict_file(
            run,
            rows=rows,
            out=out,
            template=template,
            encoding=encoding,
            max_error=max_error,
            on_rows=lambda count: progress.update(stage, total=count),
            on_done=lambda more: progress.update(stage, advance=more),
            say=lambda line: say(line, err=True),
        )
    show_predicted(written)


def show_predicted(written: Predicted) -> None:
    """Print where the predictions are, how many, and what to be wary of."""
    count = len(written.empty)
    if count:
        places = ", ".join(written.empty[:5]) + (", ..." if count > 5 else "")
        rows = "1 row has an empty text" if count == 1 else f"{count:,} rows have an empty text"
        say(f"warning: {rows}; its answer means nothing: {places}", err=True)
    if written.shortened:
        rows = "1 row is" if written.shortened == 1 else f"{written.shortened:,} rows are"
        say(
            f"warning: {rows} longer than the model's context; the text was shortened, as the run "
            "shortens such rows",
            err=True,
        )
    if written.formulas:
        cells = "1 cell begins" if written.formulas == 1 else f"{written.formulas:,} cells begin"
        say(
            f"warning: {cells} with =, +, -, @ or a tab, as formulas do; they are written as they "
            "are: let a spreadsheet read the columns as text, or write .jsonl",
            err=True,
        )
    rows = "1 row" if written.rows == 1 else f"{written.rows:,} rows"
    left = f", {written.unanswered:,} of them left unanswered" if written.unanswered else ""
    say(f"predictions: {written.path} ({rows}{left})")


def refuse_existing(path: Path, *, force: bool, fix: str = "add --force to write over it") -> None:
    """Raise where a file would be written over without `--force`."""
    from instil.errors import RunError

    if path.is_dir() and force:
        raise RunError("this is a folder", where=str(path), fix="name a file")
    if path.exists() and not force:
        raise RunError("this exists already", where=str(path), fix=fix)
