"""Readers of tables: csv, tsv, parquet and arrow files.

Tests: `tests/data/test_readers.py`.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

from instil.data.readers.rowfile import Faults, PlacedRow, RowFile, check_columns, excerpt
from instil.data.readers.textfile import bad_bytes, lines_of, reading, text_of
from instil.data.sources.limits import check_unpacked, line_bytes
from instil.errors import DataError, Problem
from instil.tasks.formats import FORMATS

_SEPARATOR = re.compile(r'"?sep=([,;\t|])"?', re.IGNORECASE)
_Cells = tuple[int, list[str]]
"""The line on which a row begins, and its cells."""


def read_csv(file: RowFile) -> Iterator[PlacedRow]:
    """Read comma-separated values; `;`, tab or `|` is taken where the first line has more of them.

    A first line `sep=;`, by which spreadsheets name the sign, is no row.

    Cells may be quoted and hold line breaks. Cells are text, never guessed to be numbers.

    Raises:
        DataError: for rows with too few or too many cells, quotes that are not closed, columns of
            one name, a file without rows, bytes that are not in the encoding.
    """
    csv.field_size_limit(line_bytes())  # the module's own limit of 128 KiB refuses long documents
    with text_of(file, newline="") as text:  # quoted cells may hold line breaks
        lines = lines_of(text, place=file.place)
        begin: list[str] = []
        for line in lines:
            begin.append(line)
            if line.strip():
                break
        delimiter = csv_delimiter(begin[-1] if begin else "")
        if begin and (told := _SEPARATOR.fullmatch(begin[-1].strip())):
            delimiter, begin[-1] = told[1], "\n"
        faults = Faults(file.place, file.bad)
        cells = _csv_cells(itertools.chain(begin, lines), delimiter, faults)
        yield from _rows(file, cells, faults)


def read_tsv(file: RowFile) -> Iterator[PlacedRow]:
    """Read tab-separated values: a line is a row, and a quote is a sign like any other.

    Only a cell quoted from end to end, as spreadsheets do it, is unquoted.

    Raises:
        DataError: as `read_csv`.
    """
    with text_of(file, newline="") as text:
        lines = enumerate(lines_of(text, place=file.place), start=1)
        cells = (
            (number, [_unquoted(cell) for cell in line.rstrip("\r\n").split("\t")])
            for number, line in lines
            if line.strip("\r\n")
        )
        yield from _rows(file, cells, Faults(file.place, file.bad))


def read_parquet(file: RowFile) -> Iterator[PlacedRow]:
    """Read a Parquet file in batches; cells keep their types.

    Raises:
        DataError: for a file that is not Parquet, is damaged, or has no rows.
    """
    import pyarrow
    import pyarrow.parquet

    def batches(stream: IO[bytes]) -> Iterator[Any]:
        parquet = pyarrow.parquet.ParquetFile(stream)
        check_columns(list(parquet.schema_arrow.names), where=file.place)
        groups = range(parquet.metadata.num_row_groups)
        told = sum(parquet.metadata.row_group(group).total_byte_size for group in groups)
        _check_size(told, file)  # before the first page is unpacked
        yield from parquet.iter_batches(batch_size=_BATCH)

    yield from _batched(file, batches, name="Parquet")


def read_arrow(file: RowFile) -> Iterator[PlacedRow]:
    """Read an Arrow file, of either form (file or stream) or Feather, in batches.

    Raises:
        DataError: for a file that is not Arrow, is damaged, or has no rows.
    """
    import pyarrow
    import pyarrow.feather

    def batches(stream: IO[bytes]) -> Iterator[Any]:
        begin = stream.read(len(_ARROW))
        stream.seek(0)
        if begin.startswith(_FEATHER_1):
            table = pyarrow.feather.read_table(stream)
            check_columns(table.schema.names, where=file.place)
            yield from table.to_batches(max_chunksize=_BATCH)
            return
        if begin == _ARROW:
            opened = pyarrow.ipc.open_file(stream)
            whole: Iterable[Any] = (opened.get_batch(i) for i in range(opened.num_record_batches))
        else:
            whole = opened = pyarrow.ipc.open_stream(stream)
        check_columns(opened.schema.names, where=file.place)
        for batch in whole:  # a stored batch can be the whole file: rows are made a few at a time
            for start in range(0, batch.num_rows, _BATCH):
                yield batch.slice(start, _BATCH)

    yield from _batched(file, batches, name="Arrow")


_ARROW, _FEATHER_1, _ = FORMATS["arrow"].magic
_BATCH = 256  # rows that are Python objects at a time


def _batched(
    file: RowFile, batches: Callable[[IO[bytes]], Iterator[Any]], *, name: str
) -> Iterator[PlacedRow]:
    import pyarrow

    number = 0
    with reading(file.path, place=file.place) as stream:
        try:
            size = 0
            for batch in batches(stream):
                size += batch.nbytes
                _check_size(size, file)
                for columns in batch.to_pylist():
                    number += 1
                    yield f"{file.place} row {number}", columns
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(
                f"this cannot be read as {name}: {excerpt(str(error), width=160)}",
                where=file.place,
                fix="check the file, or set `format:` to what it is",
            ) from error
    Faults(file.place).done(rows=number, fix="write a file with at least one row")


def _check_size(size: int, file: RowFile) -> None:
    """Refuse a table of more bytes than its file lets expect."""
    what = "the table unpacks to more bytes than the file's size lets expect"
    check_unpacked(size, packed=file.path.stat().st_size, what=what, where=file.place)


def csv_delimiter(line: str) -> str:
    """Return the sign that parts the cells of a CSV's first line; a comma where there is none.

    >>> csv_delimiter('text;"a, b, c";label')
    ';'
    """
    outside = "".join(line.split('"')[::2])
    counts = {sign: outside.count(sign) for sign in ",;\t|"}
    return max(counts, key=lambda sign: counts[sign])


def is_quoted_tsv(begin: bytes) -> bool:
    r"""Whether a tab-separated file, by its first bytes, has quoted cells with breaks or tabs.

    It has where lines taken as rows do not fit the header, and quoted cells do::

        >>> is_quoted_tsv(b'id\ttext\n1\t"two\nlines"\n2\tone\n')
        True
    """
    text = begin.decode("utf-8-sig", "replace")
    lines = [line.rstrip("\r\n") for line in io.StringIO(text, newline="")]
    lines = [line for line in lines if line]
    if len(lines) < 2 or '"' not in text:
        return False
    wanted = lines[0].count("\t")
    if all(line.count("\t") == wanted for line in lines[:-1]):  # the last may be cut short
        return False
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t", strict=True)
    rows = []
    try:
        for cells in reader:
            rows.append(len(cells))
    except csv.Error as error:
        if "unexpected end of data" not in str(error):
            return False
    return all(count in (0, wanted + 1) for count in rows[:-1]) and len(rows) > 1


def _csv_cells(lines: Iterable[str], delimiter: str, faults: Faults) -> Iterator[_Cells]:
    # strict: a quote that is misplaced or never closed is an error, not a guess
    read: list[str] = []  # of the row, where bad ones are passed over
    skipping = faults.bad is not None

    def noted() -> Iterator[str]:
        for line in lines:
            read.append(line)
            yield line

    reader = csv.reader(noted() if skipping else lines, delimiter=delimiter, strict=True)
    line, cells, broken, width = 1, list[str](), False, 0
    while True:
        read.clear()
        try:
            cells = next(reader)
            width = width or len(cells)
            if (
                broken and "".join(read).count('"') % 2
            ):  # few rows that are whole have an odd number
                what = "this line is the end of a row that is not valid CSV"
                faults.add(Problem(what, where=f"{faults.place}:{line}", found=excerpt(read[-1])))
                cells, broken = [], False
            elif len(cells) == width:  # a whole row: what was broken has ended before
                broken = False
        except StopIteration:
            return
        except csv.Error as error:
            unclosed = "unexpected end of data" in str(error)
            what = f"this row is not valid CSV: {error}"
            what = "a quote that is opened in this row is never closed" if unclosed else what
            fix = 'close the quote; a quote inside a quoted cell is written twice: "so ""good"""'
            problem = Problem(what, where=f"{faults.place}:{line}", fix=fix)
            if unclosed or faults.bad is None:  # all rows after the quote are lost in it
                raise DataError(problem) from error
            faults.add(problem)
            cells, broken = [], "".join(read).count('"') % 2 == 1
        if cells:
            yield line, cells
        line = reader.line_num + 1


