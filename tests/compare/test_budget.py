import pytest

from instil.compare.verdict import budget_sentence, check_budget
from instil.results import GuardResult
from instil.types import Comparison, Summary


def line(difference: float, half: float, *, metric: str = "accuracy") -> GuardResult:
    level = Summary(metric, 0.5, 0.4, 0.6, 50)
    ends = (difference - half, difference + half)
    change = Comparison("before", "after", metric, 50, difference, *ends, None)
    return GuardResult("t", "qa", level, level, change)


def test_no_budget_or_no_guard_is_no_result():
    assert check_budget([line(-0.1, 0.01)], budget=None) is None
    assert check_budget([line(0.1, 0.01, metric="nats_per_token")], budget=2) is None


@pytest.mark.parametrize(
    ("difference", "half", "broken"),
    [(-0.10, 0.02, True), (-0.10, 0.20, False), (-0.01, 0.001, False), (0.10, 0.02, False)],
)
def test_it_is_broken_only_beyond_doubt(difference, half, broken):
    found = check_budget([line(difference, half), line(difference, half)], budget=2)
    assert found.broken == broken
    assert found.change == pytest.approx(100 * difference)
    assert found.high - found.change == pytest.approx(100 * half / 2**0.5)
    assert ("is broken" in budget_sentence(found)) == broken


def test_cross_entropies_are_passed_over():
    lines = [line(-0.1, 0.01), line(9.0, 0.1, metric="nats_per_token")]
    assert check_budget(lines, budget=2).change == pytest.approx(-10)
