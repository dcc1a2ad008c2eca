"""95 % intervals of a mean, where examples may come in clusters (sentences of one review).

A worked example: five examples of three reviews, scored 0 or 1. Rows of one review are alike, so
they are resampled together. `cluster_table` adds them up, one line a cluster; a statistic turns
column totals into the figure of interest (here sum / count)::

    values  1 1 | 0 1 | 1        table  sum count        totals  sum count
    groups  A A | B B | C               2   2     ->             4   5      ->  4 / 5
                                        1   2
                                        1   1

`bootstrap` then draws clusters with replacement many times. Three things make its interval honest
where few clusters carry the news (the plain percentile interval is too short there):

- the percentiles are widened by Student's t and by sqrt(G / (G - 1)), G clusters (the "expanded
  percentile" interval; Hesterberg 2015, The American Statistician 69(4));
- t has the degrees of freedom that the spread was really measured with (`degrees_of_freedom`):
  300 rows of which 5 differ between two arms are worth about 10, not 299;
- with fewer than 19 of those the interval is estimate +- t x jackknife standard error, which holds
  its level with few clusters (MacKinnon, Nielsen & Webb 2023, J. Applied Econometrics 38(5)).

Percentile rather than BCa or studentised: for means of bounded scores the three agree closely, and
percentiles keep to the scale and need no inner loop. This module never imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Statistic = Callable[[Floats], Floats]

LEVEL = 0.95
"""Coverage of every interval that instil shows."""
FAR = 0.995
"""Coverage of a wider interval, by which the tails of two are compared."""
RESAMPLES = 10_000
"""Bootstrap draws: the Monte Carlo error of a 2.5 % percentile is then about 0.15 % of mass."""
FEW = 19
"""Degrees of freedom below which the t interval replaces the percentiles."""

_NORMAL = NormalDist()
_LEAST, _MANY = 0.5, 1e5  # degrees of freedom; of many t is a normal's
_CHUNK_CELLS = 4_000_000
_FEW_PROFILES = 64


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % interval."""

    low: float
    """Lower end."""
    high: float
    """Upper end."""

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Spread:
    """How well an estimate is known."""

    estimate: float
    """The statistic of all clusters together."""
    error: float
    """Its jackknife standard error over clusters."""
    df: float
    """Degrees of freedom of that error; 0 where all clusters are alike and nothing is known."""


SHARE = Interval(0.0, 1.0)
"""The scale of every metric in METRICS."""
DIFFERENCE = Interval(-1.0, 1.0)
"""The scale of a difference between two such scores."""


