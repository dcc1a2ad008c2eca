"""Calibration of arms: what counts, what is fitted where."""

from __future__ import annotations

import numpy as np
import pytest

from instil.compare.certainty import WANTED, answering, answers_of, certainty
from instil.compare.contest import CLASSIFIER
from instil.evaluate.choices import CALIBRATED, RAW
from instil.evaluate.suite import Marked, mark
from instil.results import TFIDF, TUNED
from instil.stats.certainty import probabilities
from instil.types import Example, Message, Prediction

CHOICES = ("bad", "good", "so so")


def marked(rows: int, *, seed: int, heat: float = 2.0, two: bool = False) -> Marked:
    """Answers of a model that is surer than it is right."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(rows, 2 if two else 3)) * 3
    shares = probabilities(scores, temperature=heat)
    right = (shares.cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1)
    examples, made = [], []
    for number, (row, place) in enumerate(zip(scores, right, strict=True)):
        choices = CHOICES[: len(row)]
        asked = (Message("user", "?"),)
        group, target = str(number // 2), choices[place]
        examples.append(Example(str(number), "t", "a", str(number), group, asked, target, choices))
        made.append(Prediction(str(number), choices[row.argmax()], tuple(row)))
    return mark(examples, made, metric="accuracy")


def test_what_is_fitted_on_validation_helps_on_test() -> None:
    test = marked(1500, seed=2)
    arms = [
        (TUNED, RAW, test),
        ("prompting", CALIBRATED, test),  # its scores are no probabilities
        (TFIDF, CLASSIFIER, marked(1500, seed=2, two=True)),
    ]
    found = certainty(marked(3000, seed=1), arms, seed=0)
    assert found.temperature == pytest.approx(2.0, rel=0.1)
    assert [(c.arm, c.temperature == 1) for c in found.arms] == [
        (TUNED, False),
        (TUNED, True),
        (TFIDF, True),
    ]
    scaled, plain, _ = found.arms
    assert scaled.error.high < plain.error.low
    assert scaled.brier.mean < plain.brier.mean
    assert sum(b.rows for b in scaled.bins) == 1500
    assert [a.most for a in found.answering] == list(WANTED)
    assert found.answering[0].coverage is None, "two in a hundred are wrong among the surest"


def test_answering_only_when_sure() -> None:
    validation, test = (answers_of(marked(2000, seed=seed, heat=1.0)) for seed in (4, 5))
    found = answering(validation, test, most=0.1)
    assert found.coverage == pytest.approx(0.6, abs=0.1)
    assert found.bound is not None
    assert found.errors is not None
    assert found.errors <= found.bound <= 0.1


def test_answers_are_those_that_were_given() -> None:
    test = marked(200, seed=3)
    answers = answers_of(test)
    assert answers.is_right.tolist() == [score.value for score in test.scores]
    assert (answers.sure(0.3) >= answers.sure()).all()
    assert len(set(answers.groups)) == 100
