"""Spreadsheets, written by hand as the zip of XML files that they are."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import pytest

from instil.data.sources.source import read_table
from instil.errors import DataError
from instil.init.inspect import Wishes
from instil.init.starter import write_starter
from instil.tasks.task import load_task
from instil.types import SourceSpec
from starting import unedited

MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
Sheets = Mapping[str, Sequence[Sequence[object]]]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_workbook(path: Path, sheets: Sheets) -> Path:
    numbers = range(1, len(sheets) + 1)
    types = "".join(
        f'<Override PartName="/xl/worksheets/sheet{n}.xml" ContentType="application/vnd.'
        'openxmlformats-officedocument.spreadsheetml.worksheet+xml"/>'
        for n in numbers
    )
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{PACKAGE}/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.'
        'relationships+xml"/><Override PartName="/xl/workbook.xml" ContentType="application/vnd.'
        f'openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/>{types}</Types>',
        "_rels/.rels": f'<Relationships xmlns="{PACKAGE}/relationships"><Relationship Id="r1" '
        f'Type="{OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook {MAIN} xmlns:r="{OFFICE}"><sheets>'
        + "".join(
            f'<sheet name={quoteattr(name)} sheetId="{n}" r:id="r{n}"/>'
            for n, name in enumerate(sheets, 1)
        )
        + "</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{PACKAGE}/relationships">'
        + "".join(
            f'<Relationship Id="r{n}" Type="{OFFICE}/worksheet" Target="worksheets/sheet{n}.xml"/>'
            for n in numbers
        )
        + "</Relationships>",
    }
    for n, rows in enumerate(sheets.values(), 1):
        lines = "".join(
            f'<row r="{r}">{"".join(cell(value, r, c) for c, value in enumerate(row))}</row>'
            for r, row in enumerate(rows, 1)
        )
        sheet = f"<worksheet {MAIN}><sheetData>{lines}</sheetData></worksheet>"
        parts[f"xl/worksheets/sheet{n}.xml"] = sheet
    with zipfile.ZipFile(path, "w") as file:
        for name, text in parts.items():
            file.writestr(name, text)
    return path


def cell(value: object, row: int, column: int) -> str:
    place = f'r="{"ABCDEF"[column]}{row}"'
    match value:
        case None:
            return ""
        case bool():
            return f'<c {place} t="b"><v>{int(value)}</v></c>'
        case int() | float():
            return f"<c {place}><v>{value}</v></c>"
    return f'<c {place} t="inlineStr"><is><t>{escape(str(value))}</t></is></c>'


def read(path: Path, sheet: str = "") -> list[tuple[str, dict[str, object]]]:
    return list(read_table(SourceSpec(f"{path.name}{sheet}")))


def test_cells_keep_their_types_and_rows_their_numbers(tmp_path: Path) -> None:
    rows = [
        [],
        [None, "text ", "stars", "zip", "sure", None],
        [None, "A <joy>.", 4, "01234", True, None],
        [],
        [None, "So so.", 2.5, None, False, None],
    ]
    book = write_workbook(tmp_path / "book.xlsx", {"Reviews": rows, "Notes": [["made in May"]]})
    assert read(book) == [
        ("book.xlsx row 3", {"text": "A <joy>.", "stars": 4, "zip": "01234", "sure": True}),
        ("book.xlsx row 5", {"text": "So so.", "stars": 2.5, "zip": None, "sure": False}),
    ]


def test_a_column_without_a_name_is_called_by_its_number(tmp_path: Path) -> None:
    book = write_workbook(tmp_path / "book.xlsx", {"S": [["text", None], ["A joy.", 7]]})
    assert read(book)[0][1] == {"text": "A joy.", "column_2": 7}


def test_names_are_put_to_the_columns_that_hold_something(tmp_path: Path) -> None:
    book = write_workbook(tmp_path / "book.xlsx", {"S": [[None, "A joy.", 7]]})
    names = ("text", "stars")
    found = list(read_table(SourceSpec(book.name, columns=names)))
    assert found == [("book.xlsx row 1", {"text": "A joy.", "stars": 7})]
    write_workbook(book, {"S": [["A joy.", 7], ["So so.", 3]], "Notes": [["made in May"]]})
    assert len(list(read_table(SourceSpec(book.name, columns=names)))) == 2
    write_workbook(book, {"S": [["A joy.", 7, "note"]]})
    with pytest.raises(DataError, match="3 columns hold something, but `columns:` has 2"):
        list(read_table(SourceSpec(book.name, columns=names)))
    write_workbook(book, {"S": [["A joy.", None], ["So so.", None]]})
    rows = [columns for _, columns in read_table(SourceSpec(book.name, columns=names))]
    assert rows == [{"text": "A joy.", "stars": None}, {"text": "So so.", "stars": None}]


def test_several_sheets_want_a_name(tmp_path: Path) -> None:
    rows = [["text"], ["A joy."]]
    book = write_workbook(tmp_path / "book.xlsx", {"2023": rows, "2024": [*rows, ["Broken."]]})
    with pytest.raises(DataError, match="2 sheets have rows") as caught:
        read(book)
    assert caught.value.problems[0].fix == "book.xlsx!/2023"
    assert [row["text"] for _, row in read(book, "!/2024")] == ["A joy.", "Broken."]
    with pytest.raises(DataError, match="did you mean: 2024"):
        read(book, "!/202")


@pytest.mark.parametrize(
    ("sheets", "said"),
    [
        ({"S": [["text", "text"], ["a", "b"]]}, "two columns have the name 'text'"),
        ({"S": [["text"]]}, "there are no rows"),
        ({"S": []}, "there are no rows"),
    ],
)
def test_sheets_that_cannot_be_used(tmp_path: Path, sheets: Sheets, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read(write_workbook(tmp_path / "book.xlsx", sheets))


@pytest.mark.parametrize("content", [b"", b"text,label\n", b"PK\x03\x04 broken"])
def test_what_is_no_spreadsheet_is_one_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "book.xlsx"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(path)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].where == "book.xlsx"


def test_an_empty_archive_is_one_error(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "book.xlsx", "w") as file:
        file.writestr("[Content_Types].xml", "<Types/>")
        file.writestr("xl/worksheets/sheet1.xml", "<worksheet/>")
    with pytest.raises(DataError, match="cannot be read as a spreadsheet"):
        read(tmp_path / "book.xlsx")


@pytest.mark.parametrize("sheet", ["", "!/Reviews"])
def test_init_works_unedited_on_a_workbook(tmp_path: Path, sheet: str) -> None:
    rows = [[f"the mug number {n} was fine", n % 2] for n in range(60)]
    book = write_workbook(tmp_path / "book.xlsx", {"Reviews": [["review", "helpful"], *rows]})
    starter = write_starter(f"{book}{sheet}", folder=tmp_path, wishes=Wishes())
    task, loaded, _ = unedited(starter)
    assert len(loaded) == 60
    assert task.choices == ("yes", "no")
    assert load_task(str(starter.task_file)).id == ("Reviews" if sheet else "book")
