"""What was done to keep what the model knew, and how far it moved all the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from instil.types import Estimate, Summary


@dataclass(frozen=True, slots=True)
class Tried:
    """A model between base and tuned, on rows that decide nothing else."""

    share: float
    """Interpolation weight: 0 is the base model, 1 the tuned one."""
    score: float
    """The mean over tasks of their metric, on validation."""
    loss: float
    """Nats per target token, on validation."""
    points: float | None
    """Mean change of the guard tasks' metrics against the base model, in points of 100; None
    without a budget, as the choice does not use it."""
    nats: float | None
    """Mean rise of the guard's cross-entropies, in nats per token; a fall counts as 0."""


@dataclass(frozen=True, slots=True)
class TextLoss:
    """What a model between base and tuned loses on general text that decides nothing else."""

    weight: float
    """Interpolation weight."""
    nats: float
    """Mean rise of its cross-entropy, nats per token; negative: it fell."""
    score: float
    """The mean over tasks of their metric, on validation."""


@dataclass(frozen=True, slots=True)
class ForgettingLaw:
    """Loss on general text by the interpolation weight *s*, and the curve slope s + curvature s^2.

    All losses are rises of the cross-entropy of general text, in nats per token.
    """

    at_most: float
    """What may be lost."""
    slope: float
    """Loss per unit of weight, next to the base model."""
    curvature: float
    """Loss per square of the weight."""
    misfit: float
    """The largest distance between the curve and the means it was fitted to."""
    predicted: float
    """Loss of the exported model on the texts that it was chosen on."""
    low: float
    """Lower end of the 95 % band: of the mean over the reported texts."""
    high: float
    """Its upper end."""
    texts: int
    """Texts that it was chosen on; none of them is reported."""
    points: tuple[TextLoss, ...]
    """All weights that were read."""
    came_out: Estimate | None = None
    """Loss on the reported texts; None before it was measured."""
    fitted_to: float = 1.0
    """The largest weight that the curve was fitted to: beyond it the form is not a quadratic."""


@dataclass(frozen=True, slots=True)
class Interpolation:
    """The exported model lies between base and tuned."""

    chosen: float
    """Interpolation weight: 1 is the tuned model."""
    why: str
    """By which rule, for people."""
    tried: tuple[Tried, ...] = ()
    """Empty where the recipe sets the weight."""
    guard_rows: Mapping[str, int] = field(default_factory=dict)
    """Guard task -> rows that the choice was made on; none of them is reported on."""
    law: ForgettingLaw | None = None
    """None unless the recipe says what may be lost at most."""


@dataclass(frozen=True, slots=True)
class Pruning:
    """The exported model has some of the tuned model's changes, and is the base model elsewhere."""

    share: float
    """Of each weight's changed entries that are kept; 0 to 1."""
    kept: int
    """Entries that differ from the base model's in the exported model."""
    changed: int
    """Entries that differ from it in the tuned one, its adapter merged."""
    weights: int
    """All entries."""


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
    """Mean change of the guard tasks' metrics against the base model, in points of 100; None
    without a budget, as the choice does not use it."""
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
class Moved:
    """How far tuning moved the model: KL(base || tuned) on validation, nats per answer token."""

    overall: Summary
    """Over the examples of all tasks."""
    tasks: Mapping[str, Summary]
    """Task -> over its examples."""


@dataclass(frozen=True, slots=True)
class TermMean:
    """A term of the loss beside cross-entropy, and what it came to."""

    name: str
    """As in `steps.jsonl`."""
    sentence: str
    """What was done, with the mean, for people."""
    mean: float | None = None
    """Over the steps; of a distance in nats per place, before its weight."""


@dataclass(frozen=True, slots=True)
class Means:
    """What training did to keep what the model knew, as the recipe asked and as it came out."""

    replay_share: float | None = None
    """Share of the examples that was asked for; None: nothing was replayed."""
    replay_of: str = ""
    """own, guard or tasks."""
    replayed: tuple[str, ...] = ()
    """Ids of the tasks of which rows were replayed."""
    replay_loss: float | None = None
    """Nats per token of what was replayed: mean over the steps that had some."""
    terms: tuple[TermMean, ...] = ()
    """Of the loss, beside cross-entropy."""
