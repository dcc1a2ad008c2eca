"""Sections of the recipe that stand by themselves, and what all sections share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from instil.types import KlOn

Name = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """A part of the recipe: frozen, and with no other keys than its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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
        gt=0,
        le=100,
        description="Shares go by size ** (1 / temperature): 1 by size, more evens the tasks out.",
    )
    few_shot_share: float = Field(
        0.0, ge=0, le=1, description="Share of the examples that show worked examples first."
    )
    few_shot: int = Field(
        2, ge=1, le=64, description="Worked examples in each of those, from train alone."
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
        description="own: texts that the untouched model writes; guard: rows of the guard tasks "
        "that are not reported on; or a list of tasks.",
    )

    @field_validator("of")
    @classmethod
    def _each_once(cls, of: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not isinstance(of, str) and len(set(of)) < len(of):
            raise ValueError("a task is given twice")
        return of


class Keep(Section):
    """How what the model knew is kept."""

    replay: Replay = Field(Replay(), description="Other material that is trained on as well.")
    kl: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="Weight of KL(untouched || tuned), nats per place, in the loss; null: none.",
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

    interpolate: Literal["auto"] | Annotated[float, Field(ge=0, le=1)] | None = Field(
        None,
        description="How far to go from the untouched model (0) to the tuned one (1), after "
        "training; auto: chosen on validation and on guard rows that are not reported; null: 1.",
    )

    @model_validator(mode="after")
    def _has_a_replay(self) -> Keep:
        if self.kl and self.kl_on is KlOn.REPLAY and not self.replay.share:
            raise ValueError("kl_on is replay, and nothing is replayed: set replay.share")
        return self
