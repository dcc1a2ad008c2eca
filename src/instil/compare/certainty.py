"""What the probabilities of classifiers are worth, and what answering only when sure would bring.

Temperature and thresholds come from validation rows; what they are worth is measured on test. Only
scores whose softmax is meant as probabilities count: not those that were calibrated for
content-free inputs or taken per token (`evaluate.choices`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from instil.compare.contest import CLASSIFIER
from instil.evaluate.choices import RAW
from instil.evaluate.suite import Marked
from instil.results import (
    TUNED,
    Answering,
    Calibration,
    Certainty,
    CertaintyBin,
)
from instil.stats import certainty as stats
from instil.stats.intervals import SHARE, Floats, Interval, bootstrap, bootstrap_mean, cluster_table
from instil.types import Estimate

WANTED = (0.02, 0.05, 0.1)
"""Shares of errors that the report answers for."""


@dataclass(frozen=True, slots=True)
class Answers:
    """An arm's answers as arrays."""

    scores: Floats
    """(rows, choices)."""
    right: tuple[int, ...]
    """Place of the right choice."""
    groups: tuple[str, ...]
    """Of the rows."""

    def sure(self, temperature: float = 1.0) -> Floats:
        """Return the probability of each row's answer."""
        return np.asarray(stats.probabilities(self.scores, temperature=temperature).max(axis=1))

    @property
    def is_right(self) -> Floats:
        """1 or 0 a row."""
        return np.asarray(self.scores.argmax(axis=1) == np.array(self.right), dtype=np.float64)


def answers_of(marked: Marked) -> Answers:
    """Return the answers to examples with choices."""
    examples = marked.examples
    return Answers(
        stats.padded([made.choice_scores for made in marked.predictions]),
        tuple(example.choices.index(example.target) for example in examples),
        tuple(marked.groups[example.id] for example in examples),
    )


def certainty(
    validation: Marked, test: Sequence[tuple[str, str, Marked]], *, seed: int
) -> Certainty:
    """Fit the temperature, and measure every arm's calibration.

    Args:
        validation: The tuned model's answers to validation rows.
        test: Name, scoring rule and answers of each arm, the tuned one first.
        seed: Of the bootstrap.
    """
    held_out = answers_of(validation)
    heat = stats.temperature(held_out.scores, held_out.right)
    (_, _, tuned), *_ = test
    of_tuned = answers_of(tuned)
    arms = [calibration(TUNED, of_tuned, temperature=heat, seed=seed)]
    for name, scoring, marked in test:
        if scoring in (RAW, CLASSIFIER):
            arms.append(calibration(name, answers_of(marked), temperature=1.0, seed=seed))
    return Certainty(
        heat,
        len(held_out.right),
        tuple(arms),
        tuple(answering(held_out, of_tuned, most=most) for most in WANTED),
    )


def calibration(arm: str, answers: Answers, *, temperature: float, seed: int) -> Calibration:
    """Measure calibration error and Brier score, with intervals over groups, and the bins."""
    sure, is_right = answers.sure(temperature), answers.is_right
    columns = stats.bin_columns(sure, is_right)
    error = float(stats.calibration_error(columns.sum(axis=0, keepdims=True))[0])
    table = cluster_table(columns, groups=answers.groups)
    around = bootstrap(table, stats.calibration_error, seed=seed, span=SHARE)
    shares = stats.probabilities(answers.scores, temperature=temperature)
    squares = stats.brier(shares, answers.right)
    ends = bootstrap_mean(squares, groups=answers.groups, seed=seed, span=Interval(0.0, 2.0))
    return Calibration(
        arm,
        Estimate(error, around.low, around.high),
        Estimate(float(squares.mean()), ends.low, ends.high),
        tuple(
            CertaintyBin(each.sure, each.right, each.rows)
            for each in stats.bin_table(sure, is_right)
        ),
        temperature,
    )


def answering(validation: Answers, test: Answers, *, most: float) -> Answering:
    """Take the threshold of validation rows, and see what it comes to on test."""
    found = stats.threshold(validation.sure(), validation.is_right, most=most)
    if found is None:
        return Answering(most)
    answered = test.sure() > found.above
    wrong = 1 - test.is_right[answered]
    share = float(wrong.mean()) if len(wrong) else None
    return Answering(most, float(answered.mean()), share, found.bound)
