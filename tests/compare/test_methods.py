"""Which way `method: auto` takes, and when it has tried enough."""

from instil.compare.interpolation import enough, pick
from instil.results import TriedMethod


def way(score: float, points: float | None = 0.0, nats: float | None = 0.0, loss=1.0):
    return TriedMethod("way", score, loss, points, nats, 1.0)


def test_climbing_ends_within_the_budget_and_half_a_point_of_the_best():
    assert enough([way(0.80, -1.9)], budget=2)
    assert not enough([way(0.80, -2.1)], budget=2)
    assert enough([way(0.80, -5), way(0.795, -1)], budget=2)
    assert not enough([way(0.80, -5), way(0.79, -1)], budget=2)
    assert not enough([way(0.80, 0.0)], budget=None), "nothing to keep to: all are tried"
    assert enough([way(0.80, None)], budget=2), "nothing was measured to be broken"


def test_within_a_budget_the_best_score_wins():
    found = [way(0.90, -5), way(0.80, -1.5, 0.2), way(0.80, -1.9, 0.1), way(0.7, 0)]
    best, why = pick(found, budget=2)
    assert best == 2, "a tie goes to what forgot less"
    assert "within the forgetting budget of 2 points" in why
    best, why = pick([way(0.9, -9), way(0.8, -6), way(0.7, -7)], budget=2)
    assert best == 1
    assert "lost least" in why


def test_without_a_budget_the_least_forgotten_within_half_a_point():
    found = [way(0.800, -5, 0.3), way(0.796, -1, 0.1), way(0.79, 0, 0.0)]
    assert pick(found, budget=None)[0] == 1
    assert pick([way(0.8, nats=0.1), way(0.8, nats=0.1, loss=0.5)], budget=None)[0] == 1
    assert pick([way(0.8), way(0.8)], budget=None)[0] == 0
    assert pick([way(0.8, None, None), way(0.79, None, None)], budget=None)[0] == 0
