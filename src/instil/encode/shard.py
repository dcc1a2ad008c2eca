"""A stretch of an epoch, rendered and encoded: what one process makes at a time.

Terms: an *asked* item is a row through a template, not rendered yet; a *shard* holds the tokens of
some thousand of them, with what each task gave and which rows could not be rendered. Shards joined
in order are the epoch, whoever made them: an example's tokens depend on nothing but itself.

Tests: `tests/encode/test_processes.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from instil.data.build import Asked, Faults, rendered
from instil.encode.chat_format import ChatFormat
from instil.encode.mask import encode_turns
from instil.encode.store import Store
from instil.results.training import MixLine
from instil.types import Encoded, Example, Fate, TooLong

HELD = 50_000
"""Examples of an epoch whose tokens are held in memory."""

_Part = tuple[str, dict[str, int], list[tuple[int, int]], list[str]]
"""What is counted on one line: its name, the counts, length -> examples, and the rows."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """Turns examples into tokens."""

    chat: ChatFormat
    """The model's tokenizer and chat template."""
    max_length: int
    """Longest example, in tokens."""
    too_long: TooLong
    """What to do with longer ones."""

    def shard(self, asked: Iterable[Asked]) -> Shard:
        """Render and encode, in order.

        Rows that cannot be rendered are noted in the shard's faults.

        Raises:
            DataError: An example is too long under the policy `error`.
            ModelError: The chat template cannot hold the turns.
            OverBudgetError: A template does more than it may.
        """
        faults = Faults()
        return self.encoded(rendered(asked, faults), faults=faults)

    def encoded(self, examples: Iterable[Example], *, faults: Faults | None = None) -> Shard:
        """Encode examples that are rendered already, in order; raises as `shard` does."""
        shard = Shard(faults=Faults() if faults is None else faults)
        for example in examples:
            for item in encode_turns(
                example, self.chat, max_length=self.max_length, too_long=self.too_long
            ):
                shard.store.append(item)
                shard.counts.add(example.task, example.row, item, shots=example.shots)
        return shard


class MixCounts:
    """What each task gives to an epoch, tasks in the order of their first example.

    Of examples that the length policy dropped nothing but their number is counted.
    """

    def __init__(self) -> None:
        self._found: dict[str, Counter[str]] = {}
        self._lengths: dict[str, Counter[int]] = {}
        self._rows: dict[str, set[str]] = {}

    def add(self, line: str, row: str, made: Encoded, *, shots: int = 0) -> None:
        """Count one example on its line: its task's, or the replay's."""
        count = self._found.setdefault(line, Counter())
        lengths = self._lengths.setdefault(line, Counter())
        rows = self._rows.setdefault(line, set())
        count[str(made.fate)] += 1
        if made.ids:
            rows.add(row)
            lengths[len(made.ids)] += 1
            count["few_shot"] += shots > 0
            count["supervised_tokens"] += sum(made.mask)

    def update(self, other: MixCounts) -> None:
        """Count what was counted elsewhere, after what is counted here."""
        for line, count in other._found.items():
            self._found.setdefault(line, Counter()).update(count)
            self._lengths.setdefault(line, Counter()).update(other._lengths[line])
            self._rows.setdefault(line, set()).update(other._rows[line])

    def parts(self) -> list[_Part]:
        """Return what was counted, to be kept as JSON; `MixCounts.of` makes the same of it."""
        return [
            (line, dict(count), sorted(self._lengths[line].items()), sorted(self._rows[line]))
            for line, count in self._found.items()
        ]

    @classmethod
    def of(cls, parts: Iterable[_Part]) -> MixCounts:
        """Make counts of their parts."""
        counts = cls()
        for line, count, lengths, rows in parts:
            counts._found[line], counts._rows[line] = Counter(count), set(rows)
            counts._lengths[line] = Counter(dict(lengths))
        return counts

    def lines(self) -> tuple[MixLine, ...]:
        """Return a line a task."""
        return tuple(
            MixLine(
                task,
                rows=len(self._rows[task]),
                examples=self._lengths[task].total(),
                few_shot=count["few_shot"],
                tokens=sum(length * times for length, times in self._lengths[task].items()),
                supervised_tokens=count["supervised_tokens"],
                dropped=count[str(Fate.DROPPED)],
                shortened=count[str(Fate.TRUNCATED)],
                lengths=_quantiles(self._lengths[task]),
            )
            for task, count in self._found.items()
        )


def _quantiles(lengths: Counter[int]) -> tuple[int, int, int]:
    """Return median, 95th percentile and greatest of counted lengths; zeros where there are none.

    >>> _quantiles(Counter({10: 1, 30: 18, 50: 1}))
    (30, 50, 50)
    """
    ordered = sorted(lengths.elements()) or [0]
    return ordered[len(ordered) // 2], ordered[int(0.95 * len(ordered))], ordered[-1]


@dataclass(slots=True)
class Shard:
    """Encoded examples, and what was counted on the way."""

    store: Store = field(default_factory=Store)
    """The tokens, in order."""
    counts: MixCounts = field(default_factory=MixCounts)
    """What each task gave."""
    faults: Faults = field(default_factory=Faults)
    """The rows that could not be rendered."""

    def extend(self, other: Shard) -> None:
        """Add what comes next."""
        self.store.extend(other.store)
        self.counts.update(other.counts)
        self.faults.update(other.faults)


def joined(shards: Iterable[Shard], *, folder: Path | None = None) -> Shard:
    """Return shards as one, in order.

    Args:
        shards: All of them.
        folder: The tokens of more than `HELD` examples go to a file in it; None: to memory.

    Raises:
        DataError, TaskError: Rows could not be rendered; the first few are told at once.
    """
    whole = Shard()
    for shard in shards:
        whole.extend(shard)
        if folder is not None and len(whole.store) > HELD:
            whole.store.spill(folder)
    whole.faults.require_none()
    return whole
