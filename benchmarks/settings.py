"""The settings in which peers are tried; the fastest that works is what `best` stands for.

Imports neither instil nor its peers: both environments read it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class TrlSettings:
    """How SFTTrainer is set up beside what a case gives."""

    says: str
    """For the table."""
    bf16_weights: bool = False
    """LoRA only: in full fine-tuning they would round the updates away."""
    per_device: int = 0
    """Rows of a forward pass; 0: all rows of a step."""
    attention: str = "sdpa"
    """transformers' implementation; `sdpa` is its default."""
    packed: bool = False
    """Rows of a step packed into one, by TRL's best-fit packing."""
    extra: dict[str, Any] = field(default_factory=dict)
    """More of SFTConfig."""


# TRL's own defaults: rows of a forward pass 8, bf16=True over float32 weights, checkpointing on.
FAST = {"bf16": True, "gradient_checkpointing": False}
TRL = {
    "default": TrlSettings("TRL's defaults, 8 rows a pass", per_device=8),
    "float32": TrlSettings(
        "float32 throughout, to compare losses with",
        extra={"bf16": False, "gradient_checkpointing": False},
    ),
    "padded": TrlSettings(
        "all rows of a step in a pass, no checkpointing", bf16_weights=True, extra=FAST
    ),
    "eager": TrlSettings(
        "as padded, with eager attention", bf16_weights=True, attention="eager", extra=FAST
    ),
    "small": TrlSettings(
        "4 rows a pass, no checkpointing", bf16_weights=True, per_device=4, extra=FAST
    ),
    "eager-small": TrlSettings(
        "4 rows a pass, no checkpointing, eager attention",
        bf16_weights=True,
        attention="eager",
        per_device=4,
        extra=FAST,
    ),
    "eager-single": TrlSettings(
        "a row a pass, so no padding; no checkpointing, eager attention",
        bf16_weights=True,
        attention="eager",
        per_device=1,
        extra=FAST,
    ),
    "eager-padding-free": TrlSettings(
        "no checkpointing, padding_free, eager attention",
        bf16_weights=True,
        attention="eager",
        extra={**FAST, "padding_free": True, "max_length": None},
    ),
    "pure": TrlSettings(
        "without autocast, no checkpointing",
        bf16_weights=True,
        extra={"bf16": False, "gradient_checkpointing": False},
    ),
    "grouped": TrlSettings(
        "no checkpointing, rows grouped by length",
        bf16_weights=True,
        extra={**FAST, "train_sampling_strategy": "group_by_length"},
    ),
    "padding-free": TrlSettings(
        "no checkpointing, padding_free",
        bf16_weights=True,
        extra={**FAST, "padding_free": True, "max_length": None},
    ),
    "packing": TrlSettings("no checkpointing, packing", bf16_weights=True, packed=True, extra=FAST),
    "checkpointed": TrlSettings("checkpointing", bf16_weights=True),
    "liger": TrlSettings(
        "no checkpointing, liger kernels",
        bf16_weights=True,
        extra={**FAST, "use_liger_kernel": True},
    ),
    "liger-checkpointed": TrlSettings(
        "checkpointing, liger kernels",
        bf16_weights=True,
        extra={"use_liger_kernel": True},
    ),
}
