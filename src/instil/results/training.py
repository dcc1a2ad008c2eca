"""How the training went: rates that were tried, the mix, steps and their costs, alarms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from instil.results.keeping import Means
from instil.types import Estimate, TaskLook


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
