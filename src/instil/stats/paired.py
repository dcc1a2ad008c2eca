"""Statistics of two arms on the same examples: pure functions, each with its source.

A worked example: on 300 test rows arm B is right where A is wrong 40 times, and A where B is wrong
20 times. McNemar's test asks whether 40 : 20 could be a fair coin; the paired bootstrap says how
large the difference (20 / 300) may be; `smallest_detectable` says what 300 rows could have shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from instil.stats.intervals import (
    DIFFERENCE,
    LEVEL,
    Floats,
    Interval,
    mean_table,
    ratio,
    spread,
    t_quantile,
    width_of,
    wilson,
)

POWER = 0.80
"""The chance to find a difference of the size that `smallest_detectable` names."""
ALPHA = 1 - LEVEL
"""The share of false alarms that is accepted."""

_NORMAL = NormalDist()


def mcnemar_midp(b_only: int, a_only: int) -> float:
    """Return McNemar's exact mid-p value, two-sided.

    Mid-p, because the plain exact test is too timid and the asymptotic one too bold with few
    discordant pairs (Fagerland, Lydersen & Laake 2013, BMC Med. Res. Methodol. 13:91). It takes
    examples as independent; with clusters, trust the bootstrap interval.

    Args:
        b_only: Examples that B alone has right.
        a_only: Examples that A alone has right.

    >>> round(mcnemar_midp(1, 7), 4)
    0.0391
    """
    from scipy.special import bdtr

    n, fewer = b_only + a_only, min(b_only, a_only)
    # 2 P(X <= m) - P(X = m) = P(X <= m) + P(X <= m - 1)
    below = bdtr(float(fewer - 1), n, 0.5) if fewer else 0.0
    return min(1.0, float(bdtr(float(fewer), n, 0.5)) + float(below)) if n else 1.0


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return Holm's adjusted p-values, in the order given (Holm 1979, Scand. J. Statist. 6).

    Below 0.05 after it: the chance of any false alarm in the whole family is at most 5 %.

    >>> [round(p, 2) for p in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return tuple(adjusted)


def interval_p(difference: float, interval: Interval, *, df: float | None = None) -> float:
    """Return the two-sided p-value that a 95 % interval implies (Altman & Bland 2011, BMJ 343).

    Measured on the side that faces zero, so that p < 0.05 exactly where the interval excludes
    zero, even if it is not symmetric. Beyond that Student's t is as heavy as the interval's was:
    with few groups or seeds a normal's p-values are far too small.

    Args:
        difference: The estimate.
        interval: Its interval.
        df: The interval's degrees of freedom; None: a normal's.

    >>> round(interval_p(1.96, Interval(0.0, 3.92)), 3)
    0.05
    >>> round(interval_p(3.0, Interval(2.0, 4.0)), 4), round(interval_p(3, Interval(2, 4), df=2), 4)
    (0.0, 0.0059)
    """
    from scipy.special import stdtr

    toward_zero = difference - interval.low if difference > 0 else interval.high - difference
    if difference == 0 or toward_zero <= 0:
        # No width on that side: nothing but the difference's own sign is left to go by.
        return float(difference == 0)
    errors = abs(difference) / toward_zero * width_of(df)
    return 2 * (float(stdtr(df, -errors)) if df else _NORMAL.cdf(-errors))


def smallest_detectable(
    differences: Sequence[float] | Floats,
    *,
    groups: Sequence[str] | None = None,
    span: Interval | None = DIFFERENCE,
) -> float:
    """Return the true difference that these pairs would show with 80 % power at the 5 % level.

    `(t(.975) + t(.80)) x standard error` of the mean paired difference, clustered; see Miller
    2024 (arXiv 2411.00640) on power. Where no pair differs, as if up to Wilson's upper end of 0 / n
    clusters did, by one; or 0.0 if the differences have no scale.

    >>> round(smallest_detectable([1] * 40 + [-1] * 20 + [0] * 240), 3)
    0.072
    """
    known = spread(mean_table(differences, groups=groups), ratio)
    if known.df > 0:
        return reach(known.df) * known.error
    if span is None:
        return 0.0
    clusters = len(set(groups)) if groups is not None else len(differences)
    return float(reach() * (wilson(0, clusters).high / clusters) ** 0.5)


def planned_detectable(
    sizes: Sequence[int], *, disagreement: float = 0.2, correlation: float = 0.1
) -> float:
    """Return the difference that a test set will show with 80 % power, before anything is run.

    Args:
        sizes: Test rows of each group; `[1] * n` without groups.
        disagreement: Share of rows on which exactly one of the two arms is guessed to be right; of
            scores between 0 and 1 the guessed variance of a row's difference.
        correlation: Guessed correlation of the paired differences within a group.

    Returns:
        Of a mean of scores from 0 to 1; infinity for a single group.

    >>> round(planned_detectable([1] * 300), 3), round(planned_detectable([5, 5, 5]), 2)
    (0.073, 0.73)
    """
    rows = sum(sizes)
    assert rows > 0, "a test set has rows"
    if len(sizes) < 2:
        return math.inf
    effect = planned_design_effect(sizes, correlation=correlation)
    return float(reach(len(sizes) - 1) * (disagreement * effect / rows) ** 0.5)


def planned_rows(difference: float, *, disagreement: float = 0.2) -> int:
    """Return how many rows without groups show a difference with 80 % power.

    >>> planned_rows(0.02)
    3925
    """
    return math.ceil((reach() / difference) ** 2 * disagreement)


def planned_design_effect(sizes: Sequence[int], *, correlation: float) -> float:
    """Return Kish's design effect 1 + (m - 1) rho with m = sum n^2 / sum n (Kish 1965).

    >>> planned_design_effect([1, 1, 1], correlation=0.3)
    1.0
    >>> planned_design_effect([5, 5], correlation=0.5)
    3.0
    """
    mean_size = sum(size * size for size in sizes) / sum(sizes)
    return 1 + (mean_size - 1) * correlation


def reach(df: float | None = None) -> float:
    """Return how many standard errors apart a difference is found with 80 % power.

    Args:
        df: Degrees of freedom of the standard error, 0 where it is not known; None: it is exact.

    >>> round(reach(), 3), round(reach(10), 3), reach(0)
    (2.802, 3.107, 0.0)
    """
    if df is None:
        return width_of(df) + _NORMAL.inv_cdf(POWER)
    return width_of(df) + t_quantile(POWER, df=df) if df else 0.0
