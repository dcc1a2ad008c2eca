from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from instil.data.readers.rowfile import SHOWN, BadRows
from instil.data.readers.sniff import sniff_format
from instil.data.sources.source import read_table
from instil.data.sources.uri import is_public
from instil.errors import DataError
from instil.tasks.formats import FORMATS
from instil.types import OnBadRow, SourceSpec


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def read(tmp_path):
    """Write a file, and read it as a source relative to its folder."""

    def reader(content: bytes | str, name: str = "rows.csv", **spec):
        data = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(data)
        return list(read_table(SourceSpec(uri=name, **spec)))

    return reader


def problem(read, *args, **spec):
    with pytest.raises(DataError) as caught:
        read(*args, **spec)
    return caught.value.problems[0]


# ---- csv


def test_lines_of_json_in_a_file_named_csv_are_lines_of_json(read):
    rows = read('{"text": "a, b", "label": "c"}\n{"text": "d", "label": "e"}\n')
    assert [row for _, row in rows] == [{"text": "a, b", "label": "c"}, {"text": "d", "label": "e"}]


def test_csv_rows_know_the_line_they_begin_on(read):
    rows = read('text,label\n"two\nlines, ""quoted""",good\n\nplain,bad\n')
    assert rows == [
        ("rows.csv:2", {"text": 'two\nlines, "quoted"', "label": "good"}),
        ("rows.csv:5", {"text": "plain", "label": "bad"}),
    ]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["", "\n"])
def test_line_endings_and_byte_order_marks(read, newline, mark, end):
    text = f"text,label\nä,1\nb,2{end}".replace("\n", newline)
    assert [columns for _, columns in read(mark + text.encode())] == [
        {"text": "ä", "label": "1"},
        {"text": "b", "label": "2"},
    ]


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_in_the_first_line(read, sign):
    (row,) = read(f"\n\nid{sign}text{sign}label\n1{sign}x{sign}y\n")
    assert row == ("rows.csv:4", {"id": "1", "text": "x", "label": "y"})


def test_one_column_needs_no_delimiter(read):
    assert read("text\nhello\n") == [("rows.csv:2", {"text": "hello"})]


def test_ragged_rows_are_all_told(read):
    with pytest.raises(DataError) as caught:
        read("text,label\na,b\nc\nd,e,f\n")
    told = str(caught.value)
    assert "rows.csv:3: 1 cells, but the header line has 2" in told
    assert "rows.csv:4: 3 cells, but the header line has 2" in told


def test_many_bad_rows_are_counted(read):
    with pytest.raises(DataError, match="and 95 more bad rows") as caught:
        read("text,label\n" + "x\n" * 100)
    assert len(caught.value.problems) == SHOWN + 1


