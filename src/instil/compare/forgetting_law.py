"""How far one may go from base to tuned weights before general text loses more than is allowed.

Along the straight way base + s (tuned - base) the cross-entropy of general text rises by a
quadratic in s as long as s is small: Taylor's expansion about the base model, a s + b s^2, with a
the gradient along the way and b half of the curvature. The base model was trained on such text, so
a is small. KL(base || model) is zero and flat at s = 0, so that it goes with s^2: a loss that is a
power of KL between 1/2 and 1 is the same curve.

Far from the base model the loss need not be a quadratic: one run of SmolLM2-135M lost 0.01, 0.07,
0.36, 1.5, 4.9 and 9.4 nats at a tenth, two, four, six, eight tenths and all of the way. So the
curve is fitted near the limit alone, to the weights up to the first one that loses more than is
allowed, and only describes. The exported weight is one that was read: between the largest weight
that keeps to the limit and the first that does not, others are read where a power of the weight
through both meets the limit.

The curve is a least-squares line through loss / s against s, since misfit grows with s. It goes
through zero at the base model by construction. Measured means of 2 texts at 3 weights::

    weight s      0.5    1.0                     loss / s   0.02  0.04
    text 1        0.02   0.05      means  0.01   0.04       slope 0.00, curvature 0.04
    text 2        0.00   0.03

The band rests on no curve: with m texts read at the exported weight, n other ones reported, and sd
the spread of the m texts' losses, a 95 % prediction interval of the mean over the n is

    mean +- t(G - 1) sd sqrt(1 / m + 1 / n),

texts of one group taken together (G groups). The weight is chosen on the same m texts. That leaves
the coverage as it is, because spread and loss grow with the weight alike;
`tests/compare/test_forgetting_law.py` simulates it, choice included, with losses that are no
quadratic too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from instil import format as fmt
from instil.results.keeping import ForgettingLaw
from instil.stats.intervals import LEVEL, t_quantile
from instil.types import Estimate

Floats = npt.NDArray[np.float64]
MOST_LOOKS = 4
"""Weights read beside the given ones, at most."""
CLOSE = 0.9
"""The share of the limit from which on a weight is near enough to it."""
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Curve:
    """Loss on general text against the interpolation weight, nats per token."""

    slope: float
    """Loss per unit of weight, next to the base model."""
    curvature: float
    """Loss per square of the weight."""
    misfit: float
    """The largest distance between the curve and the mean loss at a weight it was fitted to."""
    fitted_to: float
    """The largest of those weights."""


@dataclass(frozen=True, slots=True)
class Steered:
    """Where to stop on the way from base to tuned weights."""

    weight: float
    """The interpolation weight to export."""
    curve: Curve
    """The last one that was fitted."""
    losses: Mapping[float, Floats]
    """Weight that was read -> rise of each text's cross-entropy."""


def steer(
    look: Callable[[float], Sequence[float]], *, weights: Sequence[float], at_most: float
) -> Steered:
    """Return the largest weight up to which general text was read to lose no more than `at_most`.

    Args:
        look: Reads the texts at a weight: the cross-entropy of each, nats per token.
        weights: Read first, above 0, at least two.
        at_most: Nats per token that may be lost, in the mean over the texts.
    """
    base = np.array(look(0.0))
    losses = {0.0: np.zeros_like(base)}
    means = {0.0: 0.0}

    def read(weight: float) -> None:
        losses[weight] = np.array(look(weight)) - base
        means[weight] = float(losses[weight].mean())

    def ends() -> tuple[float, float]:
        """The largest weight before any loses too much, and the first that does; infinity: none."""
        many = [w for w, mean in means.items() if mean > at_most + _ROUNDING]
        beyond = min(many, default=math.inf)
        return max(w for w in means if w < beyond), beyond

    def fitted() -> Curve:
        known, (_, beyond) = sorted(w for w in means if w > 0), ends()
        near = known[: max(2, sum(w <= beyond for w in known))]
        return fit_curve(near, [means[w] for w in near])

    for weight in weights:
        read(weight)
    for _ in range(MOST_LOOKS):
        within, beyond = ends()
        if math.isinf(beyond) or means[within] >= CLOSE * at_most:
            break
        # Near the limit all curves are like a power of the weight: that through both ends or, where
        # nothing is lost at the lower one, through the upper one and the next that was read.
        farther = min((w for w in means if w > beyond), default=beyond)
        other, power = within if means[within] > 0 else farther, 2.0
        if means[other] > 0 and means[other] != means[beyond]:
            power = math.log(means[other] / means[beyond]) / math.log(other / beyond)
        weight = beyond * ((1 + CLOSE) / 2 * at_most / means[beyond]) ** (1 / max(power, 0.5))
        weight = round(weight, 3)
        if not within < weight < beyond:
            weight = round((within + beyond) / 2, 3)
        if weight in means:
            break
        read(weight)
    return Steered(ends()[0], fitted(), losses)


