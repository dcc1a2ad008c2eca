"""The tuning methods of a recipe, and what each is: the one table that all else asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Method(StrEnum):
    """Which weights are trained."""

    LORA = "lora"
    FULL = "full"
    OFT = "oft"
    SHIRA = "shira"
    AUTO = "auto"
    """LoRA, and one way after another to forget less, until one will do."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """What follows from a method."""

    word: str
    """For people."""
    section: str
    """The recipe's section with the adapter's settings, in PEFT's names; empty: all weights are
    trained."""
    operations: int
    """A weight and token: 2 forward, 2 backward to the activations, 2 to the weights if trained."""
    bytes_per_weight: float
    """Of the base model, as long as it trains, besides activations."""
    rate: float
    """Learning rate, as a multiple of LoRA's."""
    interpolates: bool = True
    """Whether a share of what was learnt is a model of the same kind (`keep.interpolate`)."""
    on_packed: bool = False
    """Whether the base may be in 4 bits (`quantize`)."""

    @property
    def adapter(self) -> bool:
        """Whether the base is frozen and an adapter trained; PEFT's files are then exported."""
        return bool(self.section)


LORA = Tuning("LoRA", "lora", operations=4, bytes_per_weight=2.5, rate=1.0, on_packed=True)
"""The base in bfloat16, and little else."""
METHODS: Mapping[str, Tuning] = {
    Method.LORA: LORA,
    # Float32 weights, their gradients and two moments.
    Method.FULL: Tuning("full fine-tuning", "", operations=6, bytes_per_weight=16, rate=0.1),
    # Half of a rotation is no half of the change that it makes. The rate: docs/learning-rate.md.
    Method.OFT: Tuning(
        "OFT", "oft", operations=4, bytes_per_weight=2.5, rate=0.3, interpolates=False
    ),
    # A layer's whole gradient is computed, and few places of it are read.
    Method.SHIRA: Tuning("SHiRA", "shira", operations=6, bytes_per_weight=2.5, rate=1.0),
    Method.AUTO: LORA,
}
