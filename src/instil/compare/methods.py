"""Which way of tuning `method: auto` takes, and when it has tried enough: pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from instil.compare.interpolation import TOLERANCE
from instil.results import TriedMethod

_ROUNDING = 1e-9


def enough(tried: Sequence[TriedMethod], *, budget: float | None) -> bool:
    """Whether the last way tried keeps to the budget, within half a point of the best score so far.

    Without a budget there is nothing to keep to, and every way is tried.

    Args:
        tried: So far, at least one.
        budget: Points of 100 that the guard tasks may lose on average.
    """
    last = tried[-1]
    return budget is not None and _within(last, budget) and last.score >= _bar(tried)


def pick(tried: Sequence[TriedMethod], *, budget: float | None) -> tuple[int, str]:
    """Return the place of the way to take, and why.

    With a budget: of those within it, the best validation score; if none is, the one that lost
    least. Without: of those within half a point of the best score, the one that forgot the least.
    Ties go to what forgot less, then to the lower validation loss, then to what was tried first.
    """
    places = range(len(tried))
    if budget is not None:
        kept = [n for n in places if _within(tried[n], budget)]
        if not kept:
            least = max(places, key=lambda n: (_points(tried[n]), -n))
            return least, f"none kept to the forgetting budget of {budget:g} points; it lost least"
        best = max(kept, key=lambda n: (tried[n].score, *_kept(tried[n]), -n))
        return best, f"the best validation score within the forgetting budget of {budget:g} points"
    bar = _bar(tried)
    close = [n for n in places if tried[n].score >= bar]
    found = max(close, key=lambda n: (*_kept(tried[n]), -n))
    return found, "the least forgotten with a validation score within half a point of the best"


def _bar(tried: Sequence[TriedMethod]) -> float:
    return max(each.score for each in tried) - TOLERANCE - _ROUNDING


def _within(each: TriedMethod, budget: float) -> bool:
    return _points(each) >= -budget - _ROUNDING


def _points(each: TriedMethod) -> float:
    return 0.0 if each.points is None else each.points


def _kept(each: TriedMethod) -> tuple[float, float]:
    return -(each.nats or 0.0), -each.loss
