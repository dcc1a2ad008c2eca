"""Gettext catalogues."""

from __future__ import annotations

import gettext
import struct
from pathlib import Path

import pytest

from instil.data.sources.source import read_table
from instil.errors import DataError
from instil.types import SourceSpec


def read(uri: object, **how: str) -> list[tuple[str, dict[str, object]]]:
    return list(read_table(SourceSpec(uri=str(uri), **how)))


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
