"""Taking single members out of archives, as if every archive were hostile.

Nothing is run and nothing is written outside the folder that was asked for: a member whose name
leads elsewhere (`../x`, `/etc/x`), a link, a device, or more bytes than the limits allow is
refused. Zip (wheels too) and tar (plain, gz, bz2, xz) are told apart by content, not by name.

A path inside an archive uses `/`; one that ends in `/` means a folder::

    pkg/data/rows.csv     one file
    pkg/data/             everything below pkg/data
"""

from __future__ import annotations

import bz2
import difflib
import errno
import gzip
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from instil.data.sources.limits import UNPACKED, too_much, unpacked_bytes
from instil.errors import DataError, Problem

MEMBER = "!/"
"""Parts an archive from the path in it."""
_CHUNK = 1 << 20
_PACKED: dict[bytes, Callable[[Path], IO[bytes]]] = {
    b"\x1f\x8b": lambda path: cast(IO[bytes], gzip.open(path)),
    b"BZh": lambda path: cast(IO[bytes], bz2.open(path)),
    b"\xfd7zXZ": lambda path: cast(IO[bytes], lzma.open(path)),
}
"""How a packed file begins, and how it is opened."""
_MOST_COMPARED = 2000  # names: comparing is slow


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be unpacked: real data stays far below, a zip bomb does not."""

    member_bytes: int = 16 << 30
    """Largest single member, in bytes."""
    folder_bytes: int = 32 << 30
    """Largest folder, in bytes."""
    members: int = 200_000
    """Most members of a folder."""


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    size: int
    trouble: str
    """Why it may not be unpacked (a link, encrypted ...); empty: it may."""
    handle: zipfile.ZipInfo | tarfile.TarInfo


def unpack(
    archive: Path, path: str, *, into: Path, limits: Limits | None = None, label: str = ""
) -> None:
    """Unpack one member, or one folder of members, of an archive.

    Args:
        archive: A zip or tar file.
        path: The path inside it; with a trailing `/` a folder.
        into: The file (or the folder) to write; its parent exists, itself it does not.
        limits: How much may be unpacked.
        label: What to call the archive in messages; by default its file name.

    Raises:
        DataError: when it is no archive, is damaged, lacks the path, or is unsafe.
    """
    label = label or archive.name
    limits = limits or _limits(archive)
    with _opened(archive, label=label) as opened:
        members = _members(opened, limits, label=label)
        if path.endswith("/"):
            chosen = _folder(members, path, label=label)
            _refuse(chosen, limits, folder=path, label=label)
            _write_folder(opened, chosen, folder=path, into=into, limits=limits)
        else:
            member = _single(members, path, label=label)
            _refuse([member], limits, folder="", label=label)
            _write(opened, member, into=into, limit=limits.member_bytes)


def file_names(archive: Path, *, label: str = "") -> tuple[str, ...]:
    """Name the files in an archive, without what packing programs add for themselves.

    Raises:
        DataError: when it is no archive, or is damaged.
    """
    label = label or archive.name
    with _opened(archive, label=label) as opened:
        names = [member.name for member in _members(opened, _limits(archive), label=label)]
    return tuple(
        name
        for name in names
        if not name.startswith("__MACOSX/") and not name.rpartition("/")[2].startswith(".")
    )


def _limits(archive: Path) -> Limits:
    """The limits for an archive of this size."""
    usual, bytes_ = Limits(), unpacked_bytes(archive.stat().st_size)
    return Limits(
        member_bytes=min(bytes_, usual.member_bytes),
        folder_bytes=min(bytes_, usual.folder_bytes),
        members=usual.members,
    )


def unsafe_path(path: str) -> str:
    """Say why a path inside an archive may not be used; empty when it may.

    >>> unsafe_path("../../etc/passwd")
    "it has '..' in it"
    >>> unsafe_path("pkg/rows.csv")
    ''
    """
    if not path or "\0" in path:
        return "it is empty" if not path else "it has a zero byte in it"
    if "\\" in path:
        return "it has a backslash in it"
    if path.startswith("/") or (len(path) > 1 and path[1] == ":"):
        return "it is absolute"
    parts = path.removesuffix("/").split("/")
    bad = next((part for part in parts if part in {"", ".", ".."}), None)
    return "" if bad is None else f"it has {bad or 'an empty part'!r} in it"


@contextmanager
def _opened(archive: Path, *, label: str) -> Iterator[zipfile.ZipFile | tarfile.TarFile]:
    """Open by content, and turn every way of being damaged into one error."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened_zip:
                yield opened_zip
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as opened_tar:
                yield opened_tar
        else:
            _refuse_cut(archive)
            raise DataError(
                "this is not an archive",
                where=label,
                allowed="zip, whl, tar, tar.gz, tar.bz2, tar.xz",
                fix="leave out the `!/...` if the file itself is meant",
            )
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        lzma.LZMAError,
        struct.error,
        EOFError,
        NotImplementedError,
        ValueError,
        OSError,
    ) as error:
        # gzip and bz2 tell of damage by an OSError without a number, a wrong offset in a zip is an
        # invalid argument; any other is the disk's trouble.
        if isinstance(error, OSError) and error.errno not in {None, errno.EINVAL}:
            raise
        raise DataError(
            f"the archive is damaged or of an unknown kind: {error}",
            where=label,
            fix="get the archive again",
        ) from error


