"""What a run found: the contents of `summary.json`, from which every report is made.

`RunSummary` holds one `TaskResult` a trained task (its prompting ladder on validation, its arms on
test, their comparisons) and one `GuardResult` a task that the model should not forget.

Tests: `tests/compare/test_verdict.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from instil.types import Comparison, Estimate, Message, Piece, Role, Summary, TaskLook, Template

MEAN_SCORE = "mean_score"
"""Stands for the metric of an average over tasks that are judged by different ones."""

TUNED, PROMPTING, ZERO_SHOT, TFIDF, PROBE = "tuned", "prompting", "zero_shot", "tfidf", "probe"
"""Names of arms."""
TUNED_PROMPTED = "tuned_prompted"
"""The arm of the tuned model asked by the best prompt, where the training asked so too."""
CLASSIFIERS = {TFIDF: "TF-IDF with logistic regression", PROBE: "the linear probe"}
"""Arms without prompts, as sentences call them."""
TEXT = "general text"
"""Stands for the task of a guard that reads texts."""

LORA, REPLAY, PART = "LoRA", "LoRA + replay", "interpolation"
"""Names of the ways that `method: auto` tries; the last goes with what it is a part of."""


@dataclass(frozen=True, slots=True)
class Tried:
    """A model between base and tuned, on rows that decide nothing else."""

    share: float
    """Interpolation weight: 0 is the base model, 1 the tuned one."""
    score: float
    """The mean over tasks of their metric, on validation."""
    loss: float
    """Nats per target token, on validation."""
    points: float | None
    """Mean change of the guard tasks' metrics against the base model, in points of 100; None
    without a budget, as the choice does not use it."""
    nats: float | None
    """Mean rise of the guard's cross-entropies, in nats per token; a fall counts as 0."""


@dataclass(frozen=True, slots=True)
class TextLoss:
    """What a model between base and tuned loses on general text that decides nothing else."""

    weight: float
    """Interpolation weight."""
    nats: float
    """Mean rise of its cross-entropy, nats per token; negative: it fell."""
    score: float
    """The mean over tasks of their metric, on validation."""


@dataclass(frozen=True, slots=True)
class ForgettingLaw:
    """Loss on general text by the interpolation weight *s*, and the curve slope s + curvature s^2.

    All losses are rises of the cross-entropy of general text, in nats per token.
    """

    at_most: float
    """What may be lost."""
    slope: float
    """Loss per unit of weight, next to the base model."""
    curvature: float
    """Loss per square of the weight."""
    misfit: float
    """The largest distance between the curve and the means it was fitted to."""
    predicted: float
    """Loss of the exported model on the texts that it was chosen on."""
    low: float
    """Lower end of the 95 % band: of the mean over the reported texts."""
    high: float
    """Its upper end."""
    texts: int
    """Texts that it was chosen on; none of them is reported."""
    points: tuple[TextLoss, ...]
    """All weights that were read."""
    came_out: Estimate | None = None
    """Loss on the reported texts; None before it was measured."""
    fitted_to: float = 1.0
    """The largest weight that the curve was fitted to: beyond it the form is not a quadratic."""


@dataclass(frozen=True, slots=True)
class Interpolation:
    """The exported model lies between base and tuned."""

    chosen: float
    """Interpolation weight: 1 is the tuned model."""
    why: str
    """By which rule, for people."""
    tried: tuple[Tried, ...] = ()
    """Empty where the recipe sets the weight."""
    guard_rows: Mapping[str, int] = field(default_factory=dict)
    """Guard task -> rows that the choice was made on; none of them is reported on."""
    law: ForgettingLaw | None = None
    """None unless the recipe says what may be lost at most."""


@dataclass(frozen=True, slots=True)
class Pruning:
    """The exported model has some of the tuned model's changes, and is the base model elsewhere."""

    share: float
    """Of each weight's changed entries that are kept; 0 to 1."""
    kept: int
    """Entries that differ from the base model's in the exported model."""
    changed: int
    """Entries that differ from it in the tuned one, its adapter merged."""
    weights: int
    """All entries."""


