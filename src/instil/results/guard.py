"""What was forgotten: the guard tasks before and after training."""

from __future__ import annotations

from dataclasses import dataclass

from instil.types import Comparison, Summary


@dataclass(frozen=True, slots=True)
class GuardResult:
    """One guard task before and after training."""

    task: str
    """The task's id, or `general text`."""
    kind: str
    """The kind of task."""
    before: Summary
    """The base model."""
    after: Summary
    """The tuned model."""
    comparison: Comparison
    """after minus before, paired."""


@dataclass(frozen=True, slots=True)
class Margins:
    """Losses up to which a guard task counts as kept; None: nothing is said of it."""

    points: float | None = None
    """Of a guard task in its own metric, and of their mean; in points of 100."""
    text: float | None = None
    """Of general text, in nats per token."""


@dataclass(frozen=True, slots=True)
class BudgetResult:
    """The guard's mean change held against `forgetting.budget`; all in points of 100."""

    budget: float
    """What may be lost."""
    change: float
    """Mean change over the guard tasks; negative: lost."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end."""
    broken: bool
    """Whether the whole interval lies beyond the budget."""
