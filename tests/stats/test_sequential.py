"""Intervals that hold at any stopping time: by hand, by property, and by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instil.stats.intervals import DIFFERENCE, SHARE, Floats, bootstrap_mean
from instil.stats.sequential import (
    STAKES,
    anytime_interval,
    anytime_p,
    betting_interval,
    normal_interval,
)

BATCH = 50


def capital(shares: Floats, mean: float) -> float:
    """Return what bets on a higher mean have come to, as the module's docstring says."""
    return float(np.mean([np.prod(1 - f + f * shares / mean) for f in STAKES]))


def drawn(seed: int, trials: int, rows: int, *, differ: float, loss: float) -> Floats:
    """Return differences of 0/1 scores, shape (trials, rows); their mean is minus `loss`."""
    place = np.random.default_rng(seed).random((trials, rows))
    return np.where(place < (differ + loss) / 2, -1.0, np.where(place < differ, 1.0, 0.0))


def refuted(values: Floats, mean: float, *, level: float = 0.05) -> np.ndarray:
    """Return whether `mean` lies outside after each row, shape (trials, rows); for many trials."""
    outside = np.zeros(values.shape, dtype=bool)
    for sign in (1, -1):
        growth = (1 + sign * values) / (1 + sign * mean) - 1
        logs = np.stack([np.cumsum(np.log1p(f * growth), axis=1) for f in STAKES])
        outside |= np.logaddexp.reduce(logs) - math.log(len(STAKES)) >= math.log(2 / level)
    return outside


def test_by_hand():
    # All of 20 right. The largest stake gains most: with it alone (.2 + .8 / m)^20 / 4 = 40 at m,
    # were all stakes as large (.2 + .8 / m)^20 = 40.
    low = betting_interval(np.ones(20), span=SHARE).low
    assert capital(np.ones(20), low) == pytest.approx(40)
    assert 0.8 / (160 ** (1 / 20) - 0.2) < low < 0.8 / (40 ** (1 / 20) - 0.2)
    assert betting_interval(np.ones(20), span=SHARE).high == 1.0
    assert betting_interval(np.zeros(20), span=SHARE).low == 0.0
    # Robbins' mixture: 100 values of standard deviation 1 and mean 0.
    values = np.array([1.0, -1.0] * 50) * math.sqrt(0.99)
    told = -2 * math.log(0.05)
    grown = 100 * (told + math.log(told + 1)) / 200 + 1
    half = math.sqrt(2 * grown / (100 * (grown - 1)) * math.log(math.sqrt(grown) / 0.05))
    assert normal_interval(values).high == pytest.approx(half)


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0, 0.25]), min_size=1, max_size=60))
def test_the_ends_are_where_the_bets_reach_40(values: list[float]):
    interval = betting_interval(np.array(values), span=DIFFERENCE)
    assert -1 <= interval.low <= np.mean(values) <= interval.high <= 1
    shares = (np.array(values) + 1) / 2
    if interval.low > -1:
        assert capital(shares, (interval.low + 1) / 2) == pytest.approx(40, rel=1e-6)
    if interval.high < 1:
        assert capital(1 - shares, (1 - interval.high) / 2) == pytest.approx(40, rel=1e-6)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=60), st.randoms())
def test_order_and_direction_change_nothing(values: list[float], random):
    interval = betting_interval(np.array(values), span=DIFFERENCE)
    turned = betting_interval(-np.array(values), span=DIFFERENCE)
    assert (turned.low, turned.high) == pytest.approx((-interval.high, -interval.low), abs=1e-9)
    random.shuffle(values)
    again = betting_interval(np.array(values), span=DIFFERENCE)
    assert (again.low, again.high) == pytest.approx((interval.low, interval.high), abs=1e-9)


@given(
    st.lists(st.floats(-1, 1), min_size=2, max_size=60),
    st.floats(-0.9, 0.9),
    st.sampled_from([DIFFERENCE, None]),
)
def test_p_is_below_5_percent_exactly_outside_the_interval(values, mean: float, span):
    interval, p = (
        anytime_interval(values, span=span),
        anytime_p(values, mean=mean, span=span),
    )
    near = min(abs(mean - interval.low), abs(mean - interval.high)) < 1e-9
    assert near or (p < 0.05) == (mean not in interval)
    assert 0 <= p <= 1
    assert anytime_p(values, mean=float(np.mean(values)), span=span) == pytest.approx(1.0)


