"""What the readers share: the file they read, and the bad rows they collect.

A reader takes a `RowFile` and yields `(place, columns)` row by row, `place` being `file:line` or
`file row 3`. After a first bad row it yields nothing more and reads on only to tell of all bad
rows at once, so that no row is dropped in silence; with `on_bad_row: skip` it goes on, and the bad
rows are kept in `BadRows`, each with its place.

Tests: `tests/data/test_readers.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from instil.errors import DataError, Problem

PlacedRow = tuple[str, dict[str, object]]
"""Where a row stands, and its columns."""

SHOWN = 5
"""How many bad rows a message shows; the others are counted."""


@dataclass(slots=True)
class BadRows:
    """The rows that were left out because they could not be used (`on_bad_row: skip`)."""

    found: list[str] = field(default_factory=list)
    """`place: why`, one a row, in the order of the file."""

    def add(self, problem: Problem) -> None:
        """Note a bad row."""
        found = f" ({problem.found})" if problem.found else ""
        told = f"{problem.where}: {problem.what}{found}"
        self.found.append(told.encode("utf-8", "backslashreplace").decode("utf-8"))


@dataclass(frozen=True, slots=True)
class RowFile:
    """A file (or folder) of rows, and how it is read."""

    path: Path
    """Where it lies."""
    place: str
    """What to call it in messages."""
    format: str = ""
    """A name in `tasks.formats.FORMATS`; empty: not told yet."""
    encoding: str = "utf-8"
    """Of its text."""
    columns: tuple[str, ...] = ()
    """Names for the columns of a file without a header line."""
    query: str = ""
    """What to select from a database."""
    bad: BadRows | None = None
    """Takes up the bad rows; None: they are an error."""


@dataclass
class Faults:
    """The bad rows found so far."""

    place: str
    """What to call the file in messages."""
    bad: BadRows | None = None
    """Where bad rows go instead, so that they are no error."""
    problems: list[Problem] = field(default_factory=list)
    """The first few."""
    count: int = 0
    """All of them."""

    def add(self, problem: Problem) -> None:
        """Note a bad row."""
        if self.bad is not None:
            self.bad.add(problem)
            return
        self.count += 1
        if self.count <= SHOWN:
            self.problems.append(problem)

    def done(self, *, rows: int, fix: str = "") -> None:
        """Raise for the bad rows, or when the file had no row at all.

        Raises:
            DataError: with the first few bad rows and the number of the others; or with `fix` for
                a file without rows.
        """
        if self.count > SHOWN:
            more = self.count - SHOWN
            fix = "to leave such rows out, and count them: on_bad_row: skip (under `source`)"
            self.problems.append(Problem(f"and {more} more bad rows", where=self.place, fix=fix))
        if self.count:
            raise DataError(*self.problems)
        if not rows:
            raise DataError("there are no rows", where=self.place, fix=fix)


def check_columns(names: Sequence[str], *, where: str) -> None:
    """Refuse two columns of one name: one of them would be lost.

    Raises:
        DataError: naming the columns and where they stand.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    problems = [
        Problem(
            f"two columns have the name {name!r}",
            where=where,
            found="columns " + ", ".join(str(i) for i, n in enumerate(names, 1) if n == name),
            fix="give each column a name of its own",
        )
        for name in twice
    ]
    if problems:
        raise DataError(*problems)


def excerpt(text: str, *, at: int = 0, width: int = 80) -> str:
    r"""Return the part of a text around a position, in one line.

    >>> excerpt("a  long\ntext")
    'a long text'
    """
    start = max(0, at - width // 2)
    part = text[start : start + width]
    before, after = "..." if start else "", "..." if start + width < len(text) else ""
    return before + " ".join(part.split()) + after