def _refuse_cut(archive: Path) -> None:
    """Raise EOFError for a packed file that is cut off before its first bytes can be read."""
    with archive.open("rb") as file:
        begin = file.read(max(map(len, _PACKED)))
    for magic, opener in _PACKED.items():
        if begin.startswith(magic):
            with opener(archive) as stream:
                stream.read(tarfile.BLOCKSIZE)


def _members(
    opened: zipfile.ZipFile | tarfile.TarFile, limits: Limits, *, label: str
) -> list[_Member]:
    """All members that are not folders."""
    if isinstance(opened, zipfile.ZipFile):
        return [_from_zip(info) for info in opened.infolist() if not info.is_dir()]
    found, total = list[_Member](), 0
    for info in opened:  # a tar has no list of contents: to walk over a bomb is to unpack it
        total = max(total + info.size, info.offset_data)
        if total > limits.folder_bytes or len(found) >= limits.members:
            what = "the archive unpacks to more than its size lets expect"
            raise too_much(what, limit=limits.folder_bytes, name=UNPACKED, where=label)
        if not info.isdir():
            found.append(_from_tar(info))
    _require_end(opened, limits, label=label)
    return found


def _require_end(opened: tarfile.TarFile, limits: Limits, *, label: str) -> None:
    """Refuse a tar that breaks off between two members, or whose packing breaks off behind them."""
    stream = opened.fileobj
    assert stream is not None, "it was opened to be read"
    stream.seek(opened.offset)
    if len(stream.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:  # the end is marked by zeros
        raise EOFError("it is cut off: its end mark is missing")
    while stream.read(_CHUNK):  # so that gzip's and xz's own sums are checked
        if stream.tell() > opened.offset + limits.folder_bytes:
            what = "the archive unpacks to more than its size lets expect"
            raise too_much(what, limit=limits.folder_bytes, name=UNPACKED, where=label)


def _from_zip(info: zipfile.ZipInfo) -> _Member:
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) not in {0, stat.S_IFREG}:
        trouble = "it is a link or a device"
    else:
        trouble = "it is encrypted" if info.flag_bits & 1 else ""
    return _Member(info.filename, info.file_size, trouble, info)


def _from_tar(info: tarfile.TarInfo) -> _Member:
    trouble = "" if info.isreg() else "it is a link or a device"
    return _Member(info.name.removeprefix("./"), info.size, trouble, info)


def _single(members: Sequence[_Member], path: str, *, label: str) -> _Member:
    # The last of several members with one name is the one that unpacking them all would leave.
    found = next((member for member in reversed(members) if member.name == path), None)
    if found is not None:
        return found
    if any(member.name.startswith(f"{path}/") for member in members):
        raise DataError("this is a folder", where=f"{label}, {path}", fix=f"write it as {path}/")
    raise _missing(members, path, label=label)


