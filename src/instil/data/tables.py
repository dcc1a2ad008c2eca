"""Readers of tables: csv, tsv and parquet files."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import IO

from instil.data.rowfile import Faults, PlacedRow, RowFile, check_columns, excerpt
from instil.data.textfile import reading, reading_text
from instil.errors import DataError, Problem

_Cells = tuple[int, list[str]]
"""The line on which a row begins, and its cells."""

_LARGEST_CELL = (1 << 31) - 1  # the csv module's own limit of 128 KiB refuses long documents


def read_csv(file: RowFile) -> Iterator[PlacedRow]:
    """Read comma-separated values; `;`, tab or `|` is taken where the first line has more of them.

    Cells may be quoted and hold line breaks. Cells are text, never guessed to be numbers.

    Raises:
        DataError: for rows with too few or too many cells, quotes that are not closed, columns of
            one name, a file without rows, bytes that are not in the encoding.
    """
    csv.field_size_limit(_LARGEST_CELL)
    with _lines(file) as lines:
        begin: list[str] = []
        for line in lines:
            begin.append(line)
            if line.strip():
                break
        delimiter = csv_delimiter(begin[-1] if begin else "")
        yield from _rows(file, _csv_cells(itertools.chain(begin, lines), delimiter, file.place))


def read_tsv(file: RowFile) -> Iterator[PlacedRow]:
    """Read tab-separated values: a line is a row, and a quote is a sign like any other.

    Only a cell quoted from end to end, as spreadsheets do it, is unquoted.

    Raises:
        DataError: as `read_csv`.
    """
    with _lines(file) as lines:
        yield from _rows(file, _tsv_cells(lines))


def read_parquet(file: RowFile) -> Iterator[PlacedRow]:
    """Read a Parquet file in batches; cells keep their types.

    Raises:
        DataError: for a file that is not Parquet, is damaged, or has no rows.
    """
    import pyarrow
    import pyarrow.parquet

    number = 0
    with reading(file.path, place=file.place) as stream:
        try:
            parquet = pyarrow.parquet.ParquetFile(stream)
            check_columns(list(parquet.schema_arrow.names), where=file.place)
            for batch in parquet.iter_batches(batch_size=1024):
                for columns in batch.to_pylist():
                    number += 1
                    yield f"{file.place} row {number}", columns
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(
                Problem(
                    f"this cannot be read as Parquet: {excerpt(str(error), width=160)}",
                    where=file.place,
                    fix="check the file, or set `format:` to what it is",
                )
            ) from error
    Faults(file.place).done(rows=number, fix="write a file with at least one row")


def csv_delimiter(line: str) -> str:
    """Return the sign that parts the cells of a CSV's first line; a comma where there is none.

    >>> csv_delimiter('text;"a, b, c";label')
    ';'
    """
    outside = "".join(line.split('"')[::2])
    counts = {sign: outside.count(sign) for sign in ",;\t|"}
    return max(counts, key=lambda sign: counts[sign])


def _lines(file: RowFile) -> AbstractContextManager[IO[str]]:
    """The file's text with its line breaks as they are, for quoted cells may hold some."""
    return reading_text(file.path, encoding=file.encoding, place=file.place, newline="")


def _csv_cells(lines: Iterable[str], delimiter: str, place: str) -> Iterator[_Cells]:
    # strict: a quote that is misplaced or never closed is an error, not a guess
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    line = 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        unclosed = "unexpected end of data" in str(error)
        raise DataError(
            Problem(
                "a quote that is opened in this row is never closed"
                if unclosed
                else f"this row is not valid CSV: {error}",
                where=f"{place}:{line}",
                fix='close the quote; a quote inside a quoted cell is written twice: "so ""good"""',
            )
        ) from error


def _tsv_cells(lines: Iterable[str]) -> Iterator[_Cells]:
    for number, line in enumerate(lines, start=1):
        if line.strip("\r\n"):
            yield number, [_unquoted(cell) for cell in line.rstrip("\r\n").split("\t")]


def _unquoted(cell: str) -> str:
    """Take off a spreadsheet's quotes.

    >>> _unquoted('"so ""good"", I say"'), _unquoted('"good" and "cheap"')
    ('so "good", I say', '"good" and "cheap"')
    """
    inner = cell[1:-1]
    quoted = len(cell) > 1 and cell[0] == cell[-1] == '"'
    return inner.replace('""', '"') if quoted and '"' not in inner.replace('""', "") else cell


def _rows(file: RowFile, cells: Iterator[_Cells]) -> Iterator[PlacedRow]:
    """Put the header's names to the cells; the header is the first row, or `file.columns`."""
    names = list(file.columns)
    if not names:
        line, header = next(cells, (1, []))
        names = _names(header)
        check_columns(names, where=f"{file.place}:{line}")
    faults, rows = Faults(file.place), 0
    for line, row in cells:
        rows += 1
        if len(row) != len(names):
            faults.add(_ragged(row, names, where=f"{file.place}:{line}", headed=not file.columns))
        elif not faults.count:
            yield f"{file.place}:{line}", dict(zip(names, row, strict=True))
    found = "a header line alone is not enough; " if names and not file.columns else ""
    faults.done(rows=rows, fix=f"{found}write one row a line")


def _names(header: list[str]) -> list[str]:
    """Names without blanks around them; a column without one is called by its number.

    >>> _names(["", " text"])
    ['column_1', 'text']
    """
    return [name.strip() or f"column_{number}" for number, name in enumerate(header, start=1)]


def _ragged(row: list[str], names: list[str], *, where: str, headed: bool) -> Problem:
    expected = "the header line has" if headed else "`columns:` has"
    return Problem(
        f"{len(row)} cells, but {expected} {len(names)}",
        where=where,
        found=excerpt(" | ".join(row)),
        allowed=excerpt(" | ".join(names)),
        fix="quote a cell that holds the delimiter or a line break (and set `format: csv` for a "
        "file of which cells are quoted)",
    )
