"""Files that are whole or not there, what killed processes leave behind, and fingerprints of files.

A file is written under a temporary name (`.NAME.PID.tmp`) and renamed, a folder likewise
(`.checkpoint-*`, `.model-*`, `.model.part`). A process that is killed meanwhile leaves these
behind; `sweep` removes them.

Tests: `tests/test_faults.py`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Mapping
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path

LARGE_BYTES = 2**26
"""Files from this size on are hashed once on a machine, as long as nothing touches them."""
_APPENDING = threading.Lock()
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_SCRATCH = (".*.tmp", ".checkpoint-*", ".model-*", ".*.part")


def cache_dir() -> Path:
    """Return where fetched things are kept: `INSTIL_CACHE`, else the user's cache folder."""
    chosen = os.environ.get("INSTIL_CACHE", "")
    if chosen:
        return Path(os.path.expanduser(chosen)).absolute()
    from platformdirs import user_cache_path

    return user_cache_path("instil", appauthor=False)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, then rename it; parent folders are made."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        scratch.write_bytes(data)
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def append_line(path: Path, content: Mapping[str, object]) -> None:
    """Add a mapping as a line of JSON; the file is whole with it or without it."""
    with _APPENDING:  # by this process's threads; runs and workplaces have one process that writes
        before = path.read_bytes() if path.is_file() else b""
        write_whole(path, before + json.dumps(content, ensure_ascii=False).encode() + b"\n")


def is_full(error: Exception) -> bool:
    """Whether an error says that a file does not fit: safetensors and tokenizers raise no OSError.

    >>> is_full(ValueError("I/O error: No space left on device (os error 28)"))
    True
    """
    if isinstance(error, OSError):
        return error.errno in _FULL
    return any(f"(os error {number})" in str(error) for number in _FULL)


def is_scratch(path: Path) -> bool:
    """Whether a file or folder is one that a killed process left half-written.

    >>> is_scratch(Path("run/.summary.json.4711.tmp")), is_scratch(Path("run/summary.json"))
    (True, False)
    """
    return any(fnmatch(path.name, pattern) for pattern in _SCRATCH)


def sweep(folder: Path) -> None:
    """Remove what killed processes left half-written; nobody else may be at work in the folder."""
    for place, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            path = Path(place, name)
            if not is_scratch(path):
                continue
            if path.is_dir() and not path.is_symlink():
                folders.remove(name)  # not walked into
                shutil.rmtree(path)
            else:
                path.unlink()


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256, as hex digits.

    Of large files (weights) it is kept in the cache under size, inode and times: a change of any
    byte changes the inode's time (ctime), which no program sets.
    """
    facts = path.stat()
    return _sha256(
        path.resolve(), facts.st_size, facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns
    )


@lru_cache(maxsize=4096)
def _sha256(path: Path, size: int, *facts: int) -> str:
    if size < LARGE_BYTES:
        return _hashed(path)
    key = hashlib.sha256(repr((str(path), size, facts)).encode()).hexdigest()
    kept = cache_dir() / "digests" / key[:32]
    with contextlib.suppress(OSError):
        known = kept.read_text(encoding="ascii")
        if len(known) == len(key):
            return known
    digest = _hashed(path)
    with contextlib.suppress(OSError):  # a cache that is full or not ours: hashed again next time
        write_whole(kept, digest.encode())
    return digest


def _hashed(path: Path) -> str:
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()
