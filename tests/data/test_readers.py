"""Arrow, archives, databases, and rows that are skipped."""

from __future__ import annotations

import gzip
import json
import sqlite3
import zipfile
from pathlib import Path

import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest

from instil.data.readers.rowfile import BadRows
from instil.data.readers.sniff import sniff_format
from instil.data.readers.sqlrows import parse_sqlite
from instil.data.sources.source import read_table
from instil.errors import DataError
from instil.tasks.task import parse_task
from instil.types import OnBadRow, SourceSpec

ROWS = [{"text": f"text {n}", "label": n % 2, "tags": ["a", "b"][: n % 3]} for n in range(2500)]
TABLE = pyarrow.Table.from_pylist(ROWS)
CSV = "text,label\ngood,1\nbad,0\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(uri: str, base: Path, **spec):
    return list(read_table(SourceSpec(uri, **spec)))


def problem(uri: str, base: Path, **spec):
    with pytest.raises(DataError) as caught:
        read(uri, base, **spec)
    return caught.value.problems[0]


def skipped(uri: str, base: Path, **spec) -> tuple[list, list[str]]:
    bad = BadRows()
    source = SourceSpec(uri, on_bad_row=OnBadRow.SKIP, **spec)
    return [columns for _, columns in read_table(source, bad=bad)], bad.found


def test_the_end_of_a_broken_row_is_no_row(tmp_path: Path) -> None:
    lines = ["text,label", '"He said "hi", and', 'left",pos', "good,1", '"so', 'so",0', '5" long,1']
    (tmp_path / "rows.csv").write_text("\n".join(lines), encoding="utf-8")
    rows, bad = skipped("rows.csv", tmp_path)
    assert [row["text"] for row in rows] == ["good", "so\nso", '5" long']
    assert [told.split(": ")[0] for told in bad] == ["rows.csv:2", "rows.csv:3"]


def test_a_whole_row_behind_a_broken_one_is_kept_whatever_its_quotes(tmp_path: Path) -> None:
    lines = ["text,label", '"he said "hi",1', "fine,0", '12" pizza,1']
    (tmp_path / "rows.csv").write_text("\n".join(lines), encoding="utf-8")
    rows, bad = skipped("rows.csv", tmp_path)
    assert [row["text"] for row in rows] == ["fine", '12" pizza']
    assert len(bad) == 1


def test_a_bad_row_with_bad_bytes_can_be_written_down(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b"text,label\ncaf\xe9,a,b\ngood,1\n")
    rows, bad = skipped("rows.csv", tmp_path)
    assert rows == [{"text": "good", "label": "1"}]
    assert len("".join(bad).encode()) > 0
    (tmp_path / "rows.json").write_bytes(b'[["caf\xe9"], {"text": "good"}]')
    rows, bad = skipped("rows.json", tmp_path)
    assert rows == [{"text": "good"}]
    assert len("".join(bad).encode()) > 0


def test_a_column_whose_name_is_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b"text,pr\xe9nom\ngood,Ada\n")
    with pytest.raises(DataError, match=r"rows\.csv:1"):
        skipped("rows.csv", tmp_path)


