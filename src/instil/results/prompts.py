"""The prompts that were tried on validation: the ladder, the search, the wordings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from instil.types import Message, Role, Summary, Template


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
    trained: bool | None = True
    """Whether training used the template; False: it was held out; None: it is a prompt alone."""
    task: str = ""
    """The id of the task that it asks; empty in runs from before it was noted."""


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
