"""How far a classifier's probabilities can be believed, and when it may answer.

A worked example: of ten rows answered with .9, six are right; the model is surer than it is right,
and its *calibration error* there is .3. Dividing its log-probabilities by a *temperature* above 1
makes it less sure of every answer, and changes none.

- `temperature`: the one number that makes the right answers of held-out rows likeliest (Guo et al.
  2017, On Calibration of Modern Neural Networks, section 4.2).
- `bin_table`, `calibration_error`: the expected calibration error over bins of equally many rows
  (Nguyen and O'Connor 2015); it is above 0 for a perfect model too, the more so with few rows.
- `brier`: the squared distance of the probabilities from the truth, summed over choices, 0 to 2
  (Brier 1950).
- `threshold`: *answer only when sure*. The k surest of n held-out rows are kept for a few k that
  are fixed beforehand. Given the certainty of the next row, the errors among these k are binomial,
  so the upper end of Clopper and Pearson's interval, with the chance of error parted among the k,
  bounds the share of errors of rows to come (Geifman and El-Yaniv 2017, Selective Classification
  for Deep Neural Networks, algorithm 1; here with Bonferroni's parts).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from instil.stats.intervals import LEVEL, Floats

BINS = 10
COVERAGES = (1.0, 0.8, 0.6, 0.4, 0.2)
"""Shares of the rows that may be answered: tried from the largest on, fixed beforehand."""
COLDEST, HOTTEST = 0.05, 20.0
"""Temperatures are sought between these."""


def padded(scores: Sequence[Sequence[float]]) -> Floats:
    """Return rows of scores as one array, (rows, most choices); missing choices are -inf."""
    wide = max(map(len, scores))
    return np.array([[*row, *[-math.inf] * (wide - len(row))] for row in scores], dtype=np.float64)


def probabilities(scores: Floats, *, temperature: float = 1.0) -> Floats:
    """Return softmax(scores / temperature), (rows, choices)."""
    scaled = scores / temperature
    shares = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def temperature(scores: Floats, right: Sequence[int]) -> float:
    """Return the temperature under which the right choices are likeliest.

    Where all are right the likeliest one is 0, which would make every answer certain; so of each
    row one part in n + 2, n rows, goes to the other choices (Platt 1999, Probabilistic Outputs for
    Support Vector Machines, section 2.2, as for n rows of one class).

    Args:
        scores: (rows, choices) log-probabilities, or any scores whose softmax is meant.
        right: Place of the right choice in each row.
    """
    from scipy.optimize import minimize_scalar

    rows, known = np.arange(len(right)), np.isfinite(scores)
    others = np.maximum(1, known.sum(axis=1, keepdims=True) - 1)
    wanted = known / others / (len(right) + 2)
    wanted[rows, right] = 1 - 1 / (len(right) + 2)

    def nats(log_temperature: float) -> float:
        scaled = scores / math.exp(log_temperature)
        far = np.where(known, np.logaddexp.reduce(scaled, axis=1)[:, None] - scaled, 0.0)
        return float((wanted * far).sum(axis=1).mean())

    ends = (math.log(COLDEST), math.log(HOTTEST))
    return math.exp(minimize_scalar(nats, bounds=ends, method="bounded").x)


@dataclass(frozen=True, slots=True)
class Bin:
    """Rows of about one certainty."""

    sure: float
    """Mean probability of their answers."""
    right: float
    """Share of these that are right."""
    rows: int
    """How many."""


def bin_table(sure: Floats, is_right: Floats) -> tuple[Bin, ...]:
    """Part rows into at most `BINS` bins of equally many, by certainty."""
    parts = np.array_split(np.argsort(sure, kind="stable"), min(BINS, len(sure)))
    return tuple(Bin(float(sure[p].mean()), float(is_right[p].mean()), len(p)) for p in parts)


def bin_columns(sure: Floats, is_right: Floats) -> Floats:
    """Return (rows, bins + 1) for `calibration_error`: certainty minus right in a row's bin, and 1.

    The bins are those of `bin_table`, kept as they are when rows are drawn again.
    """
    count = min(BINS, len(sure))
    columns = np.zeros((len(sure), count + 1))
    columns[:, -1] = 1
    for place, rows in enumerate(np.array_split(np.argsort(sure, kind="stable"), count)):
        columns[rows, place] = sure[rows] - is_right[rows]
    return columns


def calibration_error(totals: Floats) -> Floats:
    """Return the expected calibration error of column totals, (lines, bins + 1) -> (lines,)."""
    return np.asarray(np.abs(totals[:, :-1]).sum(axis=1) / totals[:, -1])


def brier(shares: Floats, right: Sequence[int]) -> Floats:
    """Return each row's Brier score, 0 to 2, of probabilities (rows, choices)."""
    truth = np.zeros_like(shares)
    truth[np.arange(len(right)), right] = 1
    return np.asarray(((shares - truth) ** 2).sum(axis=1))


@dataclass(frozen=True, slots=True)
class Threshold:
    """From which certainty on rows are answered."""

    above: float
    """Rows surer than this are answered; below 0: all."""
    coverage: float
    """Share of the held-out rows that this answers."""
    bound: float
    """What the share of errors among answered rows is at most, with 95 % confidence."""


def threshold(sure: Floats, is_right: Floats, *, most: float) -> Threshold | None:
    """Return the threshold that answers most rows at no more than a share of errors.

    Args:
        sure: Certainty of each held-out row's answer, of any scale.
        is_right: 1 or 0.
        most: Errors among the answered rows, 0 to 1.

    Returns:
        None where no coverage is shown to keep to it.
    """
    from scipy.stats import beta

    order = np.argsort(-sure, kind="stable")
    for coverage in COVERAGES:
        kept = round(coverage * len(sure))
        above = float(sure[order[kept]]) if kept < len(sure) else -1.0
        answered = sure > above  # of several alike at the edge none
        count, wrong = int(answered.sum()), int((1 - is_right[answered]).sum())
        if not count:
            continue
        level = 1 - (1 - LEVEL) / len(COVERAGES)
        bound = 1.0 if wrong == count else float(beta.ppf(level, wrong + 1, count - wrong))
        if bound <= most:
            return Threshold(above, count / len(sure), bound)
    return None


def rows_needed(most: float) -> int:
    """Return how many rows without any error would show that there are at most a share of errors.

    >>> rows_needed(0.05), rows_needed(0.1)
    (90, 44)
    """
    return math.ceil(math.log((1 - LEVEL) / len(COVERAGES)) / math.log(1 - most))
