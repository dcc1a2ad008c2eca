"""What a run's facts point to, and which keys to try."""

from dataclasses import replace

import pytest

from instil.compare.causes import Facts, causes, wrong
from instil.types import Estimate

PLAIN = Facts(
    rate=1e-3, rule=1e-3, steps=200, epochs=2.0, words=("yes", "no"), rows=400, examples=800
)


def known(facts: Facts) -> list[str]:
    return [cause.fix for cause in causes(facts) if cause.known]


def test_without_a_hint_all_causes_are_named():
    assert known(PLAIN) == []
    assert not wrong(PLAIN)
    assert [cause.fix for cause in causes(PLAIN)] == [
        "read some rows with their labels: instil preview RECIPE -n 5",
        "train.learning_rate: 0.003, or 0.00033",
        "train.num_train_epochs: 4",
    ]


@pytest.mark.parametrize(
    ("changes", "fix"),
    [
        ({"words": ("0", "1")}, "labels: {0: WORD, 1: WORD} in the task file"),
        ({"conflicts": 30}, "one label for each; instil check RECIPE lists them"),
        ({"cut": 100, "max_length": 512}, "train.max_length: 1024"),
        ({"losses": (1.0, 1.0, 1.0) + (1.5,) * 9}, "train.learning_rate: 0.00033"),
        ({"rate": 5e-5}, "train.learning_rate: 0.001"),
        ({"rate": 1e-2}, "train.learning_rate: 0.001"),
        ({"steps": 50}, "train.num_train_epochs: 6"),
        ({"answer_share": 0.1}, "train.loss_over: examples"),
        (
            {"classifier": Estimate(0.01, -0.05, 0.07)},
            "read some rows with their labels: instil preview RECIPE -n 5",
        ),
    ],
)
def test_each_hint_comes_first_and_no_key_is_named_twice(changes, fix):
    facts = replace(PLAIN, **changes)
    assert known(facts) == [fix]
    every = [cause.fix for cause in causes(facts)]
    assert every[0] == fix
    keys = [each.partition(":")[0] for each in every]
    assert len(set(keys)) == len(keys)


def test_labels_are_above_suspicion_where_a_classifier_learns_them():
    sound = replace(PLAIN, classifier=Estimate(0.2, 0.1, 0.3))
    assert not any("labels" in cause.what for cause in causes(sound))
    few_rows = replace(PLAIN, classifier=Estimate(0.4, -0.1, 0.9))
    assert known(few_rows) == [], "it learns much, on too few rows to show it"


def test_a_few_faulty_rows_are_no_cause():
    assert not wrong(replace(PLAIN, conflicts=8, cut=16, max_length=512))
    assert not wrong(replace(PLAIN, losses=(1.0, 0.9, 0.8, 0.7)))