def wilson(right: float, n: int) -> Interval:
    """Return Wilson's score interval of a rate (Wilson 1927; Newcombe 1998, method 3).

    Args:
        right: Successes, 0 to `n`.
        n: Trials, at least 1.

    >>> interval = wilson(81, 263)
    >>> round(interval.low, 4), round(interval.high, 4)
    (0.2553, 0.3662)
    """
    assert n > 0, "a rate needs at least one trial"
    z = _NORMAL.inv_cdf((1 + LEVEL) / 2)
    centre = (right + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * (right * (n - right) / n + z * z / 4) ** 0.5
    return _tidy(centre - half, centre + half, span=SHARE)


def bootstrap_mean(
    values: Sequence[float] | Floats,
    *,
    groups: Sequence[str] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    span: Interval | None = None,
) -> Interval:
    """Return the cluster bootstrap interval of a mean over examples.

    Args:
        values: One figure an example; at least one.
        groups: The cluster of each example; None: every example by itself.
        seed: Of the resampling.
        resamples: Bootstrap draws.
        span: The scale's ends, where it has any: the interval is kept within, and where all
            clusters agree it is as wide as unseen dissenters would allow (see `unanimous`).

    >>> bootstrap_mean([0.2, 0.4, 0.6, 0.8] * 50) == bootstrap_mean([0.2, 0.4, 0.6, 0.8] * 50)
    True
    """
    return bootstrap(
        mean_table(values, groups=groups), ratio, seed=seed, resamples=resamples, span=span
    )


def mean_table(values: Sequence[float] | Floats, *, groups: Sequence[str] | None) -> Floats:
    """Return one line (sum, count) a cluster, of `values`, for the statistic `ratio`."""
    column = np.asarray(values, dtype=np.float64)
    return cluster_table(np.stack([column, np.ones_like(column)], axis=1), groups=groups)


def cluster_table(columns: Floats, *, groups: Sequence[str] | None) -> Floats:
    """Add up the lines of each cluster.

    Args:
        columns: Shape (examples, k).
        groups: The cluster of each example; None: every example by itself.

    Returns:
        Shape (clusters, k), clusters in sorted order.

    >>> cluster_table(np.array([[1.0, 1], [0, 1], [1, 1]]), groups=["b", "a", "b"]).tolist()
    [[0.0, 1.0], [2.0, 2.0]]
    """
    if groups is None:
        return columns
    assert len(groups) == len(columns), "one group an example"
    names, index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    table = np.zeros((len(names), columns.shape[1]))
    np.add.at(table, index, columns)
    return table


def ratio(totals: Floats) -> Floats:
    """Return sum / count for each line of column totals, shape (lines, 2)."""
    shares: Floats = totals[:, 0] / totals[:, 1]
    return shares


def bootstrap(
    table: Floats,
    statistic: Statistic,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    span: Interval | None = None,
) -> Interval:
    """Return the cluster bootstrap interval of `statistic` (see the module's docstring).

    Args:
        table: One line a cluster, shape (clusters, k).
        statistic: Column totals of shape (lines, k) -> figures of shape (lines,).
        seed: Of the resampling.
        resamples: Bootstrap draws.
        span: The scale's ends, where it has any.
    """
    known = spread(table, statistic)
    if known.df < FEW:
        return _by_jackknife(known, clusters=len(table), span=span)
    quantile = t_quantile((1 + LEVEL) / 2, df=known.df)
    tail = _NORMAL.cdf(-quantile * (len(table) / (len(table) - 1)) ** 0.5)
    drawn = statistic(resample_totals(table, seed=seed, resamples=resamples))
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return _tidy(float(low), float(high), span=span)


def jackknife(table: Floats, statistic: Statistic, *, span: Interval | None = None) -> Interval:
    """Return estimate +- t x jackknife standard error, for a statistic that is far from linear.

    A draw with replacement leaves out a third of the clusters. Where a figure is made of many
    classes of a few rows each, most draws lose whole classes, and their percentiles lie beside the
    estimate: of macro-F1 over 150 classes of two rows they held the truth in a fifth of cases, this
    interval in 98 % (`tests/evaluate/test_metrics.py`). Leaving out one cluster loses none.

    Args:
        table: One line a cluster, shape (clusters, k).
        statistic: Column totals of shape (lines, k) -> figures of shape (lines,).
        span: The scale's ends, where it has any.
    """
    return _by_jackknife(spread(table, statistic), clusters=len(table), span=span)


def _by_jackknife(known: Spread, *, clusters: int, span: Interval | None) -> Interval:
    if known.df == 0:
        return unanimous(known.estimate, clusters=clusters, span=span)
    half = width_of(known.df) * known.error
    return _tidy(known.estimate - half, known.estimate + half, span=span)


def spread(table: Floats, statistic: Statistic) -> Spread:
    """Return the estimate, its leave-one-cluster-out standard error, and the error's df."""
    totals = table.sum(axis=0, keepdims=True)
    estimate = float(statistic(totals)[0])
    clusters = len(table)
    if clusters < 2:
        return Spread(estimate, error=0.0, df=0.0)
    without_one = statistic(totals - table)
    squares = float(((without_one - without_one.mean()) ** 2).sum())
    error = ((clusters - 1) / clusters * squares) ** 0.5
    return Spread(estimate, error=error, df=degrees_of_freedom(without_one))


def degrees_of_freedom(values: Floats) -> float:
    """Return the degrees of freedom of the sample variance of `values` (O'Neill 2014).

    `2 n / (kurtosis - (n - 3) / (n - 1))` (The American Statistician 68(4)): n - 1 for
    normal values, fewer where a few values carry all the spread; capped at n - 1. 0 if all are
    alike.

    >>> round(degrees_of_freedom(np.array([1.0] * 5 + [0.0] * 295)), 1)
    10.5
    """
    n = len(values)
    centred = values - values.mean()
    if n < 2 or np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())):
        return 0.0
    kurtosis = float((centred**4).mean() / (centred**2).mean() ** 2)
    denominator = kurtosis - (n - 3) / (n - 1)
    return float(n - 1) if denominator <= 0 else min(n - 1.0, 2 * n / denominator)


