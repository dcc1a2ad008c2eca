from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.stats import binomtest, t

from instil.stats import intervals
from instil.stats.intervals import DIFFERENCE, SHARE


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_known_values(right: int, n: int, low: float, high: float) -> None:
    interval = intervals.wilson(right, n)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (8, 10), (150, 300), (300, 300)])
def test_wilson_equals_scipy(right: int, n: int) -> None:
    expected = binomtest(right, n).proportion_ci(method="wilson")
    interval = intervals.wilson(right, n)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_bootstrap_of_many_values_equals_the_t_interval() -> None:
    values = np.random.default_rng(0).normal(size=500)
    interval = intervals.bootstrap_mean(values)
    half = t.ppf(0.975, 499) * values.std(ddof=1) / 500**0.5
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.03)


def test_few_values_give_the_t_interval_exactly() -> None:
    values = np.arange(10.0)
    interval = intervals.bootstrap_mean(values)
    half = t.ppf(0.975, 9) * values.std(ddof=1) / 10**0.5
    assert (interval.low, interval.high) == pytest.approx((4.5 - half, 4.5 + half))


def test_interval_stays_on_its_scale() -> None:
    interval = intervals.bootstrap_mean([1.0, 1.0, 1.0, 0.2], span=SHARE)
    assert interval.high == 1.0
    assert interval.low >= 0.0


def test_unanimous_values_are_not_certain() -> None:
    assert intervals.bootstrap_mean([1.0] * 50, span=SHARE) == intervals.wilson(50, 50)
    groups = [str(i // 5) for i in range(50)]
    assert intervals.bootstrap_mean([1.0] * 50, groups=groups, span=SHARE) == (
        intervals.wilson(10, 10)
    )
    assert intervals.unanimous(0.0, clusters=1, span=DIFFERENCE).high > 0.5
    assert intervals.bootstrap_mean([2.5] * 50) == intervals.Interval(2.5, 2.5)


def test_cluster_table_adds_up_each_cluster() -> None:
    table = intervals.mean_table([1, 0, 1, 1], groups=["b", "a", "b", "c"])
    assert table.tolist() == [[0, 1], [2, 2], [1, 1]]


def test_spread_equals_the_textbook_standard_error() -> None:
    values = np.random.default_rng(1).random(40)
    known = intervals.spread(intervals.mean_table(values, groups=None), intervals.ratio)
    assert known.estimate == pytest.approx(values.mean())
    assert known.error == pytest.approx(values.std(ddof=1) / 40**0.5)


def test_degrees_of_freedom() -> None:
    normal = np.random.default_rng(2).normal(size=2000)
    assert intervals.degrees_of_freedom(normal) == pytest.approx(1999, rel=0.1)
    assert intervals.degrees_of_freedom(np.array([0.0, 1.0] * 10)) == 19
    assert intervals.degrees_of_freedom(np.array([1.0] + [0.0] * 99)) == pytest.approx(2, abs=0.1)
    assert intervals.degrees_of_freedom(np.full(30, 0.1)) == 0


def test_ten_thousand_resamples_of_three_thousand_examples_are_quick() -> None:
    values = np.random.default_rng(3).random(3000)
    intervals.bootstrap_mean(values[:100])  # loads scipy
    begun = time.process_time()
    intervals.bootstrap_mean(values)
    assert time.process_time() - begun < 1.0
