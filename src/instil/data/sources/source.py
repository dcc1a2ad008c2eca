"""Rows out of any source: a file or folder, an archive, a database, a package, the hub, or made.

`read_table` finds the file, tells its format, and yields its rows one by one, each with the place
it stands at::

    >>> from instil.types import OnBadRow, SourceSpec
    >>> for place, columns in read_table(SourceSpec(uri="reviews.csv")):    # doctest: +SKIP
    ...     print(place, columns)
    reviews.csv:2 {'text': 'A joy.', 'label': 'positive'}

The table of formats is `READERS`; a new one is a function from a `RowFile` to rows.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from instil.data.readers.folders import read_folder, read_trivia
from instil.data.readers.jsonrows import read_json, read_jsonl
from instil.data.readers.made import read_made
from instil.data.readers.mail import read_mail
from instil.data.readers.mo import read_mo
from instil.data.readers.natural import read_natural
from instil.data.readers.rowfile import BadRows, Faults, PlacedRow, RowFile
from instil.data.readers.shapes import normalise_shape
from instil.data.readers.sheets import ENDINGS as SHEETS
from instil.data.readers.sheets import read_spreadsheet
from instil.data.readers.sqlrows import MAGIC as SQLITE_MAGIC
from instil.data.readers.sqlrows import SQLITE, parse_sqlite, read_sqlite
from instil.data.readers.tables import (
    ARROW_MAGIC,
    FEATHER_1_MAGIC,
    is_quoted_tsv,
    read_arrow,
    read_csv,
    read_parquet,
    read_tsv,
)
from instil.data.readers.textfile import COMPRESSED, head
from instil.data.sources.archive import MEMBER
from instil.data.sources.fetch import fetch_member, unpack_local
from instil.data.sources.hub import hub_files
from instil.data.sources.uri import HUB, MADE, is_package
from instil.errors import DataError, nearest
from instil.types import OnBadRow, SourceSpec

READERS: dict[str, Callable[[RowFile], Iterator[PlacedRow]]] = {
    "csv": read_csv,
    "tsv": read_tsv,
    "json": read_json,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
    "arrow": read_arrow,
    "sqlite": read_sqlite,
    "spreadsheet": read_spreadsheet,
    "folder": read_folder,
    "trivia": read_trivia,
    "natural_instructions": read_natural,
    "mail": read_mail,
    "mo": read_mo,
}
"""Format -> the function that reads it."""

_ENDINGS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".sqlite": "sqlite",
    ".sqlite3": "sqlite",
    ".mo": "mo",
    **dict.fromkeys(SHEETS, "spreadsheet"),
}
_PACKED_OTHERWISE = (".zst", ".zstd", ".lz4", ".br", ".7z", ".rar", ".z", ".lzma", ".sz")
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


@dataclass(frozen=True, slots=True)
class _Located:
    """A file of a source, before its format is known."""

    path: Path
    place: str
    """What to call it in messages."""
    format: str
    query: str = ""


def read_table(
    source: SourceSpec,
    *,
    base: Path | None = None,
    bad: BadRows | None = None,
    notes: Counter[str] | None = None,
) -> Iterator[PlacedRow]:
    """Read the rows of a source, one by one.

    Not-a-number (NaN) in a column is read as nothing, as an empty cell is. Rows of the shapes that
    `instil.data.readers.shapes` knows (alpaca, ShareGPT, messages) get the columns `prompt` and
    `completion` (and `system`) besides their own.

    Args:
        source: Where the rows come from and how they are read.
        base: The folder that a relative path starts at; by default the working directory.
        bad: Takes up the rows that cannot be used, under `on_bad_row: skip`.
        notes: Takes up what of conversations is read otherwise than written: what -> rows.

    Returns:
        An iterator of (place, columns): `reviews.csv:2`, `data.json row 3` or `sport/001.txt`.

    Raises:
        DataError: at once for a source that is missing, cannot be fetched or has no known format;
            while reading for what the file's reader cannot use.
    """
    if source.uri.startswith(MADE):
        return read_made(source.uri)
    if source.on_bad_row is OnBadRow.ERROR:
        bad = None
    elif bad is None:
        bad = BadRows()
    files = [_row_file(found, source, bad) for found in _located(source, base)]
    rows = chain.from_iterable(READERS[name](file) for name, file in files)
    return _shaped(rows, Faults(source.uri, bad), notes=notes)


def _row_file(found: _Located, source: SourceSpec, bad: BadRows | None) -> tuple[str, RowFile]:
    """A format and the file that is read as such."""
    path, place = found.path, found.place
    format_name = found.format or source.format or sniff_format(path)
    if format_name not in READERS:
        raise DataError(
            "unknown format",
            where=place,
            found=format_name,
            allowed=", ".join(READERS),
            nearest=nearest(format_name, READERS),
        )
    if path.is_dir() and format_name not in {"folder", "trivia", "mail"}:
        raise DataError(
            f"this is a folder, and {format_name} is the format of a file",
            where=place,
            fix="name a file in it, or set `format: folder`",
        )
    query = found.query or source.query
    if query and format_name not in {"sqlite", "spreadsheet"}:
        fix = "take `query:` out, or name a SQLite database"
        raise DataError(f"a query goes with a database, not {format_name}", where=place, fix=fix)
    file = RowFile(
        path, place, encoding=source.encoding, columns=source.columns, query=query, bad=bad
    )
    return format_name, file


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
    by_ending = _ENDINGS.get(plain.suffix.lower(), "")
    if by_ending not in {"", "json", "tsv"}:
        return by_ending
    begin = head(path, place=path.name, size=1 << 20)
    if not begin.strip():
        raise DataError("the file is empty", where=path.name, fix="write rows into it")
    if by_ending == "tsv":
        return "csv" if is_quoted_tsv(begin) else "tsv"
    found = _by_content(begin)
    if by_ending == "json":
        several = len(begin.strip().splitlines()) > 1
        return "jsonl" if found == "jsonl" and several else "json"
    if not found:
        raise DataError(
            "the format cannot be told by the file's name",
            where=path.name,
            found=plain.suffix or "no ending",
            allowed=", ".join(READERS),
            fix="unpack it first, or pack it as .gz, .bz2 or .xz"
            if plain.suffix.lower() in _PACKED_OTHERWISE
            else "set `format:`",
        )
    return found


def _located(source: SourceSpec, base: Path | None) -> list[_Located]:
    """The files (or the folder) of a source, in order."""
    uri = source.uri
    if is_package(uri):
        path = fetch_member(uri, sha256=source.sha256, filename=source.filename)
        return [_unpacked(path, (), place=path.name)]
    if uri.startswith(HUB):
        found = hub_files(uri, base=base or Path())
        return [_unpacked(file, (), place=place) for place, file in found]
    if uri.startswith(SQLITE):
        name, query = parse_sqlite(uri)
        return [_Located(_existing(name, base), name, "sqlite", query)]
    name, *members = uri.split(MEMBER)
    if len(members) == 1 and name.lower().endswith(SHEETS):
        return [_Located(_existing(name, base), name, "spreadsheet", members[0])]
    return [_unpacked(_existing(name, base), members, place=name)]


def _unpacked(path: Path, members: Sequence[str], *, place: str) -> _Located:
    """The file itself or, where it is an archive, the file in it."""
    if not members and (path.is_dir() or not path.name.lower().endswith(_ARCHIVES)):
        return _Located(path, place, "")
    found = unpack_local(path, members, label=place)
    inner = members[-1].rstrip("/") if members else found.name
    return _Located(found, f"{place}{MEMBER}{inner}", "")


def _existing(uri: str, base: Path | None) -> Path:
    """The local file or folder of this name."""
    if "\0" in uri:
        raise DataError("the path has a zero byte in it", where=uri)
    path = (base or Path()) / Path(uri).expanduser()
    if not uri.strip():
        raise DataError("the source has an empty path", fix="set `uri:`")
    if path.exists() and not path.is_file() and not path.is_dir():
        what = "this is a device or a pipe, and rows are read more than once"
        raise DataError(what, where=uri, fix="save it as a file first")
    if not path.exists():
        siblings = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
        near = nearest(path.name, siblings)
        raise DataError(
            "there is no such file or folder",
            where=uri,
            found=str(path.absolute()),
            nearest=str(Path(uri).with_name(near)) if near else "",
        )
    return path


def _by_content(begin: bytes) -> str:
    """The format that the first bytes of a file speak for; empty when they do not tell."""
    for magic, name in _MAGIC.items():
        if begin.startswith(magic):
            return name
    text = begin.decode("utf-8-sig", "replace").lstrip()
    first, newline, after = text.partition("\n")
    if text.startswith("["):
        return "json"
    if text.startswith("{"):
        return "jsonl" if _is_object(first) and (after.strip() or not newline) else "json"
    if "\t" in first:
        return "csv" if is_quoted_tsv(begin) else "tsv"
    return "csv" if "," in first or ";" in first else ""


_MAGIC = {
    b"PAR1": "parquet",
    ARROW_MAGIC: "arrow",
    FEATHER_1_MAGIC: "arrow",
    b"\xff\xff\xff\xff": "arrow",
    SQLITE_MAGIC: "sqlite",
}
"""How files of a format begin."""


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _without_nan(columns: dict[str, object]) -> dict[str, object]:
    """Take not-a-number for nothing, so that every later stage has one rule for what is missing."""
    if not any(isinstance(value, float) and math.isnan(value) for value in columns.values()):
        return columns
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in columns.items()
    }


def _shaped(
    rows: Iterator[PlacedRow], faults: Faults, *, notes: Counter[str] | None
) -> Iterator[PlacedRow]:
    for place, columns in rows:
        try:
            shaped = normalise_shape(_without_nan(columns), place=place, notes=notes)
        except DataError as error:
            # A bad row counts once; the first one that stops the reading is told in full.
            faults.add(error.problems[0])
            if faults.count == 1:
                faults.problems[:] = error.problems
            continue
        if not faults.count:
            yield place, shaped
    faults.done(rows=1)