def _folder(members: Sequence[_Member], path: str, *, label: str) -> list[_Member]:
    found = {member.name: member for member in members if member.name.startswith(path)}
    if not found:
        raise _missing(members, path, label=label)
    return list(found.values())


def _missing(members: Sequence[_Member], path: str, *, label: str) -> DataError:
    """The error for a path that is not there, with the path nearest to it."""
    names = [member.name for member in members]
    if path.endswith("/"):
        names = sorted({f"{p}/" for n in names for p in PurePosixPath(n).parents if str(p) != "."})
    near = _nearest_path(path, names)
    return DataError(
        f"there is no {'folder' if path.endswith('/') else 'file'} of this name in the archive",
        where=label,
        found=path,
        nearest=near,
        allowed="" if near else _some(names),
    )


def _nearest_path(path: str, names: Sequence[str]) -> str:
    """The path whose beginning was left out, else one much like it, else one with its last part."""
    last = "/" + path.removesuffix("/").rpartition("/")[2]
    compared = names[:_MOST_COMPARED]
    close = difflib.get_close_matches(path, compared, n=1, cutoff=0.75)
    candidates = [name for name in names if name.endswith(f"/{path}")] or close
    return next(iter([*candidates, *(n for n in names if n.removesuffix("/").endswith(last))]), "")


def _some(names: Sequence[str], most: int = 8) -> str:
    more = f" ... ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _refuse(members: Sequence[_Member], limits: Limits, *, folder: str, label: str) -> None:
    """Raise for everything about the members that is unsafe, all at once."""
    problems = [
        Problem("this member may not be unpacked", where=f"{label}, {member.name}", found=why)
        for member in members
        if (why := unsafe_path(member.name) or member.trouble or _too_large(member, limits))
    ]
    total = sum(member.size for member in members)
    if folder and (total > limits.folder_bytes or len(members) > limits.members):
        problems.append(
            Problem(
                "this folder is too large to be unpacked",
                where=f"{label}, {folder}",
                found=f"{len(members)} members, {total} bytes",
                allowed=f"{limits.members} members, {limits.folder_bytes} bytes ({UNPACKED})",
            )
        )
    if problems:
        raise DataError(*problems[:5])


def _too_large(member: _Member, limits: Limits) -> str:
    if member.size <= limits.member_bytes:
        return ""
    return f"it has {member.size} bytes, and {limits.member_bytes} are allowed ({UNPACKED})"


def _write_folder(
    opened: zipfile.ZipFile | tarfile.TarFile,
    members: Sequence[_Member],
    *,
    folder: str,
    into: Path,
    limits: Limits,
) -> None:
    into.mkdir()
    for member in members:
        target = into.joinpath(*member.name.removeprefix(folder).split("/"))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _write(opened, member, into=target, limit=limits.member_bytes)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise DataError(
                "the archive has a file and a folder (or two files) of one name", where=member.name
            ) from error


def _write(
    opened: zipfile.ZipFile | tarfile.TarFile, member: _Member, *, into: Path, limit: int
) -> None:
    """Stream one member to a new file; what it says of its size is not trusted."""
    written = 0
    with _stream(opened, member) as source, open(into, "xb") as sink:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if written > min(limit, member.size):
                raise DataError("the member is larger than the archive says", where=member.name)
            sink.write(chunk)
    if written != member.size:
        raise DataError("the archive breaks off within this member", where=member.name)


def _stream(opened: zipfile.ZipFile | tarfile.TarFile, member: _Member) -> IO[bytes]:
    if isinstance(member.handle, zipfile.ZipInfo):
        assert isinstance(opened, zipfile.ZipFile)
        return opened.open(member.handle)
    assert isinstance(opened, tarfile.TarFile)
    stream = opened.extractfile(member.handle)
    assert stream is not None, "only regular files get here"
    return stream
