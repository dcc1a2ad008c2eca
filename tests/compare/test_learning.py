"""What looks at validation show: recorded ones of a real model, and made-up ones."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from instil.compare.learning import (
    State,
    constant_scores,
    has_one_answer,
    is_shown,
    learnt,
    sounds,
    state,
    task_look,
    told_apart,
)
from instil.types import Estimate, Example, Prediction, TaskLook

# SmolLM2-135M-Instruct, LoRA; 100 validation rows, the log-odds of each choice against the first.
RECORDED = json.loads((Path(__file__).parent / "looks.json").read_text(encoding="utf-8"))
SHUFFLED = [name for name in RECORDED if name.startswith("shuffled")]
SLOW = [name for name in RECORDED if not name.startswith("shuffled")]


def example(number: int, right: str, choices=("good", "bad"), template="ask", group="") -> Example:
    name = str(number)
    return Example(name, "moods", template, name, group or name, (), right, tuple(choices))


def predicted(examples, scores) -> list[Prediction]:
    return [
        Prediction(e.id, e.choices[int(np.argmax(row))], tuple(row))
        for e, row in zip(examples, scores, strict=True)
    ]


def looks_of(recorded) -> dict[int, TaskLook]:
    labels, found, before = list(recorded["counts"]), {}, None
    examples = [
        example(n, labels[right], labels, template, group)
        for n, (template, group, right) in enumerate(recorded["rows"])
    ]
    for step, odds in recorded["looks"].items():
        made = predicted(examples, [[0.0, *row] for row in odds])
        before = task_look(
            examples,
            made,
            [0.0] * len(made),
            labels=labels,
            counts=recorded["counts"],
            before=before,
        )
        found[int(step)] = before
    return found


def first_alarm(looks: dict[int, TaskLook], *, steps: int) -> int | None:
    so_far: list[TaskLook] = []
    for step, look in looks.items():
        so_far.append(look)
        if sounds(so_far, step=step, of_steps=steps):
            return step
    return None


def test_recorded_trainings_of_both_kinds_are_there():
    assert len(SHUFFLED) >= 2
    assert len(SLOW) >= 3


@pytest.mark.parametrize("name", SHUFFLED)
def test_shuffled_labels_sound_the_alarm_half_way(name):
    recorded = RECORDED[name]
    looks = looks_of(recorded)
    halfway = next(step for step in looks if 2 * step >= recorded["steps"])
    assert first_alarm(looks, steps=recorded["steps"]) == halfway < recorded["steps"]


@pytest.mark.parametrize("name", SLOW)
def test_slow_learners_do_not(name):
    recorded = RECORDED[name]
    looks = looks_of(recorded)
    assert first_alarm(looks, steps=recorded["steps"]) is None
    first, *_, last = looks.values()
    assert first.above.low <= 0, "by accuracy alone it is no better than the commonest class"
    assert is_shown(last)


def drawn(strength: float, *, seed: int, lean: float = 0.0, rows: int = 150, before=None):
    """A look at rows whose log-odds say something of their class by `strength`."""
    draw = random.Random(seed)
    examples, scores = [], []
    for n in range(rows):
        right = draw.choice(["good", "bad"])
        sign = 1 if right == "good" else -1
        examples.append(example(n, right, template=f"t{n % 3}"))
        scores.append((lean + sign * strength + draw.gauss(0, 1), 0.0))
    return task_look(
        examples,
        predicted(examples, scores),
        [0.0] * rows,
        labels=("good", "bad"),
        counts={"good": 3, "bad": 2},
        before=before,
    )


def test_a_model_that_leans_to_one_answer_is_still_seen_to_tell_the_classes_apart():
    look = drawn(0.5, seed=0, lean=20.0)
    assert has_one_answer(look)
    assert look.right == look.constant
    assert look.above.high >= 0 >= look.above.low
    assert look.apart.low > 0.5
    assert state([look, look]) is State.SHOWN
    assert not sounds([look, look], step=60, of_steps=100), "it may only be slow"
    assert sounds([look, look], step=100, of_steps=100), "it ends so"


def test_every_template_leans_its_own_way():
    rows, labels = 60, [n % 2 for n in range(60)]
    template = [n // 2 % 3 for n in range(rows)]
    odds = [0.2 * (1 - 2 * y) + 10 * t for y, t in zip(labels, template, strict=True)]
    chances = [np.array([x, -x]) for x in odds]
    assert told_apart(chances, labels, template).mean() == pytest.approx(1)
    assert told_apart(chances, labels, [0] * rows).mean() < 0.7


def test_telling_two_classes_apart_is_the_area_under_the_roc_curve():
    from sklearn.metrics import roc_auc_score

    draw = np.random.default_rng(1)
    labels = draw.integers(2, size=80)
    odds = draw.normal(size=80) + labels
    found = told_apart([np.array([-x, x]) for x in odds], labels.tolist(), [""] * 80)
    assert found.mean() == pytest.approx(roc_auc_score(labels, odds))


def test_rows_of_one_class_tell_nothing():
    examples = [example(n, "good") for n in range(5)]
    look = task_look(
        examples,
        predicted(examples, [(1.0, 0.0)] * 5),
        [0.0] * 5,
        labels=("good", "bad"),
        counts={},
    )
    assert look.apart is None
    assert not has_one_answer(look), "it is the right one for all of them"
    assert state([look, look]) is State.OPEN


@pytest.mark.slow
def test_chance_is_rarely_taken_for_learning():
    shown = sum(is_shown(drawn(0.0, seed=seed, rows=100)) for seed in range(200))
    assert shown <= 16, "2.5 % by each of two intervals, and what 200 draws add to it"


@pytest.mark.slow
def test_shuffled_labels_are_found_out_and_a_slow_learner_is_not():
    """Of 100 rows each: what the alarm says at the half of a training, over many draws."""
    found = [state([drawn(0.0, seed=s), drawn(0.0, seed=s + 500)]) for s in range(60)]
    assert sum(each is State.NOTHING for each in found) >= 48
    slow = [state([drawn(0.05, seed=s), drawn(0.35, seed=s + 500)]) for s in range(60)]
    assert sum(each in (State.NOTHING, State.ONE_ANSWER) for each in slow) <= 1


def look(**changes) -> TaskLook:
    flat = TaskLook(
        "moods", 100, answers=2, wanted=2, answer="good", nats=(), right=0.5, always="good",
        constant=0.5, above=Estimate(0, -0.1, 0.1), apart=Estimate(0.5, 0.4, 0.6),
        level=Estimate(0, -0.05, 0.05), trend=Estimate(0, -0.01, 0.01),
    )  # fmt: skip
    return replace(flat, **changes)


BELOW, RISING = Estimate(-0.8, -1.0, -0.6), Estimate(0.4, 0.3, 0.5)


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        ([look()], State.NOTHING),
        ([look(level=BELOW, trend=None)], State.OPEN),  # one look has no trend yet
        ([look(level=BELOW, trend=None), look(level=BELOW, trend=RISING)], State.OPEN),
        ([look(level=BELOW, trend=None), look(level=BELOW)], State.NOTHING),
        # Sure of what it learnt by heart, and now less so: that is no learning.
        ([look(), look(level=BELOW), look(level=BELOW, trend=RISING)], State.NOTHING),
        ([look(apart=Estimate(0.57, 0.49, 0.65))], State.OPEN),  # leans the right way
        ([look(apart=Estimate(0.67, 0.37, 0.98))], State.OPEN),  # on 24 rows of 6 groups
        ([look(apart=Estimate(0.6, 0.51, 0.69))], State.SHOWN),
        ([look(above=Estimate(0.2, 0.1, 0.3))], State.SHOWN),
        ([look(answers=1), look(answers=1)], State.ONE_ANSWER),
        ([look(answers=1, level=BELOW), look(answers=1, level=BELOW, trend=RISING)], State.OPEN),
    ],
)
def test_states(looks, expected):
    assert state(looks) is expected


def test_what_is_open_half_way_is_said_at_the_end():
    looks = [look(level=BELOW, trend=None), look(level=BELOW, trend=RISING)]
    assert not sounds(looks, step=60, of_steps=100)
    assert sounds(looks, step=100, of_steps=100)


def test_free_text_is_only_watched_for_the_same_answer():
    asks = [replace(example(n, f"answer {n}"), choices=()) for n in range(8)]
    same = [Prediction(e.id, "I do not know.") for e in asks]
    first = task_look(asks, same, [-2.0] * 8)
    falls = task_look(asks, same, [-1.0 - 0.1 * n for n in range(8)], before=first)
    stuck = task_look(asks, same, [-1.0 - 0.1 * n for n in range(8)], before=falls)
    assert (first.answers, first.wanted, first.apart, first.right) == (1, 8, None, None)
    assert state([first]) is State.OPEN
    assert state([first, falls]) is State.OPEN, "its loss still falls"
    assert state([first, falls, stuck]) is State.ONE_ANSWER
    assert is_shown(stuck), "patience is not held up: nothing can be shown of it"
    others = [Prediction(e.id, f"answer {n % 2}") for n, e in enumerate(asks)]
    told = task_look(asks, others, [-1.0] * 8, before=stuck)
    assert state([first, falls, stuck, told]) is State.OPEN


def test_always_the_commonest_class_of_train():
    examples = [example(n, right) for n, right in enumerate(["yes", "no", "no"], 0)]
    examples = [replace(e, choices=("yes", "no")) for e in examples]
    counts = {"good": 7, "bad": 3}
    assert constant_scores(examples, labels=("good", "bad"), counts=counts) == [1, 0, 0]
    assert constant_scores(examples, labels=(), counts={}) == [0.5] * 3


def test_the_tuned_model_beside_always_the_same_on_test():
    labels, counts = ("good", "bad"), {"good": 60, "bad": 40}
    examples = [example(n, labels[n % 2]) for n in range(40)]
    good = learnt(
        examples,
        predicted(examples, [(1.0, 0.0) if e.target == "good" else (0.0, 1.0) for e in examples]),
        labels=labels,
        counts=counts,
    )
    assert (good.answers, good.always, good.right) == (2, "good", 1.0)
    assert good.comparison.difference == pytest.approx(0.5)
    assert good.comparison.low > 0
    bad = learnt(examples, predicted(examples, [(0.0, 1.0)] * 40), labels=labels, counts=counts)
    assert (bad.answers, bad.wanted, bad.answer, bad.comparison.difference) == (1, 2, "bad", 0)
    free = learnt(
        [replace(e, choices=()) for e in examples], [Prediction(e.id, "x") for e in examples]
    )
    assert (free.answers, free.comparison) == (1, None)


def test_free_text_stands_beside_the_text_given_back():
    noisy, right = "he go to school every days", "he goes to school every day"
    asks = [
        replace(example(n, right), choices=(), references=(right,), text=noisy) for n in range(30)
    ]
    better = learnt(asks, [Prediction(e.id, right) for e in asks], metric="chrf")
    assert better.comparison.low > 0
    assert better.right == pytest.approx(1)
    same = learnt(asks, [Prediction(e.id, noisy) for e in asks], metric="chrf")
    assert same.comparison.difference == 0
    assert (same.comparison.a, same.comparison.b) == ("copy", "tuned")
    assert same.right > 0.6, "a copy is nearly right already"
