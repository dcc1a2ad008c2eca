"""One process at a time in a run directory, or in the folder of a study.

The lock is the system's own (`flock`, on Windows `LockFile`; where a file system has neither, a
file that `filelock` makes): it goes with the process, so that a killed one stands in nobody's way.
Who holds it is written beside it, for the message to others.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from instil.errors import RefusedError
from instil.files import write_whole

LOCK, HOLDER = ".lock", ".lock.json"


@contextmanager
def hold(folder: Path, *, since: str) -> Iterator[None]:
    """Keep other processes out of a folder within the block.

    Args:
        folder: It must exist.
        since: The time, for the message to others.

    Raises:
        RefusedError: Another process is at work in it: which one, where and since when.
    """
    try:
        lock = FileLock(folder / LOCK, timeout=0).acquire()
    except Timeout:
        raise RefusedError(
            "another process is at work in this folder",
            where=str(folder),
            found=_who(folder),
            fix="wait for its end, or stop it (kill -INT), then run the same command again",
        ) from None
    with lock:
        facts = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        write_whole(folder / HOLDER, json.dumps(facts).encode())
        try:
            yield
        finally:
            (folder / HOLDER).unlink(missing_ok=True)


def holder(folder: Path) -> str:
    """Say who works in a folder; empty: nobody."""
    if not (folder / LOCK).exists():
        return ""
    try:
        with FileLock(folder / LOCK, timeout=0):
            return ""
    except Timeout:
        return _who(folder)


def _who(folder: Path) -> str:
    try:
        facts = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        return f"process {facts['pid']} on {facts['host']}, since {facts['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # between its lock and its note
        return "a process that has only just begun"
