"""Means over rows and seeds: by hand, against the single-run interval, and by simulation."""

import numpy as np
import pytest

from instil.compare.seeds import Scores, Stratum, crossed, difference, level, minus
from instil.errors import RunError
from instil.stats.intervals import DIFFERENCE, SHARE, bootstrap_mean


def scores(table, *, groups=None) -> Scores:
    keys = [f"t/{n}" for n in range(len(table[0]))]
    names = groups or keys
    return Scores(
        tuple(dict(zip(keys, row, strict=True)) for row in table),
        dict(zip(keys, names, strict=True)),
        dict.fromkeys(keys, "t"),
    )


def test_one_seed_is_the_interval_of_a_single_run():
    draw = np.random.default_rng(0)
    rows = draw.integers(2, size=60).astype(float)
    groups = tuple(f"g{n // 3}" for n in range(60))
    found = crossed([Stratum(rows[None], groups)], span=SHARE)
    plain = bootstrap_mean(rows, groups=groups, span=SHARE)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high))
    assert found.seed_share == 0


def test_variance_of_a_balanced_table_by_hand():
    """Two seeds, four rows: the analysis of variance written out."""
    table = np.array([[1.0, 0, 1, 0], [3, 2, 4, 3]])
    found = crossed([Stratum(table, tuple("abcd"))], span=None)
    rows = table.mean(axis=0).var(ddof=1) / 4
    seeds = table.mean(axis=1).var(ddof=1) / 2
    rest = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    both = (rest**2).sum() / (1 * 3) / 8
    assert found.error**2 == pytest.approx(rows + seeds - both)
    assert found.mean == table.mean()
    assert found.seed_share == pytest.approx((seeds - both) / (rows + seeds - both))


def test_seeds_that_differ_widen_the_interval():
    rows = np.tile([1.0, 0.0], 50)
    same = crossed([Stratum(np.array([rows, rows, rows]), tuple(map(str, range(100))))], span=SHARE)
    lifted = np.array([rows, np.where(np.arange(100) < 20, 1, rows), np.zeros(100)])
    apart = crossed([Stratum(lifted, tuple(map(str, range(100))))], span=SHARE)
    assert apart.high - apart.low > 2 * (same.high - same.low)
    assert apart.seed_share > 0.5
    assert same.seed_share == 0


def test_several_tasks_count_the_same():
    strata = [
        Stratum(np.ones((2, 30)) * [[0.5], [0.7]], tuple(map(str, range(30)))),
        Stratum(np.ones((2, 3)) * [[0.1], [0.3]], tuple("abc")),
    ]
    assert crossed(strata, span=SHARE).mean == pytest.approx(0.4)


def test_a_row_without_a_score_is_counted():
    found = scores([[1.0, 0.0, 1.0, 1.0], [1.0, 0.0, 1.0, 0.0]])
    gone = Scores(({**found.by_seed[0]}, {"t/0": 1.0, "t/1": 0.0}), found.groups, found.strata)
    summary = level(gone, metric="accuracy")
    assert (summary.scored, summary.unscored) == (2, 2)
    assert summary.mean == 0.5
    assert gone.means == (0.5, 0.5)


def test_differences_are_paired_by_row_and_seed():
    a = scores([[0.0, 1, 0, 1], [1, 1, 0, 0]])
    b = scores([[1.0, 1, 0, 1], [1, 1, 1, 0]])
    found = difference(a, b, names=("a", "b"), metric="accuracy")
    assert (found.a, found.b, found.n) == ("a", "b", 4)
    assert found.difference == 0.25
    one = Scores(a.by_seed[:1], a.groups, a.strata)
    assert minus(b, one).by_seed[1]["t/0"] == 1.0, "one seed stands for all"
    three = Scores(a.by_seed[:1] * 3, a.groups, a.strata)
    with pytest.raises(RunError, match="different numbers of seeds"):
        difference(three, b, names=("a", "b"), metric="accuracy")


def simulated(
    draw: np.random.Generator, *, seeds: int, sigma: float, clusters: int
) -> tuple[float, float]:
    """Paired differences with a row effect in clusters, a seed effect, and noise; true mean 0."""
    size = 3
    group = np.repeat(np.arange(clusters), size)
    rows = draw.normal(0, 0.25, clusters)[group] + draw.normal(0, 0.2, clusters * size)
    table = rows + draw.normal(0, sigma, (seeds, 1)) + draw.normal(0, 0.3, (seeds, len(rows)))
    found = crossed([Stratum(table, tuple(map(str, group)))], span=None)
    return found.low, found.high


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "sigma"), [(2, 0.0), (2, 0.1), (3, 0.03), (3, 0.1)])
def test_coverage_over_rows_and_seeds(seeds: int, sigma: float):
    draw = np.random.default_rng(3)
    ends = [simulated(draw, seeds=seeds, sigma=sigma, clusters=40) for _ in range(250)]
    covered = np.mean([low <= 0 <= high for low, high in ends])
    assert covered >= 0.91, covered  # 95 % less three Monte Carlo errors


def test_the_interval_does_not_hang_on_seeds_that_lie_close_together_by_chance():
    """Few rows and a large effect of the seed: where one that subtracts covers 87 %."""
    draw = np.random.default_rng(5)
    covered = []
    for _ in range(1500):
        table = draw.normal(0, 0.2, (2, 1)) + draw.normal(0, 0.3, (2, 16))
        found = crossed([Stratum(table, tuple("abcdefghijklmnop"))], span=None)
        covered.append(found.low <= 0 <= found.high)
    assert np.mean(covered) >= 0.935


def test_degrees_of_freedom_are_those_of_the_seeds_where_these_decide():
    draw = np.random.default_rng(5)
    table = draw.normal([[0.0], [1.0], [2.0]], 0.1, (3, 400))
    found = crossed([Stratum(table, tuple(map(str, range(400))))], span=None)
    assert found.df == pytest.approx(2, abs=0.01)
    one = crossed([Stratum(table[:1], tuple(map(str, range(400))))], span=None)
    assert one.df is not None
    assert one.df > 100


def test_what_is_no_number_ends_in_no_error_of_a_library():
    found = crossed([Stratum(np.array([[1.0, np.nan, 1], [1, 1, 0]]), tuple("abc"))], span=None)
    assert found.df is None


def test_span_is_kept():
    found = crossed([Stratum(np.array([[1.0, 1, 1], [1, 1, 0.9]]), tuple("abc"))], span=DIFFERENCE)
    assert found.high <= 1
