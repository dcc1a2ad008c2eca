"""From answers to what their probabilities are worth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from instil.compare.contest import Contender
from instil.compare.probabilities import (
    fit,
    judge_probabilities,
    score_table,
    smallest_error,
    threshold,
)
from instil.evaluate.suite import Marked, mark
from instil.results.names import TFIDF, TUNED
from instil.results.probabilities import Fitted
from instil.types import Example, Message, Prediction


def marked(
    rows: int, *, seed: int, too_sure: float = 1.0, group_of: int = 1, spread: float = 4.0
) -> Marked:
    """Return answers to rows of two choices, whose log-odds are `too_sure` times what they were."""
    draw = np.random.default_rng(seed)
    odds = draw.normal(0, spread, rows)
    is_first = draw.random(rows) < expit(odds)
    examples, predictions = [], []
    for n, (each, first) in enumerate(zip(odds, is_first, strict=True)):
        target = "yes" if first else "no"
        asked = (Message("user", "?"),)
        examples.append(
            Example(f"t/{n}/a", "t", "a", str(n), str(n // group_of), asked, target, ("yes", "no"))
        )
        scores = (float(too_sure * each) - 3.0, -3.0)
        said = "yes" if each > 0 else "no"
        predictions.append(Prediction(f"t/{n}/a", said, choice_scores=scores))
    return mark(examples, predictions, metric="accuracy")


def contender(name: str, answers: Marked) -> Contender:
    return Contender(name, name, "a", 0, "raw", answers, 1.0)


def test_what_is_fitted_says_how_sure_each_answer_is_at_the_temperature() -> None:
    answers = marked(2000, seed=1, too_sure=3.0)
    fitted = fit(answers, template="a")
    assert fitted.temperature == pytest.approx(3.0, rel=0.1)
    assert list(fitted.sure) == sorted(fitted.sure, reverse=True)
    right = sum(score.value or 0.0 for score in answers.scores)
    assert sum(fitted.right) == right
    assert fitted.design == 1.0
    assert np.mean(fitted.sure) == pytest.approx(right / 2000, abs=0.01)  # calibrated now


def test_groups_make_a_design_effect() -> None:
    assert fit(marked(300, seed=1, group_of=300), template="a").design == 300.0


def test_rows_with_fewer_choices_stand_in_the_same_table() -> None:
    message = (Message("user", "?"),)
    examples = [
        Example("1", "t", "a", "1", "1", message, "b", ("a", "b")),
        Example("2", "t", "a", "2", "2", message, "c", ("a", "b", "c")),
    ]
    made = [Prediction("1", "a", (-1.0, -2.0)), Prediction("2", "c", (-3.0, -2.0, -1.0))]
    scores, target = score_table(mark(examples, made, metric="accuracy"))
    assert scores.tolist() == [[-1.0, -2.0, -np.inf], [-3.0, -2.0, -1.0]]
    assert target.tolist() == [1, 2]


@pytest.mark.slow
def test_the_temperature_is_judged_on_test_beside_every_arm() -> None:
    fitted = fit(marked(400, seed=2, too_sure=3.0), template="a")
    test = [
        contender(TUNED, marked(2000, seed=3, too_sure=3.0)),
        contender(TFIDF, marked(600, seed=4)),
    ]
    found = judge_probabilities(test, fitted, seed=0)
    before, after, words = found.calibrations
    assert [each.arm for each in found.calibrations] == [TUNED, TUNED, TFIDF]
    assert before.right == after.right
    assert after.error.mean < before.error.low
    assert before.error.low > 0 == words.error.low
    assert found.brier_change.high < 0
    assert found.brier_change.mean == pytest.approx(after.brier.mean - before.brier.mean)
    assert sum(each.rows for each in after.bins) == 2000
    assert found.curve[-1].answered == 1.0
    assert found.curve[-1].wrong == pytest.approx(1 - after.right)
    by_error = {promise.max_error: promise for promise in found.promises}
    kept = by_error[0.05]
    assert kept.answered is not None
    assert kept.wrong is not None
    assert kept.wrong.low < 0.05
    assert by_error[0.1].answered is not None
    assert by_error[0.1].answered.mean >= kept.answered.mean
    assert judge_probabilities(test, fitted, seed=0) == found


def test_the_smallest_error_is_the_first_with_a_threshold() -> None:
    fitted = Fitted("a", 1.0, (0.9,) * 60, (True,) * 60)
    assert smallest_error(fitted) == 0.05
    assert threshold(fitted, max_error=0.05).at_least == 0.9
    assert threshold(fitted, max_error=0.04).needed in (74, 75)  # 0.96^74 is 4.9 %
    assert smallest_error(Fitted("a", 1.0, (0.9,) * 60, (False,) * 60)) is None


def test_no_row_that_is_sure_enough_has_no_share_wrong() -> None:
    fitted = Fitted("a", 1.0, (1.1,) * 400, (True,) * 400)  # surer than any row of the test
    found = judge_probabilities([contender(TUNED, marked(100, seed=3))], fitted, seed=0)
    assert all(promise.wrong is None for promise in found.promises if promise.at_least)
    assert found.promises[0].answered is not None
    assert found.promises[0].answered.mean == 0.0