@dataclass(frozen=True, slots=True)
class TriedMethod:
    """One way to tune, on rows that decide nothing else."""

    name: str
    """For people: `LoRA + replay`."""
    score: float
    """The mean over tasks of their metric, on validation."""
    loss: float
    """Nats per target token, on validation."""
    points: float | None
    """Mean change of the guard tasks' metrics against the base model, in points of 100; None
    without a budget, as the choice does not use it."""
    nats: float | None
    """Mean rise of the guard's cross-entropies, in nats per token; a fall counts as 0."""
    seconds: float
    """To train and measure it, beyond the ways before it."""


@dataclass(frozen=True, slots=True)
class Methods:
    """How `method: auto` came to its method."""

    chosen: int
    """Its place among those that were tried, from 0."""
    why: str
    """By which rule, for people."""
    tried: tuple[TriedMethod, ...]
    """In the order in which they were tried."""
    guard_rows: Mapping[str, int]
    """Guard task -> rows that the choice was made on; none of them is reported on."""


@dataclass(frozen=True, slots=True)
class TriedRate:
    """What a short training with one learning rate came to, on validation rows."""

    rate: float
    """The peak learning rate that it stands for."""
    steps: int
    """Steps taken; fewer than the others' where it was stopped."""
    loss: float | None
    """Nats per target token at its end, the mean over rows; None: it diverged."""
    behind: float | None = None
    """That minus the lowest one's, paired by row; None where it did not get to its end."""
    low: float | None = None
    """Lower end of that difference's 95 % interval; None where it has none, as the lowest's own."""
    high: float | None = None
    """Upper end."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """How the learning rate was chosen, before training."""

    rule: float
    """The rate that the rule gives."""
    chosen: float
    """The rate that was trained with."""
    why: str
    """By which rule, for people."""
    tried: tuple[TriedRate, ...] = ()
    """From low to high; empty where the training is too short to try any."""
    steps: int = 0
    """Steps of a try."""
    of_steps: int = 0
    """Steps of the training."""
    rows: int = 0
    """Validation rows that a try was judged on."""
    stretch: float = 1.0
    """A try ran at so many times the rate that it stands for, being so much shorter."""
    seconds: float = 0.0
    """Of all tries."""


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
class Rung:
    """One rung of the prompting ladder, on validation: a template, shots, a scoring rule."""

    template: str
    """The template's id."""
    shots: int
    """Worked examples in the prompt."""
    scoring: str
    """raw, normalised, calibrated; or generated for free text."""
    summary: Summary
    """On the validation rows that it was asked."""
    prompt_tokens: float
    """Mean tokens a prompt."""
    exemplar_tokens: float
    """Tokens of it spent on worked examples."""
    best: bool = False
    """The rung that sets the bar; it was asked all validation rows."""
    asked_all: bool = True
    """Whether it was asked all validation rows; False: it was dropped on the way."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A rendered example, for the report."""

    template: str
    """The template's id."""
    role: Role
    """What it asks."""
    messages: tuple[Message, ...]
    """The prompt."""
    target: str
    """The completion."""
    wording: tuple[Message, ...] = ()
    """The prompt's own words, without any row: the template's source."""


@dataclass(frozen=True, slots=True)
class Demonstrations:
    """How the worked examples of a prompt are chosen from train."""

    draw: str
    """random, balanced (classes take turns), hard (rows that the base model answers wrong), or
    nearest to the row asked: words, states, words_balanced, states_balanced."""
    shots: int
    """How many."""
    seed: int = 0
    """Of a draw that is the same for every row."""
    order: int = 0
    """0: as drawn (of nearest ones the nearest last); 1: the other way round; n: shuffle n."""
    rows: tuple[str, ...] = ()
    """Ids of the rows as drawn, before they are ordered; empty where each row has its own."""
    pool: tuple[str, ...] = ()
    """Ids of the training rows among which the nearest are looked for; empty: none are."""


