from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from instil.compare.average import averages, mean_of
from instil.stats.intervals import bootstrap_mean, wilson
from instil.types import Estimate
from report.sample import class_task, text_task


def test_one_task_has_no_average():
    assert averages([class_task()]) == ()


def test_tasks_of_one_metric_have_one_average_with_arms_that_all_ran():
    one, two = class_task("a"), class_task("b")
    two = replace(two, arms=two.arms[:2], comparisons=two.comparisons[:1])
    (average,) = averages([one, two])
    assert average.metric == "accuracy"
    assert average.tasks == ("a", "b")
    assert list(average.arms) == ["tuned", "prompting"]
    assert [c.a for c in average.comparisons] == ["prompting"]
    tuned = average.arms["tuned"]
    assert tuned.mean == pytest.approx(0.815)
    single = one.arms[0].summaries["accuracy"]
    assert tuned.high - tuned.mean == pytest.approx((single.high - single.mean) / 2**0.5)
    assert tuned.scored == 600


def test_different_metrics_are_averaged_together_and_apart():
    found = averages([class_task("a"), class_task("b"), text_task("c")])
    assert [(average.metric, average.tasks) for average in found] == [
        ("", ("a", "b", "c")),
        ("accuracy", ("a", "b")),
    ]
    assert found[0].arms["tuned"].metric == "mean_score"


def test_the_interval_of_an_average_covers_as_often_as_it_says():
    draw, rates, sizes = random.Random(3), (0.9, 0.5, 0.7), (60, 200, 120)
    truth = sum(rates) / 3
    hits = 0
    for _ in range(1500):
        found = []
        for rate, size in zip(rates, sizes, strict=True):
            right = sum(draw.random() < rate for _ in range(size))
            interval = wilson(right, size)
            found.append(Estimate(right / size, interval.low, interval.high))
        average = mean_of(found)
        hits += average.low <= truth <= average.high
    assert 0.935 < hits / 1500 < 0.965


def test_it_agrees_with_a_bootstrap_over_the_rows():
    rng = np.random.default_rng(0)
    scores = [rng.random(300) ** power for power in (1, 2)]
    parts = [bootstrap_mean(values) for values in scores]
    made = mean_of(
        [Estimate(float(v.mean()), p.low, p.high) for v, p in zip(scores, parts, strict=True)]
    )
    drawn = np.sort(
        [np.mean([rng.choice(values, 300).mean() for values in scores]) for _ in range(2000)]
    )
    assert made.low == pytest.approx(drawn[50], abs=0.004)
    assert made.high == pytest.approx(drawn[1950], abs=0.004)
