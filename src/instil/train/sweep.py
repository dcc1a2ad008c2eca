"""Short trainings with several learning rates on the first batches, and the weights put back.

A worked example: the rule says 5e-4, the training has 300 steps, and a try has 14. The rule's rate
is tried first, then rates further and further up, then further and further down; a direction ends
where a try is clearly worse than the best so far. Each try has a schedule of its own length, the
same batches and the same draws (dropout), so that tries differ in nothing but the rate.

What "clearly worse" means is the caller's to say, in nats of validation examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from instil.errors import DivergedError
from instil.model.adapter import restore, snapshot
from instil.model.load import LoadedModel
from instil.types import Step

Nats = Mapping[str, float]
"""Example id -> cross-entropy of its target, nats per token."""
Worse = Callable[[Nats, Nats], bool]
"""Whether the first is clearly worse than the second."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One try."""

    rate: float
    """The rate that it stands for."""
    steps: int
    """Steps taken."""
    halfway: Nats | None
    """At its middle; None: it had diverged."""
    end: Nats | None
    """At its end; None: it did not get there."""


def sweep(
    loaded: LoadedModel,
    train: Callable[[float], Iterable[Step]],
    *,
    steps: int,
    rule: float,
    above: Sequence[float],
    below: Sequence[float],
    look: Callable[[], Nats],
    worse: Worse,
) -> tuple[Trial, ...]:
    """Try learning rates, and leave weights and random state as they were, bit for bit.

    Args:
        loaded: The model, ready to train.
        train: Trains at a rate, step by step.
        steps: How many these are.
        rule: Tried first.
        above: Higher ones, from the nearest on.
        below: Lower ones, from the nearest on.
        look: Looks at the validation examples.
        worse: Ends a try at its middle, and a direction.
    """
    start, trials = snapshot(loaded.model), list[Trial]()

    def attempt(rate: float) -> Trial:
        restore(loaded.model, start)
        leader, taken, halfway = best(trials), 0, None
        try:
            for step in train(rate):
                taken = step.step
                if taken == max(1, steps // 2):
                    halfway = look()
                    if leader and leader.halfway and worse(halfway, leader.halfway):
                        return Trial(rate, taken, halfway, None)
        except DivergedError:
            return Trial(rate, taken, halfway, None)
        return Trial(rate, taken, halfway, look())

    try:
        with torch.random.fork_rng():
            trials.append(attempt(rule))
            for direction in (above if trials[0].end else (), below):
                for rate in direction:
                    trials.append(attempt(rate))
                    end, leader = trials[-1].end, best(trials)
                    if leader and (end is None or worse(end, leader.end or {})):
                        break
    finally:
        restore(loaded.model, start)
        loaded.model.zero_grad(set_to_none=True)
    return tuple(sorted(trials, key=lambda trial: trial.rate))


def best(trials: Sequence[Trial]) -> Trial | None:
    """Return the one with the lowest mean at its end; None where none got there."""
    done = [trial for trial in trials if trial.end]
    return min(done, key=lambda trial: mean(trial.end or {}), default=None)


def mean(nats: Nats) -> float:
    """Return the mean over examples, in nats per token."""
    return sum(nats.values()) / len(nats)
