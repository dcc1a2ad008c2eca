"""Advice: which way is the cheapest that is seldom wrong, against worked figures and simulation."""

import numpy as np
import pytest

from instil.compare.advice import (
    MAJORITY,
    SURE,
    WORTH,
    Growth,
    Seen,
    answers_until_paid,
    predict,
    weigh,
)
from instil.errors import DataError
from instil.results.names import PROBE, PROMPTING, TUNED
from instil.types import Summary

NONE = Growth(0.0, 0.0)


def seen(name: str, scores) -> Seen:
    values = {f"r{n}": float(score) for n, score in enumerate(scores)}
    mean = float(np.mean(scores))
    return Seen(name, name, Summary("accuracy", mean, mean, mean, scored=len(values)), values)


def right(share: float, *, rows: int = 200, seed: int = 0) -> np.ndarray:
    scores = np.zeros(rows)
    scores[: round(share * rows)] = 1
    return np.random.default_rng(seed).permutation(scores)


def alone(rows: int = 200) -> dict[str, str]:
    return {f"r{n}": f"g{n}" for n in range(rows)}


def test_what_is_clearly_best_is_advised() -> None:
    ways = [seen(PROBE, right(0.6)), seen(PROMPTING, right(0.7, seed=1)), seen(TUNED, right(0.95))]
    weighed, chosen = weigh(ways, groups=alone(), left=0.0, seed=0)
    assert weighed[chosen].name == TUNED
    assert weighed[chosen].risk == pytest.approx(0.0, abs=1e-9)
    assert [way.risk for way in weighed[:2]] == [1.0, 1.0]
    assert [round(way.expected.mean, 9) for way in weighed] == [0.6, 0.7, 0.95]


def test_of_ways_that_answer_alike_the_cheapest_is_advised() -> None:
    same = right(0.8)
    weighed, chosen = weigh(
        [seen(PROBE, same), seen(TUNED, same)], groups=alone(), left=0.0, seed=0
    )
    assert chosen == 0
    # They differ in no row, so in no draw; one that is better on a row of fifty could do that too.
    assert [way.risk for way in weighed] == pytest.approx([0.5 * 0.98 ** len(same)] * 2)
    assert weighed[0].risk < SURE


def test_where_nothing_is_sure_the_least_risky_is_advised_and_its_risk_told() -> None:
    ways = [seen(PROBE, right(0.5, rows=12)), seen(TUNED, right(0.5, rows=12, seed=3))]
    weighed, chosen = weigh(ways, groups=alone(12), left=0.0, seed=0)
    assert min(way.risk for way in weighed) > SURE
    assert weighed[chosen].risk == min(way.risk for way in weighed)


def test_the_rest_of_the_training_is_added_to_the_tuned_model_alone() -> None:
    ways = [seen(PROBE, right(0.8)), seen(TUNED, right(0.8))]
    means, drawn = predict(ways, groups=alone(), left=1.0, seed=0, growth=Growth(0.5, 0.0))
    assert means == pytest.approx([0.8, 0.9])
    assert drawn[:, 1] == pytest.approx(drawn[:, 0] + 0.5 * (1 - drawn[:, 0]))
    half, _ = predict(ways, groups=alone(), left=0.5, seed=0, growth=Growth(0.5, 0.0))
    assert half == pytest.approx([0.8, 0.85])


def test_groups_are_drawn_as_a_whole() -> None:
    scores = np.repeat(right(0.5, rows=10), 20)
    grouped = {f"r{n}": f"g{n // 20}" for n in range(200)}
    spreads = []
    for groups in (alone(), grouped):
        _, drawn = predict([seen(PROBE, scores)], groups=groups, left=0.0, seed=0)
        spreads.append(drawn.std())
    # A mean of 10 groups that agree within spreads sqrt(20) times as far as one of 200 rows; and
    # Student's t of df degrees of freedom has the variance df / (df - 2).
    wider = 20 * (199 / 200) / (9 / 10) * (9 / 7) / (199 / 197)
    assert spreads[1] / spreads[0] == pytest.approx(wider**0.5, rel=0.03)


def test_three_groups_that_favour_one_way_settle_nothing() -> None:
    # 9, 5 and 2 rows: the probe is better in each group, in as many rows of it.
    groups = {f"r{n}": f"g{0 if n < 9 else 1 if n < 14 else 2}" for n in range(16)}
    words, states = np.ones(16), np.ones(16)
    words[[0, 9, 14]] = 0
    weighed, chosen = weigh(
        [seen("words", words), seen(PROBE, states)], groups=groups, left=0.0, seed=0
    )
    assert weighed[chosen].name == PROBE
    assert weighed[chosen].risk >= 1 / 8
    assert weighed[0].expected.low < 0.5


def test_where_all_groups_agree_other_rows_may_not() -> None:
    """Twelve rows all right: other rows may be right in 75.7 % (Wilson)."""
    ways = [seen(PROBE, right(1.0)[:12]), seen(TUNED, right(1.0)[:12])]
    groups = {row: row for row in ways[0].values}
    weighed, chosen = weigh(ways, groups=groups, left=0.0, seed=0)
    assert 0.75 < weighed[0].expected.low < 0.77
    assert weighed[0].expected.high == 1.0
    assert weighed[0].expected == weighed[1].expected
    # A way that is better on one row of fifty agrees on twelve of them more often than not.
    assert (chosen, weighed[0].risk) == (0, pytest.approx(0.5 * 0.98**12))
    assert weighed[0].risk > SURE


def test_rows_of_one_group_are_refused() -> None:
    one = dict.fromkeys(alone(), "g")
    with pytest.raises(DataError, match="all of one group"):
        weigh([seen(PROBE, right(0.5))], groups=one, left=0.0, seed=0)


def test_rows_that_one_way_has_no_score_for_count_for_none() -> None:
    fewer = seen(TUNED, np.ones(100))
    means, _ = predict([seen(MAJORITY, right(0.5)), fewer], groups=alone(), left=0.0, seed=0)
    assert means[0] == pytest.approx(right(0.5)[:100].mean())


@pytest.mark.slow
def test_a_risk_is_the_chance_that_it_says() -> None:
    # Two ways that agree in most rows, of true scores 0.80 and 0.80 + gap; gaps are drawn from the
    # same distribution as the growth, so that risks have to come true.
    generator = np.random.default_rng(5)
    growth, rows = Growth(0.2, 0.2), 100
    told, wrong = [], []
    for trial in range(300):
        added = generator.normal(growth.mean, growth.deviation)
        base, tried = generator.uniform(0.6, 0.9, size=2)
        scores = generator.random((rows, 2)) < (base, tried)
        ways = [seen(PROBE, scores[:, 0]), seen(TUNED, scores[:, 1])]
        weighed, chosen = weigh(ways, groups=alone(rows), left=1.0, seed=trial, growth=growth)
        final = min(1.0, tried + added * (1 - tried))
        truth = [base, final]
        told.append(weighed[chosen].risk)
        wrong.append(max(truth) - truth[chosen] > WORTH)
    # 300 trials: two standard errors are below 5 points.
    assert np.mean(wrong) == pytest.approx(np.mean(told), abs=0.05)


def test_a_training_is_paid_back_only_by_shorter_prompts() -> None:
    assert answers_until_paid(1000, prompt=60, tuned=50) == 100
    assert answers_until_paid(1000, prompt=50, tuned=50) is None