def fit_curve(weights: Sequence[float], means: Sequence[float]) -> Curve:
    """Fit loss = slope s + curvature s^2 to mean losses.

    Args:
        weights: Interpolation weights above 0, ascending, at least two.
        means: Mean rise of the cross-entropy at each, nats per token.

    >>> curve = fit_curve([0.5, 1.0], [0.01, 0.04])
    >>> round(curve.slope, 3), round(curve.curvature, 3)
    (0.0, 0.04)
    """
    s, seen = np.array(weights), np.array(means)
    line = np.stack([np.ones_like(s), s], axis=1)
    slope, curvature = (float(value) for value in np.linalg.pinv(line) @ (seen / s))
    misfit = np.abs(slope * s + curvature * s**2 - seen).max()
    return Curve(slope, curvature, float(misfit), weights[-1])


def band(losses: Floats, *, groups: Sequence[str], reported: int) -> Estimate:
    """Return the mean loss of some texts, with the 95 % band of the mean over other ones.

    Args:
        losses: Of each text, nats per token.
        groups: The group of each text.
        reported: Number of those other texts.
    """
    mean, count = float(losses.mean()), len(losses)
    _, places = np.unique(groups, return_inverse=True)
    sums = np.bincount(places, weights=losses - mean)
    known = len(sums)
    if known < 2:
        return Estimate(mean, -math.inf, math.inf)
    variance = known / (known - 1) * float(sums @ sums) / count  # of one text, times its group
    error = math.sqrt(variance * (1 / count + 1 / reported))
    far = t_quantile((1 + LEVEL) / 2, df=known - 1) * error
    return Estimate(mean, mean - far, mean + far)


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


def limit_sentence(law: ForgettingLaw, *, exported: float) -> str:
    """Say what the limit costs on validation; empty where all of the way is exported.

    Args:
        law: What was read.
        exported: The interpolation weight.

    >>> from instil.results import TextLoss
    >>> points = (TextLoss(0.4, 0.018, 0.517), TextLoss(1.0, 0.52, 0.583))
    >>> law = ForgettingLaw(0.02, 0, 0.1, 0, 0.018, 0.012, 0.024, 50, points)
    >>> limit_sentence(law, exported=0.4).replace("\N{NO-BREAK SPACE}", " ")
    'For that 40 % of the way is exported: on validation it scores 51.7 %, all of the way 58.3 %. \
Where that is too dear, raise forgetting.at_most, or set keep.kl: 0.1, which forgets less on the \
way.'
    """
    scores = {point.weight: point.score for point in law.points}
    if exported not in scores or 1.0 not in scores or exported == 1.0:
        return ""
    here, whole = scores[exported], scores[1.0]
    said = (
        f"For that {100 * exported:.0f}{fmt.NBSP}% of the way is exported: on validation it scores "
        f"{fmt.percent(here)}, all of the way {fmt.percent(whole)}."
    )
    if here >= whole:
        return said
    return (
        f"{said} Where that is too dear, raise forgetting.at_most, or set keep.kl: 0.1, which "
        "forgets less on the way."
    )
