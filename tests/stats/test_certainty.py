"""Calibration by hand, and by simulation what the threshold promises."""

from __future__ import annotations

import math

import numpy as np
import pytest

from instil.stats.certainty import (
    BINS,
    Bin,
    bin_columns,
    bin_table,
    brier,
    calibration_error,
    padded,
    probabilities,
    rows_needed,
    temperature,
    threshold,
)

RNG = np.random.default_rng


def drawn(rows: int, *, heat: float, choices: int = 3, seed: int = 0):
    """Scores whose softmax at `heat` is the truth, and right answers drawn from it."""
    rng = RNG(seed)
    scores = rng.normal(size=(rows, choices)) * 3
    shares = probabilities(scores, temperature=heat)
    right = (shares.cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1)
    return scores, np.minimum(right, choices - 1)


@pytest.mark.parametrize("heat", [0.5, 1.0, 3.0])
def test_the_temperature_is_found_again(heat: float) -> None:
    scores, right = drawn(40_000, heat=heat)
    assert temperature(scores, right) == pytest.approx(heat, rel=0.05)


def test_a_temperature_changes_no_answer() -> None:
    scores, _ = drawn(500, heat=1.0)
    for heat in (0.1, 7.0):
        shares = probabilities(scores, temperature=heat)
        assert (shares.argmax(axis=1) == scores.argmax(axis=1)).all()
        assert shares.sum(axis=1) == pytest.approx(np.ones(500))


def test_rows_with_fewer_choices() -> None:
    shares = probabilities(padded([[0.0, 0.0], [math.log(2), 0.0, -math.inf]]))
    assert shares == pytest.approx(np.array([[0.5, 0.5, 0], [2 / 3, 1 / 3, 0]]))
    assert brier(shares, [0, 1]) == pytest.approx([0.5, 4 / 9 + 4 / 9])


def test_calibration_error_by_hand() -> None:
    sure = np.array([0.9] * 10 + [0.6] * 10)
    right = np.array([1.0] * 6 + [0.0] * 4 + [1.0] * 6 + [0.0] * 4)
    bins = bin_table(sure, right)
    assert len(bins) == BINS
    assert sum(each.rows for each in bins) == 20
    error = calibration_error(bin_columns(sure, right).sum(axis=0, keepdims=True))
    by_bin = sum(each.rows * abs(each.sure - each.right) for each in bins) / 20
    assert error == pytest.approx([by_bin])
    assert bin_table(np.array([0.7]), np.array([1.0])) == (Bin(0.7, 1.0, 1),)


def test_a_calibrated_model_has_a_small_error() -> None:
    scores, right = drawn(50_000, heat=2.0)

    def error(heat: float) -> float:
        shares = probabilities(scores, temperature=heat)
        correct = (shares.argmax(axis=1) == right).astype(float)
        totals = bin_columns(shares.max(axis=1), correct).sum(axis=0, keepdims=True)
        return float(calibration_error(totals)[0])

    assert error(2.0) < 0.01 < 0.1 < error(1.0)


def test_a_threshold_by_hand() -> None:
    sure, right = np.linspace(0.5, 1, 200), np.ones(200)
    right[:30] = 0  # the least sure are wrong
    found = threshold(sure, right, most=0.05)
    assert found is not None
    assert found.coverage == 0.8
    assert 0.02 < found.bound <= 0.05
    everything = threshold(sure, np.ones(200), most=0.05)
    assert everything is not None
    assert (everything.above, everything.coverage) == (-1.0, 1.0)
    assert threshold(sure, 1 - right, most=0.05) is None
    assert threshold(np.full(200, 0.9), right, most=0.05) is None, "alike: all are answered or none"


@pytest.mark.parametrize(("most", "rows"), [(0.05, 90), (0.1, 44), (0.2, 21)])
def test_so_many_rows_without_an_error_are_needed(most: float, rows: int) -> None:
    assert rows_needed(most) == rows
    sure = np.linspace(0, 1, rows)
    assert threshold(sure, np.ones(rows), most=most) is not None
    assert threshold(sure[1:], np.ones(rows - 1), most=most) is None


@pytest.mark.parametrize("choices", [2, 4])
def test_the_promise_is_kept(choices: int) -> None:
    """In at most 5 % of 2,000 trials more errors than promised are to come (by simulation)."""
    most, broken, given = 0.1, 0, 0
    future, truth = drawn(100_000, heat=0.9, choices=choices, seed=9)
    shares = probabilities(future)
    sure, correct = shares.max(axis=1), (shares.argmax(axis=1) == truth).astype(float)
    order = np.argsort(sure)
    ranked, wrong = sure[order], (1 - correct[order])[::-1].cumsum()[::-1]
    rng = RNG(3)
    for _ in range(2000):
        taken = rng.integers(0, len(sure), 150)
        found = threshold(sure[taken], correct[taken], most=most)
        if found is None:
            continue
        given += 1
        first = int(np.searchsorted(ranked, found.above, side="right"))
        broken += wrong[first] / (len(sure) - first) > most
    assert given > 200, "else it would promise nothing"
    assert broken / 2000 <= 0.05
