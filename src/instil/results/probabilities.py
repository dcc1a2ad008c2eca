"""What the probabilities of a task's answers are worth."""

from __future__ import annotations

from dataclasses import dataclass

from instil.types import Estimate


@dataclass(frozen=True, slots=True)
class Fitted:
    """What validation rows say of the tuned model's probabilities for one task.

    `model/probabilities.json` has one a task with choices.
    """

    template: str
    """The template that the rows were asked through, and the test."""
    temperature: float
    """Log-likelihoods of choices are divided by it before they become probabilities."""
    sure: tuple[float, ...]
    """The probability of each row's answer at that temperature, 0 to 1, the surest first."""
    right: tuple[bool, ...]
    """Whether that answer is right."""
    design: float = 1.0
    """So many rows count as one, being of the same groups: the design effect, at least 1."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers of about the same probability, in a reliability diagram."""

    probability: float
    """Mean over the answers, 0 to 1."""
    right: Estimate
    """Share of them that is right, 0 to 1, with Wilson's interval."""
    rows: int
    """How many they are."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Whether the probabilities of an arm's answers on test mean what they say."""

    arm: str
    """The arm's name."""
    temperature: float
    """1: as the arm's scores give them."""
    error: Estimate
    """Expected calibration error, 0 to 1, over bins of equal mass."""
    floor: float
    """What calibrated probabilities would show on the same rows, on average."""
    brier: Estimate
    """Mean squared distance of all choices' probabilities from the truth, 0 to 2."""
    sure: float
    """Mean probability of the answers given, 0 to 1."""
    right: float
    """Share of them that is right: has the highest score of the right choice."""
    bins: tuple[Bin, ...]
    """From unsure to sure."""


@dataclass(frozen=True, slots=True)
class Risk:
    """What a threshold on the probability does on test."""

    answered: float
    """Share of rows at or above it, 0 to 1."""
    wrong: float
    """Share of these that is answered wrong, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Promise:
    """A wanted error, the threshold found for it on validation, and what became of it on test."""

    max_error: float
    """Wanted share of wrong answers among those given, 0 to 1."""
    at_least: float | None
    """Probability from which on rows are answered; None: no threshold on validation was shown to
    keep to it."""
    bound: float | None = None
    """95 % upper bound of the share wrong, by the validation rows."""
    needed: int | None = None
    """Validation rows that would be enough with errors as these have them; None: no number would
    be, or none is needed."""
    answered: Estimate | None = None
    """Share of the test rows answered, 0 to 1."""
    wrong: Estimate | None = None
    """Share of these that is wrong, 0 to 1; None where none is answered."""


@dataclass(frozen=True, slots=True)
class Probabilities:
    """How far the probabilities of a task with choices can be trusted."""

    temperature: float
    """Of the tuned model, fitted on validation."""
    rows: int
    """Validation rows that it was fitted on."""
    design: float
    """So many of these count as one, being of the same groups."""
    calibrations: tuple[Calibration, ...]
    """The tuned arm as it is, then with the temperature, then the other arms."""
    brier_change: Estimate
    """Brier score of the tuned arm with the temperature minus without it, paired by row."""
    curve: tuple[Risk, ...]
    """Of the tuned arm with the temperature, from few rows answered to all."""
    promises: tuple[Promise, ...]
    """One a wanted error."""
