"""Short trainings with several learning rates on the first batches, and the weights put back.

A worked example: the rule says 5e-4, the training has 300 steps, and a try has 14. The rule's rate
is tried first, then rates further and further up, then further and further down; a direction ends
where a try is clearly worse than the best so far. Each try has a schedule of its own length, the
same batches and the same random state, so that tries differ in nothing but the rate.

What "clearly worse" means is the caller's to say, in nats of validation examples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from instil.errors import DivergedError
from instil.model.adapter import restore, snapshot, trainable
from instil.model.load import LoadedModel
from instil.train.loop import Schedule, train_steps
from instil.train.objective import Objective
from instil.train.optim import adamw
from instil.train.room import Room
from instil.types import Pack, Step

Nats = Mapping[str, float]
"""Example id -> cross-entropy of its target, nats per token."""
Worse = Callable[[Nats, Nats], bool]
"""Whether the first is clearly worse than the second."""


@dataclass(frozen=True, slots=True)
class Slice:
    """What every try is trained on, and how."""

    batches: Sequence[Sequence[Pack]]
    """The first batches of the training."""
    schedule: Schedule
    """Its shape; the peak is each try's own."""
    stretch: float
    """A try runs at so many times the rate that it stands for."""
    weight_decay: float
    """AdamW's, on matrices."""
    seed: int
    """Of what is random in a step (dropout), the same in every try."""
    objective: Objective | None = None
    """What is minimised; None: plain cross-entropy."""


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
    part: Slice,
    *,
    rule: float,
    above: Sequence[float],
    below: Sequence[float],
    look: Callable[[], Nats],
    worse: Worse,
    on_step: Callable[[float, Step], None] = lambda rate, step: None,
    room: Room | None = None,
) -> tuple[Trial, ...]:
    """Try learning rates, and leave weights and random state as they were, bit for bit.

    Args:
        loaded: The model, ready to train.
        part: What to train on.
        rule: Tried first.
        above: Higher ones, from the nearest on.
        below: Lower ones, from the nearest on.
        look: Looks at the validation examples.
        worse: Ends a try at its middle, and a direction.
        on_step: Told of each step, with the rate.
        room: How much is computed at once.
    """
    start, trials = snapshot(loaded.model), list[Trial]()

    def attempt(rate: float) -> Trial:
        restore(loaded.model, start)
        leader = best(trials)
        trials.append(
            _attempt(
                loaded,
                part,
                rate,
                look=look,
                hopeless=lambda seen: bool(
                    leader and leader.halfway and worse(seen, leader.halfway)
                ),
                on_step=on_step,
                room=room,
            )
        )
        return trials[-1]

    try:
        with torch.random.fork_rng():
            held = attempt(rule).end
            for direction in (above if held else (), below):
                for rate in direction:
                    trial, leader = attempt(rate), best(trials)
                    if leader and (trial.end is None or worse(trial.end, leader.end or {})):
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


def _attempt(
    loaded: LoadedModel,
    part: Slice,
    rate: float,
    *,
    look: Callable[[], Nats],
    hopeless: Callable[[Nats], bool],
    on_step: Callable[[float, Step], None],
    room: Room | None,
) -> Trial:
    torch.manual_seed(part.seed)
    peak = rate * part.stretch
    steps = train_steps(
        loaded,
        part.batches,
        optimizer=adamw(
            trainable(loaded.model), learning_rate=peak, weight_decay=part.weight_decay
        ),
        schedule=replace(part.schedule, learning_rate=peak),
        steps_per_epoch=len(part.batches),
        room=room,
        objective=part.objective,
    )
    taken, halfway = 0, None
    try:
        for step in steps:
            taken = step.step
            on_step(rate, step)
            if taken == max(1, len(part.batches) // 2):
                halfway = look()
                if hopeless(halfway):
                    return Trial(rate, taken, halfway, None)
    except DivergedError:
        return Trial(rate, taken, halfway, None)
    return Trial(rate, taken, halfway, look())
