from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instil.stats import paired as stats
from instil.stats.intervals import (
    DIFFERENCE,
    Interval,
    bootstrap_mean,
    ratio,
    resample_totals,
)


def paired_bootstrap(a, b, *, span: Interval | None = DIFFERENCE, **options) -> Interval:
    """Return the interval of the mean of `b` minus `a`, as `compare` takes it."""
    return bootstrap_mean(np.subtract(b, a), span=span, **options)


@pytest.mark.parametrize(
    ("b_only", "a_only", "expected"),
    # Fagerland, Lydersen & Laake 2013, table 2 (Bentur et al.): 1 against 7; the rest by hand.
    [
        (1, 7, 0.0390625),
        (7, 1, 0.0390625),
        (0, 0, 1.0),
        (3, 3, 1.0),
        (0, 5, 0.03125),
        (0, 4, 0.0625),
    ],
)
def test_mcnemar_midp_known_values(b_only: int, a_only: int, expected: float) -> None:
    assert stats.mcnemar_midp(b_only, a_only) == pytest.approx(expected, abs=1e-12)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_midp_is_the_binomial_sum(b_only: int, a_only: int) -> None:
    n, fewer = b_only + a_only, min(b_only, a_only)
    weights = [math.comb(n, k) for k in range(fewer + 1)]
    expected = (2 * sum(weights) - weights[-1]) / 2**n
    assert stats.mcnemar_midp(b_only, a_only) == pytest.approx(expected, rel=1e-9)


def test_holm_known_values() -> None:
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([]) == ()
    assert stats.holm([0.9, 0.8]) == (1.0, 1.0)


@pytest.mark.parametrize("df", [None, 1.0, 4.0, 30.0])
def test_interval_p_is_5_percent_at_the_interval_s_end(df: float | None) -> None:
    assert stats.interval_p(0.3, stats.Interval(0.0, 0.6), df=df) == pytest.approx(0.05)
    wider = stats.interval_p(0.3, stats.Interval(0.1, 0.5), df=df)
    assert wider >= stats.interval_p(0.3, stats.Interval(0.1, 0.5))


def test_interval_p_excludes_zero_exactly_where_the_interval_does() -> None:
    assert stats.interval_p(0.1, Interval(0.001, 0.4)) < 0.05
    assert stats.interval_p(0.1, Interval(-0.001, 0.2)) > 0.05
    assert stats.interval_p(-0.1, Interval(-0.2, -0.001)) < 0.05
    assert stats.interval_p(0.0, Interval(0.0, 0.0)) == 1.0
    assert stats.interval_p(0.3, Interval(0.3, 0.3)) == 0.0


def test_paired_bootstrap_is_seeded_and_ignores_the_order_of_examples() -> None:
    generator = np.random.default_rng(3)
    a, b = generator.random(200), generator.random(200)
    groups = [f"g{i // 4}" for i in range(200)]
    first = paired_bootstrap(a, b, groups=groups, seed=1)
    assert first == paired_bootstrap(a, b, groups=groups, seed=1)
    assert first != paired_bootstrap(a, b, groups=groups, seed=2)
    back = paired_bootstrap(a[::-1], b[::-1], groups=groups[::-1], seed=1)
    assert (back.low, back.high) == pytest.approx((first.low, first.high), abs=1e-9)


def test_paired_bootstrap_swapped_is_mirrored() -> None:
    generator = np.random.default_rng(4)
    a, b = generator.random(150), generator.random(150)
    there, back = paired_bootstrap(a, b), paired_bootstrap(b, a)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=0.004)


