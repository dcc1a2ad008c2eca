"""The folder that a user opens in the page: what lies in it, and what may be read and written.

Nothing outside the folder is read or written by name, links that lead out of it included; hidden
files are not shown. Tasks and recipes may name other places: those are read as every command does.

Tests: `tests/web/test_workplace.py`.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from instil.data.readers.textfile import COMPRESSED
from instil.errors import DataError
from instil.stages.runfiles import MANIFEST, RECIPE
from instil.study.folder import STUDY
from instil.tasks.formats import FORMATS

_ENDINGS = tuple(ending for known in FORMATS.values() for ending in known.endings)
_PACKED = (*COMPRESSED, ".zip", ".tar", ".tgz")
_MOST = 500
"""Entries of each kind that are listed."""
_DEEPEST = 3
_NOT_ROWS = {
    "summary.json",
    "manifest.json",
    "ledger.json",
    "split.json",
    "tasks.json",
    "lineage.json",
    STUDY,
    "package.json",
}
_OF_A_MODEL = {"config.json", "adapter_config.json", "tokenizer.json"}
"""Whose folder holds a model, and no rows."""
_NAME = re.compile(r"[^/\\\x00-\x1f\x7f]+")
LARGEST_UPLOAD = 4 << 30
"""Bytes of a file that is dropped."""


class NotHereError(Exception):
    """There is nothing of that name in the folder."""


@dataclass(frozen=True, slots=True)
class Workplace:
    """One folder."""

    folder: Path
    """Absolute, links resolved."""

    def path(self, name: str) -> Path:
        """Return the path of something that lies in the folder.

        Args:
            name: Its path from the folder, with `/`.

        Raises:
            NotHereError: It is not there, is hidden, or lies elsewhere.
        """
        parts = PurePosixPath(name).parts
        if not parts or "\x00" in name or any(part.startswith(".") for part in parts):
            raise NotHereError(name)
        path = self.folder.joinpath(*parts)
        try:
            whole = path.resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            raise NotHereError(name) from None
        if not whole.is_relative_to(self.folder):
            raise NotHereError(name)
        return path

    def name(self, path: Path) -> str:
        """Return a path from the folder, with `/`, as a command run there takes it."""
        name = path.relative_to(self.folder).as_posix()
        return f"./{name}" if name.startswith("-") else name

    def short(self, text: str) -> str:
        """Return a text in which the folder's own path is not written out."""
        return text.replace(f"{self.folder}/", "")

    def data(self) -> list[Path]:
        """Return the files of rows, the newest first."""
        return self._newest(path for path in self._files() if _is_data(path))

    def recipes(self) -> list[Path]:
        """Return the recipes, the newest first."""
        return self._newest(p for p in self._files() if p.name.endswith(".recipe.yaml"))

    def tasks(self) -> list[Path]:
        """Return the task files, the newest first."""
        return self._newest(p for p in self._files() if p.name.endswith(".task.yaml"))

    def runs(self) -> list[Path]:
        """Return the run directories, the newest first."""
        begun = (p.parent for p in self._within(RECIPE) if (p.parent / MANIFEST).is_file())
        return self._newest(begun)

    def studies(self) -> list[Path]:
        """Return the folders of finished studies, the newest first."""
        return self._newest(path.parent for path in self._within(STUDY))

    def free(self, name: str) -> Path:
        """Return a path in the folder that nothing has: `runs/reviews`, else `runs/reviews-2`."""
        path, number = self.folder / name, 1
        while path.exists():
            number += 1
            path = self.folder / f"{name}-{number}"
        return path

    async def take(self, name: str, blocks: AsyncIterator[bytes]) -> Path:
        """Write a file that was dropped, under its own name or the next free one.

        Raises:
            DataError: The name cannot be a file's here, or there is too much of it.
        """
        if not _NAME.fullmatch(name) or name.startswith(".") or len(name.encode()) > 200:
            fix = "give it a name of its own, without a slash, that does not begin with a dot"
            raise DataError("this cannot be a file's name here", found=name, fix=fix)
        if not (_is_data(Path(name)) or name.endswith((".yaml", ".yml"))):
            allowed = ", ".join((*_ENDINGS, ".yaml", *_PACKED))
            raise DataError("this is no file of rows", found=name, allowed=allowed)
        scratch = self.folder / f".{secrets.token_hex(8)}.part"
        size = 0
        try:
            with scratch.open("xb") as file:
                async for block in blocks:
                    size += len(block)
                    if size > LARGEST_UPLOAD:
                        fix = "put the file into the folder itself"
                        raise DataError("this is too large to be sent by a page", fix=fix)
                    file.write(block)
            stem, dot, ending = name.partition(".")
            number, path = 1, self.folder / name
            while True:
                try:
                    path.open("xb").close()  # the name is ours, and nothing is written over
                    break
                except FileExistsError:
                    number += 1
                    path = self.folder / f"{stem}-{number}{dot}{ending}"
            try:
                os.replace(scratch, path)
            except BaseException:
                path.unlink()
                raise
            return path
        finally:
            scratch.unlink(missing_ok=True)

    def _files(self) -> Iterator[Path]:
        for place, folders, names in os.walk(self.folder):
            depth = len(Path(place).relative_to(self.folder).parts)
            inside = RECIPE in names and MANIFEST in names
            folders[:] = sorted(
                name
                for name in folders
                if depth + 1 < _DEEPEST and not inside and not name.startswith((".", "_"))
            )
            if not (inside or _OF_A_MODEL.intersection(names)):
                yield from (Path(place, name) for name in names if not name.startswith("."))

    def _within(self, name: str) -> Iterator[Path]:
        for pattern in ("*", "*/*", "*/*/*/*"):
            for path in self.folder.glob(f"{pattern}/{name}"):
                if not any(p.startswith(".") for p in path.relative_to(self.folder).parts):
                    yield path

    def _newest(self, paths: Iterator[Path]) -> list[Path]:
        def changed(path: Path) -> float:
            try:
                return path.stat().st_mtime
            except OSError:
                return 0.0

        return sorted(paths, key=changed, reverse=True)[:_MOST]


def _is_data(path: Path) -> bool:
    name = path.name.lower()
    if name in _NOT_ROWS:
        return False
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    return name.endswith((*_ENDINGS, *_PACKED))