def test_no_row_is_yielded_after_a_bad_one(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,2\nbad\n3,4\n")
    rows = read_table(SourceSpec(uri="a.csv"))
    assert next(rows)[0] == "a.csv:2"
    with pytest.raises(DataError):
        next(rows)


def test_columns_name_a_file_without_a_header(read):
    rows = read("1,x\n2,y\n", columns=("id", "text"))
    assert [columns["id"] for _, columns in rows] == ["1", "2"]
    assert "`columns:` has 3" in problem(read, "1,x\n", columns=("a", "b", "c")).what


def test_an_unnamed_column_is_called_by_its_number(read):
    assert read(", text ,\n0,x,\n") == [
        ("rows.csv:2", {"column_1": "0", "text": "x", "column_3": ""})
    ]


def test_two_columns_of_one_name_are_refused(read):
    found = problem(read, "text,label, text\na,b,c\n")
    assert found.where == "rows.csv:1"
    assert "'text'" in found.what
    assert found.found == "columns 1, 3"


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff", "text,label\n", "text,label"])
def test_a_file_without_rows(read, content):
    found = problem(read, content)
    assert found.what == "there are no rows"
    assert found.where == "rows.csv"


def test_a_quote_that_is_never_closed_names_its_line(read):
    found = problem(read, 'text,label\na,b\nc,"d\ne,f\ng,h\n')
    assert found.where == "rows.csv:3"
    assert "never closed" in found.what


def test_a_misplaced_quote_names_its_line(read):
    assert problem(read, 'text,label\n"a" b,c\n').where == "rows.csv:2"


def test_a_quote_within_a_cell_is_a_sign_like_any_other(read):
    assert read('text,label\n5" screen,good\n')[0][1]["text"] == '5" screen'


def test_a_very_long_cell(read):
    text = "x" * (csv.field_size_limit() + 1 if csv.field_size_limit() < 1 << 20 else 200_000)
    assert read(f"text\n{text}\n")[0][1]["text"] == text


# ---- tsv


def test_tsv_takes_quotes_as_they_are(read):
    rows = read('text\tlabel\r\n"open\tgood\r\n"a ""b"""\t"x" and "y"\r\n', "rows.tsv")
    assert [columns["text"] for _, columns in rows] == ['"open', 'a "b"']
    assert rows[1] == ("rows.tsv:3", {"text": 'a "b"', "label": '"x" and "y"'})


def test_a_quoted_tsv_is_told_by_its_rows(read):
    content = 'text\tlabel\n"two\nlines"\tgood\n'
    assert "format: csv" in problem(read, content, "rows.tsv", format="tsv").fix
    assert read(content, "rows.tsv") == [("rows.tsv:2", {"text": "two\nlines", "label": "good"})]
    assert read(content, "rows.tsv", format="csv")[0][1]["text"] == "two\nlines"


# ---- encodings


def test_latin_1_bytes_are_named_with_their_line_and_the_fix(read):
    found = problem(read, "text,label\na,b\ncafé,c\n".encode("latin-1"))
    assert found.where == "rows.csv:3"
    assert "byte 0xE9 (offset 18 of the file) is not UTF-8" in found.what
    assert found.found == "read as latin-1: café,c"
    assert found.fix.startswith("encoding: latin-1")
    assert "`--encoding latin-1` on the command line" in found.fix


def test_quotes_further_on_tell_windows_1252_from_latin_1(read):
    rows = "id;größe\n1;klein\n2;ein „kleines“ Stück\n".encode("cp1252")
    found = problem(read, rows)
    assert found.where == "rows.csv:1"
    assert found.fix.startswith("encoding: cp1252")
    mixed = "café\n".encode("latin-1") + "„quotes“ in UTF-8\n".encode()
    assert problem(read, mixed).fix.startswith("encoding: latin-1"), "lines of UTF-8 tell nothing"


def test_windows_quotes_ask_for_cp1252(read):
    content = "text\n“so”\n".encode("cp1252")
    assert problem(read, content).fix.startswith("encoding: cp1252")
    assert read(content, encoding="cp1252")[0][1] == {"text": "“so”"}


@pytest.mark.parametrize(
    ("codec", "text"),
    [
        ("cp1251", "Отличный товар всем советую"),
        ("cp932", "この商品はとても良いです"),
        ("gb18030", "这个商品非常好我很喜欢"),
        ("euc_kr", "이 상품은 정말 좋아요"),
        ("koi8-r", "Отличный товар всем советую"),
        ("cp1255", "המוצר הזה טוב מאוד ואני ממליץ"),
        ("cp1253", "Πολύ καλό προϊόν το συνιστώ και είναι φθηνό"),
        ("cp1252", "ein „kleines“ Stück für Zoë"),
        ("latin-1", "größer als déçue señor"),
    ],
)
def test_the_encoding_of_another_script_is_guessed_and_never_the_one_that_failed(read, codec, text):
    content = f"text,label\n{text},a\n{text},b\n".encode(codec)
    found = problem(read, content)
    assert found.fix.startswith(f"encoding: {codec}")
    assert text[:8] in found.found
    assert read(content, encoding=codec)[0][1]["text"] == text
    if codec == "cp932":
        arabic = problem(read, "text\nمنتج رائع جدا\n".encode("cp1256"))
        assert arabic.fix.startswith("save the file as UTF-8, or name what it is in")
        assert problem(read, content, encoding="cp1252").fix.startswith("encoding: cp932")


@pytest.mark.parametrize(
    "labels",
    [
        ("\u0445\u043e\u0440\u043e\u0448\u043e", "\u043f\u043b\u043e\u0445\u043e"),
        ("\u0441\u043f\u043e\u0440\u0442", "\u043d\u0430\u0443\u043a\u0430"),
    ],
)
def test_russian_labels_beside_english_texts_are_no_hebrew(read, labels):
    content = f"text,label\na good film,{labels[0]}\na bad one,{labels[1]}\n".encode("cp1251")
    assert problem(read, content).fix.startswith("encoding: cp1251")


@pytest.mark.parametrize(
    ("codec", "text", "also"),
    [
        (
            "cp1254",
            "Çok güzel, teşekkürler; \u0131ş\u0131ğ\u0131 da iyi çal\u0131ş\u0131yor, müşteri",
            "cp1254",
        ),
        ("cp1250", "Bardzo dobry, życzę sobie więcej; było źle", "cp1250"),
        ("big5", "這個商品非常好我很喜歡", "big5"),
    ],
)
def test_what_else_a_text_may_be_in_is_told(read, codec, text, also):
    found = problem(read, f"text,label\n{text},a\n{text},b\n".encode(codec))
    assert f"{also}" in found.fix.partition("   (")[0]
    assert "cp1251" not in found.fix


def test_utf_16_is_recognised_by_its_mark(read):
    content = "text,label\nä,b\n".encode("utf-16")
    assert problem(read, content).fix == "encoding: utf-16"
    assert read(content, encoding="utf-16")[0][1]["text"] == "ä"


@pytest.mark.parametrize("encoding", ["utf8x", "rot13", ""])
def test_unknown_encodings(read, encoding):
    assert problem(read, "text\na\n", encoding=encoding).what == "unknown encoding"


def test_the_nearest_encoding_is_named(read):
    assert problem(read, "text\na\n", encoding="utf-88").nearest == "utf-8"


def test_bytes_that_fit_no_encoding_far_into_the_file(read):
    content = b"text\n" + b"fine\n" * 50_000 + b"\x81\n"
    assert problem(read, content, encoding="ascii").where == "rows.csv:50002"


# ---- json


def test_jsonl(read):
    rows = read('{"text": "ä", "n": 1}\n\n{"text": null, "list": [1]}\r\n', "rows.jsonl")
    assert rows == [
        ("rows.jsonl:1", {"text": "ä", "n": 1}),
        ("rows.jsonl:3", {"text": None, "list": [1]}),
    ]


def test_bad_jsonl_lines_are_named_with_an_excerpt(read):
    with pytest.raises(DataError) as caught:
        read('{"a": 1}\n{"a": 1,}\n[1]\n{"a": 1, "a": 2}\n{"a": "\\ud800"}\n', "rows.jsonl")
    where = [problem.where for problem in caught.value.problems]
    assert where == ["rows.jsonl:2", "rows.jsonl:3", "rows.jsonl:4", "rows.jsonl:5"]
    assert caught.value.problems[0].found == '{"a": 1,}'
    assert "'a' twice" in caught.value.problems[2].what


def test_a_pair_of_surrogates_is_an_emoji(read):
    assert read('{"a": "\\ud83d\\ude00"}', "rows.jsonl")[0][1] == {"a": "😀"}


def test_an_excerpt_shows_the_place_in_a_long_line(read):
    found = problem(read, json.dumps({"a": "x" * 500})[:-1] + " oops}", "rows.jsonl")
    assert "oops" in found.found
    assert len(found.found) < 100


def test_a_json_list(read):
    assert read('[{"a": 1}, {"a": 2}]', "d.json") == [
        ("d.json row 1", {"a": 1}),
        ("d.json row 2", {"a": 2}),
    ]


def test_an_object_with_one_list_says_which(read):
    content = '{"version": "1", "tags": ["x"], "examples": [{"a": 1}]}'
    assert read(content, "d.json") == [('d.json "examples" row 1', {"a": 1})]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"a": [{"x": 1}], "b": [{"x": 1}]}', "keep one of the lists a, b"),
        ('{"text": "a"}', "an object with the keys text"),
        ("3", "found: 3"),
        ("[1, 2]", "row 2"),
        ('[{"a": 1}, "b"]', 'found: "b"'),
        ('[{"a": 1},\n{"a" 2}]', "d.json:2: this is not valid JSON"),
        ("[" * 100_000, "cannot be used"),
        ("[]", "there are no rows"),
        ('{"rows": []}', "there are no rows"),
        ("", "the file is empty"),
    ],
)
def test_json_that_is_no_list_of_objects(read, content, told):
    with pytest.raises(DataError) as caught:
        read(content, "d.json")
    assert told in str(caught.value)


