"""Files that unpack to much more than they seem, and queries without an end: stopped soon."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import sqlite3
import tarfile
import zipfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from instil.data.sources.source import read_table
from instil.errors import DataError
from instil.types import SourceSpec

BIG = 1 << 20
"""Bytes of the bombs, where the limits are a hundredth of them."""


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSTIL_UNPACKED_BYTES", str(BIG // 100))
    monkeypatch.setenv("INSTIL_LINE_BYTES", str(BIG // 10))
    monkeypatch.setenv("INSTIL_QUERY_SECONDS", "1")


def read(uri: str, **more: str) -> int:
    return sum(1 for _ in read_table(SourceSpec(uri, **more)))


def rows() -> bytes:
    return b"text,label\n" + b"a,b\n" * (BIG // 4)


@pytest.mark.parametrize(("ending", "pack"), [("gz", gzip), ("bz2", bz2), ("xz", lzma)])
@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.json", "x.tsv", "x.parquet", "x.arrow"])
def test_a_packed_bomb(name: str, ending: str, pack) -> None:
    Path(f"{name}.{ending}").write_bytes(pack.compress(rows()))
    with pytest.raises(DataError, match=r"more bytes than its size|not valid JSON|not a JSON"):
        read(f"{name}.{ending}")


def test_a_limit_can_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("x.csv.gz").write_bytes(gzip.compress(rows()))
    with pytest.raises(DataError, match="INSTIL_UNPACKED_BYTES=104850"):
        read("x.csv.gz")
    monkeypatch.setenv("INSTIL_UNPACKED_BYTES", str(2 * BIG))
    assert next(read_table(SourceSpec("x.csv.gz")))
    monkeypatch.setenv("INSTIL_UNPACKED_BYTES", "2 GB")
    with pytest.raises(DataError, match="no whole number"):
        read("x.csv.gz")


def test_without_a_word_a_hundred_times_its_size_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INSTIL_UNPACKED_BYTES")
    Path("x.csv.gz").write_bytes(gzip.compress(rows()[: 11 + 4 * 30_000]))
    assert read("x.csv.gz") > 10_000


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.jsonl"])
def test_a_line_without_an_end(name: str) -> None:
    Path(name).write_bytes(b"text\tlabel\n" + b'{"a": 1' * BIG)
    with pytest.raises(DataError, match=r"more characters than are read|not valid JSON"):
        read(name)


def test_a_cell_without_an_end() -> None:
    Path("x.csv").write_bytes(b'text,label\n"a' + b"a\n" * BIG)
    with pytest.raises(DataError, match=r"field larger than field limit"):
        read("x.csv")


def test_a_zip_bomb() -> None:
    with zipfile.ZipFile("x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.csv", rows())
    with pytest.raises(DataError, match="INSTIL_UNPACKED_BYTES"):
        read("x.zip!/x.csv")


def test_a_tar_bomb_and_one_of_empty_members() -> None:
    Path("x.csv").write_bytes(rows())
    with tarfile.open("x.tar.gz", "w:gz") as archive:
        archive.add("x.csv")
    with pytest.raises(DataError, match="more than its size lets expect"):
        read("x.tar.gz!/x.csv")
    with tarfile.open("y.tar.gz", "w:gz") as archive:
        for number in range(1000):
            archive.addfile(tarfile.TarInfo(f"{number}.csv"))
    with pytest.raises(DataError, match="more than its size lets expect"):
        read("y.tar.gz!/x.csv")


def test_a_wrong_name_in_an_archive_of_many_is_told_soon() -> None:
    with zipfile.ZipFile("x.zip", "w") as archive:
        for number in range(30_000):
            archive.writestr(f"folder/a-name-much-like-others-{number}.csv", b"")
    with pytest.raises(DataError, match="no file of this name"):
        read("x.zip!/folder/a-name-much-like-others-x.csv")


@pytest.mark.parametrize("dictionary", [True, False])
def test_a_parquet_bomb(dictionary: bool) -> None:
    table = pyarrow.table({"text": ["x" * 1000] * (BIG // 1000), "label": ["a"] * (BIG // 1000)})
    pyarrow.parquet.write_table(table, "x.parquet", use_dictionary=dictionary, compression="zstd")
    assert Path("x.parquet").stat().st_size < BIG // 100
    with pytest.raises(DataError, match="more bytes than the file's size lets expect"):
        read("x.parquet")


def test_a_workbook_bomb() -> None:
    with zipfile.ZipFile("x.xlsx", "w", zipfile.ZIP_DEFLATED) as parts:
        parts.writestr("xl/worksheets/sheet1.xml", rows())
    with pytest.raises(DataError, match="the workbook unpacks to more"):
        read("x.xlsx")


FOREVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT {} FROM n"


@pytest.mark.parametrize(
    ("query", "says"),
    [
        (FOREVER.format("count(*) AS text"), "too long for its next row"),
        (FOREVER.format("i AS text, 'a' AS label"), "more bytes than the database's size"),
        pytest.param(
            f"{FOREVER.format('i AS text')} WHERE i < 0", "too long", marks=pytest.mark.slow
        ),
        ("SELECT hex(zeroblob(900000000)) AS text", "too big"),
        ("SELECT printf('%.900000000c', 'x') AS text", "more than read"),
        pytest.param(
            "SELECT a.text FROM t a, t b, t c, t d ORDER BY random()",
            "too long|more bytes",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_query_without_an_end(query: str, says: str) -> None:
    with sqlite3.connect("x.db") as database:
        database.execute("CREATE TABLE t (text, label)")
        database.executemany("INSERT INTO t VALUES (?, ?)", [("a", "b")] * 200)
    database.close()
    with pytest.raises(DataError, match=says):
        read(f"sqlite:x.db?query={query}")


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/stdin", "pipe", "a\0b", "loop", "nowhere"])
def test_what_is_no_file(name: str) -> None:
    os.mkfifo("pipe")
    Path("loop").symlink_to("loop")
    Path("nowhere").symlink_to("gone")
    with pytest.raises(DataError):
        read(name, format="csv")
