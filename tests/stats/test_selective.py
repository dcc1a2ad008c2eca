"""Thresholds for a wanted error: by hand, as properties, and whether the promise holds."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import binomtest

from instil.stats.intervals import Floats
from instil.stats.selective import (
    FIRST,
    certify,
    design_effect,
    fewest_rows,
    risk_curve,
    upper_bound,
)


@pytest.mark.parametrize(("wrong", "rows"), [(0, 59), (1, 93), (7, 300), (40, 40)])
def test_the_bound_is_scipys_exact_one(wrong: int, rows: int) -> None:
    # A two-sided interval of 90 % has 5 % above its upper end.
    expected = binomtest(wrong, rows).proportion_ci(0.90, method="exact").high
    found = upper_bound(np.array([float(wrong)]), np.array([float(rows)]))
    assert float(found[0]) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("max_error", [0.01, 0.05, 0.1, 0.5])
def test_the_fewest_rows_are_just_enough(max_error: float) -> None:
    rows = fewest_rows(max_error)
    bounds = upper_bound(np.zeros(2), np.array([rows, rows - 1.0]))
    assert bounds[0] <= max_error < bounds[1]


def test_a_threshold_by_hand() -> None:
    # 100 rows, the surest first: rows 70, 80 and 90 are wrong.
    sure, wrong = np.linspace(1, 0.5, 100), np.zeros(100)
    wrong[[69, 79, 89]] = 1
    found = certify(sure, wrong, max_error=0.05)
    # 59 to 69 rows without an error pass, 70 with one do not.
    assert (found.answered, found.wrong) == (69, 0)
    assert found.at_least == sure[68]
    assert found.bound == pytest.approx(1 - 0.05 ** (1 / 69))
    wide = certify(sure, wrong, max_error=0.1)
    assert (wide.answered, wide.wrong) == (100, 3)  # the bound of 3 of 100 is 7.6 %


def test_rows_of_the_same_probability_are_answered_together() -> None:
    sure = np.repeat([0.99, 0.9], [80, 40])
    wrong = np.zeros(120)
    wrong[80:86] = 1
    found = certify(sure, wrong, max_error=0.05)
    assert (found.at_least, found.answered, found.wrong) == (0.99, 80, 0)


@pytest.mark.parametrize(
    ("top", "rest", "hopeless"),
    [(0.0, 0.04, False), (0.02, 0.03, False), (0.045, 0.045, False), (0.06, 0.01, True)],
)
def test_who_gets_as_many_rows_as_are_said_to_be_needed_has_enough_in_the_end(
    top: float, rest: float, hopeless: bool
) -> None:
    def made(rows: int) -> tuple[Floats, Floats]:
        """Rows of which the surest third is wrong as often as `top`, the others as `rest`."""
        share = np.where(np.arange(rows) < rows / 3, top, rest)
        return np.linspace(1, 0.5, rows), np.diff(np.floor(share.cumsum() + 1e-9), prepend=0.0)

    rows, asked = 90, []
    while (found := certify(*made(rows), max_error=0.05)).needed is not None:
        asked.append(found.needed)
        assert found.needed > rows
        rows = found.needed
    assert len(asked) < 8, "a figure that moves on for ever"
    assert (found.at_least is None) == hopeless


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_more_rows_than_there_are_are_needed_or_none_would_do(data: st.DataObject) -> None:
    """Whatever rows share a probability, and wherever the wrong ones stand."""
    sure = data.draw(st.lists(st.sampled_from([1.0, 0.9, 0.8, 0.7, 0.6]), min_size=5, max_size=90))
    wrong = data.draw(st.lists(st.booleans(), min_size=len(sure), max_size=len(sure)))
    error = data.draw(st.sampled_from([0.05, 0.1, 0.2, 0.5]))
    design = data.draw(st.sampled_from([1.0, 1.7]))
    found = certify(np.array(sure), np.array(wrong, float), max_error=error, design=design)
    assert found.needed is None or found.needed > len(sure)


def test_too_few_rows_say_how_many_are_needed() -> None:
    few = certify(np.linspace(1, 0.5, 40), np.zeros(40), max_error=0.05)
    assert (few.at_least, few.needed) == (None, 59)
    # One wrong among the surest: 93 rows can have one wrong, and all of them are asked for.
    early = np.zeros(60)
    early[3] = 1
    found = certify(np.linspace(1, 0.5, 60), early, max_error=0.05)
    assert found.at_least is None
    assert found.needed is not None
    assert 60 < found.needed < 600
    hopeless = certify(np.linspace(1, 0.5, 60), np.arange(60) % 2 * 1.0, max_error=0.05)
    assert (hopeless.at_least, hopeless.needed) == (None, None)


def test_grouped_rows_count_for_fewer() -> None:
    wrong = np.repeat([1.0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 10)
    groups = [str(n // 10) for n in range(100)]
    assert design_effect(wrong, groups) == pytest.approx(14.44, abs=0.01)
    assert design_effect(wrong, None) == 1.0
    assert design_effect(wrong, [str(n) for n in range(100)]) == pytest.approx(1.0, abs=0.02)
    assert design_effect(np.zeros(100), groups) == pytest.approx(13.0, abs=0.01)
    assert design_effect(wrong, ["all"] * 100) == 100.0
    clean = np.linspace(1, 0.5, 100)
    assert certify(clean, np.zeros(100), max_error=0.05).at_least is not None
    assert certify(clean, np.zeros(100), max_error=0.05, design=2.0).at_least is None


@pytest.mark.parametrize(("groups", "each"), [(1, 100), (2, 60), (3, 50), (5, 40), (10, 20)])
@pytest.mark.parametrize(("error", "alike"), [(0.1, 0.3), (0.1, 0.9), (0.2, 0.5)])
def test_the_promise_holds_with_few_groups(
    groups: int, each: int, error: float, alike: float
) -> None:
    draw = np.random.default_rng(0)
    names = [str(n // each) for n in range(groups * each)]
    first, second = error * (1 / alike - 1), (1 - error) * (1 / alike - 1)
    broken = 0
    for _ in range(100):
        shares = draw.beta(first, second, groups)
        wrong = (draw.random((groups, each)) < shares[:, None]).ravel() * 1.0
        design = design_effect(wrong, names)
        found = certify(draw.random(len(wrong)), wrong, max_error=0.05, design=design)
        broken += found.at_least is not None
    assert broken <= 8  # 5 % of 100, with their own luck


def test_the_curve_ends_at_the_share_wrong_of_all() -> None:
    sure = np.array([0.9, 0.8, 0.8, 0.5])
    found = risk_curve(sure, np.array([0.0, 1, 0, 1]))
    assert found.tolist() == [[0.25, 0.0], [0.75, 1 / 3], [1.0, 0.5]]
    assert len(risk_curve(np.linspace(0, 1, 1000), np.zeros(1000))) == 50


rows = st.lists(st.tuples(st.integers(1, 40), st.booleans()), min_size=1, max_size=200)


@given(rows, st.sampled_from([0.05, 0.2, 0.5]))
def test_what_is_promised_is_within_its_bound(found: list[tuple[int, bool]], error: float) -> None:
    sure = np.array([each for each, _ in found]) / 40
    wrong = np.array([float(each) for _, each in found])
    made = certify(sure, wrong, max_error=error)
    if made.at_least is None:
        assert made.needed is None or made.needed >= fewest_rows(error)
        return
    answered = sure >= made.at_least
    assert (answered.sum(), wrong[answered].sum()) == (made.answered, made.wrong)
    assert made.wrong / made.answered < made.bound <= error
    # Whoever takes more errors answers no fewer rows with the same first test.
    order = np.random.default_rng(0).permutation(len(sure))
    assert certify(sure[order], wrong[order], max_error=error) == made


def violations(
    margins: Floats, chance_wrong: Floats, *, risk: Floats, max_error: float
) -> tuple[int, int]:
    """Return trials whose threshold has a true risk above the wanted one, and all with a threshold.

    Args:
        margins: How sure each row is, (trials, n).
        chance_wrong: The chance that its answer is wrong, (trials, n).
        risk: The true share wrong among rows at least as sure as each, (trials, n).
        max_error: The wanted error.
    """
    trials, n = margins.shape
    draws = np.random.default_rng(5).random((trials, n))
    order = np.argsort(-margins, axis=1)
    wrong = np.take_along_axis((draws < chance_wrong) * 1.0, order, axis=1)
    risk = np.take_along_axis(risk, order, axis=1)
    bounds = upper_bound(np.cumsum(wrong, axis=1), np.arange(1.0, n + 1))
    first = max(fewest_rows(max_error), math.ceil(FIRST * n)) - 1
    fails = bounds[:, first:] > max_error
    passed = np.where(fails.any(axis=1), fails.argmax(axis=1), n - first)
    last = first + passed - 1
    has_one = passed > 0
    true = risk[np.arange(trials), np.maximum(last, 0)]
    for trial in range(0, trials, trials // 5):  # the vectorised rule is the function's own
        ordered = -np.sort(-margins[trial])
        own = certify(ordered, wrong[trial], max_error=max_error)
        assert own.answered == (last[trial] + 1 if has_one[trial] else 0)
    return int((has_one & (true > max_error)).sum()), int(has_one.sum())


@pytest.mark.slow
@pytest.mark.parametrize("spread", [1.5, 3.0, 6.0])
@pytest.mark.parametrize("n", [100, 300])
@pytest.mark.parametrize("max_error", [0.05, 0.1])
def test_the_wanted_error_is_kept_with_95_percent_confidence(
    spread: float, n: int, max_error: float
) -> None:
    draw, trials = np.random.default_rng(11), 4000
    population = np.sort(np.abs(draw.normal(0, spread, 400_000)))
    above = np.cumsum(expit(-population)[::-1])[::-1] / np.arange(len(population), 0, -1)
    margins = np.abs(draw.normal(0, spread, (trials, n)))
    risk = above[np.minimum(np.searchsorted(population, margins), len(population) - 1)]
    broken, _ = violations(margins, expit(-margins), risk=risk, max_error=max_error)
    assert broken / trials <= 0.05 + 3 * (0.05 * 0.95 / trials) ** 0.5


def test_the_promise_holds_in_the_worst_case_too() -> None:
    # Being sure says nothing, and every threshold has just more than the wanted error.
    draw, trials, n = np.random.default_rng(3), 4000, 300
    margins = draw.random((trials, n))
    alike = np.full((trials, n), 0.0501)
    broken, found = violations(margins, alike, risk=alike, max_error=0.05)
    assert broken == found > 0
    assert broken / trials <= 0.05 + 3 * (0.05 * 0.95 / trials) ** 0.5


def test_groups_that_go_wrong_together_break_it_no_more_often() -> None:
    # 30 groups of 10 rows; a group shifts the log-odds of all its rows.
    draw, trials, kept_apart = np.random.default_rng(2), 300, 0
    groups = np.repeat(np.arange(30), 10)
    names = [str(each) for each in groups]
    margin = np.abs(draw.normal(0, 6, 200_000))
    chance = expit(-margin + 2 * draw.normal(size=len(margin)))
    order = np.argsort(margin)
    above = np.cumsum(chance[order][::-1])[::-1] / np.arange(len(margin), 0, -1)
    broken = 0
    for _ in range(trials):
        sure = np.abs(draw.normal(0, 6, 300))
        shift = 2 * draw.normal(size=30)[groups]
        wrong = (draw.random(300) < expit(-sure + shift)) * 1.0
        design = design_effect(wrong, names)
        found = certify(sure, wrong, max_error=0.1, design=design)
        kept_apart += design > 1.5
        if found.at_least is not None:
            broken += above[np.searchsorted(margin[order], found.at_least)] > 0.1
    assert kept_apart > trials / 2
    assert broken / trials <= 0.05 + 2 * (0.05 * 0.95 / trials) ** 0.5
