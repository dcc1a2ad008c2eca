"""All batches of a training, in order: encoded examples shuffled and packed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from instil.encode.pack import Batches, Cut, batches
from instil.encode.shard import Shard, joined
from instil.errors import DataError
from instil.results.training import MixLine
from instil.types import Encoded, Pack

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
    shards_of: Callable[[int], Iterable[Shard]],
    *,
    epochs: float | None,
    tokens_per_batch: int,
    micro_batch_tokens: int,
    seed: int,
    replay: Replay | None = None,
    folder: Path | None = None,
) -> TrainingData:
    """Pack all epochs.

    Args:
        shards_of: Epoch (from 0) -> its examples, encoded.
        epochs: May end in a fraction: the last epoch then takes that share of its batches. None:
            as `auto_epochs` says.
        tokens_per_batch: Tokens of an optimizer step.
        micro_batch_tokens: Tokens of a forward pass.
        seed: Of the order.
        replay: What is mixed into each epoch; None: nothing.
        folder: The tokens of many examples go to a file in it; None: to memory.

    Raises:
        DataError: Nothing is left to train on.
        InstilError: What the shards raise, or a row that cannot be rendered.
    """
    cuts: list[Cut] = []
    fates: Counter[str] = Counter()
    mix: tuple[MixLine, ...] = ()
    sample = None
    epoch, passed = 0, 0.0
    while epochs is None or epoch < epochs:
        whole = joined(shards_of(epoch), folder=folder)
        store, counts = whole.store, whole.counts
        if epochs is None:
            epochs = auto_epochs(sum(line.tokens for line in counts.lines()) / tokens_per_batch)
        if replay is not None and store:
            for again in islice(replay.stream, replay_count(len(store), share=replay.share)):
                store.append(again.made)
                counts.add(again.line, again.row, again.made)
        fates += store.fates
        mix = mix or counts.lines()
        sample = sample or (store[0] if store else None)
        cut = batches(
            store,
            tokens_per_batch=tokens_per_batch,
            micro_batch_tokens=micro_batch_tokens,
            seed=seed,
            epoch=epoch,
        )
        share = min(1.0, epochs - epoch)
        kept = max(1, math.ceil(share * len(cut) - 1e-9))
        cuts += cut.cuts[:kept]
        passed += kept / max(1, len(cut))
        epoch += 1
    if sample is None:
        raise DataError(
            f"0 % of the tokens are trained on: all {fates.total()} examples were dropped",
            fix="raise train.max_length, or set train.too_long: shorten",
        )
    planned = Batches(cuts, micro_batch_tokens=micro_batch_tokens)
    tasks = replay.tasks if replay else ()
    return TrainingData(planned, passed, dict(fates), sample, mix, tasks)
