"""95 % intervals that hold at any stopping time: rows may be asked until something is shown.

An interval of a fixed number of rows that is looked at after every batch, until it excludes zero,
excludes it by chance far more often than in 5 % of the cases. These hold for all numbers of rows at
once (confidence sequences): whatever rule ends the asking, the true mean lies outside with a chance
of at most 5 %. They are wider: of the same rows 1.5 to 1.8 times.

A worked example: differences of 0/1 scores, in batches of 50 rows. To test whether their mean is m
or less, bet against it: begin with a capital of 1 and stake a share f of it on every row. It grows
to prod(1 - f + f y / mu), where y and mu are the row's difference and m, moved to 0 to 1. If the
mean is at most m the capital does not grow on average, and it ever reaches 40 with a chance of at
most 1/40 (Ville's inequality). So the interval's lower end is the least m against which the capital
lies below 40; the upper end likewise: 2.5 % each.

Values are taken as independent: one row a group. This module needs numpy alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from instil.stats.intervals import LEVEL, Floats, Interval

STAKES = (0.1, 0.2, 0.4, 0.8)
"""Shares that are staked, a quarter of the capital each: large ones gain where rows hardly differ,
small ones where much is noise. Stakes learned from the rows before did no better (docs)."""
TUNED_FOR = 200
"""Rows at which `normal_interval` is narrowest, relative to one of a fixed number."""
_HALVINGS = 50


def anytime_interval(values: Sequence[float] | Floats, *, span: Interval | None) -> Interval:
    """Return the interval of a mean, of all values so far, that holds at any stopping time.

    Args:
        values: One figure a row, independent of each other.
        span: The scale's ends; None: it has none, and the interval holds for many rows only.

    >>> interval = anytime_interval([0.0] * 95 + [-1.0] * 5, span=Interval(-1.0, 1.0))
    >>> round(interval.low, 3), round(interval.high, 3)
    (-0.151, 0.024)
    """
    known = np.asarray(values, dtype=np.float64)
    return normal_interval(known) if span is None else betting_interval(known, span=span)


def betting_interval(values: Floats, *, span: Interval) -> Interval:
    """Return the betting confidence sequence's interval (Waudby-Smith & Ramdas 2023).

    "Estimating means of bounded random variables by betting", J. R. Statist. Soc. B 86:1, section
    4, with a mixture of constant stakes (as in Orabona & Jun 2023, IEEE Trans. Inf. Theory 70:1) in
    place of predictable ones: then it does not depend on the order of the values, and always holds
    their mean.

    Args:
        values: Within `span`.
        span: The scale's ends.
    """
    width = span.high - span.low
    shares = np.clip((values - span.low) / width, 0, 1)  # but for rounding they lie there
    low, high = _least_mean(shares), 1 - _least_mean(1 - shares)
    return Interval(round(span.low + width * low, 12), round(span.low + width * high, 12))


def _least_mean(shares: Floats) -> float:
    """Return the least mean of figures in 0 to 1 that bets on a higher one have not refuted."""
    if not shares.any():
        return 0.0
    kinds, counts = np.unique(shares, return_counts=True)
    least, mean, target = 0.0, float(shares.mean()), math.log(2 / (1 - LEVEL))
    # The capital falls as the mean that is bet against rises; at the mean itself it is at most 1.
    for _ in range(_HALVINGS):
        middle = (least + mean) / 2
        if _log_capital(kinds, counts, against=middle) >= target:
            least = middle
        else:
            mean = middle
    return least


def _log_capital(kinds: Floats, counts: npt.NDArray[np.intp], *, against: float) -> float:
    """Return what bets on more than the mean `against` have come to, as a logarithm."""
    stakes = np.array(STAKES)[:, None]
    gains = np.log1p(stakes * (kinds / max(against, 1e-12) - 1)) @ counts
    return float(np.logaddexp.reduce(gains)) - math.log(len(STAKES))


def anytime_p(values: Sequence[float] | Floats, *, mean: float, span: Interval | None) -> float:
    """Return the two-sided p-value against a mean that holds at any stopping time.

    Below 0.05 exactly where `anytime_interval` leaves the mean out: its interval at the level 1 - p
    ends there.

    Args:
        values: One figure a row, independent of each other.
        mean: What is tested.
        span: The scale's ends; None: it has none.

    >>> round(anytime_p([0.0] * 95 + [-1.0] * 5, mean=0.0, span=Interval(-1.0, 1.0)), 3)
    0.282
    """
    known = np.asarray(values, dtype=np.float64)
    if span is None:
        count, square = len(known), _mixed()
        grown, variance = count * square + 1, float(known.var(ddof=1))
        gap = (float(known.mean()) - mean) ** 2
        if not variance:
            return float(gap == 0)
        return min(
            1.0, math.sqrt(grown) * math.exp(-gap * count**2 * square / (2 * grown * variance))
        )
    width = span.high - span.low
    share, against = np.clip((known - span.low) / width, 0, 1), (mean - span.low) / width
    kinds, counts = np.unique(share, return_counts=True)
    capital = max(
        _log_capital(kinds, counts, against=against),
        _log_capital(1 - kinds, counts, against=1 - against),
    )
    return min(1.0, 2 * math.exp(-min(capital, 700.0)))


def normal_interval(values: Floats) -> Interval:
    """Return an asymptotic confidence sequence's interval, for figures without ends (nats).

    Robbins' normal mixture with the standard deviation so far (Waudby-Smith, Arbour, Sinha,
    Kennedy & Ramdas 2024, "Time-uniform central limit theory and asymptotic confidence sequences",
    Ann. Statist. 52:6, theorem 2.2): mean +- sd sqrt((2 (n r^2 + 1) / (n r)^2) ln(sqrt(n r^2 + 1) /
    alpha)), r^2 = (ln(1 / alpha^2) + ln(ln(1 / alpha^2) + 1)) / n0.

    Args:
        values: Two or more.
    """
    count, mean, alpha = len(values), float(values.mean()), 1 - LEVEL
    square = _mixed()
    grown = count * square + 1
    spread = float(values.std(ddof=1))
    half = spread * math.sqrt(2 * grown / (count**2 * square) * math.log(math.sqrt(grown) / alpha))
    return Interval(round(mean - half, 12), round(mean + half, 12))


def _mixed() -> float:
    """Return r^2, the mixture's variance."""
    told = -2 * math.log(1 - LEVEL)
    return (told + math.log(told + 1)) / TUNED_FOR
