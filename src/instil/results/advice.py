"""Ways to do a task, told before any long training."""

from __future__ import annotations

from dataclasses import dataclass

from instil.types import Comparison, Estimate, Summary


@dataclass(frozen=True, slots=True)
class Way:
    """A way to do a task, tried on validation rows before any long training."""

    name: str
    """majority, tfidf, probe, prompting or tuned."""
    label: str
    """For people."""
    seen: Summary
    """Its score on the validation rows."""
    expected: Estimate
    """The score that is expected of it on other rows, of the tuned model after the whole
    training."""
    risk: float
    """The chance that another way is better by more than `compare.advice.WORTH`, 0 to 1."""
    tokens: float = 0.0
    """Read and written for one answer; 0: it needs no language model."""


@dataclass(frozen=True, slots=True)
class Advice:
    """Which way to do a task is advised before training, and what that rests on."""

    task: str
    """The task."""
    metric: str
    """What decides."""
    ways: tuple[Way, ...]
    """The cheapest first."""
    chosen: int
    """The place of the advised one in `ways`, from 0."""
    rows: int
    """Validation rows it rests on."""
    tried: float
    """Share of the training that the short try took, 0 to 1."""
    training_tokens: float
    """What the whole training computes, in tokens that are read."""
    twice_the_rows: Comparison | None = None
    """The probe on all training rows minus the probe on half of them; None: not measured."""
    text: Comparison | None = None
    """What the short try did to general text, nats per token; None: not measured."""
    groups: int = 0
    """Groups that the validation rows are of; 0 in runs of an earlier version."""
    probed: int = 0
    """Training rows that the probe read, half of them for `twice_the_rows`; 0: not told."""

    @property
    def way(self) -> Way:
        """The advised way."""
        return self.ways[self.chosen]
