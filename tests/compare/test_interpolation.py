"""The rule by which a share of the way is chosen."""

from instil.compare.interpolation import choose, enough, pick
from instil.results.keeping import Tried, TriedMethod


def tried(*rows: tuple[float, float, float | None, float | None]) -> list[Tried]:
    return [Tried(share, score, 0.5, points, nats) for share, score, points, nats in rows]


WAY = tried(
    (0.0, 0.60, 0.0, 0.0),
    (0.2, 0.74, -0.5, 0.01),
    (0.4, 0.795, -1.0, 0.02),
    (0.6, 0.81, -2.5, 0.05),
    (0.8, 0.814, -4.0, 0.09),
    (1.0, 0.81, -6.0, 0.20),
)


def test_the_least_forgotten_within_half_a_point_of_the_best():
    assert choose(WAY, budget=None).chosen == 0.6


def test_half_a_point_exactly_is_within():
    way = tried((0.0, 0.1, 0.0, 0.0), (0.5, 0.805, -1.0, 0.1), (1.0, 0.81, -2.0, 0.2))
    assert choose(way, budget=None).chosen == 0.5


def test_the_smallest_share_is_not_taken_where_a_larger_one_forgot_less():
    way = tried((0.0, 0.1, 0.0, 0.0), (0.5, 0.81, -1.0, 0.1), (1.0, 0.81, 0.0, -0.1))
    assert choose(way, budget=None).chosen == 1.0


def test_the_best_score_within_the_budget():
    assert choose(WAY, budget=3).chosen == 0.6
    assert choose(WAY, budget=5).chosen == 0.8
    assert "budget of 1 points" in choose(WAY, budget=1).why
    assert choose(WAY, budget=1).chosen == 0.4


def test_where_nothing_is_within_the_budget_the_smallest_loss_is_taken_and_told():
    found = choose(WAY, budget=0.1)
    assert found.chosen == 0.2
    assert "none was within" in found.why


def test_without_guard_rows_the_smallest_share_is_taken_and_told():
    way = [Tried(t.share, t.score, t.loss, None, None) for t in WAY]
    for budget in (None, 2.0):
        found = choose(way, budget=budget)
        assert found.chosen == 0.6
        assert "no guard rows" in found.why


def test_the_untouched_model_is_never_chosen():
    way = tried((0.0, 0.9, 0.0, 0.0), (0.2, 0.5, -1.0, 0.1), (1.0, 0.4, -2.0, 0.2))
    assert choose(way, budget=None).chosen == 0.2
    assert choose(way, budget=0).chosen == 0.2


def test_of_equals_the_one_that_learned_more_is_taken():
    way = [Tried(0.2, 0.8, 6.33, 0.0, 0.0), Tried(1.0, 0.8, 2.88, 0.0, 0.0)]
    assert choose(way, budget=None).chosen == 1.0
    assert choose(way, budget=1.0).chosen == 1.0


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
