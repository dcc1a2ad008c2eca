"""Answers to many rows on their way: kept part by part, so that none is computed twice.

`OUT.part` has a first line that says what is being answered, then a line of JSON an answer. Whoever
begins the same work again goes on behind the last whole line; anything else in it is begun anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path


class Underway:
    """The answers so far."""

    def __init__(self, out: Path, *, key: Mapping[str, object]) -> None:
        """Open what there is.

        Args:
            out: The file that is to be written in the end.
            key: What is answered, and by what: other work has another.
        """
        self._path = out.with_name(f"{out.name}.part")
        self._head = head = json.dumps(key, sort_keys=True).encode() + b"\n"
        lines = self._path.read_bytes().splitlines(keepends=True) if self._path.is_file() else []
        whole = [line for line in lines if line.endswith(b"\n")]  # all but one that broke off
        if not whole or whole[0] != head:
            self.remove()
            whole = []
        elif whole != lines:
            self._path.write_bytes(b"".join(whole))
        self.done = [json.loads(line) for line in whole[1:]]
        """Those that were there."""

    def keep(self, count: int) -> None:
        """Keep the first answers alone, and forget the others."""
        if count < len(self.done):
            del self.done[count:]
            lines = self._path.read_bytes().splitlines(keepends=True)
            self._path.write_bytes(b"".join(lines[: 1 + count]))

    def add(self, answers: Sequence[Mapping[str, object]]) -> None:
        """Keep some more, on the disk before this returns."""
        lines = (json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers)
        with self._path.open("ab") as file:
            file.write((b"" if file.tell() else self._head) + "".join(lines).encode())
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        """Take the file away: the whole is written."""
        self._path.unlink(missing_ok=True)