REVIEWS = [{"text": "A joy.", "label": "good"}, {"text": "Broken.", "label": None}]


@pytest.mark.parametrize(
    "value",
    [
        {"text": {"0": "A joy.", "1": "Broken."}, "label": {"0": "good", "1": None}},
        {"columns": ["text", "label"], "index": [0, 1],
         "data": [["A joy.", "good"], ["Broken.", None]]},
        {"schema": {"fields": []}, "data": REVIEWS},
        {"text": ["A joy.", "Broken."], "label": ["good", None]},
        {"3": REVIEWS[0], "7": REVIEWS[1]},
    ],
)  # fmt: skip
def test_tables_as_pandas_writes_them(read, value):
    found = [columns for _, columns in read(json.dumps(value), "pandas.json")]
    assert [{name: row[name] for name in ("text", "label")} for row in found] == REVIEWS


def test_a_table_with_a_row_of_another_length(read):
    text = json.dumps({"columns": ["text", "label"], "data": [["A joy.", "good"], ["Broken."]]})
    found = problem(read, text, "pandas.json")
    assert found.where == "pandas.json row 2"
    assert "1 cells, but there are 2 columns" in found.what


def test_json_values_one_after_another_are_one_error(read):
    text = "".join(json.dumps(row, indent=1) + "\n" for row in REVIEWS)
    with pytest.raises(DataError) as caught:
        read(text, "concat.json")
    (found,) = caught.value.problems
    assert found.where == "concat.json:5"
    assert "one list" in found.fix