@dataclass(frozen=True, slots=True)
class Searched:
    """A way of asking that the search tried, on validation."""

    template: str
    """The id of its instruction."""
    draw: str
    """As `Demonstrations.draw`; empty: no worked examples."""
    shots: int
    """Worked examples in the prompt."""
    seed: int
    """Of their draw."""
    order: int
    """As `Demonstrations.order`."""
    scoring: str
    """The scoring rule that it did best by."""
    summary: Summary
    """On the validation rows that it was asked."""
    prompt_tokens: float
    """Mean tokens a prompt."""
    asked_all: bool
    """Whether it was asked all validation rows; False: it was dropped on the way."""


@dataclass(frozen=True, slots=True)
class Search:
    """A search for the prompt that sets the bar, on validation."""

    ways: tuple[Searched, ...]
    """All that were tried, in the order of the races."""
    template: Template
    """The bar's, with all its words."""
    demonstrations: Demonstrations | None
    """The bar's worked examples; None: none are shown."""
    scoring: str
    """The bar's scoring rule."""
    summary: Summary
    """The bar's, on all validation rows."""
    better: bool
    """Whether the bar is a way that was searched for; False: no way did better than the ladder's
    best."""
    instructions: Mapping[str, str]
    """Template id -> the words that were added in front of, or behind, a template of the task."""
    budget: int
    """Prompts that the search might ask."""
    prompts: int
    """Prompts that it asked: validation rows, training rows to find hard and near ones among, and
    requests for an instruction."""
    seconds: float
    """That it took."""
    left_out: Mapping[str, int]
    """Reason -> ways that were not tried."""
    shown: Turn
    """The bar's prompt for the first validation row, as the model reads it."""


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
class TemplateScore:
    """How an arm does through one template on test (robustness to wording)."""

    arm: str
    """The arm's name."""
    template: str
    """The template's id."""
    summary: Summary
    """On test."""
    held_out: bool = False
    """Whether training never used it."""


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
    """Share of right answers of the tuned model, 0 to 1; None without choices."""
    comparison: Comparison | None = None
    """Accuracy minus that of always giving `always`, or of guessing, paired by row."""
    apart: Estimate | None = None
    """How well its scores tell the classes apart, as in `TaskLook`."""


@dataclass(frozen=True, slots=True)
class GuardResult:
    """One guard task before and after training."""

    task: str
    """The task's id, or `general text`."""
    kind: str
    """The kind of task."""
    before: Summary
    """The base model."""
    after: Summary
    """The tuned model."""
    comparison: Comparison
    """after minus before, paired."""


@dataclass(frozen=True, slots=True)
class Margins:
    """Losses up to which a guard task counts as kept; None: nothing is said of it."""

    points: float | None = None
    """Of a guard task in its own metric, and of their mean; in points of 100."""
    text: float | None = None
    """Of general text, in nats per token."""


@dataclass(frozen=True, slots=True)
class Moved:
    """How far tuning moved the model: KL(base || tuned) on validation, nats per answer token."""

    overall: Summary
    """Over the examples of all tasks."""
    tasks: Mapping[str, Summary]
    """Task -> over its examples."""


@dataclass(frozen=True, slots=True)
class BudgetResult:
    """The guard's mean change held against `forgetting.budget`; all in points of 100."""

    budget: float
    """What may be lost."""
    change: float
    """Mean change over the guard tasks; negative: lost."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end."""
    broken: bool
    """Whether the whole interval lies beyond the budget."""


@dataclass(frozen=True, slots=True)
class TermMean:
    """A term of the loss beside cross-entropy, and what it came to."""

    name: str
    """As in `steps.jsonl`."""
    sentence: str
    """What was done, with the mean, for people."""
    mean: float | None = None
    """Over the steps; of a distance in nats per place, before its weight."""


@dataclass(frozen=True, slots=True)
class Means:
    """What training did to keep what the model knew, as the recipe asked and as it came out."""

    replay_share: float | None = None
    """Share of the examples that was asked for; None: nothing was replayed."""
    replay_of: str = ""
    """own, guard or tasks."""
    replayed: tuple[str, ...] = ()
    """Ids of the tasks of which rows were replayed."""
    replay_loss: float | None = None
    """Nats per token of what was replayed: mean over the steps that had some."""
    terms: tuple[TermMean, ...] = ()
    """Of the loss, beside cross-entropy."""


