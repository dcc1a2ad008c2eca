"""Reader of folders of texts, one row a file; and what all readers of folders share."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from instil.data.readers.rowfile import Faults, PlacedRow, RowFile
from instil.data.readers.textfile import reading_text
from instil.errors import DataError

TEXT_ENDINGS = (".txt", ".text", ".md", "")
"""Files of a folder that are rows; an empty ending is a name without a dot."""


def read_folder(file: RowFile) -> Iterator[PlacedRow]:
    """Read a folder of text files, one a row.

    Columns: `text` (the whole), `folder` (the path below the folder that was given, often the
    label), `file` (the name), `first_line` (often a headline) and `rest` (what comes after it).
    Files other than `TEXT_ENDINGS` and hidden ones are no rows.

    Raises:
        DataError: for a folder without text files; for bytes that are not in the encoding.
    """
    rows = 0
    for path, place, where in files_of(file, TEXT_ENDINGS):
        rows += 1
        with reading_text(path, encoding=file.encoding, place=place) as stream:
            text = stream.read().strip()
        first, _, rest = text.partition("\n")
        yield place, {"text": text, **where, "first_line": first.strip(), "rest": rest.strip()}
    Faults(file.place).done(rows=rows, fix=endings_found(file, TEXT_ENDINGS))


def files_of(
    file: RowFile, endings: tuple[str, ...], *, also: re.Pattern[str] | None = None
) -> Iterator[tuple[Path, str, dict[str, object]]]:
    """Find the files below a folder with one of the endings, in an order that no machine changes.

    Folders that are links are entered, unless they lead to one that is read anyway. `also`: endings
    that are no fixed text.

    Yields:
        (path, place for messages, columns): the columns are `folder`, the path below the folder
        that was given, and `file`, the name.
    """
    if not file.path.is_dir():
        raise DataError("this is not a folder", where=file.place, fix="set `format:`")
    seen, root = set[str](), file.path.resolve()
    for folder, below, names in os.walk(file.path, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # its rows would be there twice, or without end
            what = "two ways lead to this folder, by a link"
            raise DataError(what, where=folder, found=real, fix="take the link out")
        seen.add(real)
        below[:] = sorted(name for name in below if not name.startswith("."))
        for link in (path for name in [*below] if (path := Path(folder, name)).is_symlink()):
            if link.resolve().is_relative_to(root):
                below.remove(link.name)
        for name in sorted(names):
            path = Path(folder, name)
            ending = path.suffix.lower()
            if name.startswith(".") or not (
                ending in endings or (also is not None and also.fullmatch(ending))
            ):
                continue
            if path.exists() and not path.is_file():
                what = "this is a device or a pipe, not a file"
                raise DataError(what, where=str(path), fix="take it out of the folder")
            inner = Path(_spelt(path.relative_to(file.path)))
            parent = "" if inner.parent == Path() else inner.parent.as_posix()
            place = f"{file.place.rstrip('/')}/{inner.as_posix()}"
            yield path, place, {"folder": parent, "file": inner.name}


def _spelt(path: Path) -> str:
    r"""Return a path in Unicode: bytes of a name that are no UTF-8 as `\xe9`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def endings_found(file: RowFile, endings: tuple[str, ...]) -> str:
    """For a folder without rows: what is in it, and what would have been read."""
    wanted = ", ".join(ending or "no ending" for ending in endings)
    names = [Path(name) for _, _, names in os.walk(file.path) for name in names]
    found = Counter(name.suffix.lower() or "no ending" for name in names)
    listed = ", ".join(f"{ending} ({count})" for ending, count in found.most_common(5))
    return f"files with these endings are read: {wanted}; found: {listed or 'no files'}"