def test_lines_that_end_with_a_comma_are_one_error(read):
    text = "".join(json.dumps(row) + ",\n" for row in REVIEWS * 20)
    with pytest.raises(DataError) as alone:
        read(text, "trailing.jsonl")
    (found,) = alone.value.problems
    assert found.where == "trailing.jsonl:1"
    assert found.what == "a comma follows the object, and 39 more lines"
    with pytest.raises(DataError) as caught:
        read(text + "{oops}\n", "trailing.jsonl")
    assert len(caught.value.problems) == 2


def test_json_lines_under_the_wrong_ending(read):
    assert len(read('{"a": 1}\n{"a": 2}\n', "rows.json")) == 2
    assert len(read('{"a": [\n{"b": 1}]}', "list.json")) == 1


def test_an_object_of_objects_is_rows_by_name(read):
    text = json.dumps({"a": {"text": "hi"}, "b": {"text": "yo"}})
    found = [columns for _, columns in read(text, "chats.json")]
    assert found == [{"key": "a", "text": "hi"}, {"key": "b", "text": "yo"}]


# ---- parquet


def test_parquet_keeps_types_and_reads_in_batches(tmp_path):
    import pyarrow
    import pyarrow.parquet

    table = {"n": list(range(3000)), "price": [Decimal("1.5")] * 3000, "turns": [["a"]] * 3000}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "t.parquet")
    rows = list(read_table(SourceSpec(uri="t.parquet")))
    assert len(rows) == 3000
    assert rows[-1] == (
        "t.parquet row 3000",
        {"n": 2999, "price": Decimal("1.5"), "turns": ["a"]},
    )


@pytest.mark.parametrize("damage", ["text", "cut", "middle", "empty"])
def test_what_is_no_parquet(tmp_path, read, damage):
    import pyarrow
    import pyarrow.parquet

    rows = 0 if damage == "empty" else 1000
    pyarrow.parquet.write_table(pyarrow.table({"n": [str(i) for i in range(rows)]}), tmp_path / "t")
    content = (tmp_path / "t").read_bytes()
    if damage == "text":
        content = b"text,label\na,b\n"
    elif damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "middle":
        content = content[:20] + bytes(len(content) - 40) + content[-20:]
    found = problem(read, content, "t.parquet")
    assert found.what == "there are no rows" if damage == "empty" else "Parquet" in found.what


# ---- folders


