"""What was found for one trained task: its arms on test, their comparisons and mistakes.

Tests: `tests/compare/test_verdict.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from instil.results.names import TUNED
from instil.results.probabilities import Probabilities
from instil.results.prompts import Rung, Search, TemplateScore
from instil.types import Comparison, Estimate, Summary


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One line of the per-class table."""

    label: str
    """The class."""
    precision: float
    """0 to 1."""
    recall: float
    """0 to 1."""
    f1: float
    """0 to 1."""
    n: int
    """Test examples of the class."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What an arm costs."""

    trainable_parameters: int = 0
    """0 for prompting."""
    trainable_share: float = 0.0
    """Of all the model's parameters, 0 to 1."""
    seconds: float = 0.0
    """To choose or train the arm."""
    peak_memory_bytes: int = 0
    """Of the process, up to the end of that work."""
    bytes_on_disk: int = 0
    """What must be stored, beside the base model where that is needed."""
    tokens_per_prediction: float = 0.0
    """Prompt and new tokens of one prediction, mean over test."""
    predictions_per_second: float = 0.0
    """As measured on test, all rows at once."""
    needs_model: bool = True
    """Whether the base model is needed to answer."""

    @property
    def milliseconds(self) -> float:
        """An answer takes, as measured on test; 0 where it was not measured."""
        rate = self.predictions_per_second
        return 1000 / rate if rate else 0.0


@dataclass(frozen=True, slots=True)
class Arm:
    """One contender on the test rows."""

    name: str
    """prompting, tuned, tfidf, probe or zero_shot."""
    label: str
    """For people: `5-shot prompting (calibrated)`."""
    template: str
    """The template used; empty for tfidf."""
    shots: int
    """Worked examples in the prompt."""
    scoring: str
    """raw, normalised, calibrated, generated, or classifier."""
    summaries: Mapping[str, Summary]
    """metric name -> summary on test; the task metric first."""
    per_class: tuple[ClassRow, ...] = ()
    """Empty for free text."""
    costs: Costs = Costs()
    """What it costs."""
    stopped_share: float | None = None
    """Share of generations that stopped by themselves (free text)."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One wrong answer of the tuned model on test."""

    example_id: str
    """The example's id."""
    prompt: str
    """The user's message."""
    target: str
    """What was right."""
    prediction: str
    """What the model said."""
    margin: float
    """How sure it was: score of its choice minus the right one's; 0 for free text."""


@dataclass(frozen=True, slots=True)
class TaskResult:
    """Everything found for one trained task."""

    task: str
    """The task's id."""
    kind: str
    """The kind of task."""
    metric: str
    """The metric that decides."""
    rows: Mapping[str, int]
    """part -> rows."""
    groups: Mapping[str, int]
    """part -> groups."""
    removed: Mapping[str, int]
    """reason -> duplicates taken out."""
    skipped: Mapping[str, int]
    """reason -> rows left out."""
    balance: Mapping[str, Mapping[str, int]]
    """part -> label -> rows; empty for free text."""
    ladder: tuple[Rung, ...]
    """Every rung that was climbed."""
    arms: tuple[Arm, ...]
    """The contenders on test."""
    comparisons: tuple[Comparison, ...]
    """The tuned arm against every other."""
    templates: tuple[TemplateScore, ...]
    """Robustness to wording."""
    mistakes: tuple[Mistake, ...]
    """The twenty worst."""
    phrasings: tuple[Phrasings, ...] = ()
    """One an arm; empty where no phrasing was held out."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Value in the data -> the label that stands for it; empty: the labels are the values."""
    learnt: Learnt | None = None
    """Whether anything was; None in runs of an earlier version."""
    rivals: tuple[Comparison, ...] = ()
    """Each pair of the other arms, in the metric that decides."""
    probabilities: Probabilities | None = None
    """None without choices, and in runs of an earlier version."""
    search: Search | None = None
    """The search for the bar's prompt; None where none was made."""
    max_new_tokens: int = 48
    """The longest answer that the model may write, in tokens."""

    def arm(self, name: str) -> Arm | None:
        """Return the arm of that name, if the task has one."""
        return next((arm for arm in self.arms if arm.name == name), None)

    def label(self, name: str) -> str:
        """Return an arm's label for people, or its name where no such arm was tested."""
        arm = self.arm(name)
        return arm.label if arm else name.replace("_", " ")

    def against(self, name: str) -> Comparison | None:
        """Return tuned minus the arm of that name, in the metric that decides."""
        wanted = (name, TUNED, self.metric)
        return next((c for c in self.comparisons if (c.a, c.b, c.metric) == wanted), None)


@dataclass(frozen=True, slots=True)
class Learnt:
    """The tuned model on test beside always giving the same answer."""

    answer: str
    """The commonest that it gave."""
    answers: int
    """Different ones that it gave."""
    wanted: int
    """Different ones that are right."""
    always: str = ""
    """The commonest class of the training rows; empty where choices are not classes."""
    right: float | None = None
    """Share of right answers of the tuned model, 0 to 1; of free text its mean score."""
    comparison: Comparison | None = None
    """Accuracy minus that of always giving `always`, or of guessing, paired by row; of free text
    the score minus that of giving the row's text back."""
    apart: Estimate | None = None
    """How well its scores tell the classes apart, as in `TaskLook`."""


@dataclass(frozen=True, slots=True)
class Phrasings:
    """An arm on the test rows, through phrasings that training used and through held-out ones."""

    arm: str
    """The arm's name."""
    seen: Summary
    """Over all rows and phrasings of the first kind; rows of a group taken together."""
    unseen: Summary
    """The same over the held-out ones."""
    comparison: Comparison
    """Unseen minus seen, paired by row: each row's mean over the phrasings of a kind."""


@dataclass(frozen=True, slots=True)
class Average:
    """The mean over several tasks, each counting the same."""

    metric: str
    """The metric that decides all of them; empty where they differ."""
    tasks: tuple[str, ...]
    """The tasks averaged over."""
    arms: Mapping[str, Summary]
    """Arm -> mean over the tasks, with its interval; arms that ran on all of them."""
    comparisons: tuple[Comparison, ...]
    """The tuned arm against every other."""
