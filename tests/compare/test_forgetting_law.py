"""The curve of loss against interpolation weight: its fit, its band, and what is chosen by it."""

import numpy as np
import pytest

from instil.compare.forgetting_law import fit_curve, largest_weight, law_sentence
from instil.compare.interpolation import SHARES
from instil.results import ForgettingLaw
from instil.types import Estimate

TRIALS = 4000


def losses(draw, texts, *, weights, skewed=False, groups=1):
    """Losses of texts at weights: a text's own curve, and what none explains."""
    bend = (
        draw.lognormal(-3.2, 0.8, texts // groups)
        if skewed
        else draw.normal(0.06, 0.04, texts // groups)
    )
    slope = draw.normal(0.01, 0.03, texts // groups)
    own = np.repeat(np.stack([slope, bend]), groups, axis=1)
    s = np.array(weights)[:, None]
    noise = 0.003 * s.T * draw.standard_normal((texts, len(weights)))
    return (own[0] * s + own[1] * s**2).T + noise


def test_a_quadratic_is_found_exactly():
    s = np.array(SHARES)
    each = np.array([[0.01, 0.1], [-0.02, 0.3], [0.0, 0.0]])
    curve = fit_curve(SHARES, each @ np.stack([s, s**2]), groups=["a", "b", "c"])
    np.testing.assert_allclose(curve.each, each, atol=1e-12)
    assert curve.misfit < 1e-12
    assert curve.loss(0.0) == 0


def test_the_fit_is_least_squares_of_loss_over_weight():
    draw = np.random.default_rng(0)
    seen = losses(draw, 40, weights=SHARES)
    curve = fit_curve(SHARES, seen, groups=[*map(str, range(40))])
    s = np.array(SHARES)
    line = np.stack([np.ones_like(s), s], axis=1)
    found, *_ = np.linalg.lstsq(line, seen.mean(axis=0) / s, rcond=None)
    np.testing.assert_allclose((curve.slope, curve.curvature), found)


@pytest.mark.parametrize("at_most", [0.001, 0.005, 0.02, 0.04, 1.0])
def test_the_largest_weight_is_that_of_the_quadratic_formula(at_most):
    curve = fit_curve([0.5, 1.0], np.array([[0.015, 0.05]]), groups=["a"])  # .01 s + .04 s^2
    root = (-0.01 + np.sqrt(0.01**2 + 4 * 0.04 * at_most)) / 0.08
    found = largest_weight(curve, at_most=at_most)
    assert min(1, root) - 0.001 <= found <= root + 1e-6


def test_a_loss_that_falls_again_is_not_gone_through():
    curve = fit_curve([0.5, 1.0], np.array([[0.10, 0.0]]), groups=["a"])  # .4 s - .4 s^2
    assert largest_weight(curve, at_most=0.05) < 0.2


@pytest.mark.parametrize("case", ["normal", "skewed", "groups of 4", "of 8 texts"])
def test_the_band_holds_the_reported_mean_in_95_percent_choice_included(case):
    draw, hits, within, steered = np.random.default_rng(1), 0, 0, 0
    texts = 8 if case == "of 8 texts" else 48
    groups = 4 if case == "groups of 4" else 1
    names = [str(n // groups) for n in range(texts)]
    for _ in range(TRIALS):
        kind = {"skewed": case == "skewed", "groups": groups}
        curve = fit_curve(SHARES, losses(draw, texts, weights=SHARES, **kind), groups=names)
        weight = largest_weight(curve, at_most=0.02)
        band = curve.band(weight, reported=96)
        came = losses(draw, 96, weights=[weight], **kind).mean()
        hits += band.low <= came <= band.high
        steered += weight < 1
        within += weight < 1 and came <= 0.02
    # 4000 trials: the Monte Carlo error is 0.3 points.
    assert 0.93 <= hits / TRIALS <= 0.97
    assert steered > TRIALS / 2
    # The point prediction is steered by, so about half of the losses come out above it.
    assert 0.4 <= within / steered <= 0.65


def test_a_loss_that_is_not_quadratic_shows_as_misfit():
    s = np.array(SHARES)
    curve = fit_curve(SHARES, 0.3 * s[None] ** 6, groups=["a"])
    assert curve.misfit > 0.02


def test_the_sentence_says_when_more_is_shown_to_be_lost():
    law = ForgettingLaw(0.02, 0.0, 0.1, 0.0, 0.02, 0.015, 0.025, 50, ())
    assert law_sentence(law).endswith("predicted were 0.020 (0.015 to 0.025).")
    came = Estimate(0.03, 0.022, 0.038)
    said = law_sentence(ForgettingLaw(0.02, 0.0, 0.1, 0.0, 0.02, 0.015, 0.025, 50, (), came))
    assert "outside the band; more than was asked is shown to be lost" in said