def test_a_folder_that_is_a_link_is_read_once(tmp_path: Path) -> None:
    for name in ("kept/pos", "texts/neg"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.txt").write_text(name)
    (tmp_path / "texts" / "pos").symlink_to(tmp_path / "kept" / "pos")
    rows = [columns for _, columns in read("texts", tmp_path, format="folder")]
    assert [row["folder"] for row in rows] == ["neg", "pos"]
    (tmp_path / "texts" / "round").symlink_to(tmp_path / "texts")
    (tmp_path / "texts" / "latest").symlink_to(tmp_path / "texts" / "neg")
    assert [columns for _, columns in read("texts", tmp_path, format="folder")] == rows
    (tmp_path / "texts" / "again").symlink_to(tmp_path / "kept" / "pos")
    assert "two ways lead to this folder" in problem("texts", tmp_path, format="folder").what


# ---- arrow


def write_arrow(path: Path, kind: str) -> None:
    if kind == "feather1":
        flat = TABLE.drop_columns(["tags"])
        pyarrow.feather.write_feather(flat, path, version=1)
        return
    make = pyarrow.ipc.new_file if kind == "file" else pyarrow.ipc.new_stream
    with make(path, TABLE.schema) as writer:
        writer.write_table(TABLE)


@pytest.mark.parametrize("kind", ["file", "stream"])
@pytest.mark.parametrize("name", ["rows.arrow", "rows.feather", "rows"])
def test_arrow_of_both_forms_is_told_by_its_content(tmp_path, kind, name):
    write_arrow(tmp_path / name, kind)
    rows = read(name, tmp_path)
    assert [columns for _, columns in rows] == ROWS
    assert rows[1999][0] == f"{name} row 2000"


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_feather_of_the_first_version(tmp_path):
    write_arrow(tmp_path / "rows.feather", "feather1")
    assert read("rows.feather", tmp_path)[7][1] == {"text": "text 7", "label": 1}


def test_packed_arrow_and_parquet(tmp_path):
    write_arrow(tmp_path / "plain", "file")
    pyarrow.parquet.write_table(TABLE, tmp_path / "plain.parquet")
    for name, inner in (("a.arrow.gz", "plain"), ("p.parquet.gz", "plain.parquet")):
        (tmp_path / name).write_bytes(gzip.compress((tmp_path / inner).read_bytes()))
        assert [columns for _, columns in read(name, tmp_path)] == ROWS


def test_damaged_arrow(tmp_path):
    write_arrow(tmp_path / "whole.arrow", "file")
    (tmp_path / "cut.arrow").write_bytes((tmp_path / "whole.arrow").read_bytes()[:3000])
    assert "cannot be read as Arrow" in problem("cut.arrow", tmp_path).what
    (tmp_path / "text.arrow").write_text("text,label\n")
    assert "cannot be read as Arrow" in problem("text.arrow", tmp_path).what


# ---- archives


def make_zip(path: Path, **members: str) -> None:
    with zipfile.ZipFile(path, "w") as opened:
        for name, content in members.items():
            opened.writestr(name.replace("__", "/").replace("_", "."), content)


def test_a_zip_of_one_file_is_looked_into(tmp_path):
    make_zip(tmp_path / "reviews.zip", data__reviews_csv=CSV)
    with zipfile.ZipFile(tmp_path / "reviews.zip", "a") as opened:
        opened.writestr("__MACOSX/._reviews.csv", "junk")
        opened.writestr("data/.DS_Store", "junk")
    rows = read("reviews.zip", tmp_path)
    assert rows[1] == ("reviews.zip!/reviews.csv:3", {"text": "bad", "label": "0"})


@pytest.mark.parametrize("member", ["a_csv", "a_jsonl", "a_json"])
def test_a_named_file_of_a_zip(tmp_path, member):
    rows = [{"text": "good", "label": "1"}, {"text": "bad", "label": "0"}]
    contents = {
        "a_csv": CSV,
        "a_jsonl": "\n".join(map(json.dumps, rows)),
        "a_json": json.dumps(rows),
    }
    make_zip(tmp_path / "x.zip", sub__b_txt="other", **{f"sub__{member}": contents[member]})
    found = read(f"x.zip!/sub/{member.replace('_', '.')}", tmp_path)
    assert [columns for _, columns in found] == rows


def test_a_zip_of_several_files_wants_a_name(tmp_path):
    make_zip(tmp_path / "x.zip", a_csv=CSV, b_csv=CSV)
    found = problem("x.zip", tmp_path)
    assert "several files" in found.what
    assert found.fix == "x.zip!/a.csv"
    assert problem("x.zip!/c.csv", tmp_path).where == "x.zip"
    assert "may not be used" in problem("x.zip!/../c.csv", tmp_path).what


def test_a_changed_zip_is_read_anew(tmp_path):
    make_zip(tmp_path / "x.zip", a_csv=CSV)
    assert len(read("x.zip", tmp_path)) == 2
    make_zip(tmp_path / "x.zip", a_csv=CSV + "new,1\n")
    assert len(read("x.zip", tmp_path)) == 3


def test_an_archive_in_an_archive_and_a_tar(tmp_path):
    import tarfile

    make_zip(tmp_path / "inner.zip", a_csv=CSV)
    with tarfile.open(tmp_path / "outer.tar.gz", "w:gz") as opened:
        opened.add(tmp_path / "inner.zip", "deep/inner.zip")
    assert len(read("outer.tar.gz!/deep/inner.zip!/a.csv", tmp_path)) == 2


# ---- databases


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("CREATE TABLE reviews (text TEXT, stars INTEGER)")
        rows = [("good 100%", 5), ("bad", 1), (None, 3)]
        connection.executemany("INSERT INTO reviews VALUES (?, ?)", rows)
    connection.close()
    return tmp_path


def test_the_only_table_of_a_database(shop):
    rows = read("sqlite:shop.db", shop)
    assert rows[0] == ("shop.db row 1", {"text": "good 100%", "stars": 5})
    assert read("shop.db", shop, format="sqlite") == rows
    assert sniff_format(shop / "shop.db") == "sqlite"
    assert rows[2][1]["text"] is None


def test_a_query_in_the_address_or_beside_it(shop):
    query = "SELECT text AS t, stars * 2 AS s FROM reviews WHERE text LIKE '%100%'"
    wanted = [("shop.db row 1", {"t": "good 100%", "s": 10})]
    assert read(f"sqlite:shop.db?query={query}", shop) == wanted
    assert read("sqlite:shop.db", shop, query=query) == wanted
    assert read("shop.db", shop, query=query) == wanted
    assert parse_sqlite("sqlite:a.db") == ("a.db", "")


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM reviews",
        "DROP TABLE reviews",
        "INSERT INTO reviews VALUES ('x', 1)",
        "ATTACH DATABASE 'other.db' AS other",
        "PRAGMA writable_schema = 1",
        "SELECT load_extension('x')",
        "CREATE TABLE more (x)",
    ],
)
def test_a_query_may_only_read(shop, query):
    before = (shop / "shop.db").read_bytes()
    assert "more than read" in problem("sqlite:shop.db", shop, query=query).what
    assert (shop / "shop.db").read_bytes() == before
    assert not (shop / "other.db").exists()


