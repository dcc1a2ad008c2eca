"""All batches of a training, in order: templates drawn, encoded, shuffled and packed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from instil.encode.chat_format import ChatFormat
from instil.encode.mask import encode_turns
from instil.encode.pack import Batches, Cut, batches
from instil.encode.store import Store
from instil.errors import DataError
from instil.results import MixLine
from instil.types import Encoded, Example, Pack, TooLong

STEPS = 150
"""Optimizer steps that `auto` epochs make, at least, if `MOST_EPOCHS` do (docs/defaults.md)."""
FEWEST_EPOCHS, MOST_EPOCHS = 2, 10


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What one training sees."""

    batches: Sequence[tuple[Pack, ...]]
    """Every epoch's batches, one after another; each is laid out when it is asked for."""
    epochs: float
    """How many epochs they make."""
    fates: Mapping[str, int]
    """What became of the examples of all epochs: fate -> number."""
    sample: Encoded
    """One encoded example, for people to look at."""
    mix: tuple[MixLine, ...] = ()
    """What the first epoch holds, a line a task."""
    replayed: tuple[str, ...] = ()
    """Ids of the tasks of which rows are replayed."""


class Replayed(NamedTuple):
    """An example of what is replayed."""

    line: str
    """Its line in the mix: `replay: ` and what it is of."""
    row: str
    """What it was made of, to count different ones by."""
    made: Encoded
    """The tokens; its id begins with `REPLAY`."""


@dataclass(frozen=True, slots=True)
class Replay:
    """Other material that is trained on as well."""

    share: float
    """Of an epoch's examples, 0 to 0.5."""
    stream: Iterator[Replayed]
    """Never ends; an epoch goes on where the one before it stopped."""
    tasks: tuple[str, ...] = ()
    """Ids of the tasks that it is of; empty: of the model's own texts."""


def replay_count(own: int, *, share: float) -> int:
    """Return how many examples are replayed beside `own` of the tasks', at least one.

    Their share of all examples differs from the one asked for by less than one example.

    >>> replay_count(95, share=0.05), replay_count(600, share=0.01), replay_count(10, share=0.01)
    (5, 6, 1)
    """
    return max(1, round(own * share / (1 - share)))


def auto_epochs(steps: float) -> int:
    """Return after how many epochs there were steps enough to learn from few rows.

    Args:
        steps: Of one epoch, without what is replayed.

    >>> [auto_epochs(steps) for steps in (5, 20, 50, 1000)]
    [10, 8, 3, 2]
    """
    return min(MOST_EPOCHS, max(FEWEST_EPOCHS, math.ceil(STEPS / max(1.0, steps))))


def plan_training(
    examples_of: Callable[[int], Iterable[Example]],
    chat: ChatFormat,
    *,
    epochs: float | None,
    max_length: int,
    too_long: str,
    tokens_per_batch: int,
    micro_batch_tokens: int,
    seed: int,
    replay: Replay | None = None,
) -> TrainingData:
    """Encode and pack all epochs.

    Args:
        examples_of: Epoch (from 0) -> its examples.
        chat: The model's tokenizer and chat template.
        epochs: May end in a fraction: the last epoch then takes that share of its batches. None:
            as `auto_epochs` says.
        max_length: Longest example, in tokens.
        too_long: What to do with longer ones.
        tokens_per_batch: Tokens of an optimizer step.
        micro_batch_tokens: Tokens of a forward pass.
        seed: Of the order.
        replay: What is mixed into each epoch; None: nothing.

    Raises:
        DataError: An example is too long under the policy `error`, or nothing is left to train on.
    """
    cuts: list[Cut] = []
    fates: Counter[str] = Counter()
    mix: tuple[MixLine, ...] = ()
    sample = None
    epoch = 0
    while epochs is None or epoch < epochs:
        store, counts = Store(), MixCounts()
        for example in examples_of(epoch):
            for item in encode_turns(
                example, chat, max_length=max_length, too_long=TooLong(too_long)
            ):
                store.append(item)
                counts.add(example.task, example.row, item, shots=example.shots)
        if epochs is None:
            epochs = auto_epochs(sum(line.tokens for line in counts.lines()) / tokens_per_batch)
        if replay is not None and store:
            for again in islice(replay.stream, replay_count(len(store), share=replay.share)):
                store.append(again.made)
                counts.add(again.line, again.row, again.made)
        fates += store.fates
        mix = mix or counts.lines()
        sample = sample or (store[0] if store else None)
        whole = batches(
            store,
            tokens_per_batch=tokens_per_batch,
            micro_batch_tokens=micro_batch_tokens,
            seed=seed,
            epoch=epoch,
        )
        share = min(1.0, epochs - epoch)
        cuts += whole.cuts[: max(1, math.ceil(share * len(whole) - 1e-9))]
        epoch += 1
    if sample is None:
        raise DataError(
            f"0 % of the tokens are trained on: all {fates.total()} examples were dropped",
            fix="raise train.max_length, or set train.too_long: shorten",
        )
    planned = Batches(cuts, micro_batch_tokens=micro_batch_tokens)
    tasks = replay.tasks if replay else ()
    return TrainingData(planned, epochs, dict(fates), sample, mix, tasks)


class MixCounts:
    """What each task gives to an epoch, tasks in the order of their first example.

    Examples that the length policy dropped have no tokens and do not count.
    """

    def __init__(self) -> None:
        self._found: dict[str, Counter[str]] = {}
        self._rows: dict[str, set[str]] = {}

    def add(self, line: str, row: str, made: Encoded, *, shots: int = 0) -> None:
        """Count one example on its line: its task's, or the replay's."""
        count = self._found.setdefault(line, Counter())
        rows = self._rows.setdefault(line, set())
        if made.ids:
            rows.add(row)
            count["examples"] += 1
            count["few_shot"] += shots > 0
            count["tokens"] += len(made.ids)
            count["supervised_tokens"] += sum(made.mask)

    def lines(self) -> tuple[MixLine, ...]:
        """Return a line a task."""
        return tuple(
            MixLine(
                task,
                rows=len(self._rows[task]),
                examples=count["examples"],
                few_shot=count["few_shot"],
                tokens=count["tokens"],
                supervised_tokens=count["supervised_tokens"],
            )
            for task, count in self._found.items()
        )
