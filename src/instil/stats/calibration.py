"""Whether probabilities mean what they say: calibration error, Brier score, one temperature.

A worked example: 100 rows whose answers a model gave with a probability of 90 %, of which 80 are
right. The calibration error is 10 points, the model is overconfident, and a temperature above 1
brings its probabilities down::

    scores        log-likelihood of each choice, (n, k); -inf where a row has fewer choices
    shares        softmax(scores / T), (n, k): they sum to 1
    sure          the largest share of each row, (n,): the probability of the answer given
    right         whether that answer is right, (n,)

Rows are taken as given; clusters are resampled together for intervals. This module never imports
torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from instil.stats.intervals import (
    LEVEL,
    SHARE,
    Floats,
    Interval,
    bootstrap,
    bootstrap_mean,
    cluster_table,
)
from instil.types import Estimate

Ints = npt.NDArray[np.intp]

BINS = 10
"""Bins of a reliability diagram at most."""
ROWS_A_BIN = 20
"""Rows that a bin has at least, where there are several bins."""
HOTTEST = 50.0
"""A temperature is sought between 1 / HOTTEST and HOTTEST."""
CONSISTENT_DRAWS = 1000
"""Draws of what calibrated probabilities would show."""
BRIER = Interval(0.0, 2.0)
"""The scale of the Brier score over several classes."""


@dataclass(frozen=True, slots=True)
class CalibrationError:
    """The expected calibration error of one set of answers."""

    error: Estimate
    """Mean over rows of |share right - mean probability| of their bin, 0 to 1. Its lower end is 0
    where calibrated probabilities would often show as much."""
    floor: float
    """What calibrated probabilities would show on the same rows, on average; 0 to 1."""


def softmax(scores: Floats, *, temperature: float = 1.0) -> Floats:
    """Return probabilities of choices.

    Args:
        scores: Log-likelihoods, shape (n, k); -inf where a row has fewer choices than k.
        temperature: Above 1 they become more alike, below 1 less.

    Returns:
        Shape (n, k); each row sums to 1.

    >>> softmax(np.log([[0.9, 0.1]]), temperature=2.0).round(3).tolist()
    [[0.75, 0.25]]
    """
    scaled = (scores - scores.max(axis=1, keepdims=True)) / temperature
    shares = np.exp(scaled)
    normal: Floats = shares / shares.sum(axis=1, keepdims=True)
    return normal


def negative_log_likelihood(scores: Floats, target: Ints, *, temperature: float = 1.0) -> float:
    """Return the mean cross-entropy of the right choices, in nats a row.

    Args:
        scores: As in `softmax`.
        target: The place of the right choice, shape (n,).
        temperature: As in `softmax`.
    """
    scaled = (scores - scores.max(axis=1, keepdims=True)) / temperature
    whole = np.log(np.exp(scaled).sum(axis=1))
    return float((whole - scaled[np.arange(len(target)), target]).mean())


def fit_temperature(scores: Floats, target: Ints) -> float:
    """Return the temperature with the lowest cross-entropy (Guo et al. 2017, section 4.2).

    Over 1 / T the cross-entropy is convex, so there is one minimum. Where every answer is right it
    falls for ever as T falls, and where scores tell nothing apart it is flat: then nothing can be
    fitted, and it is 1.

    Args:
        scores: As in `softmax`, of rows that nothing else is reported on.
        target: The place of the right choice, shape (n,).
    """
    from scipy.optimize import minimize_scalar

    best = scores.max(axis=1)
    own = scores[np.arange(len(target)), target]
    if np.all(own >= best):
        return 1.0
    ends = (-math.log(HOTTEST), math.log(HOTTEST))
    fitted = minimize_scalar(
        lambda log: negative_log_likelihood(scores, target, temperature=math.exp(log)),
        bounds=ends,
        method="bounded",
        options={"xatol": 1e-6},
    )
    return math.exp(float(fitted.x))


def brier_losses(shares: Floats, target: Ints) -> Floats:
    """Return each row's squared distance from the truth, 0 to 2 (Brier 1950).

    >>> brier_losses(np.array([[0.8, 0.2]]), np.array([0])).round(2).tolist()
    [0.08]
    """
    truth = np.zeros_like(shares)
    truth[np.arange(len(target)), target] = 1.0
    losses: Floats = ((shares - truth) ** 2).sum(axis=1)
    return losses


def mean_estimate(
    values: Floats, *, groups: Sequence[str] | None, seed: int = 0, span: Interval | None = None
) -> Estimate:
    """Return a mean with its cluster bootstrap interval."""
    ends = bootstrap_mean(values, groups=groups, seed=seed, span=span)
    return Estimate(float(values.mean()), ends.low, ends.high)


def bin_rows(sure: Floats) -> Ints:
    """Return each row's bin, from 0: bins of equal mass (Nguyen & O'Connor 2015, section 3.1).

    Tuned models are sure of most rows, so that bins of equal width hold either most rows or a few.
    Rows with the same probability share a bin.

    >>> np.bincount(bin_rows(np.linspace(0.5, 1, 100))).tolist()
    [20, 20, 20, 20, 20]
    """
    count = max(1, min(BINS, len(sure) // ROWS_A_BIN))
    inner = np.linspace(0, 1, count + 1)[1:-1]
    edges = np.unique(np.quantile(sure, inner)) if len(inner) else np.array([])
    places = np.searchsorted(edges, sure, side="right")
    bins: Ints = np.unique(places, return_inverse=True)[1].reshape(-1)
    return bins


def calibration_error(
    sure: Floats, right: Floats, *, groups: Sequence[str] | None = None, seed: int = 0
) -> CalibrationError:
    """Return the expected calibration error of the answers given (Naeini 2015; Guo et al. 2017).

    The figure is never below 0, so that noise raises it: with few rows perfectly calibrated
    probabilities show an error too, which `floor` tells. For the same reason the bootstrap's
    percentiles lie too high; the lower one is moved down by the bias that the bootstrap sees, and
    is 0 unless the figure is above the 95 % quantile of what calibrated probabilities show
    (consistency resampling, Broecker & Smith 2007, which takes rows as independent).

    Args:
        sure: The probability of each answer, shape (n,).
        right: 1 where it is right, else 0, shape (n,).
        groups: The cluster of each row; None: every row by itself.
        seed: Of the draws.
    """
    bins = bin_rows(sure)
    member = np.zeros((len(sure), int(bins.max()) + 1))
    member[np.arange(len(sure)), bins] = 1.0

    def error(totals: Floats) -> Floats:
        """Take column totals, the last of them the number of rows."""
        shown: Floats = np.abs(totals[:, :-1]).sum(axis=1) / totals[:, -1]
        return shown

    gaps = np.column_stack([member * (right - sure)[:, None], np.ones(len(sure))])
    table = cluster_table(gaps, groups=groups)
    estimate = float(error(table.sum(axis=0, keepdims=True))[0])
    random = np.random.default_rng(seed)
    calibrated = np.array(
        [
            np.abs(((random.random(len(sure)) < sure) - sure) @ member).sum() / len(sure)
            for _ in range(CONSISTENT_DRAWS)
        ]
    )
    ends = bootstrap(table, error, seed=seed, span=SHARE)
    shown = estimate > float(np.quantile(calibrated, LEVEL))
    middle = (ends.low + ends.high) / 2
    low = max(0.0, ends.low - max(0.0, middle - estimate)) if shown else 0.0
    return CalibrationError(
        Estimate(estimate, min(low, estimate), max(ends.high, estimate)), float(calibrated.mean())
    )
