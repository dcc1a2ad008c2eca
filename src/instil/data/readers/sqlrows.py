"""Rows out of a SQLite database, which is opened read-only.

The query may come from a task file that somebody else wrote, so nothing but reading is allowed: no
writing, no attaching of other files, no loading of extensions.

Tests: `tests/data/test_readers.py`.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing

from instil.data.readers.rowfile import Faults, PlacedRow, RowFile, check_columns
from instil.data.sources.limits import (
    QUERY,
    UNPACKED,
    line_bytes,
    query_seconds,
    too_much,
    unpacked_bytes,
)
from instil.errors import DataError, nearest
from instil.tasks.formats import FORMATS

SQLITE = "sqlite:"
"""How the address of a database begins."""
_QUERY = "?query="
(_MAGIC,) = FORMATS["sqlite"].magic
_ALLOWED = frozenset(
    {
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_FUNCTION,
        sqlite3.SQLITE_RECURSIVE,
    }
)
_REFUSED_FUNCTIONS = frozenset(  # the last two write as wide as they are told to
    {"load_extension", "writefile", "readfile", "edit", "printf", "format"}
)
_STEPS_BETWEEN_CLOCKS = 10_000
_ROW_BYTES = 16  # of a row without a text
_EXAMPLE = "query: SELECT review, label FROM reviews"


def parse_sqlite(uri: str) -> tuple[str, str]:
    """Part a `sqlite:` address into the path and the query, which is taken as it stands.

    >>> parse_sqlite("sqlite:shop.db?query=SELECT a, b FROM t WHERE a LIKE '%20%'")
    ('shop.db', "SELECT a, b FROM t WHERE a LIKE '%20%'")
    """
    path, _, query = uri.removeprefix(SQLITE).partition(_QUERY)
    return path, query


def read_sqlite(file: RowFile) -> Iterator[PlacedRow]:
    """Read the rows that the query selects, or those of the database's only table.

    The place of a row is its number in the result; a query without ORDER BY gives them in the order
    in which SQLite finds them.

    Raises:
        DataError: for a file that is no database, a query that fails or does more than read,
            several tables and no query, columns of one name, or no rows.
    """
    with file.path.open("rb") as stream:
        if stream.read(len(_MAGIC)) != _MAGIC:
            raise DataError("this is not a SQLite database", where=file.place)
    # Without any right but to read; a lock or journal file is not made either.
    connection = sqlite3.connect(f"{file.path.absolute().as_uri()}?mode=ro", uri=True)
    number = 0
    with closing(connection):
        connection.set_authorizer(_authorize)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, min(line_bytes(), (1 << 31) - 1))
        clock = _Clock(file)
        connection.set_progress_handler(clock.late, _STEPS_BETWEEN_CLOCKS)
        try:
            query = file.query or _only_table(connection, place=file.place)
            with closing(connection.execute(query)) as cursor:
                names = [column[0] for column in cursor.description or ()]
                check_columns(names, where=file.place)
                for number, cells in enumerate(cursor, start=1):
                    clock.row(cells)
                    yield f"{file.place} row {number}", dict(zip(names, cells, strict=True))
        except sqlite3.Error as error:
            if clock.late():
                what = "the query computes too long for its next row"
                raise too_much(what, limit=query_seconds(), name=QUERY, where=file.place) from error
            text = str(error)
            if "not authorized" in text or "prohibited" in text:
                what = "this query does more than read, which a source may not"
                found, allowed = file.query, "SELECT ..."
                raise DataError(what, where=file.place, found=found, allowed=allowed) from error
            missing = re.fullmatch(r"no such table: (.*)", text)
            tables = _tables(connection) if missing else []
            raise DataError(
                f"the query fails: {text}",
                where=file.place,
                found=file.query,
                allowed=", ".join(tables),
                nearest=nearest(missing[1], tables) if missing else "",
            ) from error
    Faults(file.place).done(rows=number, fix="correct the query: it selects nothing")


class _Clock:
    """Stops a query that computes for ever, or makes more than its database lets expect."""

    def __init__(self, file: RowFile) -> None:
        self.file, self.size = file, 0
        self.limit = unpacked_bytes(file.path.stat().st_size)
        self.seconds = query_seconds()
        self.began = time.thread_time()

    def late(self) -> bool:
        """Whether the time for the next row is over; SQLite stops a query where it is."""
        return time.thread_time() - self.began > self.seconds

    def row(self, cells: Sequence[object]) -> None:
        """Note a row: the clock begins anew."""
        self.size += _ROW_BYTES + sum(len(c) for c in cells if isinstance(c, str | bytes))
        if self.size > self.limit:
            what = "the query gives more bytes than the database's size lets expect"
            raise too_much(what, limit=self.limit, name=UNPACKED, where=self.file.place)
        self.began = time.thread_time()


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action == sqlite3.SQLITE_FUNCTION and str(second).lower() in _REFUSED_FUNCTIONS:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY


def _tables(connection: sqlite3.Connection) -> list[str]:
    listed = connection.execute(
        "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') "
        "AND name NOT LIKE 'sqlite_%' ORDER BY name"
    )
    return [str(name) for (name,) in listed]


def _only_table(connection: sqlite3.Connection, *, place: str) -> str:
    tables = _tables(connection)
    if not tables:
        raise DataError("the database has no table", where=place, fix="name another file")
    if len(tables) > 1:
        what, found = "the database has several tables: say what to select", ", ".join(tables)
        raise DataError(what, where=place, found=found, fix=_EXAMPLE)
    return f'SELECT * FROM "{tables[0].replace(chr(34), chr(34) * 2)}"'
