"""Rows out of any source: a local file or folder, a file out of a package, or rows that are made.

`read_table` finds the file, tells its format, and yields its rows one by one, each with the place
it stands at::

    >>> from instil.types import SourceSpec
    >>> for place, columns in read_table(SourceSpec(uri="reviews.csv")):    # doctest: +SKIP
    ...     print(place, columns)
    reviews.csv:2 {'text': 'A joy.', 'label': 'positive'}

The table of formats is `READERS`; a new one is a function from a `RowFile` to rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from instil.data.fetch import fetch_member
from instil.data.folders import read_folder, read_trivia
from instil.data.jsonrows import read_json, read_jsonl
from instil.data.made import read_made
from instil.data.mail import read_mail
from instil.data.mo import read_mo
from instil.data.rowfile import PlacedRow, RowFile
from instil.data.shapes import normalise_shape
from instil.data.tables import read_csv, read_parquet, read_tsv
from instil.data.textfile import COMPRESSED, head
from instil.data.uri import MADE, is_package
from instil.errors import DataError, Problem, nearest
from instil.types import SourceSpec

READERS: dict[str, Callable[[RowFile], Iterator[PlacedRow]]] = {
    "csv": read_csv,
    "tsv": read_tsv,
    "json": read_json,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
    "folder": read_folder,
    "trivia": read_trivia,
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
    ".mo": "mo",
}


def read_table(source: SourceSpec, *, base: Path | None = None) -> Iterator[PlacedRow]:
    """Read the rows of a source, one by one.

    Rows of the shapes that `instil.data.shapes` knows (alpaca, ShareGPT, messages) get the columns
    `prompt` and `completion` (and `system`) besides their own.

    Args:
        source: Where the rows come from and how they are read.
        base: The folder that a relative path starts at; by default the working directory.

    Returns:
        An iterator of (place, columns): `reviews.csv:2`, `data.json row 3` or `sport/001.txt`.

    Raises:
        DataError: at once for a source that is missing, cannot be fetched or has no known format;
            while reading for what the file's reader cannot use.
    """
    if source.uri.startswith(MADE):
        return read_made(source.uri)
    path, place = _located(source, base)
    format_name = source.format or sniff_format(path)
    if format_name not in READERS:
        raise DataError(
            Problem(
                "unknown format",
                where=place,
                found=format_name,
                allowed=", ".join(READERS),
                nearest=nearest(format_name, READERS),
            )
        )
    if path.is_dir() and format_name not in {"folder", "trivia", "mail"}:
        raise DataError(
            Problem(
                f"this is a folder, and {format_name} is the format of a file",
                where=place,
                fix="name a file in it, or set `format: folder`",
            )
        )
    file = RowFile(path, place, encoding=source.encoding, columns=source.columns)
    return _shaped(READERS[format_name](file))


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
    if by_ending not in {"", "json"}:
        return by_ending
    begin = head(path, place=path.name)
    if not begin.strip():
        raise DataError(Problem("the file is empty", where=path.name, fix="write rows into it"))
    found = _by_content(begin)
    if by_ending == "json":
        several = len(begin.strip().splitlines()) > 1
        return "jsonl" if found == "jsonl" and several else "json"
    if not found:
        raise DataError(
            Problem(
                "the format cannot be told by the file's name",
                where=path.name,
                found=plain.suffix or "no ending",
                allowed=", ".join(READERS),
                fix="set `format:`",
            )
        )
    return found


def _located(source: SourceSpec, base: Path | None) -> tuple[Path, str]:
    """The file or folder, and what to call it in messages."""
    if is_package(source.uri):
        path = fetch_member(source.uri, sha256=source.sha256, filename=source.filename)
        return path, path.name
    path = (base or Path()) / Path(source.uri).expanduser()
    if not source.uri.strip():
        raise DataError(Problem("the source has an empty path", fix="set `uri:`"))
    if not path.exists():
        siblings = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
        near = nearest(path.name, siblings)
        raise DataError(
            Problem(
                "there is no such file or folder",
                where=source.uri,
                found=str(path.absolute()),
                nearest=str(Path(source.uri).with_name(near)) if near else "",
            )
        )
    return path, source.uri


def _by_content(begin: bytes) -> str:
    """The format that the first bytes of a file speak for; empty when they do not tell."""
    if begin.startswith(b"PAR1"):
        return "parquet"
    text = begin.decode("utf-8-sig", "replace").lstrip()
    first, newline, after = text.partition("\n")
    if text.startswith("["):
        return "json"
    if text.startswith("{"):
        return "jsonl" if _is_object(first) and (after.strip() or not newline) else "json"
    if "\t" in first:
        return "tsv"
    return "csv" if "," in first or ";" in first else ""


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _shaped(rows: Iterator[PlacedRow]) -> Iterator[PlacedRow]:
    for place, columns in rows:
        yield place, normalise_shape(columns, place=place)
