"""The formats of sources: which columns each brings, how its files are told, and what reads them.

The one table of them. Task files name a format, and templates may use its columns, before any row
is read; so a reader, which lies above this module (`data.readers`), is named by where it is found
and imported when a file of its format is read. `tests/data/test_formats.py` finds each of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Format:
    """How rows of one format are told and read."""

    reader: str
    """Module and function, from a `RowFile` to placed rows."""
    endings: tuple[str, ...] = ()
    """Of the files' names, in lower case."""
    magic: tuple[bytes, ...] = ()
    """How the files begin."""
    columns: tuple[str, ...] = ()
    """What a row has; empty: the file's own."""
    of_folders: bool = False
    """Whether it reads a folder."""


_READERS = "instil.data.readers."
_LIBRARY = "instil.library."

FORMATS: Mapping[str, Format] = {
    "csv": Format(f"{_READERS}tables:read_csv", (".csv",)),
    "tsv": Format(f"{_READERS}tables:read_tsv", (".tsv", ".tab")),
    "json": Format(f"{_READERS}jsonrows:read_json", (".json",)),
    "jsonl": Format(f"{_READERS}jsonrows:read_jsonl", (".jsonl", ".ndjson")),
    "parquet": Format(f"{_READERS}tables:read_parquet", (".parquet", ".pq"), (b"PAR1",)),
    "arrow": Format(
        f"{_READERS}tables:read_arrow",
        (".arrow", ".arrows", ".feather", ".ipc"),
        (b"ARROW1", b"FEA1", b"\xff\xff\xff\xff"),
    ),
    "sqlite": Format(
        f"{_READERS}sqlrows:read_sqlite", (".sqlite", ".sqlite3"), (b"SQLite format 3\0",)
    ),
    "spreadsheet": Format(
        f"{_READERS}sheets:read_spreadsheet", (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")
    ),
    "folder": Format(
        f"{_READERS}folders:read_folder",
        columns=("text", "folder", "file", "first_line", "rest"),
        of_folders=True,
    ),
    "trivia": Format(
        f"{_LIBRARY}trivia:read_trivia",
        columns=("question", "answers", "category"),
        of_folders=True,
    ),
    "natural_instructions": Format(
        f"{_READERS}natural:read_natural", columns=("id", "input", "output", "outputs")
    ),
    "mail": Format(
        f"{_LIBRARY}mail:read_mail",
        columns=("subject", "body", "folder", "file"),
        of_folders=True,
    ),
    "mo": Format(
        f"{_LIBRARY}mo:read_mo",
        (".mo",),
        columns=("context", "source", "plural", "translation"),
    ),
}
"""Name of a format, as a task file gives it -> how it is told and read."""
