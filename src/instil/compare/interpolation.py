"""How far to go from the untouched model to the tuned one: the rule, as a function of figures.

Weights between a model and its fine-tuned self keep most of what either of them can do (Wortsman et
al. 2022, "Robust fine-tuning of zero-shot models", arXiv:2109.01903); for LoRA that is the scale of
the adapter. Some shares of the way are tried, at no cost of training.
"""

from __future__ import annotations

from collections.abc import Sequence

from instil.results import Interpolation, Tried

SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Shares of the way that are tried, beside the untouched model."""
TOLERANCE = 0.005
"""Half a point of 100: what may be given up on the new task for less forgetting."""
_ROUNDING = 1e-9


def choose(tried: Sequence[Tried], *, budget: float | None) -> Interpolation:
    """Choose among what was tried; the untouched model (share 0) is only there to compare with.

    Without a budget: of those whose validation score is within half a point of the best, the one
    that forgot the least. With one (points of 100 that the guard tasks may lose on average): of
    those within it, the one with the best score; if none is, the one that lost the least. Ties go
    to the lower validation loss, then to the smaller share; on few rows many scores are equal, and
    the loss still tells a model that learned from one that hardly did.
    """
    tuned = [each for each in tried if each.share > 0]
    if budget is not None and all(each.points is not None for each in tuned):
        return _within_budget(tuned, budget)
    bar = max(each.score for each in tuned) - TOLERANCE - _ROUNDING
    close = [each for each in tuned if each.score >= bar]
    if all(each.nats is not None for each in close):
        why = "the least forgotten with a validation score within half a point of the best"
    else:
        why = (
            "the smallest share with a validation score within half a point of the best (there "
            "were no guard rows to choose on)"
        )
    return Interpolation(min(close, key=_forgotten).share, why)


def _within_budget(tuned: Sequence[Tried], budget: float) -> Interpolation:
    kept = [each for each in tuned if _points(each) >= -budget - _ROUNDING]
    if not kept:
        least = max(tuned, key=lambda each: (_points(each), -each.share))
        why = f"none was within the forgetting budget of {budget:g} points: the smallest loss"
        return Interpolation(least.share, why)
    best = max(kept, key=lambda each: (each.score, *(-n for n in _forgotten(each))))
    why = f"the best validation score within the forgetting budget of {budget:g} points"
    return Interpolation(best.share, why)


def _points(each: Tried) -> float:
    assert each.points is not None, "`choose` has looked"
    return each.points


def _forgotten(each: Tried) -> tuple[float, float, float]:
    if each.nats is None:  # nothing to tell what was forgotten by: not to go far is all there is
        return 0.0, 0.0, each.share
    return each.nats, each.loss, each.share
