"""Opening text files: encodings, byte order marks, compression, and errors that name the byte.

A text that is not in the encoding it is said to be in ends in an error such as::

    reviews.csv:17: byte 0xE9 (offset 1204 of the file) is not UTF-8
      found: read as latin-1: a café by the sea
      to fix: encoding: latin-1

`encoding: utf-8, latin-1` reads each file in the first of the two that all its bytes fit: some
published folders hold a few Latin-1 files among UTF-8 ones.

Tests: `tests/data/test_readers.py`.
"""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, cast

from instil.data.readers.rowfile import RowFile
from instil.data.sources.limits import LINE, UNPACKED, line_bytes, too_much, unpacked_bytes
from instil.errors import DataError, nearest

_CHUNK = 1 << 16

COMPRESSED: dict[str, Callable[[Path], IO[bytes]]] = {
    ".gz": lambda path: cast(IO[bytes], gzip.open(path, "rb")),
    ".bz2": lambda path: bz2.open(path, "rb"),
    ".xz": lambda path: lzma.open(path, "rb"),
}
"""Endings of compressed files (`reviews.csv.bz2`), and how they are opened."""

_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_ESCAPED = re.compile("[\udc80-\udcff]")
_COMMON = ("utf-8", "utf-16", "latin-1", "cp1252", "ascii", "shift_jis", "gb18030", "big5")


@contextmanager
def reading(path: Path, *, place: str) -> Iterator[IO[bytes]]:
    """Open a file's bytes, unpacked where it is compressed.

    Raises:
        DataError: when it is missing, may not be read, or its compression is damaged.
    """
    opener = COMPRESSED.get(path.suffix.lower())
    try:
        if opener is None:
            with path.open("rb") as file:
                yield file
        else:
            allowed = unpacked_bytes(path.stat().st_size)
            with opener(path) as packed:
                yield io.BufferedReader(_Unpacked(packed, allowed, place=place), _CHUNK)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise _damaged(place, error) from error
    except OSError as error:
        if error.errno is None:  # as bz2 reports damage
            raise _damaged(place, error) from error
        what = f"the file cannot be read: {error.strerror}"
        raise DataError(what, where=place) from error


@contextmanager
def reading_text(
    path: Path,
    *,
    encoding: str,
    place: str,
    newline: str | None = None,
    keep_bad_bytes: bool = False,
) -> Iterator[IO[str]]:
    """Open a file's text; a byte order mark is taken off.

    Args:
        path: The file.
        encoding: Its encoding, as Python names it, or several to try, parted by commas.
        place: What to call the file in messages.
        newline: As for `open`: None turns every line ending into a line feed.
        keep_bad_bytes: Read bytes that are not in the encoding as lone surrogates, for `bad_bytes`
            to find, where the encoding lets the reader go on after them.

    Raises:
        DataError: as `reading`; for an unknown encoding; for bytes that are not in it.
    """
    codecs_allowed = [_codec(name.strip(), place=place) for name in encoding.split(",")]
    codec = _fitting(path, codecs_allowed, place=place)
    try:
        errors = "surrogateescape" if keep_bad_bytes else "strict"
        with (
            reading(path, place=place) as file,
            io.TextIOWrapper(file, codec, errors, newline) as text,
        ):
            yield text
    except UnicodeError as error:
        raise _undecodable(path, codec, place=place) from error


def text_of(file: RowFile, *, newline: str | None = None) -> AbstractContextManager[IO[str]]:
    """Open the text of a file of rows; raises as `reading_text`."""
    keep = file.bad is not None
    return reading_text(
        file.path,
        encoding=file.encoding,
        place=file.place,
        newline=newline,
        keep_bad_bytes=keep,
    )


