"""Wrong labels that a person has found, and the corrected file of rows.

Marks are lines of `TASK.labels.jsonl` beside the task file; the last one of a row counts::

    {"row": "17", "place": "reviews.csv:18", "was": "bad", "now": "good"}
    {"row": "40", "place": "reviews.csv:41", "was": "bad", "now": null}

`now` is the right label in the task's own words, null leaves the row out, and an empty text takes
the mark back. `corrected` gives the rows of the task's source anew, those corrected and without
these; the task reads them as it read the old ones. A row that was changed since it was marked is
refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from instil.data.readers.rowfile import BadRows
from instil.data.registry import label_of, load_rows, plain
from instil.data.sources.source import read_table
from instil.data.write import as_csv
from instil.errors import DataError, Problem, TaskError
from instil.files import append_line, write_whole
from instil.tasks.template import evaluate, expression_names
from instil.types import Row, Task

ROW_ID = "instil_row"
"""The column of a corrected file that keeps the ids which rows had."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A row whose label is wrong."""

    row: str
    """Its id in the task."""
    place: str
    """Where it stands, for people."""
    was: str
    """The label that it had when it was marked."""
    now: str | None
    """The right one; None: leave the row out; empty: it is right after all."""


_MARK = TypeAdapter(Mark)


def marks_file(task_file: Path) -> Path:
    """Return where the marks of a task are kept.

    >>> marks_file(Path("shop/reviews.task.yaml")).name
    'reviews.labels.jsonl'
    """
    return task_file.with_name(f"{task_file.stem.removesuffix('.task')}.labels.jsonl")


def load_marks(path: Path) -> dict[str, Mark]:
    """Read the marks that count, by row; none where there is no file.

    Raises:
        DataError: A line is no mark.
    """
    marks: dict[str, Mark] = {}
    lines = path.read_bytes().splitlines() if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        try:
            mark = _MARK.validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            fix = 'write {"row": ..., "place": ..., "was": ..., "now": ...}, or take the line out'
            what = f"this is not a mark: {first['msg']}"
            raise DataError(what, where=f"{path}:{number}", fix=fix) from None
        marks.pop(mark.row, None)
        if mark.now != "":
            marks[mark.row] = mark
    return marks


def add_mark(path: Path, mark: Mark) -> None:
    """Add a mark to a file of them."""
    append_line(path, asdict(mark))


def corrected(
    task: Task, marks: Mapping[str, Mark], *, bad: BadRows | None = None
) -> Iterator[dict[str, object]]:
    """Yield the rows of a task's source with their labels corrected.

    Rows that the task does not use stay as they are. Where one is left out and rows are known by
    their number (the task names no `row_id`), all get a column `ROW_ID` with the number that they
    had: the rows of the new file are then split as those of the old one.

    Args:
        task: Whose rows.
        marks: The row's id -> what is right.
        bad: Takes up the rows that cannot be read, under `on_bad_row: skip`: they are not yielded.

    Raises:
        DataError: A marked row is not there, or has another label than when it was marked, or the
            label is computed so that it cannot be written back.
    """
    known = {row.id: row for row in load_rows(task).rows}
    _require_known(task, marks, known)
    by_place = {known[id].place: (known[id], mark) for id, mark in marks.items()}
    ids = {row.place: row.id for row in known.values()} if loses_ids(task, marks) else {}
    for number, (place, columns) in enumerate(read_table(task.source, bad=bad), start=1):
        marked = by_place.get(place)
        kept = {ROW_ID: ids.get(place, f"unused-{number}")} if ids else {}
        if marked is None:
            yield {**columns, **kept}
        elif (label := marked[1].now) is not None:
            yield {**_with_label(task, marked[0], columns, label), **kept}


def loses_ids(task: Task, marks: Mapping[str, Mark]) -> bool:
    """Whether rows would be known by other numbers without those that are left out."""
    return not task.row_id and any(mark.now is None for mark in marks.values())


def _require_known(task: Task, marks: Mapping[str, Mark], known: Mapping[str, Row]) -> None:
    problems = []
    for id, mark in marks.items():
        where = mark.place or f"row {id}"
        if id not in known:
            problems.append(Problem("this row is marked, and is not there any more", where=where))
        elif (label := str(known[id].fields[task.target])) != mark.was:
            what = "this row has another label than when it was marked"
            problems.append(Problem(what, where=where, found=label, allowed=mark.was))
        elif mark.now is not None and task.choices and mark.now not in task.choices:
            what, allowed = "this is no label of the task", ", ".join(task.choices)
            problems.append(Problem(what, where=where, found=mark.now, allowed=allowed))
    if problems:
        fix = "mark the rows of the file as it is now"
        raise DataError(*problems, Problem("nothing was written", fix=fix))


def _with_label(
    task: Task, row: Row, columns: Mapping[str, object], label: str
) -> dict[str, object]:
    """Return a row's columns with another label, so that the task reads just that."""
    value = next((value for value, word in task.labels.items() if word == label), label)
    expression = task.fields.get(task.target)
    names = [task.target] if expression is None else sorted(expression_names(expression))
    for name in (each for each in names if each in columns):
        tried = {**columns, name: value}
        if _label(task, tried) == label:
            return tried
    raise DataError(
        "the label of this row is computed, so that another cannot be written into its columns",
        where=row.place,
        found=f"{task.target}: {expression}",
        fix="correct the row in the file itself",
    )


def _label(task: Task, columns: Mapping[str, object]) -> str | None:
    """Return the label that the task reads off a row's columns."""
    fields = dict(columns)
    try:
        for name, expression in task.fields.items():
            fields[name] = evaluate(expression, fields, where="")
    except TaskError:
        return None
    value = fields.get(task.target)
    return label_of(value, task) if task.choices else plain(value)


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows as CSV, or as JSON lines where the name ends so.

    Raises:
        DataError: The name has another ending, or a cell of CSV would hold a list or a mapping.
    """
    if path.suffix == ".jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
    elif path.suffix == ".csv":
        if any(isinstance(value, list | dict) for row in rows for value in row.values()):
            fix = "name it FILE.jsonl"
            raise DataError("these rows hold lists, which CSV cannot", where=str(path), fix=fix)
        text = as_csv(rows)
    else:
        what, allowed = "unknown kind of file", ".csv, .jsonl"
        raise DataError(what, where=str(path), allowed=allowed)
    write_whole(path, text.encode())
