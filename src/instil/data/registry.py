"""From a task's source to its rows: derived fields, filter, label, id and group.

Terms. A *column* is what the file holds; a *derived field* is computed from columns by an
expression of the task. A row is *skipped* when the task's `where` says so or when it has no text:
skipped rows are counted with their reason. A row that claims to be of use and is not (a column that
it lacks, no label, a label that is not among the choices, an id that another row has) is a mistake
of the data. All such are told at once or, with `on_bad_row: skip`, left out and kept with places.

A worked example: the line `17_3<TAB>1.5<TAB>I like it.` of a task with the derived field
`sentiment: "positive" if rating | float > 0 else "negative"` and `group: review.split("_")[0]`
becomes the row 17_3 of group 17 with the label `positive`.
"""

from __future__ import annotations

import math
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from instil.data.readers.rowfile import BadRows
from instil.data.readers.shapes import UNUSABLE
from instil.data.readers.turns import read_tools
from instil.data.sources.source import read_table
from instil.data.sources.uri import is_package
from instil.errors import DataError, Problem, TaskError, nearest
from instil.tasks.sandbox import tidied
from instil.tasks.template import OverBudgetError, evaluate, spelt
from instil.types import OnBadRow, Row, Task

BAD_ROWS = "bad rows, as on_bad_row: skip asks"
"""What bad rows are counted under."""
_REASONS = frozenset(UNUSABLE.values())
SHOWN = 5  # bad values that a message lists, and places of each
MOST_KEPT = 100_000
"""Rows that are kept in memory for the next who reads them, of all tasks together."""
NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?", re.ASCII)
"""A number in plain decimal writing."""


@dataclass(frozen=True, slots=True)
class LoadedRows:
    """The rows of a task, and what became of the others."""

    rows: tuple[Row, ...]
    """In the order of the file."""
    skipped: Mapping[str, int]
    """Rows left out: reason -> count."""
    notes: Mapping[str, int] = field(default_factory=dict)
    """Rows that were read otherwise than written: what -> count (`label 4.0 read as 4`)."""
    bad: tuple[str, ...] = ()
    """Rows left out by `on_bad_row: skip`: `place: why`; counted in `skipped` too."""


_KEPT: dict[object, LoadedRows] = {}
_KEEPING = threading.Lock()  # the local page reads in threads


def load_rows(task: Task, *, limit: int | None = None) -> LoadedRows:
    """Read the rows of a task; those of a file or a package once, as long as it stays what it is.

    A run reads its guard tasks several times and a study every task once an arm, seconds each.

    In the rows, the target field of a task with choices is always one of the choices, as text: the
    number 4.0 and the text `4.0` become `4` where the choices say 4, and the word of 4 where the
    task has `labels`. Fields and `where` see the value as the file has it.

    Args:
        task: Names the source, the fields and the label.
        limit: Stop after this many rows, for a quick look: these are the first rows of the file,
            not a sample.

    Raises:
        DataError: The source cannot be read, a column is missing, rows have no label, an unknown
            label, no id or another row's id, or no row is left.
        TaskError: An expression of the task fails on a row.
    """
    key = None if limit is not None else _unchanged(task)
    if key is not None and (kept := _KEPT.get(key)):
        return kept
    reader = _Reader(task)
    rows = read_table(task.source, bad=reader.bad, notes=reader.notes)
    for number, (place, columns) in enumerate(rows, start=1):
        if limit is not None and len(reader.rows) >= limit:
            break
        reader.add(columns, number=number, place=place)
    loaded = reader.finish()
    if key is not None and len(loaded.rows) <= MOST_KEPT:
        with _KEEPING:
            _KEPT[key] = loaded
            while sum(len(each.rows) for each in _KEPT.values()) > MOST_KEPT:
                del _KEPT[next(iter(_KEPT))]
    return loaded


def _unchanged(task: Task) -> object:
    """Return what is the same as long as a task's rows are; None where nothing tells."""
    path = Path(task.source.uri)
    if path.is_file():
        status = path.stat()
        return repr(task), status.st_mtime_ns, status.st_size
    return repr(task) if is_package(task.source.uri) else None  # a folder may change within


