"""Sections of the recipe that stand by themselves, and what all sections share.

Tests: `tests/config/test_recipe.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from instil.types import KlOn, LossOver, PerRow, TooLong

Auto = Literal["auto"]
ByRule = Literal["auto", "rule"]
All = Literal["all"]
Best = Literal["best"]
Item = TypeVar("Item")


class Searching(StrEnum):
    """How widely a prompt is searched for, beyond the ladder."""

    OFF = "off"
    QUICK = "quick"
    FULL = "full"


Name = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """A part of the recipe: frozen, and with no other keys than its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def unique(items: Sequence[Item]) -> Sequence[Item]:
    """Return the items.

    Raises:
        ValueError: One is given twice.
    """
    twice = [item for index, item in enumerate(items) if item in items[:index]]
    if twice:
        raise ValueError(f"{twice[0]!r} is given twice")
    return items


def names_once(names: object) -> object:
    """Let through what is no list, and a list that names nothing twice.

    Raises:
        ValueError: A name is given twice.
    """
    if isinstance(names, tuple):
        unique(names)
    return names


class Mix(Section):
    """How the examples of an epoch are drawn from the tasks."""

    examples: int | None = Field(
        None,
        ge=1,
        description="Examples of an epoch, over all tasks; null: all that the tasks have, each up "
        "to cap.",
    )
    cap: int | None = Field(
        None,
        ge=1,
        description="A task counts as having so many examples at most (FLAN: 3000); null: no cap.",
    )
    temperature: float = Field(
        1.0,
        ge=0.05,  # a power of 20
        le=100,
        description="Shares go by size ** (1 / temperature): 1 by size, more evens the tasks out.",
    )
    few_shot_share: float = Field(
        0.0, ge=0, le=1, description="Share of the examples that show worked examples first."
    )
    few_shot: Best | Annotated[int, Field(ge=1, le=64)] = Field(
        2,
        description="Worked examples in each of those, from train alone; best: they are asked as "
        "the best prompt asks, which the tuned model is tested with too.",
    )


class SplitRules(Section):
    """How rows are parted into train, validation and test."""

    near_duplicates: float = Field(
        0.8,
        gt=0,
        le=1,
        description="Texts at least this alike (Jaccard, 0 to 1) must not be in two parts; "
        "1: exact duplicates alone.",
    )
    seed: int | None = Field(
        None,
        ge=0,
        lt=2**32,
        description="Draws the rows to validate, test and guard on, so that runs of other seeds "
        "are judged on the same ones; null: the recipe's seed.",
    )
    apart_from: Annotated[tuple[Name, ...], Field(min_length=1)] | None = Field(
        None,
        description="Tasks that are not trained on, and whose validation and test rows no training "
        "row may repeat; null: none.",
    )

    _apart_once = field_validator("apart_from")(names_once)


class Replay(Section):
    """Other material that is trained on as well."""

    share: float | None = Field(
        None,
        gt=0,
        le=0.5,
        description="Share of an epoch's examples that are replayed, 0.01 to 0.05 say; null: none.",
    )
    of: Literal["own", "guard"] | Annotated[tuple[Name, ...], Field(min_length=1)] = Field(
        "own",
        description="own: texts that the base model writes; guard: rows of the guard tasks "
        "that are not reported on; or a list of tasks.",
    )

    _each_once = field_validator("of")(names_once)


