"""Calibration error, Brier score and temperature: by hand, as properties, on synthetic data."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit, log_softmax

from instil.stats.calibration import (
    ROWS_A_BIN,
    bin_rows,
    brier_losses,
    calibration_error,
    fit_temperature,
    mean_estimate,
    negative_log_likelihood,
    softmax,
)
from instil.stats.intervals import Floats


def drawn(temperature: float, *, rows: int, choices: int = 4, seed: int = 0) -> tuple[Floats, ...]:
    """Return scores that are `temperature` times too sure, and the right choices."""
    draw = np.random.default_rng(seed)
    true = log_softmax(2 * draw.normal(size=(rows, choices)), axis=1)
    noise = draw.gumbel(size=true.shape)
    return temperature * true, (true + noise).argmax(axis=1)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5, 6.0])
def test_a_known_temperature_is_recovered(temperature: float) -> None:
    scores, target = drawn(temperature, rows=20_000)
    assert fit_temperature(scores, target) == pytest.approx(temperature, rel=0.03)


def test_the_fitted_temperature_has_the_lowest_cross_entropy() -> None:
    scores, target = drawn(3.0, rows=150)
    fitted = fit_temperature(scores, target)
    least = negative_log_likelihood(scores, target, temperature=fitted)
    grid = [negative_log_likelihood(scores, target, temperature=t) for t in np.geomspace(0.1, 40)]
    assert least <= min(grid) + 1e-9


def test_a_temperature_cannot_be_fitted_where_nothing_is_wrong() -> None:
    scores = np.log(np.array([[0.9, 0.1], [0.2, 0.8]]))
    assert fit_temperature(scores, np.array([0, 1])) == 1.0
    assert fit_temperature(np.zeros((5, 3)), np.array([0, 1, 2, 0, 1])) == 1.0


def test_likelihood_and_brier_by_hand() -> None:
    scores, target = np.log(np.array([[0.8, 0.2], [0.4, 0.6]])), np.array([0, 0])
    nats = negative_log_likelihood(scores, target)
    assert nats == pytest.approx(-(math.log(0.8) + math.log(0.4)) / 2)
    assert brier_losses(softmax(scores), target) == pytest.approx([0.08, 0.72])
    assert brier_losses(np.array([[0.0, 1.0]]), np.array([0])) == pytest.approx([2.0])


def test_a_row_may_have_fewer_choices() -> None:
    shares = softmax(np.array([[0.0, 0.0, -np.inf], [0.0, 0.0, 0.0]]), temperature=3.0)
    assert shares == pytest.approx(np.array([[0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3]]))


@given(arrays(np.float64, (6, 3), elements=st.floats(-300, 0)), st.floats(0.02, 50))
def test_a_temperature_changes_no_answer(scores: Floats, temperature: float) -> None:
    shares = softmax(scores, temperature=temperature)
    assert shares.sum(axis=1) == pytest.approx(1)
    taken = scores.argmax(axis=1)
    assert np.all(shares[np.arange(6), taken] == shares.max(axis=1))


def test_the_calibration_error_by_hand() -> None:
    # Two bins of 20 rows: 60 % sure and 12 right, 90 % sure and 14 right.
    sure = np.repeat([0.6, 0.9], ROWS_A_BIN)
    right = np.concatenate([np.repeat([1.0, 0], [12, 8]), np.repeat([1.0, 0], [14, 6])])
    found = calibration_error(sure, right)
    assert found.error.mean == pytest.approx((0 + 0.2) / 2)
    assert found.error.low <= found.error.mean <= found.error.high


@given(st.lists(st.integers(1, 30), min_size=1, max_size=300))
def test_bins_go_up_and_do_not_part_equals(counts: list[int]) -> None:
    sure = np.array(counts) / 30
    bins = bin_rows(sure)
    assert set(bins.tolist()) == set(range(bins.max() + 1))
    order = np.argsort(sure, kind="stable")
    assert np.all(np.diff(bins[order]) >= 0)
    assert all(len(set(bins[sure == each].tolist())) == 1 for each in set(sure.tolist()))


def answers(too_sure: float, *, rows: int, seed: int) -> tuple[Floats, Floats]:
    """Return probabilities whose log-odds are `too_sure` times what they should be, and who won."""
    draw = np.random.default_rng(seed)
    margin = np.abs(draw.normal(0, 3, rows))
    return expit(margin * too_sure), (draw.random(rows) < expit(margin)) * 1.0


def test_calibrated_probabilities_are_not_called_wrong() -> None:
    found = [calibration_error(*answers(1.0, rows=200, seed=n), seed=n) for n in range(40)]
    assert sum(each.error.low > 0 for each in found) <= 6  # 2 expected
    means = np.mean([[each.error.mean, each.floor] for each in found], axis=0)
    assert means[0] == pytest.approx(means[1], rel=0.15)


def test_probabilities_that_are_too_sure_are_found_out() -> None:
    found = calibration_error(*answers(3.0, rows=400, seed=0))
    assert 0 < found.error.low < 0.1036 < found.error.high  # as of 400,000 rows
    assert found.floor < found.error.low


def test_a_seed_gives_the_same_interval_and_groups_widen_it() -> None:
    sure, right = answers(2.0, rows=200, seed=1)
    assert calibration_error(sure, right, seed=4) == calibration_error(sure, right, seed=4)
    twice, groups = np.repeat(sure, 2), [str(n // 2) for n in range(400)]
    alone = calibration_error(twice, np.repeat(right, 2))
    together = calibration_error(twice, np.repeat(right, 2), groups=groups)
    assert together.error.mean == alone.error.mean
    assert together.error.high > alone.error.high


def test_a_mean_has_an_interval() -> None:
    found = mean_estimate(np.linspace(0, 1, 50), groups=None)
    assert (found.mean, found.low < 0.5 < found.high) == (pytest.approx(0.5), True)