def _unquoted(cell: str) -> str:
    """Take off a spreadsheet's quotes.

    >>> _unquoted('"so ""good"", I say"'), _unquoted('"good" and "cheap"')
    ('so "good", I say', '"good" and "cheap"')
    """
    inner = cell[1:-1]
    quoted = len(cell) > 1 and cell[0] == cell[-1] == '"'
    return inner.replace('""', '"') if quoted and '"' not in inner.replace('""', "") else cell


def _rows(file: RowFile, cells: Iterator[_Cells], faults: Faults) -> Iterator[PlacedRow]:
    """Put the header's names to the cells; the header is the first row, or `file.columns`."""
    names = list(file.columns)
    if not names:
        line, header = next(cells, (1, []))
        names = [name.strip() or f"column_{n}" for n, name in enumerate(header, start=1)]
        if any("\0" in name for name in names):
            raise DataError(_zero_byte(names, where=f"{file.place}:{line}"))
        if wrong := bad_bytes(names, file.encoding):  # no name could be written down
            raise DataError(wrong, where=f"{file.place}:{line}")
        check_columns(names, where=f"{file.place}:{line}")
    rows, names = 0, [sys.intern(name) for name in names]
    for line, row in cells:
        rows += 1
        place = f"{file.place}:{line}"
        if file.bad is not None and (wrong := bad_bytes(row, file.encoding)):
            faults.add(Problem(wrong, where=place))
        elif len(row) != len(names):
            expected = "`columns:` has" if file.columns else "the header line has"
            problem = Problem(
                f"{len(row)} cells, but {expected} {len(names)}",
                where=place,
                found=excerpt(" | ".join(row)),
                allowed=excerpt(" | ".join(names)),
                fix="quote a cell that holds the delimiter or a line break (and set `format: csv` "
                "for a file of which cells are quoted)",
            )
            faults.add(problem)
        elif any("\0" in cell for cell in row):
            faults.add(_zero_byte(row, where=place))
        elif not faults.count:
            yield place, dict(zip(names, row, strict=True))
    hint = "a header line alone is not enough; " if names and not file.columns else ""
    faults.done(rows=rows, fix=f"{hint}write one row a line")


def _zero_byte(row: list[str], *, where: str) -> Problem:
    number, cell = next((n, cell) for n, cell in enumerate(row, start=1) if "\0" in cell)
    return Problem(
        f"a byte of value 0 in cell {number}",
        where=where,
        found=excerpt(cell),
        fix="take it out; where every other byte is one, the file is UTF-16: encoding: utf-16-le",
    )
