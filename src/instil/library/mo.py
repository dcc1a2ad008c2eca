"""Reader of compiled gettext catalogues (`.mo`): texts of a program and their translations.

The standard library's own reader compiles the catalogue's rule for plurals into Python, which is
more trust than a downloaded file should get; the format is simple, so it is read here (GNU gettext
manual, "The Format of GNU MO Files")::

    magic, revision, number of texts N, offset of table O, offset of table T     (32 bit each)
    O: N pairs (length, offset) of the sources      T: the same for the translations
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from instil.data.readers.rowfile import Faults, PlacedRow, RowFile, excerpt
from instil.data.readers.textfile import reading
from instil.errors import DataError

_MAGIC = {b"\xde\x12\x04\x95": "<", b"\x95\x04\x12\xde": ">"}
"""First four bytes -> byte order."""


def read_mo(file: RowFile) -> Iterator[PlacedRow]:
    """Read a catalogue; its header, and texts that are not translated, are no rows.

    Columns: `source` (the text to translate), `translation`, `context` (what tells two equal texts
    apart) and `plural` (the source's plural, where there is one; `translation` is then that of the
    singular).

    Raises:
        DataError: for a file that is no catalogue, is damaged, or has no translations.
    """
    with reading(file.path, place=file.place) as stream:
        raw = stream.read()
    order = _MAGIC.get(raw[:4])
    if order is None:
        raise DataError(
            "this is not a compiled gettext catalogue",
            where=file.place,
            allowed="a .mo file; `msgfmt` makes one of a .po file",
        )
    rows, encoding = 0, "utf-8"
    try:
        count, sources, translations = struct.unpack_from(f"{order}3I", raw, 8)
        for number in range(count):
            own = _entry(raw, sources + 8 * number, order=order)
            other = _entry(raw, translations + 8 * number, order=order)
            if not own:  # the header
                charset = re.search(rb"charset=([\w.-]+)", other)
                encoding = charset[1].decode("ascii") if charset else encoding
            source, translation = own.decode(encoding), other.decode(encoding)
            if not source or not translation:
                continue
            rows += 1
            context, _, text = source.rpartition("\x04")
            single, _, plural = text.partition("\0")
            yield (
                f"{file.place} row {rows}",
                {
                    "context": context,
                    "source": single,
                    "plural": plural,
                    "translation": translation.partition("\0")[0],
                },
            )
    except (struct.error, UnicodeError, LookupError, IndexError) as error:
        what = f"this catalogue is damaged: {excerpt(str(error))}"
        raise DataError(what, where=file.place, fix="get the file again") from error
    Faults(file.place).done(rows=rows, fix="a catalogue with at least one translation is needed")


def _entry(raw: bytes, table: int, *, order: str) -> bytes:
    length, offset = struct.unpack_from(f"{order}2I", raw, table)
    if offset + length > len(raw):
        raise IndexError("a text lies beyond its end")
    return raw[offset : offset + length]