def plain(value: object) -> str:
    """Return a value as the text of a label or an id; nothing and not-a-number become empty.

    >>> plain(4.0), plain(" good "), plain(None), plain(float("nan")), plain(2.5)
    ('4', 'good', '', '', '2.5')
    """
    if value is None or (isinstance(value, list | tuple | dict) and not value):
        return ""
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return str(int(value)) if value.is_integer() else str(value)
    return str(value).strip()


def some(names: Iterable[str], *, most: int = 20) -> str:
    """List the first names, and say how many more there are.

    >>> some(["text", "label", "id"], most=2)
    'text, label and 1 more'
    """
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def choice_of(value: object, choices: Iterable[str]) -> str | None:
    """Return the choice that a label means: the same text, number or truth value.

    >>> choice_of("4.0", ["3", "4"]), choice_of(True, ["false", "true"])
    ('4', 'true')
    >>> choice_of("Good", ["good", "bad"]) is None
    True
    """
    text = plain(value)
    choices = tuple(choices)
    if text in choices:
        return text
    if isinstance(value, bool):
        alike = [choice for choice in choices if choice.casefold() == text.casefold()]
    else:
        number = _number(text)
        alike = [choice for choice in choices if number is not None and _number(choice) == number]
    return alike[0] if len(alike) == 1 else None


def word_of(value: object, labels: Mapping[str, str]) -> str | None:
    """Return the word that stands for a value of the data: by text, number, truth value or case.

    >>> labels = {"0": "serious", "1": "sarcastic"}
    >>> word_of(1.0, labels), word_of("2", labels), word_of("Y", {"y": "yes", "n": "no"})
    ('sarcastic', None, 'yes')
    """
    choice = choice_of(value, labels)
    if choice is None:
        alike = [each for each in labels if each.casefold() == plain(value).casefold()]
        choice = alike[0] if len(alike) == 1 else None
    return None if choice is None else labels[choice]


def label_of(value: object, task: Task) -> str | None:
    """Return the label of a task with choices that a value of the data means; None: no label."""
    return word_of(value, task.labels) if task.labels else choice_of(value, task.choices)


def _number(text: str) -> float | None:
    return float(text) if NUMBER.fullmatch(text) else None


