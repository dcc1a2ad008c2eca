"""Which learning rates to try on a slice, for how long, and which one to take: pure functions.

A short try is not a small copy of the training. The best rate falls with the number of steps, about
as its cube root in what was measured for language models (Bjorck et al. 2024, "Scaling optimal LR
across token horizons", arXiv:2409.19913: exponent -0.32), and few steps flatter high rates. So a
try of t steps for a training of T runs at (T / t) ** (1/3) times the rate that it stands for. The
lowest mean loss decides: a choice must be made, and it claims nothing. That one try is worse than
another beyond doubt is asked only where a try is to be stopped early.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from instil.stats.intervals import LEVEL, mean_table, ratio, spread, t_quantile
from instil.types import Estimate

ABOVE, BELOW = (3.0,), (1 / 3, 1 / 9)
"""Tried times the rule's; one step up and two down, since a try flatters high rates."""
SHARE = 0.25
"""Of the training's own computing, at most, for all tries together."""
LEAST_STEPS, MOST_STEPS = 10, 100
"""Of a try."""
ROWS = 64
"""Validation rows that a try is judged on."""
HORIZON = 1 / 3
FLOOR = 0.01
"""Nats per token: a difference smaller than this is none, however sure."""


def try_steps(*, steps: int, step_cost: float, look_cost: float) -> int:
    """Return how many steps a try may take; 0: too few to say anything.

    Args:
        steps: Of the training.
        step_cost: Of a step, in any unit.
        look_cost: Of one look at the validation rows, in the same unit; a try has two.

    >>> [try_steps(steps=n, step_cost=1.0, look_cost=1.5) for n in (78, 208, 300, 3000)]
    [0, 10, 15, 100]
    """
    tries = 1 + len(ABOVE) + len(BELOW)
    most = int(SHARE * steps / tries - 2 * look_cost / step_cost + 1e-9)
    return 0 if most < LEAST_STEPS else min(most, MOST_STEPS)


def enough_steps(*, step_cost: float, look_cost: float) -> int:
    """Return the steps from which on a training is long enough to try rates for it.

    >>> enough_steps(step_cost=1.0, look_cost=1.5)
    208
    """
    tries = 1 + len(ABOVE) + len(BELOW)
    return int(-(-tries * (LEAST_STEPS + 2 * look_cost / step_cost) // SHARE))


def stretch(*, steps: int, of_steps: int) -> float:
    """Return how many times the rate it stands for a try of so many steps runs at.

    >>> round(stretch(steps=10, of_steps=270), 6)
    3.0
    """
    return float((of_steps / steps) ** HORIZON)


def difference(
    a: Mapping[str, float], b: Mapping[str, float], *, groups: Mapping[str, str]
) -> Estimate:
    """Return a minus b, nats by example id, paired; the interval is Student's, over groups."""
    ids = sorted(a.keys() & b.keys())
    gaps = np.array([a[key] - b[key] for key in ids])
    known = spread(mean_table(gaps, groups=[groups[key] for key in ids]), ratio)
    # Where no two groups differ there is no spread to go by: nothing is clear.
    half = t_quantile((1 + LEVEL) / 2, df=known.df) * known.error if known.df else float("inf")
    return Estimate(known.estimate, known.estimate - half, known.estimate + half)


def is_worse(gap: Estimate) -> bool:
    """Whether a difference shows that the first is clearly worse."""
    return gap.low > 0 and gap.mean > FLOOR


def choose(behind: Mapping[float, Estimate], *, rule: float) -> tuple[float, str]:
    """Return the rate to take, and why: the one with the lowest loss.

    Args:
        behind: Rate -> how far its try lies behind the best one; the best itself has 0.
        rule: The rate that the rule gives; of rates about as good the nearest to it is taken.
    """
    if not behind:
        return rule * min(BELOW), "the lowest that was tried; every try diverged"
    close = [rate for rate, each in behind.items() if each.mean <= FLOOR]

    def apart(rate: float) -> float:
        return round(abs(float(np.log(rate / rule))), 6)

    chosen = min(close, key=lambda rate: (apart(rate), behind[rate].mean))
    if chosen == rule:
        return rule, f"by the rule, since no other try ended more than {FLOOR:g} nats lower"
    why = "its try ended with the lowest loss"
    if behind[chosen].mean > 0:
        why = f"its try ended within {FLOOR:g} nats of the lowest loss, nearest to the rule's"
    return chosen, why if rule in behind else f"{why}; the rule's diverged"