def test_a_folder_of_texts(tmp_path):
    for name, text in {
        "news/sport/002.txt": "\nA Match \r\n\r\nIt was won.\nAgain.\n",
        "news/sport/001.txt": "One line",
        "news/arts/dance/1": "A Dance",
        "news/top.md": "Top",
        "news/.hidden/x.txt": "no",
        "news/.DS_Store": "no",
        "news/__init__.py": "no",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(text.encode())
    rows = dict(read_table(SourceSpec(uri="news/")))
    assert list(rows) == [
        "news/top.md",
        "news/arts/dance/1",
        *[f"news/sport/00{i}.txt" for i in (1, 2)],
    ]
    assert rows["news/sport/002.txt"] == {
        "text": "A Match \n\nIt was won.\nAgain.",
        "folder": "sport",
        "file": "002.txt",
        "first_line": "A Match",
        "rest": "It was won.\nAgain.",
    }
    assert rows["news/arts/dance/1"]["folder"] == "arts/dance"
    assert rows["news/top.md"]["folder"] == ""


def test_a_folder_of_mixed_encodings(tmp_path):
    (tmp_path / "n").mkdir()
    (tmp_path / "n" / "1.txt").write_bytes("£1 in UTF-8".encode())
    (tmp_path / "n" / "2.txt").write_bytes("head\n£2 in Latin-1".encode("latin-1"))
    with pytest.raises(DataError, match=r"n/2\.txt:2: byte 0xA3 .*\n.*£2[^£]*utf-8, latin-1"):
        list(read_table(SourceSpec(uri="n")))
    rows = read_table(SourceSpec(uri="n", encoding="utf-8, latin-1"))
    assert [str(columns["text"])[:2] for _, columns in rows if "head" not in str(columns)] == ["£1"]
    (_, (_, second)) = read_table(SourceSpec(uri="n", encoding="utf-8, latin-1"))
    assert second["rest"] == "£2 in Latin-1"


def test_a_folder_without_texts_says_what_is_in_it(tmp_path):
    (tmp_path / "n").mkdir()
    (tmp_path / "n" / "a.pdf").write_text("x")
    with pytest.raises(DataError, match=r"found: \.pdf \(1\)"):
        list(read_table(SourceSpec(uri="n")))


# ---- trivia


TRIVIA = """\
AUTHOR: me
DESCRIPTION: about numbers
CONFIG: {delay: 3}
What is 6 x 7?:
- 42
- forty-two
Is it so?: [true, Yes, 007, 1.50]
"Twice?": [once]
"Twice?": [again]
"""


def test_trivia_keeps_answers_as_written(tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "maths.yaml").write_text(TRIVIA)
    (tmp_path / "lists" / "README.md").write_text("no list")
    rows = list(read_table(SourceSpec(uri="lists", format="trivia")))
    assert rows[0] == (
        "lists/maths.yaml:4",
        {"question": "What is 6 x 7?", "answers": ["42", "forty-two"], "category": "maths"},
    )
    assert rows[1][1]["answers"] == ["true", "Yes", "007", "1.50"]
    assert [columns["question"] for _, columns in rows[2:]] == ["Twice?", "Twice?"]


def test_one_trivia_file(read):
    assert len(read(TRIVIA, "t.yaml", format="trivia")) == 4


@pytest.mark.parametrize(
    ("content", "where", "told"),
    [
        ("a: [x]\nb: y\n", "t.yaml:2", "not a list of texts"),
        ("a: [x, [y]]\n", "t.yaml:1", "not a list of texts"),
        ("a: []\n", "t.yaml:1", "not a list of texts"),
        ("a: [x]\nb: [y\nc: [z]\n", "t.yaml:3", "not valid YAML"),
        ("- a\n- b\n", "t.yaml", "not a list of `question: answers`"),
        ("AUTHOR: me\n", "t.yaml", "there are no rows"),
        ("", "t.yaml", "there are no rows"),
    ],
)
def test_bad_trivia(read, content, where, told):
    found = problem(read, content, "t.yaml", format="trivia")
    assert told in found.what
    assert found.where == where


# ---- finding the file, telling the format


@pytest.mark.parametrize("uri", ["~nobody-here/rows.csv", "sqlite:~nobody-here/rows.db"])
def test_the_home_folder_of_nobody_is_an_ordinary_name(uri):
    with pytest.raises(DataError, match="no such file"):
        list(read_table(SourceSpec(uri=uri)))


def test_a_missing_file_is_told_at_once_with_the_nearest_name(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "reviews.csv").write_text("a\nb\n")
    with pytest.raises(DataError) as caught:
        read_table(SourceSpec(uri="data/review.csv"))
    assert caught.value.problems[0].nearest == str(Path("data/reviews.csv"))
    with pytest.raises(DataError, match="no such file"):
        read_table(SourceSpec(uri="nowhere/at/all.csv"))
    with pytest.raises(DataError, match="empty path"):
        read_table(SourceSpec(uri=""))


def test_an_unknown_format_names_the_nearest(read):
    found = problem(read, "a\nb\n", format="jsonlines")
    assert (found.nearest, found.allowed) == ("jsonl", ", ".join(FORMATS))


def test_a_folder_is_no_csv(tmp_path):
    with pytest.raises(DataError, match="this is a folder"):
        read_table(SourceSpec(uri=".", format="csv"))


def test_a_file_is_no_folder(read):
    assert "not a folder" in problem(read, "a", "a.txt", format="folder").what


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.CSV", "x", "csv"),
        ("a.tab", "x", "tsv"),
        ("a.ndjson", "x", "jsonl"),
        ("a.pq", "x", "parquet"),
        ("a.txt", "id\ttext\n1\tx\n", "tsv"),
        ("a.data", "id,text\n1,x\n", "csv"),
        ("a", '[{"a": 1}]', "json"),
        ("a", '{"a": 1}\n{"a": 2}', "jsonl"),
        ("a", '{\n"a": []}', "json"),
        ("a", "PAR1...", "parquet"),
    ],
)
def test_formats_are_told(tmp_path, name, content, expected):
    (tmp_path / name).write_text(content)
    assert sniff_format(tmp_path / name) == expected