class _Unpacked(io.RawIOBase):
    """The bytes of a packed file, up to a limit."""

    def __init__(self, packed: IO[bytes], allowed: int, *, place: str) -> None:
        self.packed, self.allowed, self.place = packed, allowed, place

    def readable(self) -> bool:
        """Whether bytes can be read: yes."""
        return True

    def seekable(self) -> bool:
        """Whether one may go to another place: yes, by reading what lies between."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read on."""
        data = self.packed.read(len(buffer))
        buffer[: len(data)] = data
        self._check(self.packed.tell())
        return len(data)

    def tell(self) -> int:
        """Return the place."""
        return self.packed.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        if whence == io.SEEK_END:
            while self.packed.read(_CHUNK):
                self._check(self.packed.tell())
        target = offset if whence == io.SEEK_SET else self.packed.tell() + offset
        self._check(target)
        return self.packed.seek(target)

    def _check(self, place: int) -> None:
        if place > self.allowed:
            what = "the packed file unpacks to more bytes than its size lets expect"
            raise too_much(what, limit=self.allowed, name=UNPACKED, where=self.place)


def lines_of(text: IO[str], *, place: str) -> Iterator[str]:
    """Read a text line by line.

    Raises:
        DataError: A line is longer than any should be.
    """
    limit, number = line_bytes(), 0
    while line := text.readline(limit + 1):
        number += 1
        if len(line) > limit:
            what = "this line has more characters than are read"
            raise too_much(what, limit=limit, name=LINE, where=f"{place}:{number}")
        yield line


def bad_bytes(cells: Iterable[str], encoding: str) -> str:
    r"""Say which byte of a row is not in the encoding; empty where all are.

    >>> bad_bytes([b"caf\xe9".decode("utf-8", "surrogateescape")], "utf-8")
    'byte 0xE9 is not utf-8'
    """
    escaped = next((match for cell in cells if (match := _ESCAPED.search(cell))), None)
    return f"byte 0x{ord(escaped[0]) - 0xDC00:02X} is not {encoding}" if escaped else ""


def _fitting(path: Path, names: Sequence[str], *, place: str) -> str:
    """The first codec that all of the file fits; the first of all when there is none."""
    for name in names if len(names) > 1 else ():
        decoder = codecs.getincrementaldecoder(name)()
        with reading(path, place=place) as file, contextlib.suppress(UnicodeError):
            while chunk := file.read(1 << 20):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
            return name
    return names[0]


def _codec(encoding: str, *, place: str) -> str:
    """The codec's own name; UTF-8 is read with or without a byte order mark."""
    try:
        name = codecs.lookup(encoding).name
        "".encode(name)  # some codecs (rot13, zlib) are not for text
    except (LookupError, ValueError):  # ValueError: a zero byte in the name
        raise DataError(
            "unknown encoding",
            where=place,
            found=encoding,
            allowed=", ".join(_COMMON) + ", or another that Python knows",
            nearest=nearest(encoding, _COMMON),
        ) from None
    return "utf-8-sig" if name == "utf-8" else name


_CONTROLS = re.compile(rb"[\x80-\x9f]")
"""Control codes in Latin-1, curly quotes and dashes in cp1252."""


def _fits(line: bytes, codec: str) -> bool:
    try:
        line.decode(codec)
    except UnicodeDecodeError:
        return False
    return True


_FOREIGN = "--encoding NAME, such as cp1251 (Cyrillic), cp1256 (Arabic), gb18030 (Chinese)"
_SCRIPTS = {
    "cp932": ("[\u3040-\u30ff]", 0.25),
    "cp1255": ("[\u05d0-\u05ea]", 0.85),
    "cp1253": ("(?<=[\u03b1-\u03c9])[\u03ac-\u03af]", 0.01),  # accents within words
    "cp1251": ("[\u0430-\u044f\u0451]", 0.85),
    "koi8-r": ("[\u0430-\u044f\u0451]", 0.85),
    "euc_kr": ("[\uac00-\ud7a3]", 0.8),
    "gb18030": ("[\u4e00-\u9fff\u3000-\u303f\uff00-\uffef]", 0.6),
}
"""Encodings that files come in: what the script of each is told by, and how much of a text is."""
_OTHERS = {
    "cp1251": "or cp1255, where it should be Hebrew",
    "gb18030": "or big5, where they should be traditional characters",
    "cp1252": "or cp1254 for Turkish, cp1250 for Polish and Czech",
    "latin-1": "or cp1254 for Turkish, cp1250 for Polish and Czech",
}
"""What a text may be in as well, since its bytes fit both."""
_SAMPLE = 1000
"""Lines by which another script is told."""
_NO_WORD = re.compile(rb"[\xc0-\xff]{4}|(?:[\x81-\xfe][\x40-\xfe]){2}[\x81-\xfe]")
"""Bytes that in cp1252 and Latin-1 are no part of any word: too many accents in a row."""
_HIGH, _BESIDE = (
    re.compile(rb"[\x81-\xff]"),
    re.compile(rb"[A-Za-z](?=[\x81-\xff])|(?<=[\x81-\xff])[A-Za-z]"),
)


