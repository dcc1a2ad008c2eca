"""`instil correct`: a file of rows with the labels that a person has corrected."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from instil.cli.terminal import say


def correct(
    task: Annotated[Path, typer.Argument(metavar="TASK", help="The task file.")],
    marks: Annotated[
        Path, typer.Argument(metavar="MARKS", help="The marked rows: TASK.labels.jsonl.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A file to write: .csv or .jsonl.")],
    force: Annotated[bool, typer.Option("--force", help="Write over an existing file.")] = False,
) -> None:
    """Write a task's rows anew, with the labels corrected that were marked as wrong.

    Rows are marked on the page of `instil ui`. The file that the task names stays as it is: name
    the new one as the task's source to train on it.
    """
    from instil.cli.predict import refuse_existing
    from instil.data.correct import ROW_ID, corrected, load_marks, loses_ids, write_rows
    from instil.data.readers.rowfile import BadRows
    from instil.errors import DataError
    from instil.tasks.task import load_task

    refuse_existing(out, force=force)
    marked = load_marks(marks)
    if not marked:
        fix = "mark rows on the page of `instil ui`, under Answers"
        raise DataError("no row is marked", where=str(marks), fix=fix)
    bad = BadRows()
    read = load_task(str(task))
    rows = list(corrected(read, marked, bad=bad))
    write_rows(out, rows)
    if bad.found:
        say(f"not in the new file, as they cannot be read ({len(bad.found)}): {bad.found[0]}")
    gone = sum(mark.now is None for mark in marked.values())
    say(f"{len(rows)} rows: {out} ({len(marked) - gone} corrected, {gone} left out)")
    if loses_ids(read, marked):
        say(f"its rows keep their ids, and their parts of the split, by `row_id: {ROW_ID}`")
    if read.source.encoding.lower() not in ("utf-8", "utf-8-sig"):
        say(f"it is UTF-8: take `encoding: {read.source.encoding}` out of the task that reads it")