def test_queries_that_fail(shop):
    found = problem("sqlite:shop.db", shop, query="SELECT * FROM review")
    assert found.nearest == "reviews"
    assert "the query fails" in problem("sqlite:shop.db", shop, query="SELEC 1").what
    assert "no rows" in problem("sqlite:shop.db", shop, query="SELECT 1 WHERE 0").what
    double = problem("sqlite:shop.db", shop, query="SELECT text, text FROM reviews")
    assert "two columns" in double.what
    with sqlite3.connect(shop / "shop.db") as connection:
        connection.execute("CREATE TABLE users (name TEXT)")
    connection.close()
    assert problem("sqlite:shop.db", shop).found == "reviews, users"
    assert "no such file" in problem("sqlite:shp.db", shop).what
    (shop / "text.db").write_text(CSV)
    assert "not a SQLite database" in problem("sqlite:text.db", shop).what
    (shop / "rows.csv").write_text(CSV)
    assert "goes with a database" in problem("rows.csv", shop, query="SELECT 1").what


def test_a_task_file_names_a_database_beside_it(shop):
    text = """
id: shop
source: {uri: sqlite:shop.db, query: "SELECT * FROM reviews", on_bad_row: skip}
text: text
target: stars
choices: ["1", "5"]
templates: [{id: plain, prompt: "{{ text }}"}]
"""
    task = parse_task(text, where="shop.yaml", folder=shop)
    assert task.source.uri == f"sqlite:{shop / 'shop.db'}"
    assert task.source.on_bad_row is OnBadRow.SKIP
    from instil.data.registry import load_rows

    loaded = load_rows(task)
    assert [row.fields["stars"] for row in loaded.rows] == ["5", "1"]
    assert loaded.skipped == {"no text in 'text'": 1}


# ---- bad rows


