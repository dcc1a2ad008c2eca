"""Taking single members out of archives, as if every archive were hostile.

Nothing is run and nothing is written outside the folder that was asked for: a member whose name
leads elsewhere (`../x`, `/etc/x`), a link, a device, or more bytes than `limits.unpacked_bytes`
allows is refused. The standard library's own filters would rename such members in silence. Zip
(wheels too) and tar (plain, gz, bz2, xz) are told apart by content, not by name.

A path inside an archive uses `/`; one that ends in `/` means a folder::

    pkg/data/rows.csv     one file
    pkg/data/             everything below pkg/data
"""

from __future__ import annotations

import bz2
import contextlib
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
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, cast

from instil.data.sources.limits import UNPACKED, too_much, unpacked_bytes
from instil.errors import DataError, Problem

MEMBER = "!/"
"""Parts an archive from the path in it."""
MOST_MEMBERS = 200_000
_CHUNK = 1 << 20
_PACKED: dict[bytes, Callable[[Path], IO[bytes]]] = {
    b"\x1f\x8b": lambda path: cast(IO[bytes], gzip.open(path)),
    b"BZh": lambda path: cast(IO[bytes], bz2.open(path)),
    b"\xfd7zXZ": lambda path: cast(IO[bytes], lzma.open(path)),
}
"""How a packed file begins, and how it is opened."""
_MOST_COMPARED = 2000  # names: comparing is slow
_LINK = "it is a link or a device"
_SAYS_UTF8 = 0x800
"""The flag of a zip's member whose name is UTF-8."""
_MOST_AT_ONCE = 16 << 20
"""Bytes of a tar's header."""


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    size: int
    trouble: str
    """Why it may not be unpacked (a link, encrypted ...); empty: it may."""
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path, path: str, *, into: Path, label: str = "") -> None:
    """Unpack one member, or one folder of members, of an archive.

    Args:
        archive: A zip or tar file.
        path: The path inside it; with a trailing `/` a folder.
        into: The file (or the folder) to write; its parent exists, itself it does not.
        label: What to call the archive in messages; by default its file name.

    Raises:
        DataError: when it is no archive, is damaged, lacks the path, or is unsafe.
    """
    label = label or archive.name
    with _members(archive, label=label) as members:
        cap = unpacked_bytes(archive.stat().st_size)
        if not path.endswith("/"):
            # Of several with one name, the last: the one that unpacking them all would leave.
            member = next((m for m in reversed(members) if m.name == path), None)
            if member is None and any(m.name.startswith(f"{path}/") for m in members):
                what, fix = "this is a folder", f"write it as {path}/"
                raise DataError(what, where=f"{label}, {path}", fix=fix)
            if member is None:
                raise _missing(members, path, label=label)
            _refuse([member], cap, folder="", label=label)
            _write(member, into)
            return
        chosen = {member.name: member for member in members if member.name.startswith(path)}
        if not chosen:
            raise _missing(members, path, label=label)
        _refuse(list(chosen.values()), cap, folder=path, label=label)
        into.mkdir()
        for name, member in chosen.items():
            target = into.joinpath(*name.removeprefix(path).split("/"))
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                _write(member, target)
            except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
                what = "the archive has a file and a folder (or two files) of one name"
                raise DataError(what, where=name) from error


