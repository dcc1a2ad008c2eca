"""Readers of what is no table: mails, gettext catalogues, objects by name, rows that are made."""

from __future__ import annotations

import gettext
import json
import struct
from email.message import EmailMessage
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instil.data.made import MAKERS
from instil.data.mail import html_text
from instil.data.source import read_table
from instil.errors import DataError
from instil.evaluate.constraints import holds
from instil.types import SourceSpec


def read(uri: object, **how: str) -> list[tuple[str, dict[str, object]]]:
    return list(read_table(SourceSpec(uri=str(uri), **how)))


# ---- mails


def mails(folder: Path, **messages: bytes) -> list[dict[str, object]]:
    (folder / "spam").mkdir()
    for name, raw in messages.items():
        (folder / "spam" / f"{name}.eml").write_bytes(raw)
    return [columns for _, columns in read(folder, format="mail")]


def test_a_mail_gives_its_subject_and_plain_text(tmp_path: Path) -> None:
    message = EmailMessage()
    message["Subject"] = "Käse =?utf-8?q?f=C3=BCr?= alle"
    message.set_content("Grüße\r\nund mehr", cte="base64")
    message.add_alternative("<p>not this</p>", subtype="html")
    message.add_attachment(b"\x00\x01", maintype="image", subtype="png")
    (found,) = mails(tmp_path, a=message.as_bytes())
    assert found == {
        "subject": "Käse für alle",
        "body": "Grüße\nund mehr",
        "folder": "spam",
        "file": "a.eml",
    }


def test_html_is_read_as_it_is_shown(tmp_path: Path) -> None:
    raw = b"Subject: x\nContent-Type: text/html\n\n<style>p{}</style><p>Buy&nbsp;now<br>or never"
    (found,) = mails(tmp_path, a=raw)
    assert found["body"] == "Buy now\nor never"
    assert html_text("<head><title>t<body>shown</body>") == "shown"


@pytest.mark.parametrize(
    "raw",
    [
        b"Subject: x\nContent-Type: text/plain; charset=no-such\n\nhello there",
        b"Subject: x\n\nhello there",
        b"Subject: x\nContent-Type: text/plain; charset=us-ascii\n\nhello there \xff\x00",
        b"Subject: =?bad?q?x\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nhello there\n",
    ],
    ids=["charset", "plain", "bytes", "never closed"],
)
def test_a_broken_mail_is_still_a_row(tmp_path: Path, raw: bytes) -> None:
    (found,) = mails(tmp_path, a=raw)
    assert "hello there" in str(found["body"])
    assert "\0" not in str(found["body"])


def test_a_folder_without_mails_says_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(DataError, match=r"\.eml"):
        read(tmp_path, format="mail")


# ---- gettext catalogues

ENTRIES = {
    "": "Content-Type: text/plain; charset=UTF-8\n",
    "Open": "Öffnen",
    "menu\4Open": "Auf",
    "%d cup\0%d cups": "%d Tasse\0%d Tassen",
    "Untranslated": "",
}


def catalogue(entries: dict[str, str], order: str = "<") -> bytes:
    pairs = sorted((k.encode(), v.encode()) for k, v in entries.items())
    start = 28 + 16 * len(pairs)
    tables: list[list[int]] = [[], []]
    texts = b""
    for side in (0, 1):
        for pair in pairs:
            tables[side] += [len(pair[side]), start + len(texts)]
            texts += pair[side] + b"\0"
    numbers = [0x950412DE, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, 0, *tables[0], *tables[1]]
    return struct.pack(f"{order}{len(numbers)}I", *numbers) + texts


@pytest.mark.parametrize("order", ["<", ">"], ids=["little-endian", "big-endian"])
def test_a_catalogue_gives_sources_and_translations(tmp_path: Path, order: str) -> None:
    path = tmp_path / "de.mo"
    path.write_bytes(catalogue(ENTRIES, order))
    found = [columns for _, columns in read(path)]
    assert [(c["context"], c["source"], c["plural"], c["translation"]) for c in found] == [
        ("", "%d cup", "%d cups", "%d Tasse"),
        ("", "Open", "", "Öffnen"),
        ("menu", "Open", "", "Auf"),
    ]
    with open(path, "rb") as stream:  # the standard library reads the same file the same way
        assert gettext.GNUTranslations(stream).gettext("Open") == "Öffnen"