def test_a_format_that_cannot_be_told(read):
    assert problem(read, "once upon a time", "tale.txt").fix == "set `format:`"


@pytest.mark.parametrize(("ending", "pack"), [("gz", gzip), ("bz2", bz2), ("xz", lzma)])
def test_compressed_files_are_looked_through(read, ending, pack):
    content = b"text,label\n" + b"a,b\n" * 10_000
    assert len(read(pack.compress(content), f"rows.csv.{ending}")) == 10_000
    cut = pack.compress(content)[:-12]
    assert "damaged" in problem(read, cut, f"rows.csv.{ending}").what
    assert "damaged" in problem(read, b"no such thing" * 9, f"rows.csv.{ending}").what


def test_rows_of_a_known_shape_get_prompt_and_completion(read):
    (row,) = read('[{"instruction": "Add", "input": "2 2", "output": "4"}]', "alpaca.json")
    assert row[1]["prompt"] == "Add\n\n2 2"
    assert row[1]["completion"] == "4"


def test_a_member_of_a_package_is_called_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "rows.csv").write_text("a\nb\n")
    asked = []

    def fetch(uri, *, sha256, filename):
        asked.append((uri, sha256, filename))
        return tmp_path / "rows.csv"

    monkeypatch.setattr("instil.data.sources.source.fetch_member", fetch)
    spec = SourceSpec(uri="pypi:x==1/rows.csv", sha256="s", filename="x.whl")
    assert list(read_table(spec)) == [("rows.csv:2", {"a": "b"})]
    assert asked == [("pypi:x==1/rows.csv", "s", "x.whl")]


@pytest.mark.parametrize("format", ["trivia", "natural_instructions"])
def test_bad_rows_of_every_list_can_be_skipped(tmp_path, format):
    text = {
        "trivia": "Good?: [yes]\nBad?: no\n",
        "natural_instructions": json.dumps({"Instances": [{"input": "a", "output": "b"}, {}]}),
    }[format]
    (tmp_path / "rows").write_text(text)
    bad = BadRows()
    source = SourceSpec("rows", format=format, on_bad_row=OnBadRow.SKIP)
    assert len(list(read_table(source, bad=bad))) == 1
    assert len(bad.found) == 1
    with pytest.raises(DataError):
        list(read_table(replace(source, on_bad_row=OnBadRow.ERROR)))


@pytest.mark.parametrize(
    ("uri", "public"),
    [
        ("pypi:rows==1.0/rows.csv", True),
        ("npm:@of/rows@1.0/package/", True),
        ("hub:owner/name?split=train", True),
        ("made:arithmetic", True),
        ("hub:./copy", False),
        ("hub:/home/ada/copy?split=train", False),
        ("hub:~/copy", False),
        ("sqlite:/home/ada/shop.db", False),
        ("/home/ada/rows.csv", False),
    ],
)
def test_only_addresses_that_tell_nothing_of_the_machine_are_public(uri, public):
    assert is_public(uri) is public
