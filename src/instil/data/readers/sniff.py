"""How a file's format is told, and which function reads it; the formats are in `tasks.formats`."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from instil.data.readers.jsonrows import is_object
from instil.data.readers.rowfile import PlacedRow, RowFile
from instil.data.readers.tables import is_quoted_tsv
from instil.data.readers.textfile import COMPRESSED, reading
from instil.errors import DataError
from instil.tasks.formats import FORMATS

_BY_ENDING = {ending: name for name, known in FORMATS.items() for ending in known.endings}
_PACKED_OTHERWISE = (".zst", ".zstd", ".lz4", ".br", ".7z", ".rar", ".z", ".lzma", ".sz")


def placed_rows(file: RowFile) -> Iterator[PlacedRow]:
    """Read a file (or folder) whose format is known, row by row.

    Raises:
        DataError: what the reader of the format finds wrong.
    """
    module, _, function = FORMATS[file.format].reader.partition(":")
    rows: Iterator[PlacedRow] = getattr(import_module(module), function)(file)
    return rows


def sniff_format(path: Path) -> str:
    """Tell a file's format by its ending, else by how it begins.

    Args:
        path: A file or folder; `.gz`, `.bz2` and `.xz` are looked through.

    Returns:
        A name in `FORMATS`. JSON with one object a line is jsonl, whatever its ending, `.csv` too.

    Raises:
        DataError: when neither ending nor beginning tells, or the file is empty or missing.
    """
    if path.is_dir():
        return "folder"
    plain = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    by_ending = _BY_ENDING.get(plain.suffix.lower(), "")
    if by_ending not in {"", "json", "tsv", "csv"}:
        return by_ending
    with reading(path, place=path.name) as file:
        begin = file.read(1 << 20)
    if by_ending == "csv":
        return "jsonl" if _by_content(begin) == "jsonl" else "csv"
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
        allowed=", ".join(FORMATS),
        fix="unpack it first, or pack it as .gz, .bz2 or .xz" if packed else "set `format:`",
    )


def _by_content(begin: bytes) -> str:
    """The format that the first bytes of a file speak for; empty when they do not tell."""
    for name, known in FORMATS.items():
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
