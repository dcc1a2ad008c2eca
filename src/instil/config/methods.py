"""The tuning methods of a recipe, and what each is: the one table that all else asks.

Tests: `tests/config/test_recipe.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from instil.config.sections import Name, Section


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

# --- the settings of adapters, each a section of the recipe ---------------------------------------

Targets = (
    Literal["all-linear", "mlp", "attention"] | Annotated[tuple[Name, ...], Field(min_length=1)]
)
"""Which layers have an adapter."""
_TARGETS = (
    "Layers with an adapter: all-linear, those of the blocks' mlp or attention alone, or a list "
    "such as [q_proj, v_proj]."
)


class Lora(Section):
    """Low-rank adapters; used when method is lora."""

    r: int = Field(16, ge=1, le=1024, description="Rank: the width of the adapter.")
    lora_alpha: float = Field(
        32, gt=0, description="The adapter is scaled by lora_alpha / r, or as use_rslora says."
    )
    use_rslora: bool = Field(
        False,
        description="Scale by lora_alpha / sqrt(r) instead, so that a high rank learns as fast "
        "(rank-stabilized LoRA).",
    )
    lora_dropout: float = Field(
        0.0, ge=0, lt=1, description="Share of the adapter's inputs that are dropped in training."
    )
    target_modules: Targets = Field("all-linear", description=_TARGETS)


class Oft(Section):
    """Rotations of what each layer reads; used when method is oft."""

    oft_block_size: int = Field(
        32,
        ge=2,
        le=1024,
        description="A layer's inputs are rotated so many at a time; has to divide their number.",
    )
    target_modules: Targets = Field("all-linear", description=_TARGETS)


class Shira(Section):
    """Changes of single weights, drawn from the seed; used when method is shira."""

    r: int = Field(
        16,
        ge=1,
        le=1024,
        description="As many weights are trained as LoRA of this rank has.",
    )
    target_modules: Targets = Field("all-linear", description=_TARGETS)


Adapter = Lora | Oft | Shira
"""The settings of an adapter, in PEFT's names."""