class Keep(Section):
    """How what the model knew is kept."""

    replay: Replay = Field(Replay(), description="Other material that is trained on as well.")
    kl: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="Weight of KL(base || tuned), nats per place, in the loss; null: none.",
    )
    kl_on: KlOn = Field(
        KlOn.PROMPT,
        description="Where it is taken: prompt (up to 16 tokens of each), completion (the answers "
        "trained on), or replay (what is replayed).",
    )
    entropy_weighted: bool = Field(
        False,
        description="Weigh each token's loss by how unsure the model is there: what it is sure of "
        "is changed least.",
    )
    distil: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="Weight of KL(base, shown the answer || tuned), nats per place of the answers, "
        "in the loss; null: none.",
    )
    interpolate: Literal["auto"] | Annotated[float, Field(ge=0, le=1)] | None = Field(
        None,
        description="How far to go from the base model (0) to the tuned one (1), after "
        "training; auto: chosen on validation and on guard rows that are not reported; null: 1.",
    )

    prune: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None,
        description="Share of the changed weights that is kept, after training, those that moved "
        "far but not for their size; the model is exported whole. null: all of them.",
    )

    @model_validator(mode="after")
    def _exports_one_model(self) -> Keep:
        if self.prune is not None and self.interpolate is not None:
            raise ValueError(
                "prune and interpolate both say what is exported: leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _has_a_replay(self) -> Keep:
        if self.kl and self.kl_on is KlOn.REPLAY and not self.replay.share:
            raise ValueError("kl_on is replay, and nothing is replayed: set replay.share")
        return self


class Scheduler(StrEnum):
    """How the learning rate falls after the warm-up."""

    LINEAR = "linear"
    COSINE = "cosine"
    CONSTANT = "constant"


class Train(Section):
    """The training loop."""

    learning_rate: ByRule | Annotated[float, Field(gt=0, le=1)] = Field(
        "auto",
        description="Peak learning rate; rule: by the model's width, 1.3e-3 at 576 and 2.9e-4 at "
        "4096 for LoRA, a tenth of that for full; auto: others around it are tried too, where the "
        "training is long enough.",
    )
    num_train_epochs: Auto | Annotated[float, Field(gt=0, le=1000)] = Field(
        "auto",
        description="How often every row is seen; 0.5 is half of them, once. auto: 2, or more (up "
        "to 10) until there are 150 steps.",
    )
    tokens_per_batch: int = Field(512, ge=1, description="Tokens of one optimizer step.")
    micro_batch_tokens: int = Field(
        1024,
        ge=8,
        description="Tokens computed at a time; lower it when memory runs out, results stay.",
    )
    warmup_ratio: float = Field(
        0.05, ge=0, lt=1, description="Share of the steps in which the rate rises from 0."
    )
    lr_scheduler_type: Scheduler = Field(
        Scheduler.LINEAR, description="How the rate falls after that: linear, cosine or constant."
    )
    loss_over: LossOver = Field(
        LossOver.EXAMPLES,
        description="What counts alike in a step's loss: tokens, or examples (the mean over each "
        "one's tokens), so that short labels weigh as much as long texts.",
    )
    weight_decay: float = Field(0.0, ge=0, le=1, description="AdamW's weight decay.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm.")
    max_length: int = Field(
        512, ge=8, description="Longest example in tokens, prompt and answer together."
    )
    too_long: TooLong = Field(
        TooLong.ERROR,
        description="What to do with a longer one: error, drop it, or shorten its longest field; "
        "the report counts them.",
    )
    templates_per_row: PerRow = Field(
        PerRow.ONE,
        description="one: an epoch draws a template for each row; all: each row goes through all.",
    )
    eval_steps: Auto | Annotated[int, Field(ge=1)] = Field(
        "auto", description="Steps between two validations; auto: six in a run, or fewer."
    )
    fsdp: bool = Field(
        False,
        description="Deal the weights out over the processes (FSDP), for a model that does not "
        "fit one GPU: the frozen base, or with method full what is trained, its gradients and "
        "AdamW's moments. Without torchrun it does nothing.",
    )
    early_stopping_patience: int | None = Field(
        3,
        ge=1,
        description="Validations with neither a better score nor a lower loss until training "
        "ends, counted once something is shown to be learnt; null: never.",
    )

    @model_validator(mode="after")
    def _fits(self) -> Train:
        if self.max_length > self.micro_batch_tokens:
            raise ValueError(
                f"max_length ({self.max_length}) is more than micro_batch_tokens "
                f"({self.micro_batch_tokens}), but an example must fit into one micro-batch"
            )
        return self


class Baselines(Section):
    """What the tuned model has to beat."""

    shots: tuple[Annotated[int, Field(ge=0, le=64)], ...] = Field(
        (0, 1, 5), min_length=1, description="Worked examples in the prompt, one rung each."
    )
    validation_rows: int | None = Field(
        None, ge=1, description="Validation rows the prompts are compared on; null: all of them."
    )
    templates: All | Annotated[tuple[Name, ...], Field(min_length=1)] = Field(
        "all", description="Templates to prompt with: all, or a list of their ids."
    )
    search: Searching = Field(
        Searching.OFF,
        description="Search for a better prompt than those: off, quick or full (instructions, also "
        "ones that the model writes, times worked examples).",
    )
    search_prompts: int | None = Field(
        None,
        ge=1,
        description="Prompts that the search may ask, a task; null: 16 (quick) or 60 (full) a "
        "validation row.",
    )
    tfidf: bool = Field(
        True, description="Also train TF-IDF + logistic regression on the same rows."
    )
    probe: bool = Field(
        True,
        description="Also train a linear probe: logistic regression on the base model's hidden "
        "states of the same rows.",
    )

    _templates_once = field_validator("templates")(names_once)

    @field_validator("shots")
    @classmethod
    def _each_once(cls, shots: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(unique(shots)))


class Forgetting(Section):
    """What the model should still know afterwards."""

    tasks: Literal["guard", "none"] | Annotated[tuple[Name, ...], Field(min_length=1)] = Field(
        "guard", description="Tasks to measure before and after: guard, none, or a list of tasks."
    )
    rows: Auto | Annotated[int, Field(ge=2)] = Field(
        100,
        description="Rows of each of them; auto: 50 after 50 until a change (or being within the "
        "margin) is shown, 500 at most.",
    )
    text: bool = Field(
        True, description="Also measure cross-entropy on general text, as many pieces of it."
    )
    budget: float | None = Field(
        None, ge=0, le=100, description="Points of 100 that may be lost on average; null: no limit."
    )
    margin: float | None = Field(
        None,
        gt=0,
        le=100,
        description="Points of 100 within which a guard task counts as kept, where that is shown; "
        "null: nothing is said of it.",
    )
    text_margin: float | None = Field(
        None, gt=0, le=100, description="The same for general text, in nats per token."
    )
    at_most: float | None = Field(
        None,
        gt=0,
        le=100,
        description="Nats per token that may be lost on general text: of the way from base to "
        "tuned as much is exported as was read to lose no more; null: all of it.",
    )
    gate_checkpoints: bool = Field(
        False,
        description="Keep the best checkpoint among those within budget and at_most, measured at "
        "each look at validation on guard rows that are not reported.",
    )

    @property
    def reads_text(self) -> bool:
        """Whether general text is measured."""
        return self.text and self.tasks != "none"

    _each_once = field_validator("tasks")(names_once)

    @model_validator(mode="after")
    def _gate_has_a_limit(self) -> Forgetting:
        if self.gate_checkpoints and (self.budget, self.at_most) == (None, None):
            raise ValueError("gate_checkpoints needs a limit: set budget, at_most, or both")
        if self.gate_checkpoints and self.tasks == "none":
            raise ValueError("gate_checkpoints needs guard rows, and tasks is none")
        return self
