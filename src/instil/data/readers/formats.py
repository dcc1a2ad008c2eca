"""The formats of files of rows, and how a file's format is told.

`READERS` is the table of what is built in: a new format is a function from a `RowFile` to placed
rows, a line here, and one in `tasks.template.FORMATS`, which says which columns it brings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from instil.data.readers.folders import read_folder
from instil.data.readers.jsonrows import is_object, read_json, read_jsonl
from instil.data.readers.natural import read_natural
from instil.data.readers.rowfile import PlacedRow, RowFile
from instil.data.readers.sheets import ENDINGS, read_spreadsheet
from instil.data.readers.sqlrows import MAGIC, read_sqlite
from instil.data.readers.tables import (
    ARROW_MAGIC,
    FEATHER_1_MAGIC,
    is_quoted_tsv,
    read_arrow,
    read_csv,
    read_parquet,
    read_tsv,
)
from instil.data.readers.textfile import COMPRESSED, reading
from instil.errors import DataError
from instil.library.mail import read_mail
from instil.library.mo import read_mo
from instil.library.trivia import read_trivia


@dataclass(frozen=True, slots=True)
class Format:
    """How rows of one format are told and read."""

    read: Callable[[RowFile], Iterator[PlacedRow]]
    """From a file (or folder) to its rows."""
    endings: tuple[str, ...] = ()
    """Of the files' names, in lower case."""
    magic: tuple[bytes, ...] = ()
    """How the files begin."""
    of_folders: bool = False
    """Whether it reads a folder."""


READERS: dict[str, Format] = {
    "csv": Format(read_csv, (".csv",)),
    "tsv": Format(read_tsv, (".tsv", ".tab")),
    "json": Format(read_json, (".json",)),
    "jsonl": Format(read_jsonl, (".jsonl", ".ndjson")),
    "parquet": Format(read_parquet, (".parquet", ".pq"), (b"PAR1",)),
    "arrow": Format(
        read_arrow,
        (".arrow", ".arrows", ".feather", ".ipc"),
        (ARROW_MAGIC, FEATHER_1_MAGIC, b"\xff\xff\xff\xff"),
    ),
    "sqlite": Format(read_sqlite, (".sqlite", ".sqlite3"), (MAGIC,)),
    "spreadsheet": Format(read_spreadsheet, ENDINGS),
    "folder": Format(read_folder, of_folders=True),
    "trivia": Format(read_trivia, of_folders=True),
    "natural_instructions": Format(read_natural),
    "mail": Format(read_mail, of_folders=True),
    "mo": Format(read_mo, (".mo",)),
}
"""Name of a format, as a task file gives it -> how it is told and read."""

_BY_ENDING = {ending: name for name, known in READERS.items() for ending in known.endings}
_PACKED_OTHERWISE = (".zst", ".zstd", ".lz4", ".br", ".7z", ".rar", ".z", ".lzma", ".sz")


def sniff_format(path: Path) -> str:
    """Tell a file's format by its ending, else by how it begins.

    Args:
        path: A file or folder; `.gz`, `.bz2` and `.xz` are looked through.

    Returns:
        A name in `READERS`. JSON with one object a line is jsonl, whatever its ending.

    Raises:
        DataError: when neither ending nor beginning tells, or the file is empty or missing.
    """
    if path.is_dir():
        return "folder"
    plain = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    by_ending = _BY_ENDING.get(plain.suffix.lower(), "")
    if by_ending not in {"", "json", "tsv"}:
        return by_ending
    with reading(path, place=path.name) as file:
        begin = file.read(1 << 20)
    if not begin.strip():
        raise DataError("the file is empty", where=path.name, fix="write rows into it")
    if by_ending == "tsv":
        return "csv" if is_quoted_tsv(begin) else "tsv"
    by_content = _by_content(begin)
    if by_ending == "json":
        several = len(begin.strip().splitlines()) > 1
        return "jsonl" if by_content == "jsonl" and several else "json"
    if by_content:
        return by_content
    packed = plain.suffix.lower() in _PACKED_OTHERWISE
    raise DataError(
        "the format cannot be told by the file's name",
        where=path.name,
        found=plain.suffix or "no ending",
        allowed=", ".join(READERS),
        fix="unpack it first, or pack it as .gz, .bz2 or .xz" if packed else "set `format:`",
    )


def _by_content(begin: bytes) -> str:
    """The format that the first bytes of a file speak for; empty when they do not tell."""
    for name, known in READERS.items():
        if known.magic and begin.startswith(known.magic):
            return name
    text = begin.decode("utf-8-sig", "replace").lstrip()
    first, newline, after = text.partition("\n")
    if text.startswith("["):
        return "json"
    if text.startswith("{"):
        return "jsonl" if is_object(first) and (after.strip() or not newline) else "json"
    if "\t" in first:
        return "csv" if is_quoted_tsv(begin) else "tsv"
    return "csv" if "," in first or ";" in first else ""