def test_a_line_that_names_the_separator_is_no_row(tmp_path):
    (tmp_path / "a.csv").write_text("sep=;\ntext;label\na, b;1\nc;2;3\n")
    rows, bad = skipped("a.csv", tmp_path)
    assert [{key: row[key] for key in ("text", "label")} for row in rows] == [
        {"text": "a, b", "label": "1"}
    ]
    assert bad[0].startswith("a.csv:4: ")
    (tmp_path / "b.csv").write_text('"sep=|"\ntext|label\na;b|1\n')
    assert read(str(tmp_path / "b.csv"), tmp_path)[0][1]["text"] == "a;b"


def test_bad_csv_rows_are_skipped_each_with_its_place(tmp_path):
    (tmp_path / "a.csv").write_bytes(
        b'text,label\na,1\nb\nc,"2"x\nd,4,5\ncaf\xe9,6\n"two\nlines",7\n'
    )
    rows, bad = skipped("a.csv", tmp_path)
    assert [row["text"] for row in rows] == ["a", "two\nlines"]
    assert [line.partition(": ")[0] for line in bad] == [f"a.csv:{n}" for n in (3, 4, 5, 6)]
    assert "1 cells, but the header line has 2" in bad[0]
    assert "not valid CSV" in bad[1]
    assert "byte 0xE9" in bad[3]


@pytest.mark.parametrize(("name", "part"), [("a.csv", ","), ("a.tsv", "\t")])
def test_a_byte_of_value_0_is_refused_with_its_place(tmp_path, name, part):
    lines = (f"text{part}label", f"a{part}1", f"b\0c{part}2", f"d{part}3\0")
    (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
    found = problem(name, tmp_path)
    assert (found.what, found.where) == ("a byte of value 0 in cell 1", f"{name}:3")
    rows, bad = skipped(name, tmp_path)
    assert [row["text"] for row in rows] == ["a"]
    assert [line.partition(": ")[0] for line in bad] == [f"{name}:3", f"{name}:4"]
    (tmp_path / name).write_text(f"te\0xt{part}label\na{part}1\n", encoding="utf-8")
    assert problem(name, tmp_path).where == f"{name}:1"
    (tmp_path / name).write_text(f"text{part}label\na{part}1\n", encoding="utf-16-le")
    assert "utf-16-le" in problem(name, tmp_path).fix


def test_a_packing_that_is_not_read_says_what_to_do(tmp_path):
    (tmp_path / "a.csv.zst").write_bytes(b"\x28\xb5\x2f\xfd")
    found = problem("a.csv.zst", tmp_path)
    assert (found.found, found.fix) == (".zst", "unpack it first, or pack it as .gz, .bz2 or .xz")


def test_a_quote_that_swallows_the_rest_is_never_skipped(tmp_path):
    (tmp_path / "a.csv").write_text('text,label\na,1\nb,"2\nc,3\n')
    with pytest.raises(DataError, match="never closed"):
        skipped("a.csv", tmp_path)


def test_bad_json_rows_are_skipped(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n{"a": \n[1]\n{"a": "\xe9"}\n{"a": 2}\n')
    rows, bad = skipped("a.jsonl", tmp_path)
    assert rows == [{"a": 1}, {"a": 2}]
    assert [line.partition(": ")[0] for line in bad] == ["a.jsonl:2", "a.jsonl:3", "a.jsonl:4"]
    (tmp_path / "b.json").write_text('[{"a": 1}, 2, {"a": 3}]')
    rows, bad = skipped("b.json", tmp_path)
    assert rows == [{"a": 1}, {"a": 3}]
    assert bad[0].startswith("b.json row 2: a row must be an object")


def test_bad_conversations_are_skipped_or_all_told(tmp_path):
    good = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    wrong = {"messages": [{"role": "nobody", "content": "a"}]}
    lines = [good, wrong, good, wrong]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, lines)))
    rows, bad = skipped("c.jsonl", tmp_path)
    assert len(rows) == 2
    assert [line.partition(",")[0] for line in bad] == ["c.jsonl:2", "c.jsonl:4"]
    with pytest.raises(DataError) as caught:
        read("c.jsonl", tmp_path)
    assert [p.where for p in caught.value.problems] == [
        "c.jsonl:2, messages[1]",
        "c.jsonl:4, messages[1]",
    ]
