"""How much is forgotten at which interpolation weight: a curve, its band, and how far one may go.

Along the straight way from base to tuned weights, base + s (tuned - base), the cross-entropy of
general text rises by a quadratic in s as long as s is small: Taylor's expansion about the base
model, a s + b s^2, with a the gradient along the way and b half of the curvature. The base model
was trained on such text, so a is small. KL(base || model) is zero and flat at s = 0, so that it
goes with s^2: a loss that is a power of KL between 1/2 and 1 is the same curve.

The curve is a least-squares line through loss / s against s, since both noise and misfit grow with
s. It goes through zero at the base model by construction. Measured means of 2 texts at 3 weights::

    weight s      0.5    1.0                     loss / s   0.02  0.04
    text 1        0.02   0.05      means  0.01   0.04       slope 0.00, curvature 0.04
    text 2        0.00   0.03

The fit is linear in the losses, so each text has a curve of its own, and the curve is their mean.
How the texts' curves differ at a weight gives the band there: with m texts in the fit and n other
ones reported, a 95 % prediction interval of the mean over the n is

    mean +- t(G - 1) sd sqrt(1 / m + 1 / n),

sd the spread of the texts' curves, texts of one group taken together (G groups). The weight is
chosen on the same curve. That leaves the coverage as it is, because noise and loss grow with the
weight alike; `tests/compare/test_forgetting_law.py` simulates it, choice included.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from instil.results import ForgettingLaw
from instil.stats.intervals import LEVEL, t_quantile
from instil.types import Estimate

STEPS = 1000
"""Interpolation weights are told apart to a thousandth."""
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Curve:
    """Loss on general text against the interpolation weight, nats per token."""

    slope: float
    """Loss per unit of weight, next to the base model."""
    curvature: float
    """Loss per square of the weight."""
    each: npt.NDArray[np.float64]
    """Slope and curvature of each text: texts x 2."""
    groups: tuple[str, ...]
    """The group of each text."""
    misfit: float
    """The largest distance between the curve and the mean loss at a weight it was fitted to."""

    def loss(self, weight: float) -> float:
        """Return the loss at a weight."""
        return self.slope * weight + self.curvature * weight**2

    def band(self, weight: float, *, reported: int) -> Estimate:
        """Return the loss at a weight, with the 95 % band of the mean over other texts.

        Args:
            weight: The interpolation weight.
            reported: Number of those other texts.
        """
        values = self.each @ np.array([weight, weight**2])
        mean, count = float(values.mean()), len(values)
        _, places = np.unique(self.groups, return_inverse=True)
        sums = np.bincount(places, weights=values - mean)
        known = len(sums)
        if known < 2:
            return Estimate(mean, -math.inf, math.inf)
        variance = known / (known - 1) * float(sums @ sums) / count  # of one text, times its group
        error = math.sqrt(variance * (1 / count + 1 / reported))
        far = t_quantile((1 + LEVEL) / 2, df=known - 1) * error
        return Estimate(mean, mean - far, mean + far)


def fit_curve(
    weights: Sequence[float], losses: npt.NDArray[np.float64], *, groups: Sequence[str]
) -> Curve:
    """Fit loss = slope s + curvature s^2.

    Args:
        weights: Interpolation weights above 0, at least two.
        losses: Rises of the cross-entropy in nats per token: texts x weights.
        groups: The group of each text.

    >>> curve = fit_curve([0.5, 1.0], np.array([[0.02, 0.05], [0.0, 0.03]]), groups=["a", "b"])
    >>> round(curve.slope, 3), round(curve.curvature, 3)
    (0.0, 0.04)
    """
    s = np.array(weights)
    line = np.stack([np.ones_like(s), s], axis=1)
    each = (losses / s) @ np.linalg.pinv(line).T
    slope, curvature = (float(value) for value in each.mean(axis=0))
    misfit = np.abs(slope * s + curvature * s**2 - losses.mean(axis=0)).max()
    return Curve(slope, curvature, each, tuple(groups), float(misfit))


def largest_weight(curve: Curve, *, at_most: float) -> float:
    """Return the largest weight up to which the curve stays within a loss, 0 to 1.

    >>> curve = fit_curve([0.5, 1.0], np.array([[0.02, 0.05], [0.0, 0.03]]), groups=["a", "b"])
    >>> largest_weight(curve, at_most=0.01), largest_weight(curve, at_most=0.1)
    (0.5, 1.0)
    """
    weights = np.arange(STEPS + 1) / STEPS
    beyond = curve.slope * weights + curve.curvature * weights**2 > at_most + _ROUNDING
    return float(weights[beyond.argmax() - 1]) if beyond.any() else 1.0


def law_sentence(law: ForgettingLaw) -> str:
    """Say what was asked, what the curve predicted, and what came out.

    >>> law_sentence(ForgettingLaw(0.02, 0, 0.1, 0, 0.018, 0.012, 0.024, 50, (),
    ...     Estimate(0.021, 0.017, 0.025)))
    'At most 0.020 nats per token were to be lost on general text: predicted were 0.018 (0.012 to \
0.024), and +0.021 came out (+0.017 to +0.025), within the band.'
    """
    said = (
        f"At most {law.at_most:.3f} nats per token were to be lost on general text: predicted were "
        f"{law.predicted:.3f} ({law.low:.3f} to {law.high:.3f})"
    )
    if law.came_out is None:
        return f"{said}."
    came, low, high = law.came_out.mean, law.came_out.low, law.came_out.high
    within = "within" if law.low <= came <= law.high else "outside"
    beyond = "; more than was asked is shown to be lost" if low > law.at_most else ""
    return (
        f"{said}, and {came:+.3f} came out ({low:+.3f} to {high:+.3f}), {within} the band{beyond}."
    )
