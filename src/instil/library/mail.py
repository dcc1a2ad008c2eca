"""Reader of folders of e-mails, one message a file, as mail programs keep them.

The standard library's parser does the work: it puts parts together and resolves encodings. Nothing
that a message carries is opened, and pictures, attachments and links stay where they are.
"""

from __future__ import annotations

import contextlib
import email
import email.policy
import re
from collections.abc import Iterator
from email.message import EmailMessage, Message
from html.parser import HTMLParser

from instil.data.readers.folders import endings_found, files_of
from instil.data.readers.rowfile import Faults, PlacedRow, RowFile
from instil.data.readers.textfile import reading

MAIL_ENDINGS = (".eml", ".txt", ".msg", "")
"""Files of a folder that are messages."""
_ALSO = re.compile(r"\.[0-9a-f]{32}|\..*:2,[a-z]*")
"""Endings of messages in collections that name them by a digest, and in a Maildir."""
_HEAD_ENDS = re.compile(rb"\r?\n\r?\n")

_SILENT = frozenset({"style", "script", "head", "title"})
"""HTML elements whose text nobody reads."""


def read_mail(file: RowFile) -> Iterator[PlacedRow]:
    """Read a folder of e-mails.

    Columns: `subject`, `body` (the plain text, or else the HTML without its tags; empty for a
    message without text), `folder` (the path below the folder that was given, often the label) and
    `file` (the name). A text that names no encoding, or a wrong one, is in the source's.

    Raises:
        DataError: for a folder without messages; for a file that cannot be read.
    """
    rows = 0
    for path, place, where in files_of(file, MAIL_ENDINGS, also=_ALSO):
        rows += 1
        with reading(path, place=place) as stream:
            subject, body = _subject_and_body(stream.read(), encoding=file.encoding)
        yield place, {"subject": subject, "body": body, **where}
    Faults(file.place).done(rows=rows, fix=endings_found(file, MAIL_ENDINGS))


def _subject_and_body(raw: bytes, *, encoding: str) -> tuple[str, str]:
    """Parse a message; old and forged mails break every rule: plain text is the fallback."""
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    try:
        subject = str(message["subject"] or "")
    except (ValueError, IndexError, AttributeError, LookupError):  # a header nobody can parse
        head = _HEAD_ENDS.split(raw, maxsplit=1)[0].decode("ascii", "replace").splitlines()
        lines = (line[8:].strip() for line in head if line.lower().startswith("subject:"))
        subject = next(lines, "")
    try:
        part = message.get_body(("plain", "html"))
        text = _decoded(part, encoding) if part is not None else ""
        is_html = part is not None and part.get_content_type() == "text/html"
    except (LookupError, ValueError, AttributeError, AssertionError, KeyError):
        text, is_html = b"".join(_HEAD_ENDS.split(raw, 1)[1:]).decode(encoding, "replace"), False
    text = text.replace("\r\n", "\n")
    if is_html or "<html" in text[:2000].lower():
        text = html_text(text)
    return " ".join(_clean(subject).split()), _clean(text).strip()


def _decoded(part: Message, encoding: str) -> str:
    """The text of a part, by the encoding that it names; by `encoding` where that cannot be."""
    raw = part.get_payload(decode=True)
    assert isinstance(raw, bytes), "a part with text has no parts of its own"
    for name in (part.get_content_charset(), encoding):
        with contextlib.suppress(LookupError, UnicodeDecodeError):
            if name:
                return raw.decode(name)
    return raw.decode(encoding, "replace")


def _clean(text: str) -> str:
    """Without zero bytes and halves of surrogate pairs, which no tokenizer takes."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "")


def html_text(source: str) -> str:
    r"""Return the text of an HTML page, a line break where a block or `<br>` ends.

    >>> html_text("<p>Buy <b>now</b></p><script>x()</script><p>R&amp;D</p>")
    'Buy now\nR&D'
    """
    reader = _Text()
    reader.feed(source)
    reader.close()
    lines = (" ".join(line.split()) for line in "".join(reader.pieces).split("\n"))
    return "\n".join(line for line in lines if line)


class _Text(HTMLParser):
    """Collects what a reader of the page sees."""

    _BREAKS = frozenset("p br div tr li h1 h2 h3 h4 table hr ul".split())

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self.silent = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        """Note a break, or the beginning of what is not shown."""
        if tag in _SILENT and not self.silent:
            self.silent = tag
        elif tag == "body":
            self.silent = ""  # many mails never close their head
        elif tag in self._BREAKS:
            self.pieces.append("\n")

    def handle_endtag(self, tag: str) -> None:
        """Note a break, or the end of what is not shown."""
        if tag == self.silent:
            self.silent = ""
        elif tag in self._BREAKS:
            self.pieces.append("\n")

    def handle_data(self, data: str) -> None:
        """Keep text that is shown; its own line breaks are spaces."""
        if not self.silent:
            self.pieces.append(data.replace("\n", " "))