class _Reader:
    """Takes up one record after the other and keeps count of what is wrong."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.rows: list[Row] = []
        self.first_place: dict[str, str] = {}
        self.skipped: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        kinds = ("column", "label", "unknown label", "id", "same id")
        self.faults = {kind: defaultdict[str, list[str]](list) for kind in kinds}
        """Kind of mistake -> column, label or id -> the places of the rows that have it."""
        self.known: dict[object, str | None] = {}
        self.bad = BadRows() if task.source.on_bad_row is OnBadRow.SKIP else None
        columns = ("text", "target", "references", "history")
        self.named = {use: getattr(task, use) for use in columns if getattr(task, use)}
        """The fields that every row must have: what for -> name."""
        self.unseen = {use: getattr(task, use) for use in ("tools", "calls") if getattr(task, use)}
        """Those that some row must have, as long as none had them."""
        self.seen = 0

    def add(self, columns: Mapping[str, object], *, number: int, place: str) -> None:
        """Take up one record of the source."""
        self.seen += 1
        try:
            self._take(columns, number=number, place=place)
        except (DataError, TaskError) as error:
            # A first row without the task's columns says that the task names the wrong ones.
            first = self.seen == 1 and isinstance(error, DataError)
            if self.bad is None or first or isinstance(error, OverBudgetError):
                raise
            self.bad.add(error.problems[0])

    def _take(self, columns: Mapping[str, object], *, number: int, place: str) -> None:
        task, fields = self.task, dict(columns)
        for name, expression in task.fields.items():
            fields[name] = self._evaluate(f"field {name!r}", expression, fields, place)
        self.unseen = {use: name for use, name in self.unseen.items() if name not in fields}
        if task.tools:
            read_tools(fields.get(task.tools), where=f"{place}, {task.tools}")
        lost = {use: name for use, name in self.named.items() if name not in fields}
        if lost and self.seen == 1:
            problems = (
                Problem(
                    f"there is no column {name!r}, which the task names as its {use}",
                    where=place,
                    found=f"the columns {some(fields)}",
                    nearest=nearest(name, fields),
                    fix=f"name the right column in the task file: `{use}: ...`",
                )
                for use, name in lost.items()
            )
            raise DataError(*problems)
        for name in lost.values():
            self._fault("column", name, f"no column {name!r}", place)
        if lost:
            return
        if task.where and not self._evaluate("where", task.where, fields, place):
            self.skipped[f"where is false: {task.where}"] += 1
        elif not plain(fields.get(task.text)):
            self.skipped[f"no text in {task.text!r}"] += 1
        elif self._read_label(fields, place=place):
            self._append(fields, number=number, place=place)

    def _fault(self, kind: str, value: str, what: str, place: str) -> None:
        """Note a bad row: as a mistake or, where they are to be skipped, as one of those."""
        if self.bad is None:
            self.faults[kind][value].append(place)
        else:
            self.bad.add(Problem(what, where=place))

    def _evaluate(
        self, what: str, expression: str, fields: Mapping[str, object], place: str
    ) -> object:
        return evaluate(expression, fields, where=f"{place}: {what} of task {self.task.id}")

    def _read_label(self, fields: dict[str, object], *, place: str) -> bool:
        """Put the label into the form of the choices; False, and a fault noted, if it has none."""
        value, labels, choices = fields.get(self.task.target), self.task.labels, self.task.choices
        label = plain(value)
        if not label:
            self._fault("label", "", f"no label in {self.task.target!r}", place)
            return False
        if not choices:
            return True
        key = (type(value), str(value))
        if key not in self.known:
            self.known[key] = label_of(value, self.task)
        choice = self.known[key]
        if choice is None:
            what = f"the label {label!r} {_unfit(self.task)}"
            self._fault("unknown label", label, what, place)
            return False
        if str(value) != choice and label not in labels:
            self.notes[f"label {value} read as {choice}"] += 1
        fields[self.task.target] = choice
        return True

    def _append(self, fields: Mapping[str, object], *, number: int, place: str) -> None:
        task, row_id = self.task, str(number)
        if task.row_id:
            row_id = plain(self._evaluate("row_id", task.row_id, fields, place))
            first = self.first_place.setdefault(row_id, place)
            if not row_id:
                self._fault("id", "", f"an empty id by `row_id: {task.row_id}`", place)
                return
            if first != place:
                if self.bad is None and not self.faults["same id"][row_id]:
                    self.faults["same id"][row_id].append(first)
                what = f"the id {row_id!r}, which {first} has too"
                self._fault("same id", row_id, what, place)
                return
        group = row_id
        if task.group:
            group = plain(self._evaluate("group", task.group, fields, place))
            if not group:
                self.notes["no group, so the row is a group of its own"] += 1
                group = f"row {row_id}"
        self.rows.append(Row(task.id, row_id, group=group, fields=fields, place=place))

    def finish(self) -> LoadedRows:
        """Return the rows, or tell all that is wrong with them."""
        bad = tuple(self.bad.found) if self.bad is not None else ()
        if bad:
            self.skipped[BAD_ROWS] = len(bad)
        problems = list(self._fault_problems())
        if not problems and not self.rows:
            told = {**self.skipped, **{why: n for why, n in self.notes.items() if why in _REASONS}}
            reasons = "; ".join(f"{reason} ({count})" for reason, count in told.items())
            read = self.seen or bad
            problems = [
                Problem(
                    "the source has rows, but none is left" if read else "the source has no rows",
                    where=f"task {self.task.id}: {self.task.source.uri}",
                    found="; ".join([*filter(None, [reasons]), *bad[:3]]),
                    fix="correct `where` or `text` in the task file"
                    if self.seen
                    else "add rows to it",
                )
            ]
        problems += [
            Problem(
                f"no row has the column {name!r}, which the task names as its {use}",
                where=f"task {self.task.id}: {self.task.source.uri}",
                fix=f"name the right column in the task file, or take `{use}:` out of it",
            )
            for use, name in self.unseen.items()
            if self.seen
        ]
        if problems:
            raise DataError(*problems)
        return LoadedRows(tuple(self.rows), dict(self.skipped), notes=dict(self.notes), bad=bad)

    def _fault_problems(self) -> Iterator[Problem]:
        task, uses = self.task, {name: use for use, name in self.named.items()}
        for name, places in self.faults["column"].items():
            yield _problem(
                f"{_rows(places)} of {self.seen} without the column {name!r}, which the task "
                f"names as its {uses[name]}",
                places,
                fix="fill it in (`null` for nothing), or leave such rows out: on_bad_row: skip, "
                "under `source` in the task file",
            )
        for places in self.faults["label"].values():
            target = spelt(task.target)
            where = f"{target} is not none and {target} | string | trim"
            where = f"({task.where}) and {where}" if task.where else where
            yield _problem(
                f"{_rows(places)} of {self.seen} without a label in {task.target!r}",
                places,
                fix=f"fill them in, or leave them out in the task file: where: {where}",
            )
        unknown = self.faults["unknown label"]
        shown = sorted(unknown, key=lambda label: (-len(unknown[label]), label))
        for label in shown[:SHOWN]:
            known = tuple(task.labels) or task.choices
            near = nearest(label, known)
            yield _problem(
                f"the label {label!r} of {_rows(unknown[label])} {_unfit(task)}",
                unknown[label],
                allowed=some(known),
                nearest=near,
                fix=_label_fix(label, near, task=task),
            )
        if rest := [place for label in shown[SHOWN:] for place in unknown[label]]:
            yield Problem(f"and {len(shown) - SHOWN} other unknown labels on {_rows(rest)}")
        rule, fix = f"row_id: {task.row_id}", "or leave row_id out to number the rows"
        for places in self.faults["id"].values():
            what = f"{_rows(places)} with an empty id by `{rule}`"
            yield _problem(what, places, fix=f"use a column that is always filled, {fix}")
        same = self.faults["same id"]
        for row_id, places in list(same.items())[:SHOWN]:
            what = f"{_rows(places)} have the id {row_id!r} by `{rule}`"
            yield _problem(what, places, fix=f"use columns that tell rows apart, {fix}")
        if len(same) > SHOWN:
            yield Problem(f"and {len(same) - SHOWN} other ids that several rows have")


def _problem(what: str, places: Sequence[str], **details: str) -> Problem:
    """A mistake of several rows: the first is where it is, some of the others are named."""
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    others = "also at " + ", ".join(places[1:SHOWN]) + more if len(places) > 1 else ""
    return Problem(what, where=places[0], found=others, **details)


def _rows(places: Sequence[str]) -> str:
    return f"{len(places)} row" if len(places) == 1 else f"{len(places)} rows"


def _unfit(task: Task) -> str:
    return "has no word in `labels`" if task.labels else "is not among the choices"


def _label_fix(value: str, near: str, *, task: Task) -> str:
    if task.labels:
        return "correct the rows, add the value to `labels`, or leave such rows out with `where`"
    if near and near in (tidied(value), tidied(value).lower()) and task.target not in task.fields:
        steps = [] if value in (near, tidied(value)) else ["tidy"]
        steps += [] if near == tidied(value) else ["lower"]
        column = spelt(task.target)
        field = task.target if column == task.target else "label"
        derived = f"{field}: {' | '.join([column, *steps])}"
        derived += "" if field == task.target else ", and `target: label`"
        said = {"tidy": "one form", "lower": "lower case"}
        told = " and ".join(said[step] for step in steps)
        return f"{told} for all labels, under `fields` in the task file: {derived}"
    return "correct the rows, add the label to `choices`, or leave such rows out with `where`"
