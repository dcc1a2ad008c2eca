"""Folders of e-mails."""

from __future__ import annotations

from email.message import EmailMessage
from pathlib import Path

import pytest

from instil.data.sources.source import read_table
from instil.errors import DataError
from instil.library.mail import html_text
from instil.types import SourceSpec


def read(uri: object, **how: str) -> list[tuple[str, dict[str, object]]]:
    return list(read_table(SourceSpec(uri=str(uri), **how)))


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


def test_a_mail_that_names_no_encoding_is_in_the_sources(tmp_path: Path) -> None:
    (tmp_path / "a.eml").write_bytes("Subject: x\r\n\r\nGrüße".encode("latin-1"))
    (tmp_path / "b.eml").write_bytes(
        b"Subject: x\r\nContent-Type: text/plain; charset=no-such\r\n\r\nGr\xfc\xdfe"
    )
    bodies = [row["body"] for _, row in read(tmp_path, format="mail", encoding="latin-1")]
    assert bodies == ["Grüße", "Grüße"]


@pytest.mark.parametrize(
    "name", ["00001.7c53336b37003a9286aba55d2945844c", "1700000000.M5P7.host:2,S", "1"]
)
def test_mails_named_as_collections_and_mail_folders_name_them(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"Subject: x\n\nhello there")
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8")
    ((_, row),) = read(tmp_path, format="mail")
    assert (row["file"], row["body"]) == (name, "hello there")


def test_a_folder_without_mails_says_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(DataError, match=r"\.eml"):
        read(tmp_path, format="mail")
