"""Reader of spreadsheets: Excel's .xlsx, .xlsm, .xlsb and .xls, and OpenDocument's .ods.

The first row that holds something is the header, as in a CSV. Of a workbook the only sheet with
rows is read; where several have rows, the address names one: `book.xlsx!/Reviews`. A row is called
by the number that the spreadsheet shows: `book.xlsx row 3`.
"""

from __future__ import annotations

import datetime
import zipfile
from collections.abc import Iterator, Sequence, Set
from itertools import chain
from typing import TYPE_CHECKING

from instil.data.readers.rowfile import Faults, PlacedRow, RowFile, check_columns, excerpt
from instil.data.readers.textfile import reading
from instil.data.sources.limits import check_unpacked
from instil.errors import DataError, nearest

if TYPE_CHECKING:
    from python_calamine import CalamineWorkbook

_Lines = Sequence[Sequence[object]]
"""A sheet from its first row on, row by row; an empty cell is an empty text."""


def read_spreadsheet(file: RowFile) -> Iterator[PlacedRow]:
    """Read the rows of a sheet; cells keep their types, dates are texts, empty cells None.

    Raises:
        DataError: for a file that is no spreadsheet, without rows, with several sheets that have
            rows (or not the one that is named), or with two columns of one name.
    """
    import python_calamine

    if zipfile.is_zipfile(file.path):
        with zipfile.ZipFile(file.path) as parts:
            size = sum(part.file_size for part in parts.infolist())
        what = "the workbook unpacks to more bytes than its size lets expect"
        check_unpacked(size, packed=file.path.stat().st_size, what=what, where=file.place)
    with reading(file.path, place=file.place) as stream:
        try:
            workbook = python_calamine.load_workbook(stream)
            lines = _sheet(workbook, file)
        except python_calamine.CalamineError as error:
            raise DataError(
                f"this cannot be read as a spreadsheet: {excerpt(str(error), width=160)}",
                where=file.place,
                fix="open it in a spreadsheet program and save it anew, or as CSV",
            ) from error
    filled = ((n, cells) for n, cells in enumerate(lines, start=1) if any(map(_holds, cells)))
    used = {place for cells in lines for place, cell in enumerate(cells) if _holds(cell)}
    names = _names_given(file, used)
    if not names:
        number, header = next(filled, (1, ()))
        names = {
            place: str(_value(cell)).strip() if _holds(cell) else f"column_{place + 1}"
            for place, cell in enumerate(header)
            if place in used
        }
        check_columns(list(names.values()), where=f"{file.place} row {number}")
    rows = 0
    for number, cells in filled:
        rows += 1
        columns = {name: _value(cells[n]) if n < len(cells) else None for n, name in names.items()}
        yield f"{file.place} row {number}", columns
    Faults(file.place).done(rows=rows, fix="write a header row, and one row each below it")


def _names_given(file: RowFile, used: Set[int]) -> dict[int, str]:
    """Put the names that the recipe gives to the columns that hold something, wherever they begin.

    Raises:
        DataError: There are more columns than names.
    """
    names = file.columns
    if not names or all(place < len(names) for place in used):
        return dict(enumerate(names))
    if len(used) != len(names):
        what = f"{len(used)} columns hold something, but `columns:` has {len(names)}"
        raise DataError(what, where=file.place, allowed=", ".join(names), fix="name each of them")
    return dict(zip(sorted(used), names, strict=True))


def _sheet(workbook: CalamineWorkbook, file: RowFile) -> _Lines:
    """The sheet that is named, or the only one with rows."""
    names = workbook.sheet_names
    if file.query:
        if file.query not in names:
            what, near = f"there is no sheet {file.query!r}", nearest(file.query, names)
            raise DataError(what, where=file.place, allowed=", ".join(names), nearest=near)
        return _lines(workbook, file.query)
    every = {name: _lines(workbook, name) for name in names}
    sheets = {name: lines for name, lines in every.items() if len(lines) > 1}
    if not sheets and file.columns:  # without a header one row is enough
        sheets = {name: lines for name, lines in every.items() if any(map(_holds, chain(*lines)))}
    if len(sheets) > 1:
        raise DataError(
            f"{len(sheets)} sheets have rows: say which one is meant",
            where=file.place,
            found=", ".join(sheets),
            fix=f"{file.place}!/{next(iter(sheets))}",
        )
    return next(iter(sheets.values()), ())


def _lines(workbook: CalamineWorkbook, name: str) -> _Lines:
    return workbook.get_sheet_by_name(name).to_python(skip_empty_area=False)


def _holds(cell: object) -> bool:
    return not (isinstance(cell, str) and not cell.strip())


def _value(cell: object) -> object:
    """A cell as JSON would have it."""
    if isinstance(cell, datetime.date | datetime.time):
        return cell.isoformat()
    if isinstance(cell, datetime.timedelta):
        return str(cell)
    if isinstance(cell, float) and cell.is_integer():
        return int(cell)
    return cell if _holds(cell) else None
