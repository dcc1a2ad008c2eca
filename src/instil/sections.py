"""Sections of the recipe that stand by themselves, and what all sections share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


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


class Keep(Section):
    """How what the model knew is kept."""

    interpolate: Literal["auto"] | Annotated[float, Field(ge=0, le=1)] | None = Field(
        None,
        description="How far to go from the untouched model (0) to the tuned one (1), after "
        "training; auto: chosen on validation and on guard rows that are not reported; null: 1.",
    )
