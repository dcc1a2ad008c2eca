"""Encoded examples held compactly: five bytes a token instead of some forty.

Python's tuples of integers take eight bytes a token for the place and up to twenty-eight for the
number, once for ids and again for masks. A training over 100,000 rows holds ten million tokens.
"""

from __future__ import annotations

import tempfile
import weakref
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from instil.types import Encoded, Fate

Numbers = NDArray[Any]


class Spilled:
    """Numbers in a file without a name, added at the end and read where they are asked for.

    The file's pages are the system's, which takes them back where memory is short.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        """Begin a file in `folder`; `kind` is numpy's name for the type of its numbers."""
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)
        weakref.finalize(self, self._file.close)
        self._kind = np.dtype(kind)
        self._numbers: Numbers | None = None

    def extend(self, numbers: Iterable[int]) -> None:
        """Add numbers."""
        self._numbers = None
        self._file.write(np.array(numbers, self._kind).tobytes())

    def __len__(self) -> int:
        """Return how many there are."""
        return self._file.tell() // self._kind.itemsize

    def __getitem__(self, places: slice) -> Numbers:
        """Return a stretch."""
        if self._numbers is None:
            self._file.flush()
            empty = not len(self)  # which cannot be mapped
            self._numbers = np.zeros(0) if empty else np.memmap(self._file, self._kind, "r")
        return self._numbers[places]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the numbers themselves, for another process."""
        return np.array, (self[:],)


class Store(Sequence[Encoded]):
    """Encoded examples that have tokens, in order, with what became of all others counted."""

    def __init__(self, encoded: Iterable[Encoded] = ()) -> None:
        self._ids: array[int] | Spilled = array("i")
        self._mask: bytearray | Spilled = bytearray()
        self._ends = array("q", [0])
        self._names: list[str] = []
        self._why: dict[int, tuple[Fate, str]] = {}
        self._prompt: int | None = None  # tokens of the shortest one
        self._low: tuple[int, ...] = ()
        self._high: tuple[int, ...] = ()
        self.fates: Counter[str] = Counter()
        for item in encoded:
            self.append(item)

    def append(self, item: Encoded) -> None:
        """Add an example; one that was dropped, without tokens, is counted only."""
        self.fates[str(item.fate)] += 1
        if not item.ids:
            return
        if item.fate is not Fate.KEPT:
            self._why[len(self)] = (item.fate, item.why)
        if not item.plain_text:
            self._low = min(self._low or item.ids, item.ids)
            self._high = max(self._high, item.ids)
            trained = item.mask.index(True) if any(item.mask) else len(item.ids)
            self._prompt = trained if self._prompt is None else min(self._prompt, trained)
        self._names.append(item.example_id)
        self._ids.extend(item.ids)
        self._mask.extend(item.mask)
        self._ends.append(len(self._ids))

    def extend(self, other: Store) -> None:
        """Add all examples of another store, as if they were added here one by one."""
        before = len(self)
        self.fates.update(other.fates)
        self._why.update({before + number: why for number, why in other._why.items()})
        if other._low:
            self._low = min(self._low or other._low, other._low)
            self._high = max(self._high, other._high)
        prompts = [prompt for prompt in (self._prompt, other._prompt) if prompt is not None]
        self._prompt = min(prompts, default=None)
        self._names += other._names
        end = self._ends[-1]
        self._ids.extend(other._ids[:])
        self._mask.extend(other._mask[:])
        self._ends.extend(end + each for each in other._ends[1:])

    def spill(self, folder: Path) -> None:
        """Move the tokens to a file in `folder`; to whoever asks for them they are the same."""
        if isinstance(self._ids, Spilled):
            return
        ids, mask = self._ids, self._mask
        self._ids, self._mask = Spilled(folder, "int32"), Spilled(folder, "uint8")
        self._ids.extend(ids)
        self._mask.extend(mask[:])

    def parts(self) -> tuple[dict[str, object], dict[str, Numbers]]:
        """Return all that it holds, to be kept in a file: what JSON takes, and arrays of numbers.

        `Store.of` takes the two apart from one another, and makes the same store of them.
        """
        told: dict[str, object] = {
            "names": self._names,
            "why": [[number, str(fate), why] for number, (fate, why) in self._why.items()],
            "prompt": self._prompt,
            "low": self._low,
            "high": self._high,
            "fates": dict(self.fates),
        }
        arrays: dict[str, Numbers] = {
            "ids": np.array(self._ids[:], np.int32),
            "mask": np.array(self._mask[:], np.uint8),
            "ends": np.array(self._ends, np.int64),
        }
        return told, arrays

    @classmethod
    def of(cls, told: Mapping[str, Any], *, ids: Numbers, mask: Numbers, ends: Numbers) -> Store:
        """Make a store of its parts."""
        store = cls()
        store._ids = array("i", ids.astype(np.intc).tobytes())
        store._mask = bytearray(mask.tobytes())
        store._ends = array("q", ends.astype(np.int64).tobytes())
        store._names = list(told["names"])
        store._why = {number: (Fate(fate), why) for number, fate, why in told["why"]}
        store._prompt, store.fates = told["prompt"], Counter(told["fates"])
        store._low, store._high = tuple(told["low"]), tuple(told["high"])
        return store

    def __len__(self) -> int:
        """Return the number of examples with tokens."""
        return len(self._names)

    @overload
    def __getitem__(self, number: int) -> Encoded: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Encoded]: ...
    def __getitem__(self, number: int | slice) -> Encoded | Sequence[Encoded]:
        """Return one example as it was added, or several."""
        if isinstance(number, slice):
            return [self[n] for n in range(*number.indices(len(self)))]
        number = range(len(self))[number]
        own = slice(self._ends[number], self._ends[number + 1])
        fate, why = self._why.get(number, (Fate.KEPT, ""))
        mask = tuple(map(bool, bytes(self._mask[own])))
        return Encoded(self._names[number], tuple(self._ids[own].tolist()), mask, fate, why)

    def names(self) -> Sequence[str]:
        """Return the examples' ids."""
        return self._names

    def tokens(self, number: int) -> int:
        """Return the length of one example."""
        return self._ends[number + 1] - self._ends[number]

    def shared_prefix(self) -> int:
        """Return how many leading tokens all examples share within their prompts.

        Each keeps at least one prompt token of its own, from which its completion is predicted.
        Plain texts have no prompt, and share nothing.
        """
        return common_start(self._low, self._high, limit=(self._prompt or 1) - 1)


def stored(encoded: Iterable[Encoded]) -> Store:
    """Return the examples in a store, as they are if they lie in one."""
    return encoded if isinstance(encoded, Store) else Store(encoded)


def common_start(low: Sequence[object], high: Sequence[object], *, limit: int) -> int:
    """Return how many leading tokens (or characters) two texts share, at most `limit`.

    Of the least and the greatest of many texts it is what all of them share.
    """
    shared = 0
    while shared < limit and low[shared] == high[shared]:
        shared += 1
    return shared
