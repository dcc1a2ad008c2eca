"""The curve of loss against interpolation weight: its fit, its band, and what is chosen by it."""

import numpy as np
import pytest

from instil.compare.forgetting_law import (
    CLOSE,
    MOST_LOOKS,
    band,
    fit_curve,
    law_sentence,
    limit_sentence,
    steer,
)
from instil.compare.interpolation import SHARES
from instil.results.keeping import ForgettingLaw, TextLoss
from instil.types import Estimate

TRIALS = 4000
LIMIT = 0.02


def some_texts(draw, texts, *, case="normal", groups=1):
    """Return what reads texts at a weight: each has a curve of its own, and what none explains."""
    some = texts // groups
    bend = draw.lognormal(-3.2, 0.8, some) if case == "skewed" else draw.normal(0.06, 0.04, some)
    slope = draw.normal(0.01, 0.03, some)
    steep = draw.lognormal(-3, 0.8, some) if case == "steep" else np.zeros(some)
    slope, bend, steep = (np.repeat(each, groups) for each in (slope, bend, steep))
    noise = 0.003 * draw.standard_normal(texts)

    def look(s):
        return 3 + slope * s + bend * s**2 + steep * (np.exp(5 * s) - 1 - 5 * s) + noise * s

    return look


def test_a_quadratic_is_found_exactly():
    s = np.array(SHARES)
    curve = fit_curve(SHARES, 0.01 * s + 0.1 * s**2)
    np.testing.assert_allclose((curve.slope, curve.curvature), (0.01, 0.1))
    assert curve.misfit < 1e-12


def test_the_fit_is_least_squares_of_loss_over_weight():
    means = np.random.default_rng(0).normal(0.05, 0.01, len(SHARES))
    curve = fit_curve(SHARES, means)
    s = np.array(SHARES)
    line = np.stack([np.ones_like(s), s], axis=1)
    found, *_ = np.linalg.lstsq(line, means / s, rcond=None)
    np.testing.assert_allclose((curve.slope, curve.curvature), found)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["normal", "skewed", "groups of 4", "of 8 texts", "steep"])
def test_the_band_holds_the_reported_mean_in_95_percent_choice_included(case):
    draw, hits, within, steered = np.random.default_rng(1), 0, 0, 0
    texts = 8 if case == "of 8 texts" else 48
    groups = 4 if case == "groups of 4" else 1
    names = [str(n // groups) for n in range(texts)]
    for _ in range(TRIALS):
        look = some_texts(draw, texts, case=case, groups=groups)
        found = steer(look, weights=SHARES, at_most=LIMIT)
        assert found.losses[found.weight].mean() <= LIMIT + 1e-9
        predicted = band(found.losses[found.weight], groups=names, reported=96)
        other = some_texts(draw, 96, case=case, groups=groups)
        came = (other(found.weight) - other(0.0)).mean()
        hits += predicted.low <= came <= predicted.high
        steered += found.weight < 1
        within += found.weight < 1 and came <= LIMIT
    # 4000 trials: the Monte Carlo error is 0.3 points. A few texts that lose much, as in the two
    # skewed cases, are missing from some draws, and the band is short then.
    assert (0.92 if case in ("skewed", "steep") else 0.94) <= hits / TRIALS <= 0.96
    assert steered > TRIALS / 2
    # The mean of the texts read is steered by, so about half of the losses come out above it.
    assert 0.4 <= within / steered <= 0.65


@pytest.mark.parametrize("at_most", [1e-3, 0.01, 0.1])
@pytest.mark.parametrize("power", [1, 2, 3, 6])
def test_the_weight_loses_nearly_what_is_allowed_whatever_the_form_and_is_one_that_was_read(
    power, at_most
):
    weights = []

    def look(s):
        weights.append(s)
        return np.array([3.0, 2.0]) + 9 * s**power

    found = steer(look, weights=SHARES, at_most=at_most)
    assert found.weight in weights
    assert 9 * found.weight**power <= at_most + 1e-9
    assert 9 * found.weight**power >= CLOSE * at_most or found.weight < 0.002
    assert len(weights) <= 1 + len(SHARES) + MOST_LOOKS


def test_what_loses_too_little_is_exported_whole_and_what_loses_at_once_not_at_all():
    whole = steer(lambda s: [2.0 + 0.01 * s], weights=SHARES, at_most=0.02)
    assert (whole.weight, len(whole.losses)) == (1.0, 1 + len(SHARES))
    none = steer(lambda s: [2.0 + (s > 0)], weights=SHARES, at_most=0.02)
    assert none.weight == 0.0
    # A loss that comes back within the limit further on is not gone through.
    early = steer(lambda s: [2.0 + (0.1 < s < 0.5)], weights=SHARES, at_most=0.02)
    assert early.weight <= 0.1


def test_a_loss_that_is_not_quadratic_shows_as_misfit_and_is_fitted_near_the_limit_alone():
    s = np.array(SHARES)
    assert fit_curve(SHARES, 0.3 * s**6).misfit > 0.02
    found = steer(lambda s: [2.0 + 9 * s**6], weights=SHARES, at_most=0.02)
    assert found.curve.fitted_to < 0.5


@pytest.mark.parametrize(("here", "advises"), [(0.517, True), (0.583, False)])
def test_what_the_limit_costs_on_validation_is_said(here, advises):
    points = (TextLoss(0.4, 0.018, here), TextLoss(1.0, 0.5, 0.583))
    law = ForgettingLaw(0.02, 0.0, 0.1, 0.0, 0.018, 0.015, 0.025, 50, points)
    said = limit_sentence(law, exported=0.4)
    assert f"scores {100 * here:.1f}" in said
    assert ("keep.kl" in said) == advises
    assert not limit_sentence(law, exported=1.0), "nothing was held back"


def test_the_sentence_says_when_more_is_shown_to_be_lost():
    law = ForgettingLaw(0.02, 0.0, 0.1, 0.0, 0.02, 0.015, 0.025, 50, ())
    assert law_sentence(law).endswith("predicted were 0.020 (0.015 to 0.025).")
    came = Estimate(0.03, 0.022, 0.038)
    said = law_sentence(ForgettingLaw(0.02, 0.0, 0.1, 0.0, 0.02, 0.015, 0.025, 50, (), came))
    assert "outside the band; more than was asked is shown to be lost" in said