@dataclass(frozen=True, slots=True)
class Lost:
    """What a checkpoint has forgotten, on guard rows that are not reported."""

    beyond: float
    """How far it is beyond the limits, in shares of a limit (of 1 point, where that is 0); the
    farther one counts. 0: within them."""
    nats: Estimate | None
    """Rise of the cross-entropy of general text, nats per token; None without `at_most`."""
    points: Estimate | None
    """Mean change of the guard tasks' metrics, in points of 100; None without a budget."""
    step: int = 0
    """After which step."""
    score: float = 0.0
    """The task metric on validation."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Checkpoints held against what may be forgotten."""

    budget: float | None
    """Points of 100 that may be lost on average."""
    at_most: float | None
    """Nats per token that may be lost on general text."""
    checkpoints: tuple[Lost, ...]
    """One a look at validation."""
    rows: Mapping[str, int]
    """Guard task -> rows asked; none of them is reported on."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Base weights without an adapter, though `all-linear` asks for every linear layer."""

    layers: tuple[str, ...]
    """The last two names of their paths: `experts.gate_up_proj`."""
    share: float
    """Of the base model's weights, 0 to 1."""
    linear: bool
    """Linear layers for which PEFT has no adapter in this family; else stacked weights."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why nothing may be learnt, and what to try."""

    what: str
    """The cause."""
    fix: str
    """Keys of the recipe or the task file with their values, or a command."""
    known: bool = False
    """Whether the run's own facts point to it."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A look at validation by which nothing was learnt of a task."""

    step: int
    """After which it was taken."""
    of_steps: int
    """Steps of the whole training."""
    look: TaskLook
    """What it showed, without the figures of each row."""
    one_answer: bool
    """Whether all rows got the same answer."""
    causes: tuple[Cause, ...]
    """Those that the run's facts point to first."""
    classifier: Estimate | None = None
    """How far TF-IDF with logistic regression, trained on the same rows, is above always giving the
    commonest class, on the validation rows; None: it was not asked."""
    over: int | None = None
    """The step by which two looks in a row had shown something learnt after all; None: none had."""


@dataclass(frozen=True, slots=True)
class TrainingSummary:
    """How the training went."""

    method: str
    """lora, full, oft or shira."""
    steps: int
    """Optimizer steps taken."""
    best_step: int
    """The step whose weights were kept."""
    epochs: float
    """Epochs done."""
    stopped_early: bool
    """Whether validation ended it."""
    learning_rate: float
    """The peak rate."""
    seconds: float
    """Training time with validation, and with what choosing the learning rate took."""
    tokens_per_second: float
    """All tokens computed in steps, over the steps' time."""
    supervised_tokens: int
    """Tokens trained on."""
    fates: Mapping[str, int]
    """kept / truncated / dropped (why) -> examples."""
    trainable_parameters: int
    """Weights that were trained."""
    trainable_share: float
    """Of all, 0 to 1."""
    peak_memory_bytes: int
    """Of the process."""
    dtype: str
    """Compute type: bfloat16 or float32."""
    means: Means | None = None
    """What was done to keep what the model knew; None: nothing."""
    quantize: str | None = None
    """How the frozen base was packed (nf4); None: it was not."""
    left_out: tuple[LeftOut, ...] = ()
    """What carries no adapter though `all-linear` was asked for."""
    alarms: tuple[Alarm, ...] = ()
    """Tasks of which nothing was learnt by half of the steps."""
    gate: Gate | None = None
    """None unless the recipe gates checkpoints."""

    @property
    def number_format(self) -> str:
        """Name the numbers that were computed with, for a reader."""
        packed = f", base in 4 bits ({self.quantize})" if self.quantize else ""
        return f"{self.dtype}{packed}"


@dataclass(frozen=True, slots=True)
class MixLine:
    """One task's part of the first epoch of training."""

    task: str
    """The task's id."""
    rows: int
    """Different rows in it."""
    examples: int
    """Examples: a row may come through several templates, or again."""
    few_shot: int
    """Those that show worked examples first."""
    tokens: int
    """Prompt and completion, after the length policy."""
    supervised_tokens: int
    """Those trained on."""
    dropped: int = 0
    """Examples left out, being longer than `train.max_length`; counted nowhere else."""
    shortened: int = 0
    """Examples cut to that length."""
    lengths: tuple[int, int, int] = (0, 0, 0)
    """Tokens of an example: median, 95th percentile, longest; 0 where none is left."""


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


