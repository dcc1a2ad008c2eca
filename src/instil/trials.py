"""What was tried before something was chosen: learning rates, methods, parts of the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LORA, REPLAY, PART = "LoRA", "LoRA + replay", "interpolation"
"""Names of the ways that `method: auto` tries; the last goes with what it is a part of."""


@dataclass(frozen=True, slots=True)
class Tried:
    """The model a part of the way from base to tuned, on rows that decide nothing else."""

    share: float
    """How far: 0 is the untouched model, 1 the tuned one."""
    score: float
    """The mean over tasks of their metric, on validation."""
    loss: float
    """Nats per target token, on validation."""
    points: float | None
    """Mean change of the guard tasks' metrics against the untouched model, in points of 100; None
    without a budget, as the choice does not look at it."""
    nats: float | None
    """Mean rise of the guard's cross-entropies, in nats per token; a fall counts as 0."""


@dataclass(frozen=True, slots=True)
class Interpolation:
    """The model that is handed over lies between base and tuned."""

    chosen: float
    """How far it goes: 1 is the tuned model as it was."""
    why: str
    """By which rule, for people."""
    tried: tuple[Tried, ...] = ()
    """Empty where the recipe says how far."""
    guard_rows: Mapping[str, int] = field(default_factory=dict)
    """Guard task -> rows that the choice was made on; none of them is reported on."""


@dataclass(frozen=True, slots=True)
class TriedMethod:
    """One way to tune, on rows that decide nothing else."""

    name: str
    """For people: `LoRA + replay`."""
    score: float
    """The mean over tasks of their metric, on validation."""
    loss: float
    """Nats per target token, on validation."""
    points: float | None
    """Mean change of the guard tasks' metrics against the untouched model, in points of 100; None
    without a budget, as the choice does not look at it."""
    nats: float | None
    """Mean rise of the guard's cross-entropies, in nats per token; a fall counts as 0."""
    seconds: float
    """To train and measure it, beyond the ways before it."""


@dataclass(frozen=True, slots=True)
class Methods:
    """How `method: auto` came to its method."""

    chosen: int
    """Its place among those that were tried, from 0."""
    why: str
    """By which rule, for people."""
    tried: tuple[TriedMethod, ...]
    """In the order in which they were tried."""
    guard_rows: Mapping[str, int]
    """Guard task -> rows that the choice was made on; none of them is reported on."""


@dataclass(frozen=True, slots=True)
class TriedRate:
    """What a short training with one learning rate came to, on validation rows."""

    rate: float
    """The peak learning rate that it stands for."""
    steps: int
    """Steps taken; fewer than the others' where it was stopped."""
    loss: float | None
    """Nats per target token at its end, the mean over rows; None: it diverged."""
    behind: float | None = None
    """That minus the lowest one's, paired by row; None where it did not get to its end."""
    low: float | None = None
    """Lower end of that difference's 95 % interval; None where it has none, as the lowest's own."""
    high: float | None = None
    """Upper end."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """How the learning rate was chosen, before training."""

    rule: float
    """The rate that the rule gives."""
    chosen: float
    """The rate that was trained with."""
    why: str
    """By which rule, for people."""
    tried: tuple[TriedRate, ...] = ()
    """From low to high; empty where the training is too short to try any."""
    steps: int = 0
    """Steps of a try."""
    of_steps: int = 0
    """Steps of the training."""
    rows: int = 0
    """Validation rows that a try was judged on."""
    stretch: float = 1.0
    """A try ran at so many times the rate that it stands for, being so much shorter."""
    seconds: float = 0.0
    """Of all tries."""