def test_clusters_of_copies_widen_the_interval_by_the_root_of_their_size() -> None:
    generator = np.random.default_rng(5)
    one = generator.normal(size=100)
    copies, groups = np.repeat(one, 4), [str(i // 4) for i in range(400)]
    naive = paired_bootstrap(np.zeros(400), copies, span=None)
    clustered = paired_bootstrap(np.zeros(400), copies, groups=groups, span=None)
    ratio_of_widths = (clustered.high - clustered.low) / (naive.high - naive.low)
    assert ratio_of_widths == pytest.approx(2, rel=0.08)


@pytest.mark.parametrize("n", [100, 300])
@pytest.mark.parametrize("a_only", [0, 1, 2, 3, 5])
def test_interval_agrees_with_mcnemar_about_few_discordant_pairs(n: int, a_only: int) -> None:
    # The plain percentile bootstrap calls 4 : 0 a difference (mid-p 0.0625); this one must not.
    checked = 0
    for b_only in range(a_only + 1, a_only + 20):
        p = stats.mcnemar_midp(b_only, a_only)
        if 0.03 < p < 0.08:
            continue  # the two may differ by a row near the line
        b = np.array([1.0] * b_only + [0.0] * (n - b_only))
        a = np.array([0.0] * b_only + [1.0] * a_only + [0.0] * (n - b_only - a_only))
        assert (0 not in paired_bootstrap(a, b)) == (p < 0.05), (b_only, a_only)
        checked += 1
    assert checked > 10


def test_two_rows_show_nothing_even_if_b_wins_both() -> None:
    assert 0 in paired_bootstrap([0, 0], [1, 1])
    assert 0 in paired_bootstrap([0.0] * 10, [1.0] * 10, groups=["a"] * 5 + ["b"] * 5)


def test_arms_that_never_differ_still_have_a_width() -> None:
    interval = paired_bootstrap([1] * 100, [1] * 100)
    assert interval.high == pytest.approx(0.037, abs=0.001)  # Wilson's end of 0 / 100
    assert interval.low == -interval.high
    assert stats.smallest_detectable([0.0] * 100) > 0
    assert stats.smallest_detectable([0.0] * 100, span=None) == 0.0


def test_smallest_detectable_by_hand() -> None:
    differences = [1] * 40 + [-1] * 20 + [0] * 240
    deviation = np.std(differences, ddof=1) / 300**0.5
    assert stats.smallest_detectable(differences) == pytest.approx(2.8016 * deviation, rel=0.02)


def test_smallest_detectable_grows_with_clusters() -> None:
    differences = ([1] * 4 + [-1] * 2 + [0] * 24) * 10
    together = [str(i) for i in np.argsort(np.argsort(differences, kind="stable")) // 5]
    assert stats.smallest_detectable(differences, groups=together) > 1.5 * (
        stats.smallest_detectable(differences)
    )


def test_planned_detectable_by_hand() -> None:
    # t(.975) + t(.8), of 299 degrees of freedom, and of 29.
    alone = 2.8108 * (0.2 / 300) ** 0.5
    assert stats.planned_detectable([1] * 300) == pytest.approx(alone, rel=1e-4)
    grouped = stats.planned_detectable([10] * 30, correlation=0.1)
    assert grouped == pytest.approx(2.8994 * (1.9 * 0.2 / 300) ** 0.5, rel=1e-4)
    assert stats.planned_detectable([16]) == math.inf
    few = [stats.planned_detectable([24 // n] * n) for n in (3, 6, 24)]
    assert few == sorted(few, reverse=True), "fewer groups show less"


def test_resampling_kinds_of_clusters_equals_resampling_clusters() -> None:
    generator = np.random.default_rng(2)
    table = np.stack([generator.integers(0, 2, size=400), np.ones(400)], axis=1).astype(float)
    few = ratio(resample_totals(table, seed=0, resamples=4000))
    many = ratio(resample_totals(table + _jitter(400), seed=0, resamples=4000))
    assert few.mean() == pytest.approx(many.mean(), abs=0.003)
    assert few.std() == pytest.approx(many.std(), rel=0.06)


def _jitter(lines: int) -> np.ndarray:
    # Makes every cluster its own kind, so that the other way of drawing is taken.
    return np.stack([np.arange(lines) * 1e-9, np.zeros(lines)], axis=1)


# Simulations.


@pytest.mark.slow
def test_mcnemar_midp_type_one_error() -> None:
    generator = np.random.default_rng(11)
    discordant = generator.binomial(300, 0.2, size=20_000)
    b_only = generator.binomial(discordant, 0.5)
    found = [
        stats.mcnemar_midp(int(b), int(n - b)) < 0.05
        for b, n in zip(b_only, discordant, strict=True)
    ]
    assert np.mean(found) == pytest.approx(0.05, abs=0.01)


def _clustered_pairs(
    generator: np.random.Generator, *, clusters: int
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """0/1 scores of two arms on clusters of 1 to 8 rows that share their difficulty and taste."""
    sizes = generator.integers(1, 9, size=clusters)
    index = np.repeat(np.arange(clusters), sizes)
    hard, taste = generator.normal(size=clusters), 0.8 * generator.normal(size=clusters)
    noise = generator.normal(size=(2, len(index)))
    a = (hard[index] + noise[0] > -0.5).astype(float)
    # b's threshold is scaled by its spread (variance 2.64, not 2): no difference in truth.
    b = (hard[index] + taste[index] + noise[1] > -0.5 * 1.32**0.5).astype(float)
    return a, b, [str(i) for i in index]


@pytest.mark.slow
@pytest.mark.parametrize("clusters", [12, 60, 200])
def test_clustered_bootstrap_type_one_error(clusters: int) -> None:
    generator = np.random.default_rng(clusters)
    runs, alarms = 5000, 0
    for seed in range(runs):
        a, b, groups = _clustered_pairs(generator, clusters=clusters)
        alarms += 0 not in paired_bootstrap(a, b, groups=groups, seed=seed, resamples=1000)
    assert alarms / runs == pytest.approx(0.05, abs=0.01)


@pytest.mark.slow
def test_bootstrap_that_forgets_the_clusters_raises_false_alarms() -> None:
    generator = np.random.default_rng(1)
    runs, alarms = 2000, 0
    for seed in range(runs):
        a, b, _ = _clustered_pairs(generator, clusters=60)
        alarms += 0 not in paired_bootstrap(a, b, seed=seed, resamples=1000)
    assert alarms / runs > 0.08


@pytest.mark.slow
@pytest.mark.parametrize(("n", "discordance"), [(100, 0.05), (100, 0.2), (300, 0.2)])
def test_unclustered_bootstrap_type_one_error(n: int, discordance: float) -> None:
    generator = np.random.default_rng(7)
    runs, alarms = 4000, 0
    for seed in range(runs):
        shares = [discordance / 2, discordance / 2, 1 - discordance]
        b = generator.choice([1.0, -1.0, 0.0], p=shares, size=n)
        alarms += 0 not in paired_bootstrap(np.zeros(n), b, seed=seed, resamples=1000)
    assert alarms / runs < 0.06
    assert alarms / runs > (0.02 if discordance < 0.1 else 0.04)


@pytest.mark.slow
@pytest.mark.parametrize("clusters", [8, 30, 100])
def test_clustered_interval_covers_a_skewed_mean(clusters: int) -> None:
    generator = np.random.default_rng(clusters)
    runs, covered = 3000, 0
    for seed in range(runs):
        sizes = generator.integers(1, 6, size=clusters)
        index = np.repeat(np.arange(clusters), sizes)
        level = generator.beta(2, 5, size=clusters)[index]
        values = generator.binomial(10, level) / 10
        interval = bootstrap_mean(values, groups=[str(i) for i in index], seed=seed, resamples=1000)
        covered += (2 / 7) in interval
    assert covered / runs == pytest.approx(0.95, abs=0.03 if clusters < 30 else 0.01)


@pytest.mark.slow
def test_smallest_detectable_is_found_four_times_in_five() -> None:
    generator = np.random.default_rng(9)
    n, discordance = 300, 0.2
    size = stats.planned_detectable([1] * n, disagreement=discordance)
    shares = [(discordance + size) / 2, (discordance - size) / 2, 1 - discordance]
    runs, found = 3000, 0
    for seed in range(runs):
        b = generator.choice([1.0, -1.0, 0.0], p=shares, size=n)
        found += paired_bootstrap(np.zeros(n), b, seed=seed, resamples=1000).low > 0
    assert found / runs == pytest.approx(0.80, abs=0.04)