@dataclass(frozen=True, slots=True)
class Way:
    """A way to do a task, tried on validation rows before any long training."""

    name: str
    """majority, tfidf, probe, prompting or tuned."""
    label: str
    """For people."""
    seen: Summary
    """Its score on the validation rows."""
    expected: Estimate
    """The score that is expected of it on other rows, of the tuned model after the whole
    training."""
    risk: float
    """The chance that another way is better by more than `compare.advice.WORTH`, 0 to 1."""
    tokens: float = 0.0
    """Read and written for one answer; 0: it needs no language model."""


@dataclass(frozen=True, slots=True)
class Advice:
    """Which way to do a task is advised before training, and what that rests on."""

    task: str
    """The task."""
    metric: str
    """What decides."""
    ways: tuple[Way, ...]
    """The cheapest first."""
    chosen: int
    """The place of the advised one in `ways`, from 0."""
    rows: int
    """Validation rows it rests on."""
    tried: float
    """Share of the training that the short try took, 0 to 1."""
    training_tokens: float
    """What the whole training computes, in tokens that are read."""
    twice_the_rows: Comparison | None = None
    """The probe on all training rows minus the probe on half of them; None: not measured."""
    text: Comparison | None = None
    """What the short try did to general text, nats per token; None: not measured."""

    @property
    def way(self) -> Way:
        """The advised way."""
        return self.ways[self.chosen]


@dataclass(frozen=True, slots=True)
class RunSummary:
    """Every figure that the report shows: `summary.json`."""

    name: str
    """The run's name."""
    model: str
    """The base model, as named in the recipe."""
    model_parameters: int
    """Parameters of the base model."""
    model_bytes: int
    """Bytes of the base model on disk."""
    model_licence: str
    """As stated by its publisher."""
    tasks: tuple[TaskResult, ...]
    """One a trained task."""
    training: TrainingSummary
    """How the training went."""
    forgetting: tuple[GuardResult, ...]
    """Guard tasks, then general text."""
    verdict: tuple[str, ...]
    """Two or three plain sentences."""
    turns: tuple[Turn, ...]
    """One rendered example a template."""
    token_view: tuple[Piece, ...]
    """One training example, token by token."""
    stage_seconds: Mapping[str, float]
    """stage -> seconds of wall time."""
    test_opened: str
    """When the test split was scored, ISO 8601."""
    seed: int
    """The run's seed."""
    format_version: int = 2
    """Of this file; 2: the loss' terms by name."""
    budget: BudgetResult | None = None
    """None where the recipe sets no forgetting budget."""
    mean_change: Comparison | None = None
    """Mean change over the guard tasks, each in its own metric, of 1; None: no guard task."""
    margins: Margins = Margins()
    """As the recipe sets them."""
    mix: tuple[MixLine, ...] = ()
    """What an epoch of training held, a line a task."""
    averages: tuple[Average, ...] = ()
    """Over all tasks, and over those of one metric; empty with one task."""
    moved: Moved | None = None
    """None in runs of an earlier version."""
    interpolation: Interpolation | None = None
    """None where the tuned model is exported as it is."""
    pruning: Pruning | None = None
    """None where all of the tuning is exported."""
    looks: int = 1
    """How often the test was opened; more than once only where that was asked for."""
    sweep: Sweep | None = None
    """None where the recipe says the learning rate."""
    methods: Methods | None = None
    """None unless the recipe's method is auto."""
    processor_seconds: Mapping[str, float] = field(default_factory=dict)
    """stage -> processor time of all threads; empty in runs of an earlier version."""
    forecast_seconds: Mapping[str, float] = field(default_factory=dict)
    """stage -> seconds of wall time forecast before the run; without what came before that."""
    advice: tuple[Advice, ...] = ()
    """One a task; empty unless the run began with `instil advise`."""