def resample_totals(table: Floats, *, seed: int, resamples: int) -> Floats:
    """Draw clusters with replacement and return each draw's column totals.

    Args:
        table: Shape (clusters, k).
        seed: Of the draws.
        resamples: How many draws.

    Returns:
        Shape (resamples, k).
    """
    generator = np.random.default_rng(seed)
    clusters = len(table)
    profiles, counts = np.unique(table, axis=0, return_counts=True)
    if len(profiles) <= _FEW_PROFILES:
        # Clusters with the same totals are interchangeable: 0/1 scores have only a few kinds.
        drawn = generator.multinomial(clusters, counts / clusters, size=resamples)
        few: Floats = drawn @ profiles
        return few
    totals = np.empty((resamples, table.shape[1]))
    chunk = max(1, _CHUNK_CELLS // clusters)
    for start in range(0, resamples, chunk):
        lines = min(chunk, resamples - start)
        picks = generator.integers(clusters, size=(lines, clusters), dtype=np.int32)
        picks += np.arange(lines, dtype=np.int32)[:, None] * clusters
        weights = np.bincount(picks.ravel(), minlength=lines * clusters)
        totals[start : start + lines] = weights.reshape(lines, clusters) @ table
    return totals


def unanimous(estimate: float, *, clusters: int, span: Interval | None) -> Interval:
    """Return the interval of a mean where all clusters agree, so that no spread is to be seen.

    With `clusters` alike, dissenters make up at most Wilson's upper end of 0 / clusters; the mean
    moves as far as if they stood at the ends of the scale. Without a scale nothing can be said,
    and the interval is the estimate itself.

    >>> unanimous(1.0, clusters=20, span=SHARE).low == wilson(20, 20).low
    True
    """
    if span is None:
        return Interval(estimate, estimate)
    unseen = wilson(0, clusters).high
    rest = (1 - unseen) * estimate
    return _tidy(rest + unseen * span.low, rest + unseen * span.high, span=span)


@cache
def t_quantile(share: float, *, df: float) -> float:
    """Return the quantile of Student's t with `df` degrees of freedom (need not be whole).

    >>> round(t_quantile(0.975, df=10), 3)
    2.228
    """
    from scipy.special import stdtrit

    return float(stdtrit(df, share))


def pooled_df(parts: Sequence[tuple[float, float | None]]) -> float | None:
    """Return the degrees of freedom of the interval of a sum of independent parts.

    Such an interval (MOVER) adds up the squares of the parts' half-widths at its level. Those are
    taken for which Student's t grows from a 95 to a 99.5 % interval as that sum does.

    Args:
        parts: The width of each one's 95 % interval, in one scale, and its degrees of freedom;
            None: those of a normal.

    Returns:
        None: those of a normal.

    >>> round(pooled_df([(1.0, 5.0)]), 3), round(pooled_df([(1.0, 5.0), (1.0, 5.0)]), 3)
    (5.0, 5.0)
    >>> pooled_df([(1.0, None), (2.0, None)]) is None
    True
    """
    far = math.hypot(*(width * tail_of(df) for width, df in parts))
    return df_of_tail(far, math.hypot(*(width for width, _ in parts)))


def tail_of(df: float | None) -> float:
    """Return how many times as wide a 99.5 % interval is as a 95 % one; None: a normal's."""
    beyond = (1 + FAR) / 2
    return (t_quantile(beyond, df=df) if df else _NORMAL.inv_cdf(beyond)) / width_of(df)


def df_of_tail(far: float, near: float) -> float | None:
    """Undo `tail_of`: the degrees of freedom by which a width `near` grows to `far`."""
    from scipy.optimize import brentq

    if not math.isfinite(far) or far <= near * tail_of(_MANY):
        return None
    if far >= near * tail_of(_LEAST):
        return _LEAST
    return float(brentq(lambda df: tail_of(df) - far / near, _LEAST, _MANY))


def width_of(df: float | None) -> float:
    """Return how many standard errors half a 95 % interval is wide; None: a normal's."""
    share = (1 + LEVEL) / 2
    return t_quantile(share, df=df) if df else _NORMAL.inv_cdf(share)


def _tidy(low: float, high: float, *, span: Interval | None) -> Interval:
    # Twelve decimals: an end that is zero but for rounding must not count as apart from zero.
    low, high = round(low, 12), round(high, 12)
    if span is not None:
        low, high = max(low, span.low), min(high, span.high)
    return Interval(low + 0.0, high + 0.0)
