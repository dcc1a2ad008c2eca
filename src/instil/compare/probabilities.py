"""Probabilities of answers: what validation rows make of them, and what they are worth on test.

`fit` takes the tuned model's answers to validation rows: one temperature, and how sure each answer
is beside whether it is right. `threshold` finds in these from which probability on answers keep to
a wanted error; `judge_probabilities` says what both do on test (docs/bar.md). The statistics are
`stats.calibration` and `stats.selective`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from instil.compare.contest import Contender
from instil.evaluate.metrics import group_list
from instil.evaluate.suite import Marked
from instil.results.names import TUNED
from instil.results.probabilities import Bin, Calibration, Fitted, Probabilities, Promise, Risk
from instil.stats.calibration import (
    BRIER,
    Ints,
    bin_rows,
    brier_losses,
    calibration_error,
    fit_temperature,
    mean_estimate,
    softmax,
)
from instil.stats.intervals import SHARE, Floats, Interval, wilson
from instil.stats.selective import Threshold, certify, design_effect, risk_curve
from instil.types import Estimate

WANTED = (0.1, 0.05, 0.02, 0.01)
"""Errors for which the report tells thresholds."""


def fit(marked: Marked, *, template: str) -> Fitted:
    """Fit what the tuned model's answers to validation rows tell of its probabilities.

    Args:
        marked: Its answers, by the sum of each choice's log-probabilities.
        template: The template that all rows were asked through.
    """
    scores, target = score_table(marked)
    temperature = fit_temperature(scores, target)
    right = scores.argmax(axis=1) == target
    sure = softmax(scores, temperature=temperature).max(axis=1)
    order = np.argsort(-sure, kind="stable")
    return Fitted(
        template,
        temperature,
        tuple(sure[order].tolist()),
        tuple(right[order].tolist()),
        design_effect(1.0 - right, _groups(marked)),
    )


def threshold(fitted: Fitted, *, max_error: float) -> Threshold:
    """Return from which probability on answers keep to a wanted error, by the validation rows."""
    wrong = 1.0 - np.array(fitted.right, dtype=np.float64)
    return certify(np.array(fitted.sure), wrong, max_error=max_error, design=fitted.design)


def smallest_error(fitted: Fitted) -> float | None:
    """Return the smallest error, in whole percent, that a threshold is found for; None: none."""
    errors = (percent / 100 for percent in range(1, 51))
    kept = (e for e in errors if threshold(fitted, max_error=e).at_least is not None)
    return next(kept, None)


def judge_probabilities(
    contenders: Sequence[Contender], fitted: Fitted, *, seed: int
) -> Probabilities:
    """Say what the probabilities of every arm are worth on test.

    Args:
        contenders: The arms on test, the tuned one among them.
        fitted: Of the tuned model, from validation.
        seed: Of the intervals.
    """
    (tuned,) = (c for c in contenders if c.name == TUNED)
    calibrations = [
        _calibration(tuned, temperature, seed=seed) for temperature in (1.0, fitted.temperature)
    ]
    calibrations += [_calibration(c, 1.0, seed=seed) for c in contenders if c is not tuned]
    scores, target = score_table(tuned.marked)
    groups = _groups(tuned.marked)
    shares = softmax(scores, temperature=fitted.temperature)
    change = brier_losses(shares, target) - brier_losses(softmax(scores), target)
    sure, wrong = shares.max(axis=1), (scores.argmax(axis=1) != target) * 1.0
    curve = risk_curve(sure, wrong).tolist()
    return Probabilities(
        temperature=fitted.temperature,
        rows=len(fitted.sure),
        design=fitted.design,
        calibrations=tuple(calibrations),
        brier_change=mean_estimate(change, groups=groups, seed=seed, span=Interval(-2.0, 2.0)),
        curve=tuple(Risk(answered, risk) for answered, risk in curve),
        promises=tuple(
            _promise(fitted, sure, wrong, groups, max_error=error, seed=seed) for error in WANTED
        ),
    )


def score_table(marked: Marked) -> tuple[Floats, Ints]:
    """Return each example's scores, (n, k), -inf beyond its choices, and its target's place."""
    width = max(len(made.choice_scores) for made in marked.predictions)
    scores = np.full((len(marked.predictions), width), -np.inf)
    for line, made in zip(scores, marked.predictions, strict=True):
        line[: len(made.choice_scores)] = made.choice_scores
    target = np.array([example.choices.index(example.target) for example in marked.examples])
    return scores, target


def _groups(marked: Marked) -> list[str] | None:
    return group_list([example.id for example in marked.examples], groups=marked.groups)


def _calibration(contender: Contender, temperature: float, *, seed: int) -> Calibration:
    scores, target = score_table(contender.marked)
    groups = _groups(contender.marked)
    shares = softmax(scores, temperature=temperature)
    sure, right = shares.max(axis=1), (scores.argmax(axis=1) == target) * 1.0
    error = calibration_error(sure, right, groups=groups, seed=seed)
    bins = []
    places = bin_rows(sure)
    for place in range(int(places.max()) + 1):
        inside = places == place
        rows, share = int(inside.sum()), float(right[inside].mean())
        ends = wilson(float(right[inside].sum()), rows)
        bins.append(Bin(float(sure[inside].mean()), Estimate(share, ends.low, ends.high), rows))
    losses = brier_losses(shares, target)
    return Calibration(
        contender.name,
        temperature,
        error.error,
        error.floor,
        mean_estimate(losses, groups=groups, seed=seed, span=BRIER),
        float(sure.mean()),
        float(right.mean()),
        tuple(bins),
    )


def _promise(
    fitted: Fitted,
    sure: Floats,
    wrong: Floats,
    groups: Sequence[str] | None,
    *,
    max_error: float,
    seed: int,
) -> Promise:
    """Hold a wanted error's threshold, found on validation, against the test rows."""
    found = threshold(fitted, max_error=max_error)
    if found.at_least is None:
        return Promise(max_error, None, needed=found.needed)
    answered = sure >= found.at_least
    share = mean_estimate(answered.astype(np.float64), groups=groups, seed=seed, span=SHARE)
    among = None
    if answered.any():
        own = np.array(groups)[answered].tolist() if groups else None
        among = mean_estimate(wrong[answered], groups=own, seed=seed, span=SHARE)
    return Promise(max_error, found.at_least, found.bound, answered=share, wrong=among)
