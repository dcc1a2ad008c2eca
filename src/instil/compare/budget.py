"""The forgetting budget: how much the guard may lose before a run counts as failed.

The loss is the mean over the guard tasks, each in its own metric, in points of 100. The budget is
broken only beyond doubt: when the whole 95 % interval of the mean change lies beyond it. Tasks are
taken as independent, each with the standard error that its paired interval implies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from instil.evaluate.metrics import NATS
from instil.results import BudgetResult, GuardResult

_Z = 1.959963984540054


def check_budget(guard: Sequence[GuardResult], *, budget: float | None) -> BudgetResult | None:
    """Hold the guard's losses against the budget.

    Args:
        guard: Before and after, a line a task and metric; cross-entropies are passed over.
        budget: Points of 100 that may be lost on average; None: there is no budget.

    Returns:
        None where there is no budget, or no guard task to hold against it.
    """
    lines = [g.comparison for g in guard if g.comparison.metric != NATS.name]
    if budget is None or not lines:
        return None
    change = 100 * sum(line.difference for line in lines) / len(lines)
    errors = [100 * (line.high - line.low) / (2 * _Z) for line in lines]
    half = _Z * math.sqrt(sum(error**2 for error in errors)) / len(lines)
    return BudgetResult(budget, change, change - half, change + half, change + half < -budget)


def budget_sentence(result: BudgetResult) -> str:
    """Say how the budget came out.

    >>> budget_sentence(BudgetResult(2.0, -5.0, -7.0, -3.0, True))
    'The forgetting budget of 2 points is broken: -5.0 points on average (-7.0 to -3.0).'
    """
    kept = "is broken" if result.broken else "is not shown to be broken"
    return (
        f"The forgetting budget of {result.budget:g} points {kept}: {result.change:+.1f} points "
        f"on average ({result.low:+.1f} to {result.high:+.1f})."
    )
