"""Which rates are tried, for how long, and which is taken."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instil.compare.rates import (
    ABOVE,
    BELOW,
    LEAST_STEPS,
    SHARE,
    choose,
    difference,
    enough_steps,
    is_worse,
    stretch,
    try_steps,
)
from instil.types import Estimate

LOWEST = Estimate(0.0, 0.0, 0.0)


def behind(mean: float, low: float) -> Estimate:
    return Estimate(mean, low, 2 * mean - low)


@given(
    steps=st.integers(1, 100_000),
    step_cost=st.floats(10, 10_000),
    look_cost=st.floats(1, 100_000),
)
def test_all_tries_cost_no_more_than_their_share(steps, step_cost, look_cost):
    found = try_steps(steps=steps, step_cost=step_cost, look_cost=look_cost)
    tries = 1 + len(ABOVE) + len(BELOW)
    assert found == 0 or found >= LEAST_STEPS
    if found:
        cost = tries * (found * step_cost + 2 * look_cost)
        assert cost <= SHARE * steps * step_cost * (1 + 1e-6)
    # `enough_steps` is where that begins
    enough = enough_steps(step_cost=step_cost, look_cost=look_cost)
    assert (found > 0) == (steps >= enough) or abs(steps - enough) <= 1


def test_a_try_stands_for_a_lower_rate_the_shorter_it_is():
    assert stretch(steps=100, of_steps=100) == 1
    assert stretch(steps=10, of_steps=80) == pytest.approx(2)


def test_the_rate_with_the_lowest_loss_is_taken_sure_or_not():
    chosen, why = choose({1.0: behind(0.05, -0.09), 3.0: LOWEST}, rule=1.0)
    assert chosen == 3.0
    assert why == "its try ended with the lowest loss"
    chosen, why = choose({1.0: LOWEST, 3.0: behind(0.02, -0.15)}, rule=1.0)
    assert chosen == 1.0
    assert why.startswith("by the rule")


def test_of_those_as_good_as_one_another_the_nearest_to_the_rule_is_taken():
    rates = {1 / 9: LOWEST, 1 / 3: behind(0.009, -0.1), 1.0: behind(0.5, 0.3)}
    chosen, why = choose(rates, rule=1.0)
    assert chosen == 1 / 3
    assert why.endswith("nearest to the rule's")
    # as near on either side: the better one
    rates = {1 / 3: behind(0.009, -0.1), 1.0: behind(0.5, 0.3), 3.0: LOWEST}
    assert choose(rates, rule=1.0)[0] == 3.0


def test_a_rule_that_diverged_is_not_taken():
    chosen, why = choose({1 / 3: behind(0.01, 0.001), 1 / 9: LOWEST}, rule=1.0)
    assert chosen == 1 / 3, "a hundredth of a nat is no difference"
    assert why.endswith("the rule's diverged")
    assert choose({}, rule=1.0)[0] == min(BELOW)


def test_differences_are_paired_and_clustered():
    draw = random.Random(0)
    base = {str(n): draw.uniform(0, 5) for n in range(60)}
    worse = {key: value + 0.1 + draw.uniform(-0.05, 0.05) for key, value in base.items()}
    alone = {key: key for key in base}
    found = difference(worse, base, groups=alone)
    assert found.mean == pytest.approx(0.1, abs=0.02)
    assert is_worse(found)
    assert not is_worse(difference(base, worse, groups=alone))
    assert not is_worse(difference(base, base, groups=alone))
    # two groups: one degree of freedom, and nothing is clear any more
    halves = {key: str(int(key) % 2) for key in base}
    uneven = {key: value + 0.1 * int(halves[key]) for key, value in base.items()}
    assert not is_worse(difference(uneven, base, groups=halves))
