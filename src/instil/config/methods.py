"""The tuning methods of a recipe, and what each is: the one table that all else asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Method(StrEnum):
    """Which weights are trained."""

    LORA = "lora"
    FULL = "full"
    AUTO = "auto"
    """LoRA, and one way after another to forget less, until one will do."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """What follows from a method."""

    word: str
    """For people."""
    adapter: bool
    """Whether the base is frozen, and an adapter trained: PEFT's files are handed over."""
    operations: int
    """A weight and token: 2 forward, 2 backward to the activations, 2 to the weights if trained."""
    bytes_per_weight: float
    """Of the base model, as long as it trains, besides activations."""
    rate: float
    """Learning rate, as a multiple of LoRA's."""


LORA = Tuning("LoRA", adapter=True, operations=4, bytes_per_weight=2.5, rate=1.0)
"""The base in bfloat16, and little else."""
METHODS: Mapping[str, Tuning] = {
    Method.LORA: LORA,
    # Float32 weights, their gradients and two moments.
    Method.FULL: Tuning(
        "full fine-tuning", adapter=False, operations=6, bytes_per_weight=16, rate=0.1
    ),
    Method.AUTO: LORA,
}
