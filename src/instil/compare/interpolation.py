"""Which of several models is taken: shares of the way to the tuned one, or ways to tune.

Weights between a model and its fine-tuned self keep most of what either of them can do (Wortsman et
al. 2022, "Robust fine-tuning of zero-shot models", arXiv:2109.01903); for LoRA that is the scale of
the adapter. Some shares of the way are tried, at no cost of training. `method: auto` trains with
and without replay, and tries shares of the way too. Both choose by one rule, on figures alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from instil.results.keeping import Interpolation, Tried, TriedMethod

SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Shares of the way that are tried, beside the base model."""
TOLERANCE = 0.005
"""Half a point of 100: what may be given up on the new task for less forgetting."""
_ROUNDING = 1e-9


def choose(tried: Sequence[Tried], *, budget: float | None) -> Interpolation:
    """Choose a share by `pick`; the base model (share 0) is only there to compare with.

    On few rows many scores are equal, and the loss still tells a model that learned from one that
    hardly did; of equals the smallest share is taken. Without guard rows that is so of all whose
    score is within half a point of the best.
    """
    tuned = sorted((each for each in tried if each.share > 0), key=lambda each: each.share)
    if any(each.points is None for each in tuned):
        budget = None
    place, why = pick(tuned, budget=budget)
    if budget is None and tuned[0].nats is None:
        why = (
            "the smallest share with a validation score within half a point of the best (there "
            "were no guard rows to choose on)"
        )
    elif budget is not None and not _within(tuned[place], budget):
        why = f"none was within the forgetting budget of {budget:g} points: the smallest loss"
    return Interpolation(tuned[place].share, why)


def pick(
    tried: Sequence[Tried] | Sequence[TriedMethod], *, budget: float | None
) -> tuple[int, str]:
    """Return the place of the model to take, and why.

    With a budget (points of 100 that the guard tasks may lose on average): of those within it, the
    best validation score; if none is, the one that lost least. Without: of those within half a
    point of the best score, the one that forgot the least. Ties go to what forgot less, then to the
    lower validation loss, then to what was tried first.
    """
    places = range(len(tried))
    if budget is None:
        close = [n for n in places if tried[n].score >= _bar(tried)]
        best = max(close, key=lambda n: (*_kept(tried[n]), -n))
        return best, "the least forgotten with a validation score within half a point of the best"
    kept = [n for n in places if _within(tried[n], budget)]
    if not kept:
        least = max(places, key=lambda n: (tried[n].points or 0.0, -n))
        return least, f"none kept to the forgetting budget of {budget:g} points; it lost least"
    best = max(kept, key=lambda n: (tried[n].score, *_kept(tried[n]), -n))
    return best, f"the best validation score within the forgetting budget of {budget:g} points"


def enough(tried: Sequence[TriedMethod], *, budget: float | None) -> bool:
    """Whether the last way tried keeps to the budget, within half a point of the best score so far.

    Without a budget there is nothing to keep to, and every way is tried.

    Args:
        tried: So far, at least one.
        budget: Points of 100 that the guard tasks may lose on average.
    """
    last = tried[-1]
    return budget is not None and _within(last, budget) and last.score >= _bar(tried)


def _bar(tried: Sequence[Tried] | Sequence[TriedMethod]) -> float:
    return max(each.score for each in tried) - TOLERANCE - _ROUNDING


def _within(each: Tried | TriedMethod, budget: float) -> bool:
    return (each.points or 0.0) >= -budget - _ROUNDING


def _kept(each: Tried | TriedMethod) -> tuple[float, float]:
    # Without guard rows there is nothing to tell what was forgotten by.
    return (0.0, 0.0) if each.nats is None else (-each.nats, -each.loss)