def test_a_plural_rule_is_never_run(tmp_path: Path) -> None:
    header = f"{ENTRIES['']}Plural-Forms: nplurals=2; plural=__import__('os').abort();\n"
    path = tmp_path / "de.mo"
    path.write_bytes(catalogue({**ENTRIES, "": header}))
    assert len(read(path)) == 3


@pytest.mark.parametrize("raw", [b"msgid", catalogue(ENTRIES)[:-60], catalogue(ENTRIES)[:20]])
def test_a_damaged_catalogue_is_an_error(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "de.mo"
    path.write_bytes(raw)
    with pytest.raises(DataError, match="catalogue"):
        read(path)


# ---- objects by name


def test_an_object_of_objects_is_rows_by_name(tmp_path: Path) -> None:
    path = tmp_path / "chats.json"
    path.write_text(json.dumps({"a": {"text": "hi"}, "b": {"text": "yo"}}))
    found = [columns for _, columns in read(path)]
    assert found == [{"key": "a", "text": "hi"}, {"key": "b", "text": "yo"}]


# ---- rows that are made


@pytest.mark.parametrize("name", MAKERS)
def test_the_same_seed_makes_the_same_rows_and_another_seed_others(name: str) -> None:
    first = read(f"made:{name}?rows=300&seed=3")
    assert first == read(f"made:{name}?rows=300&seed=3")
    assert first[:200] == read(f"made:{name}?rows=200&seed=3")
    assert first != read(f"made:{name}?rows=300&seed=4")
    keys = [next(iter(columns.values())) for _, columns in first]
    assert len(set(keys)) == 300


def test_made_rows_stay_what_they_were() -> None:
    """A run is repeatable only as long as these never change."""
    (_, sums), (_, asked) = (next(iter(read(f"made:{n}?rows=1"))) for n in MAKERS)
    assert sums == {
        "term": "16 x 7",
        "spoken": "16 times 7",
        "operation": "multiplication",
        "story": "16 boxes hold 7 pencils each. How many pencils is that in all?",
        "answer": "112",
        "pair": "multiplication 7 16",
    }
    assert str(asked["request"]).startswith("Give 2 different words that start with the letter W")
    assert (asked["answer"], len(asked["conditions"])) == ("window, winter", 4)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**8))
def test_every_sum_is_right(seed: int) -> None:
    signs = {"+": int.__add__, "-": int.__sub__, "x": int.__mul__, "/": int.__floordiv__}
    for _, row in read(f"made:arithmetic?rows=40&seed={seed}"):
        left, sign, right = str(row["term"]).split()
        assert signs[sign](int(left), int(right)) == int(str(row["answer"])) >= 0
        assert sign != "/" or int(left) % int(right) == 0
        assert left in str(row["story"])
        assert right in str(row["story"])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**8))
def test_every_answer_meets_its_conditions_and_not_all_of_anothers(seed: int) -> None:
    rows = [row for _, row in read(f"made:constraints?rows=40&seed={seed}")]
    for row in rows:
        assert row["conditions"]
        assert all(holds(c, str(row["answer"])) for c in row["conditions"]), row
        assert not all(holds(c, "I cannot say.") for c in row["conditions"]), row
    assert len({row["kind"] for row in rows}) >= 4


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("made:arithmetics", "did you mean: arithmetic"),
        ("made:arithmetic?row=5", "did you mean: rows"),
        ("made:arithmetic?rows=many", "whole number"),
        ("made:arithmetic?rows=0", "1 to 100000"),
    ],
)
def test_what_cannot_be_made_is_told_at_once(uri: str, told: str) -> None:
    with pytest.raises(DataError, match=told):
        read_table(SourceSpec(uri=uri))


def test_rows_are_made_one_by_one() -> None:
    rows = read_table(SourceSpec(uri="made:arithmetic?rows=100000"))
    assert len(list(islice(rows, 5))) == 5
