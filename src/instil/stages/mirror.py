"""Run directories at an address, `s3://bucket/runs/reviews` say: whatever fsspec can write to.

The work is done in a copy on this machine, `CACHE/runs/DIGEST/reviews`; what was written is sent
whenever a stage ends, a checkpoint is written or a report is made (`publish`), in the order in
which it was written. So what lies at the address is always a run as one that was killed leaves it,
and any machine can resume it: `fetch` brings it there. `CACHE/runs/DIGEST/reviews.address.json`
knows what was sent.

The file `.turn` at the address says whose turn it is: each sending leaves a new mark there. A copy
whose mark is still there is ahead of the address, or the same; else another machine has gone on
with the run, and what it sent is taken.

An object store shows a file whole or not at all; elsewhere files are sent under a temporary name
and then moved.

Tests: `tests/stages/test_mirror.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from instil.errors import RefusedError, RunError
from instil.files import cache_dir, is_scratch, write_whole
from instil.stages.lock import HOLDER, LOCK

TURN = ".turn"
ARMS = "arms"
"""The folder of a run in which each thing that it tries has a run directory of its own."""
NOT_SENT = frozenset({"encoded"})
"""Folders of a run that are made again where they are missing, in less time than to send them."""
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "az", "memory"})


@dataclass(frozen=True, slots=True)
class Copy:
    """What is known of a copy on this machine: `NAME.address.json`."""

    address: str
    """Of the run directory."""
    mark: str = ""
    """That this copy was to leave there last."""
    before: str = ""
    """That was there before, and still is where sending was stopped."""
    sent: dict[str, list[int]] = field(default_factory=dict)
    """Path -> size and time of change of what was sent."""

    @property
    def marks(self) -> tuple[str, ...]:
        """The marks with which this copy is ahead of the address, or the same.

        Where none is left though something was sent, somebody has removed the run.
        """
        return tuple(mark for mark in (self.mark, self.before) if mark or not self.sent)


def is_address(text: str) -> bool:
    """Whether a text names a place that is no path of this machine.

    >>> is_address("s3://bucket/runs/reviews"), is_address("runs/reviews")
    (True, False)
    """
    return "://" in text


def fetch(address: str) -> Path:
    """Return the copy of a run directory on this machine, as it is at the address.

    There may be nothing there yet: a run that begins in the copy is then sent.

    Raises:
        RunError: The address cannot be read.
    """
    address = address.rstrip("/")
    digest = hashlib.sha256(address.encode()).hexdigest()[:16]
    folder = cache_dir() / "runs" / digest / PurePosixPath(address.partition("://")[2]).name
    with _reaching(address):
        files, root = _system(address)
        mark = _mark(files, root)
        # Read behind the mark: a run at work here writes the note first, and its own is to stay.
        known = _load(folder)
        if known is not None and mark not in known.marks:
            mark = _mark(files, root)  # as the note may be younger than the first look
        if known is None or mark not in known.marks:
            if mark or known is not None:  # else nothing was ever sent there
                _take(files, root, folder)
            known = Copy(address, mark, sent=_written(folder) if mark else {})
            write_whole(_note(folder), json.dumps(asdict(known)).encode())
    return folder


def address_of(folder: Path) -> str:
    """Return where the run directory of a copy lies; empty: the folder is no copy."""
    known = _load(folder)
    return known.address if known else ""


def publish(folder: Path, *, last: bool = False) -> None:
    """Send what was written in a copy since the last time; nothing happens for other folders.

    Args:
        folder: The run directory, or a part of one (`arms/`).
        last: False: where the address cannot be reached, it is tried again the next time, unless
            nothing was ever sent.

    Raises:
        RefusedError: Another machine has resumed the run.
        RunError: The address cannot be written to (`last`, and the first time).
    """
    known = _load(folder)
    if known is None and folder.parent.name == ARMS:
        folder = folder.resolve().parent.parent
        known = _load(folder)
    if known is None:
        return
    try:
        with _reaching(known.address):
            _send(folder, known)
    except RefusedError:
        raise
    except RunError:
        if last or not known.sent:  # a wrong name, or no right to write: told before the work
            raise


def _send(folder: Path, known: Copy) -> None:
    files, root = _system(known.address)
    there = _mark(files, root)
    if there not in known.marks:
        raise RefusedError(
            "another machine has resumed this run"
            if there
            else "the run is no longer at its address",
            where=known.address,
            fix=f"take what it has done: instil run --resume {known.address}",
        )
    written = _written(folder)
    changed = [path for path, state in written.items() if known.sent.get(path) != state]
    gone = [path for path in known.sent if path not in written]
    if not changed and not gone:
        return
    known = replace(known, mark=uuid.uuid4().hex, before=there)
    write_whole(_note(folder), json.dumps(asdict(known)).encode())
    whole = _is_store(files)
    if not whole:
        files.makedirs(root, exist_ok=True)
    files.pipe_file(f"{root}/{TURN}", known.mark.encode())
    for path in sorted(changed, key=lambda path: written[path][1]):
        target = f"{root}/{path}"
        if whole:
            files.put_file(str(folder / path), target)
            continue
        files.makedirs(target.rpartition("/")[0], exist_ok=True)
        scratch = f"{target}.{known.mark}.tmp"
        files.put_file(str(folder / path), scratch)
        files.mv(scratch, target)
    for path in gone:
        with contextlib.suppress(FileNotFoundError):
            files.rm_file(f"{root}/{path}")
    write_whole(_note(folder), json.dumps(asdict(replace(known, sent=written))).encode())


def _take(files: Any, root: str, folder: Path) -> None:
    """Make the copy what lies at the address."""
    prefix = f"{root}/"
    there: list[str] = []
    with contextlib.suppress(FileNotFoundError):  # somebody has removed the run there
        there = [name for name in files.find(root) if name.startswith(prefix)]
    paths = [name.removeprefix(prefix) for name in there]
    wanted = {path for path in paths if path != TURN and not path.endswith(".tmp")}
    for path in wanted:
        target = folder / path
        if not target.resolve().is_relative_to(folder.resolve()):
            raise RunError("a file there would be written outside of the run", found=path)
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        files.get_file(prefix + path, str(scratch))
        os.replace(scratch, target)
    for path in _written(folder).keys() - wanted:
        (folder / path).unlink()
    for name in NOT_SENT:  # of another time
        shutil.rmtree(folder / name, ignore_errors=True)
    for below, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):  # not empty
            os.rmdir(below)


def _written(folder: Path) -> dict[str, list[int]]:
    """Return path -> size and time of change of every file of a run directory."""
    found: dict[str, list[int]] = {}
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if parts[0] in NOT_SENT or path.name in (LOCK, HOLDER):
            continue
        if any(is_scratch(Path(part)) for part in parts):
            continue
        if path.is_file():
            state = path.stat()
            found["/".join(parts)] = [state.st_size, state.st_mtime_ns]
    return found


def _note(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.address.json")


def _load(folder: Path) -> Copy | None:
    if not folder.name:  # the working folder, or a disk's root
        return None
    path = _note(folder)
    return Copy(**json.loads(path.read_bytes())) if path.is_file() else None


def _system(address: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    files, root = url_to_fs(address)
    files.invalidate_cache()
    return files, str(root).rstrip("/")


def _is_store(files: Any) -> bool:
    protocols = [files.protocol] if isinstance(files.protocol, str) else files.protocol
    return bool(OBJECT_STORES.intersection(protocols))


def _mark(files: Any, root: str) -> str:
    try:
        return str(files.cat_file(f"{root}/{TURN}").decode())
    except FileNotFoundError:
        return ""


@contextlib.contextmanager
def _reaching(address: str) -> Iterator[None]:
    """Turn what goes wrong on the way into a message."""
    try:
        yield
    except (RunError, RefusedError):
        raise
    except ImportError as error:
        raise RunError(
            "what this address needs is not installed",
            where=address,
            found=str(error),
            fix="for s3:// addresses pip install 'instil[s3]', for others what fsspec asks for",
        ) from error
    except Exception as error:  # each file system has its own kinds
        raise RunError(
            "this address cannot be reached",
            where=address,
            found=f"{type(error).__name__}: {str(error)[:200]}",
            fix="see that it exists and may be written to (keys, AWS_ENDPOINT_URL and the like)",
        ) from error