def _guessed(lines: Iterator[bytes], *, failed: str) -> str:
    """Guess the encoding of lines that are not in the one that failed; empty: no guess."""
    text = b"".join(islice(lines, _SAMPLE))
    scripts = _SCRIPTS if _NO_WORD.search(text) else {}
    # Letters of the Latin alphabet stand among others; only Japanese has them as half a character.
    latin = len(_BESIDE.findall(text)) >= 0.8 * len(_HIGH.findall(text))
    for codec, (script, least) in scripts.items():
        if codec == failed or not _fits(text, codec) or (latin and codec != "cp932"):
            continue
        # Russian without its vowels beyond these fits Hebrew: yod and he are commoner there than
        # the letters which \u043e and \u0438 would be.
        if codec == "cp1255" and _often(text, b"\xe9\xe4") < _often(text, b"\xee\xe8"):
            continue
        said = text.decode(codec)
        foreign = sum(not sign.isascii() for sign in said)
        if len(re.findall(script, said)) >= least * foreign:
            return codec
    if scripts and not latin:
        return ""
    western = "cp1252" if any(map(_CONTROLS.search, chain([text], lines))) else "latin-1"
    return western if western != failed and _fits(text, western) else ""


def _often(text: bytes, letters: bytes) -> int:
    return sum(text.count(letter) for letter in letters)


def _undecodable(path: Path, codec: str, *, place: str) -> DataError:
    """Read the file again, line by line, to find the first byte that does not fit."""
    name = "UTF-8" if codec.startswith("utf-8") else codec
    offset = 0
    with reading(path, place=place) as file:
        begin = file.read(1 << 16)
        mark = next((m for m in _MARKS if begin.startswith(m)), b"")
        if mark:
            what = f"this is not {name}: it begins with the mark of {_MARKS[mark]}"
            return DataError(what, where=f"{place}:1", fix=f"encoding: {_MARKS[mark]}")
        if b"\0" in begin:
            return DataError(
                "this is not a text file: it has bytes of value 0",
                where=place,
                allowed="CSV, TSV, JSON, JSONL or Parquet",
                fix="save a spreadsheet as CSV; name a packed file .gz, .bz2 or .xz",
            )
        file.seek(0)
        for number, line in enumerate(file, start=1):
            try:
                line.decode(codec)
            except UnicodeDecodeError as error:
                start = error.start
                others = (later for later in file if not _fits(later, codec))
                guess = _guessed(chain([line], others), failed=codec)
                what = f"byte 0x{line[start]:02X} (offset {offset + start} of the file)"
                what, where = f"{what} is not {name}", f"{place}:{number}"
                if not guess:
                    fix = f"save the file as UTF-8, or name what it is in: {_FOREIGN}"
                    return DataError(what, where=where, fix=fix)
                also = f" {_OTHERS[guess]}" if guess in _OTHERS else ""
                around = line[max(0, start - 30) : start + 30].decode(guess, "replace")
                return DataError(
                    what,
                    where=where,
                    found=f"read as {guess}: {around.strip()}",
                    fix=f"encoding: {guess}{also}   (`utf-8, {guess}` in a folder whose other "
                    f"files are UTF-8; `--encoding {guess}` on the command line)",
                )
            offset += len(line)
    return DataError(f"the text is not {name}", where=place, fix="set `encoding:` to the right one")


def _damaged(place: str, error: Exception) -> DataError:
    return DataError(
        f"the compressed file is damaged: {error}", where=place, fix="get the file again"
    )
