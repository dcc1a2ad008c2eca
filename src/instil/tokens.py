"""Examples as tokens, and the training steps over them; `instil.types` has them too.

`Example` -> `Encoded` -> `Pack` -> `Step`; this module imports nothing of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

REPLAY = "replay:"
"""Begins the id of an example that is replayed; no task's id has a colon in it."""


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
    replay_loss: float | None = None
    """Mean cross-entropy over the replay's tokens, where this step had some."""
    kl: float | None = None
    """Mean KL(base || tuned) where it is held to the base, nats per place, before its weight."""
    entropy_weight: float | None = None
    """Mean weight of the supervised tokens, where they are weighted by entropy."""
    looks: tuple[TaskLook, ...] = ()
    """One a task, where this step was followed by a validation."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of text with its fate in training, for the token view."""

    text: str
    """The token's text."""
    trained: bool
    """Whether it is trained on."""
