"""Rows out of any source: a file or folder, an archive, a database, a package, the hub, or made.

`read_table` finds the file, tells its format, and yields its rows one by one, each with the place
it stands at::

    >>> from instil.types import OnBadRow, SourceSpec
    >>> for place, columns in read_table(SourceSpec(uri="reviews.csv")):    # doctest: +SKIP
    ...     print(place, columns)
    reviews.csv:2 {'text': 'A joy.', 'label': 'positive'}

The table of formats is `FORMATS` in `tasks.formats`.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from instil.data.readers.rowfile import BadRows, Faults, PlacedRow, RowFile
from instil.data.readers.shapes import normalise_shape
from instil.data.readers.sniff import placed_rows, sniff_format
from instil.data.readers.sqlrows import SQLITE, parse_sqlite
from instil.data.sources.archive import MEMBER
from instil.data.sources.fetch import fetch_member, unpack_local
from instil.data.sources.hub import hub_files
from instil.data.sources.uri import HUB, MADE, is_package
from instil.errors import DataError, nearest
from instil.library.made import read_made
from instil.tasks.formats import FORMATS
from instil.types import OnBadRow, SourceSpec

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def read_table(
    source: SourceSpec,
    *,
    bad: BadRows | None = None,
    notes: Counter[str] | None = None,
    waiting: bool = False,
) -> Iterator[PlacedRow]:
    """Read the rows of a source, one by one.

    Not-a-number (NaN) in a column is read as nothing, as an empty cell is. Rows of the shapes that
    `instil.data.readers.shapes` knows (alpaca, ShareGPT, messages) get the columns `prompt` and
    `completion` (and `system`) besides their own.

    Args:
        source: Where the rows come from and how they are read.
        bad: Takes up the rows that cannot be used, under `on_bad_row: skip`.
        notes: Takes up what of conversations is read otherwise than written: what -> rows.
        waiting: Conversations that end with a question are read up to there, to be answered.

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
    files = [_checked(file, source, bad) for file in _located(source)]
    rows = chain.from_iterable(placed_rows(file) for file in files)
    return _shaped(rows, Faults(source.uri, bad), notes=notes, waiting=waiting)


def _checked(file: RowFile, source: SourceSpec, bad: BadRows | None) -> RowFile:
    """The file with all that says how it is read, of which each part fits the format."""
    name = file.format or source.format or sniff_format(file.path)
    if name not in FORMATS:
        raise DataError(
            "unknown format",
            where=file.place,
            found=name,
            allowed=", ".join(FORMATS),
            nearest=nearest(name, FORMATS),
        )
    if file.path.is_dir() and not FORMATS[name].of_folders:
        what = f"this is a folder, and {name} is the format of a file"
        raise DataError(what, where=file.place, fix="name a file in it, or set `format: folder`")
    query = file.query or source.query
    if query and name not in {"sqlite", "spreadsheet"}:
        fix = "take `query:` out, or name a SQLite database"
        raise DataError(f"a query goes with a database, not {name}", where=file.place, fix=fix)
    encoding, columns = source.encoding, source.columns
    return replace(file, format=name, query=query, encoding=encoding, columns=columns, bad=bad)


def _located(source: SourceSpec) -> list[RowFile]:
    """The files (or the folder) of a source, in order."""
    uri = source.uri
    if is_package(uri):
        path = fetch_member(uri, sha256=source.sha256, filename=source.filename)
        return [_unpacked(path, (), place=path.name)]
    if uri.startswith(HUB):
        return [_unpacked(file, (), place=place) for place, file in hub_files(uri)]
    if uri.startswith(SQLITE):
        name, query = parse_sqlite(uri)
        return [RowFile(_existing(name), name, format="sqlite", query=query)]
    name, *members = uri.split(MEMBER)
    path = _existing(name)
    if len(members) == 1 and name.lower().endswith(FORMATS["spreadsheet"].endings):
        return [RowFile(path, name, format="spreadsheet", query=members[0])]
    return [_unpacked(path, members, place=name)]


def _unpacked(path: Path, members: Sequence[str], *, place: str) -> RowFile:
    """The file itself or, where it is an archive, the file in it."""
    if not members and (path.is_dir() or not path.name.lower().endswith(_ARCHIVES)):
        return RowFile(path, place)
    member = unpack_local(path, members, label=place)
    inner = members[-1].rstrip("/") if members else member.name
    return RowFile(member, f"{place}{MEMBER}{inner}")


def _existing(uri: str) -> Path:
    """The local file or folder of this name."""
    if "\0" in uri:
        raise DataError("the path has a zero byte in it", where=uri)
    if not uri.strip():
        raise DataError("the source has an empty path", fix="set `uri:`")
    path = Path(os.path.expanduser(uri))
    if not path.exists():
        siblings = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
        near = nearest(path.name, siblings)
        raise DataError(
            "there is no such file or folder",
            where=uri,
            found=str(path.absolute()),
            nearest=str(Path(uri).with_name(near)) if near else "",
        )
    if not path.is_file() and not path.is_dir():
        what = "this is a device or a pipe, and rows are read more than once"
        raise DataError(what, where=uri, fix="save it as a file first")
    return path


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _shaped(
    rows: Iterator[PlacedRow], faults: Faults, *, notes: Counter[str] | None, waiting: bool
) -> Iterator[PlacedRow]:
    for place, columns in rows:
        if any(map(_is_nan, columns.values())):
            columns = {n: None if _is_nan(value) else value for n, value in columns.items()}
        try:
            shaped = normalise_shape(columns, place=place, notes=notes, waiting=waiting)
        except DataError as error:
            # A bad row counts once; the first one that stops the reading is told in full.
            faults.add(error.problems[0])
            if faults.count == 1:
                faults.problems[:] = error.problems
            continue
        if not faults.count:
            yield place, shaped
    faults.done(rows=1)
