"""Answer only when sure: a threshold on the probability that keeps to a wanted error.

A worked example: at most 5 % of the answers given may be wrong. Validation rows are ordered by the
probability of their answer, the surest first. The surest third is tested first, then one row more
at a time; a test is passed where the exact upper bound of the share wrong is at most 5 %, and the
first that fails ends it::

    surest rows      100   101  ...  170   171
    of them wrong      1     1         3     4
    upper bound, %   4.7   4.6       4.5   5.3
    passed           yes   yes  ...  yes    no    -> the probability of row 170 is the threshold

This is fixed-sequence testing (Angelopoulos et al. 2021, "Learn then Test", arXiv:2110.01052) of
the risk among the rows answered (selective classification: Geifman & El-Yaniv 2017), with the exact
binomial bound (Clopper & Pearson 1934) in place of a correction for the number of thresholds.

With a probability of 95 % over the draw of the validation rows the share wrong among all future
rows above the threshold is at most the wanted one, if future rows are drawn as these were, the
model was not chosen by them, and surer answers are not wrong more often than less sure ones. Why
that is enough: the certified threshold can only be too low if the rows above the lowest good one
passed their test (their number is given, their errors binomial with the wanted error or more: at
most 5 %), or, where these are fewer than the first test has, if that test was passed by rows that
are wrong more often than is wanted (at most 5 % again); which of the two cases it is does not
depend on errors.

Rows of one group are alike, so that they count for fewer: the bound takes the effective number of
rows (Korn & Graubard 1998, Survey Methodology 24(2)), the design effect being that of the errors
over all rows. With groups the promise is therefore approximate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from instil.stats.intervals import LEVEL, Floats, cluster_table, width_of

FIRST = 1 / 3
"""The share of rows, the surest, that is tested first. A smaller one has too few rows to pass with
an error among them, a larger one gives up where only few rows can be answered."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """What validation rows say of a wanted error."""

    at_least: float | None
    """Rows are answered from this probability on; None: no threshold keeps to the wanted error."""
    answered: int = 0
    """Validation rows at or above it."""
    wrong: int = 0
    """Of these."""
    bound: float = 1.0
    """The 95 % upper bound of the share wrong among rows answered, 0 to 1."""
    needed: int | None = None
    """Where there is no threshold: validation rows that would be enough if the surest third of them
    is wrong as often as these tell; None: no number would be."""


def upper_bound(wrong: Floats, rows: Floats) -> Floats:
    """Return the exact one-sided 95 % upper bound of a share (Clopper & Pearson 1934).

    Args:
        wrong: Of the rows; need not be whole.
        rows: How many, more than 0.

    >>> upper_bound(np.array([0.0, 1.0]), np.array([59.0, 59.0])).round(4).tolist()
    [0.0495, 0.0779]
    """
    from scipy.special import betaincinv

    left = np.maximum(rows - wrong, 1e-12)
    bound: Floats = np.where(wrong < rows, betaincinv(wrong + 1, left, LEVEL), 1.0)
    return bound


def fewest_rows(max_error: float) -> int:
    """Return how many rows without an error it takes to bound the share wrong.

    >>> fewest_rows(0.05), fewest_rows(0.01)
    (59, 299)
    """
    return math.ceil(round(math.log(1 - LEVEL) / math.log(1 - max_error), 9))


def design_effect(wrong: Floats, groups: Sequence[str] | None) -> float:
    """Return how many grouped rows count as one: at least 1, and all of them for a single group.

    The variance of the share wrong with whole groups drawn, over that with rows drawn one by one
    (Kish 1965), times what few groups tell less of it (Korn & Graubard 1998, Survey Methodology
    24(2): the squared ratio of Student's t with the degrees of freedom of groups and of rows). Rows
    that are all right show no variance: then each group counts as one.

    >>> round(design_effect(np.array([1.0, 1, 0, 0, 0, 0, 0, 0]), list("aabbccdd")), 2)
    4.83
    """
    rows, share = len(wrong), float(wrong.mean())
    if groups is None:
        return 1.0
    gaps = cluster_table((wrong - share)[:, None], groups=groups)[:, 0]
    clusters = len(gaps)
    if clusters < 2:
        return float(rows)
    effect = rows / clusters
    if 0 < share < 1:
        grouped = clusters / (clusters - 1) * float((gaps**2).sum())
        effect = max(1.0, grouped / float(((wrong - share) ** 2).sum()))
    few, many = (width_of(count - 1) for count in (clusters, rows))
    return float(min(rows, effect * (few / many) ** 2))


def certify(sure: Floats, wrong: Floats, *, max_error: float, design: float = 1.0) -> Threshold:
    """Find the lowest threshold whose error is shown to be at most the wanted one.

    Args:
        sure: The probability of each validation row's answer, shape (n,).
        wrong: 1 where it is wrong, else 0, shape (n,).
        max_error: The wanted share of wrong answers among those given, between 0 and 1.
        design: So many rows count as one, see `design_effect`.
    """
    assert 0 < max_error < 1, "a share between none and all"
    assert len(sure), "a threshold needs validation rows"
    order = np.argsort(-sure, kind="stable")
    ordered, errors = sure[order], np.cumsum(wrong[order])
    count = np.arange(1.0, len(sure) + 1)
    bounds = upper_bound(errors / design, count / design)
    # A threshold answers all rows of the same probability, or none of them.
    whole = np.append(ordered[1:] < ordered[:-1], True)
    first = max(math.ceil(design * fewest_rows(max_error)), math.ceil(FIRST * len(sure)))
    tested = np.flatnonzero(whole & (count >= first))
    failed = np.flatnonzero(bounds[tested] > max_error)
    passed = tested[: failed[0]] if len(failed) else tested
    if not len(passed):
        at = tested[0] if len(tested) else math.ceil(FIRST * len(sure)) - 1
        needed = _needed(errors, count, at=int(at), max_error=max_error, design=design)
        return Threshold(None, needed=needed)
    last = passed[-1]
    return Threshold(float(ordered[last]), int(count[last]), int(errors[last]), float(bounds[last]))


def _needed(
    errors: Floats, count: Floats, *, at: int, max_error: float, design: float
) -> int | None:
    """Return how many validation rows would pass the first test with errors as these have them.

    The first test, of the rows up to place `at`, is of as large a share of more rows, or of so many
    as it takes without an error where that is fewer. How often that share is wrong these rows tell,
    and, as surer answers are not wrong more often, so do the less sure ones: the lowest share of
    all is taken, unless the surest are wrong so often that it is not theirs (by its binomial
    probability).
    """
    from scipy.special import bdtrc

    rows, least = len(count), design * fewest_rows(max_error)
    surest, wrong = float(count[at]), float(errors[at])
    if not wrong:
        return math.ceil(least * rows / float(count[errors == 0][-1]))
    pooled = float((errors[at:] / count[at:]).min())
    more = float(bdtrc(math.ceil(wrong / design) - 1, math.floor(surest / design), pooled))
    for share in (*([pooled] if more >= 1 - LEVEL else []), wrong / surest):
        tested = _rows_at(share, max_error=max_error, design=design)
        if tested is not None and tested > surest:
            return math.ceil(tested * rows / surest)
    return None


def _rows_at(share: float, *, max_error: float, design: float) -> float | None:
    """Return how many rows, so often wrong, pass a test; None: no number does."""
    if share >= max_error:
        return None

    def within(wrong: int) -> bool:
        return _passes(wrong, wrong / share, max_error=max_error, design=design)

    low, high = 0, 1
    while not within(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if within(middle) else (middle, high)
    return max(high / share, design * fewest_rows(max_error))


def _passes(wrong: float, answered: float, *, max_error: float, design: float) -> bool:
    bound = upper_bound(np.array([wrong / design]), np.array([answered / design]))
    return float(bound[0]) <= max_error


def risk_curve(sure: Floats, wrong: Floats, *, points: int = 50) -> Floats:
    """Return the share wrong against the share answered, the surest rows first.

    Args:
        sure: The probability of each answer, shape (n,).
        wrong: 1 where it is wrong, else 0, shape (n,).
        points: At most so many, evenly over the rows.

    Returns:
        Shape (points, 2): share answered (coverage), share wrong among these (risk).

    >>> risk_curve(np.array([0.9, 0.6]), np.array([0.0, 1.0])).tolist()
    [[0.5, 0.0], [1.0, 0.5]]
    """
    order = np.argsort(-sure, kind="stable")
    ordered, errors = sure[order], np.cumsum(wrong[order])
    whole = np.flatnonzero(np.append(ordered[1:] < ordered[:-1], True)) + 1
    picked = whole[np.unique(np.linspace(0, len(whole) - 1, points).round().astype(int))]
    return np.column_stack([picked / len(sure), errors[picked - 1] / picked])