def file_names(archive: Path, *, label: str) -> tuple[str, ...]:
    """Name the files in an archive, without what packing programs add for themselves.

    Raises:
        DataError: when it is no archive, or is damaged.
    """
    with _members(archive, label=label) as members:
        return tuple(
            member.name
            for member in members
            if not member.name.startswith("__MACOSX/")
            and not member.name.rpartition("/")[2].startswith(".")
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


def check_paths(paths: Sequence[str], *, where: str) -> None:
    """Refuse paths that lead out of an archive, and a folder that would hold an archive.

    Raises:
        DataError: naming each of them.
    """
    problems = [
        Problem("a path that may not be used", where=where, found=f"{path!r}: {why}")
        for path in paths
        if (why := unsafe_path(path))
    ]
    problems += [
        Problem("only the last path may be a folder", where=where, found=path)
        for path in paths[:-1]
        if path.endswith("/")
    ]
    if problems:
        raise DataError(*problems)


@contextmanager
def _members(archive: Path, *, label: str) -> Iterator[list[_Member]]:
    """Open by content, and turn every way of being damaged into one error; folders are left out."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                yield [_from_zip(opened, info) for info in opened.infolist() if not info.is_dir()]
        else:
            cap = unpacked_bytes(archive.stat().st_size)
            what = "the archive unpacks to more than its size lets expect"
            bomb = too_much(what, limit=cap, name=UNPACKED, where=label)
            with archive.open("rb") as file:
                begin = file.read(max(map(len, _PACKED)))
            opened_by = (opener for magic, opener in _PACKED.items() if begin.startswith(magic))
            with next(opened_by, lambda path: path.open("rb"))(archive) as stream:
                capped = cast(IO[bytes], _Capped(stream, cap, bomb))
                try:
                    tar = tarfile.open(fileobj=capped, mode="r:")
                except tarfile.ReadError as error:
                    raise DataError(
                        "this is not an archive",
                        where=label,
                        allowed="zip, whl, tar, tar.gz, tar.bz2, tar.xz",
                        fix="leave out the `!/...` if the file itself is meant",
                    ) from error
                with tar:
                    yield _from_tar(tar, cap, bomb)
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
        RecursionError,  # headers upon headers
    ) as error:
        # gzip and bz2 tell of damage by an OSError without a number, a wrong offset in a zip is an
        # invalid argument; any other is the disk's trouble.
        if isinstance(error, OSError) and error.errno not in {None, errno.EINVAL}:
            raise
        what = f"the archive is damaged or of an unknown kind: {error}"
        raise DataError(what, where=label, fix="get the archive again") from error


def _from_zip(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    regular = stat.S_IFMT(info.external_attr >> 16) in {0, stat.S_IFREG}
    trouble = ("it is encrypted" if info.flag_bits & 1 else "") if regular else _LINK
    name = info.filename
    if not info.flag_bits & _SAYS_UTF8:  # some programs write UTF-8 without saying so
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return _Member(name, info.file_size, trouble, partial(opened.open, info))


class _Capped:
    """A stream that refuses what only a bomb asks for.

    A tar's extended header (a long name, attributes) says how long it is and is read at once.
    """

    def __init__(self, stream: IO[bytes], cap: int, bomb: DataError) -> None:
        self._stream, self._cap, self._bomb = stream, cap, bomb
        self.tell, self.seek, self.close = stream.tell, stream.seek, stream.close

    def read(self, size: int) -> bytes:
        """Read so many bytes."""
        if size > _MOST_AT_ONCE or self.tell() > 2 * self._cap:
            raise self._bomb
        return self._stream.read(size)


def _from_tar(tar: tarfile.TarFile, cap: int, bomb: DataError) -> list[_Member]:
    """The members, once the whole file is known to be within the cap and to have an end."""
    members, total = list[_Member](), 0
    for info in tar:  # a tar has no list of contents: to walk over a bomb is to unpack it
        total = max(total + info.size, info.offset_data)
        if total > cap or len(members) >= MOST_MEMBERS:
            raise bomb
        if not info.isdir():
            trouble = "" if info.isreg() else _LINK
            name = info.name.removeprefix("./")
            members.append(_Member(name, info.size, trouble, partial(tar.extractfile, info)))
    stream = tar.fileobj
    assert stream is not None, "it was opened to be read"
    stream.seek(tar.offset)
    if len(stream.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:  # the end is marked by zeros
        raise EOFError("it is cut off: its end mark is missing")
    while stream.read(_CHUNK):  # so that gzip's and xz's own sums are checked
        if stream.tell() > tar.offset + cap:
            raise bomb
    return members


def _missing(members: Sequence[_Member], path: str, *, label: str) -> DataError:
    """The error for a path that is not there, with the path nearest to it.

    That is one whose beginning was left out, else one much like it, else one with its last part.
    """
    names = [member.name for member in members]
    kind = "folder" if path.endswith("/") else "file"
    if kind == "folder":
        names = sorted({f"{p}/" for n in names for p in PurePosixPath(n).parents if str(p) != "."})
    last = "/" + path.removesuffix("/").rpartition("/")[2]
    near = [name for name in names if name.endswith(f"/{path}")]
    near += difflib.get_close_matches(path, names[:_MOST_COMPARED], n=1, cutoff=0.75)
    near += (name for name in names if name.removesuffix("/").endswith(last))
    return DataError(
        f"there is no {kind} of this name in the archive",
        where=label,
        found=path,
        nearest=near[0] if near else "",
        allowed="" if near else some(names),
    )


def some(names: Sequence[str]) -> str:
    """List the first eight names, and say how many there are."""
    more = f" ... ({len(names)} in all)" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more


def _refuse(members: Sequence[_Member], cap: int, *, folder: str, label: str) -> None:
    """Raise for everything about the members that is unsafe, all at once."""
    problems = []
    for member in members:
        why = unsafe_path(member.name) or member.trouble
        if not why and member.size > cap:
            why = f"it has {member.size} bytes, and {cap} are allowed ({UNPACKED})"
        if why:
            what, where = "this member may not be unpacked", f"{label}, {member.name}"
            problems.append(Problem(what, where=where, found=why))
    total = sum(member.size for member in members)
    if folder and (total > cap or len(members) > MOST_MEMBERS):
        problems.append(
            Problem(
                "this folder is too large to be unpacked",
                where=f"{label}, {folder}",
                found=f"{len(members)} members, {total} bytes",
                allowed=f"{MOST_MEMBERS} members, {cap} bytes ({UNPACKED})",
            )
        )
    if problems:
        raise DataError(*problems[:5])


def _write(member: _Member, into: Path) -> None:
    """Stream one member to a new file; what it says of its size is not trusted."""
    written, source = 0, member.open()
    assert source is not None, "only regular files get here"
    with source, open(into, "xb") as sink:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if written > member.size:
                raise DataError("the member is larger than the archive says", where=member.name)
            sink.write(chunk)
    if written != member.size:
        raise DataError("the archive breaks off within this member", where=member.name)