def test_a_p_value_by_hand():
    # Five losses in 20: what four bettors on a loss have, who each began with a quarter.
    values = np.array([-1.0] * 5 + [0.0] * 15)
    capital_now = np.mean([(1 + f) ** 5 for f in STAKES])
    assert anytime_p(values, mean=0.0, span=DIFFERENCE) == pytest.approx(2 / capital_now)
    assert anytime_p([1.0] * 400, mean=-1.0, span=DIFFERENCE) < 1e-100


def test_the_scale_decides_which_interval():
    values = [0.1, -0.2, 0.0, 0.4]
    assert anytime_interval(values, span=None) == normal_interval(np.array(values))
    assert anytime_interval(values, span=DIFFERENCE) != normal_interval(np.array(values))
    rounded = anytime_interval([1.0 + 1e-15, 0.0], span=SHARE)
    assert rounded == anytime_interval([1.0, 0.0], span=SHARE)


@pytest.mark.parametrize("rows", [50, 100, 500])
@pytest.mark.parametrize("differ", [0.05, 0.1, 0.2, 0.4])
def test_they_are_wider_than_those_of_a_fixed_number(rows: int, differ: float):
    half = round(rows * differ / 2)
    values = [-1.0] * half + [1.0] * half + [0.0] * (rows - 2 * half)
    fixed, anytime = (
        f(np.array(values), span=DIFFERENCE) for f in (bootstrap_mean, betting_interval)
    )
    assert 1.4 < (anytime.high - anytime.low) / (fixed.high - fixed.low) < 2.2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("differ", "loss"), [(0.02, 0.0), (0.1, 0.0), (0.4, 0.0), (0.05, 0.05), (0.3, 0.05)]
)
def test_the_true_mean_is_hardly_ever_refuted_at_any_row(differ: float, loss: float):
    values = drawn(1, 4000, 1000, differ=differ, loss=loss)
    at_any = refuted(values, -loss).any(axis=1).mean()
    assert at_any <= 0.05 + 0.005
    # The helper above is the interval itself.
    for row in (60, 400):
        interval = betting_interval(values[0, :row], span=DIFFERENCE)
        assert (-loss not in interval) == refuted(values[:1], -loss)[0, row - 1]


def test_an_interval_of_a_fixed_number_fails_where_it_is_looked_at_often():
    values = drawn(2, 2000, 1000, differ=0.2, loss=0.0)
    counts = np.arange(BATCH, 1001, BATCH)
    means = np.cumsum(values, axis=1)[:, counts - 1] / counts
    errors = np.sqrt(np.cumsum(values**2, axis=1)[:, counts - 1] / counts - means**2)
    fixed = np.abs(means) > 1.96 * errors / np.sqrt(counts)
    assert fixed.any(axis=1).mean() > 0.15
    assert refuted(values, 0.0).any(axis=1).mean() <= 0.05


def test_nats_are_hardly_ever_refuted_from_the_first_batch_on():
    """Skewed, as losses are; asymptotic, so that it is the simulation that says how far off."""
    rng, counts = np.random.default_rng(3), np.arange(BATCH, 501, BATCH)
    values = rng.exponential(0.3, (4000, 500)) - 0.3
    outside = np.zeros(4000, dtype=bool)
    for count in counts:
        some = values[:, :count]
        # Intervals of one count differ in mean and spread alone.
        unit = normal_interval((np.arange(count) - (count - 1) / 2) / np.arange(count).std(ddof=1))
        outside |= np.abs(some.mean(axis=1)) > unit.high * some.std(axis=1, ddof=1)
    assert outside.mean() <= 0.05 + 0.005


@pytest.mark.parametrize(
    ("differ", "loss", "power"), [(0.1, 0.05, 0.65), (0.2, 0.05, 0.25), (0.2, 0.1, 0.95)]
)
def test_within_500_rows_a_loss_is_shown_in(differ: float, loss: float, power: float):
    values = drawn(4, 1000, 500, differ=differ, loss=loss)
    shown = refuted(values, 0.0)[:, BATCH - 1 :: BATCH].any(axis=1)
    assert shown.mean() > power
