"""How much memory a run will take, beside what it can have, before anything large is loaded.

Tests: `tests/test_memory_limits.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from instil import format as fmt
from instil.config.methods import METHODS, Method
from instil.config.recipe import Quantize
from instil.memory_limits import MORE, Free, free_memory, resident_memory

if TYPE_CHECKING:
    from instil.model.load import ModelFolder

# The bytes that a token's activations took a layer and unit of width (docs/002).
ACTIVATION_BYTES = 50
# The libraries, 390 MB, and what oneDNN and the allocator keep.
PROCESS_BYTES = 600_000_000


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of a model, from its config and weights; nothing is loaded."""

    layers: int
    """Layers, the encoder's and the decoder's together."""
    hidden: int
    """Width."""
    parameters: float
    """Weights."""
    multiplied: float
    """Weights that every token is multiplied with: but for the vocabulary's tables."""


def sizes_of(folder: ModelFolder) -> Sizes:
    """Read a model's sizes."""
    from safetensors import safe_open
    from transformers import AutoConfig

    from instil.model.soundness import weight_files

    config = AutoConfig.from_pretrained(folder.path, trust_remote_code=False).get_text_config()
    parameters = 0
    for path in weight_files(folder.path):
        with safe_open(path, framework="np") as file:
            shapes = (file.get_slice(name).get_shape() for name in file.keys())
            parameters += sum(map(math.prod, shapes))
    table = config.vocab_size * config.hidden_size
    # Of the vocabulary's tables few rows are read, and few places are projected.
    tables = table if config.tie_word_embeddings else 2 * table
    return Sizes(
        config.num_hidden_layers * (2 if config.is_encoder_decoder else 1),
        config.hidden_size,
        parameters,
        max(parameters - tables, parameters / 2),
    )


def memory_terms(
    sizes: Sizes,
    *,
    method: Method,
    quantize: Quantize | None,
    held_to_base: bool,
    micro_batch_tokens: int,
    pruned: bool = False,
    processes: int = 1,
) -> dict[str, int]:
    """Estimate the bytes that a run holds at most, by what they are for.

    Args:
        sizes: Of the base model.
        method: Which weights are trained.
        quantize: How the frozen base is packed; None: it is not.
        held_to_base: Whether the loss has the KL to the base model.
        micro_batch_tokens: Tokens computed at a time.
        pruned: Whether the update is pruned afterwards: merged in float32, beside the base model.
        processes: Over which the weights are dealt out; 1: they are not. Of a frozen base each has
            its part of the layers. Of what is trained the first has a whole copy in float32 beside
            its part, and two before they are dealt.
    """
    tuning = METHODS[method]
    held = sizes.parameters * tuning.bytes_per_weight
    if processes > 1 and tuning.adapter:
        held -= sizes.multiplied * (0.6 if quantize else 2) * (1 - 1 / processes)
    elif processes > 1:
        held = max(held / processes + 4 * sizes.parameters, 8 * sizes.parameters)
    if held_to_base and not tuning.adapter:  # the base model again, in bfloat16
        held += sizes.parameters * 2
    if pruned:
        held = max(held, sizes.parameters * (4 + 2))
    if quantize:  # half a byte a packed weight and its share of the scales; one layer whole
        held -= sizes.multiplied * (2.5 - 0.6)
    activations = micro_batch_tokens * sizes.layers * sizes.hidden
    return {
        "libraries": PROCESS_BYTES,
        "weights" if tuning.adapter else "weights and optimizer": int(held),
        "activations": activations * ACTIVATION_BYTES,
    }


def memory_line(terms: Mapping[str, int], *, device: str) -> str:
    """Put what a run needs beside what it can have, and say what to do where that is less.

    Args:
        terms: From `memory_terms`.
        device: auto, cpu or cuda.
    """
    from instil.model.load import pick_device

    # Free memory, and the memory that this process holds.
    if (where := pick_device(device)).type == "cuda":
        import torch

        free, held = Free(torch.cuda.mem_get_info(where)[0], "the GPU's memory"), 0
    else:
        free, held = free_memory(), resident_memory()
    needed = sum(terms.values())
    parts = ", ".join(f"{fmt.size(size)} {name}" for name, size in terms.items())
    line = f"memory: about {fmt.size(needed)} (an estimate: {parts})"
    if needed <= held + free.bytes:
        return f"{line}; {fmt.size(held + free.bytes)} is free"
    return (
        f"{line}, but {fmt.size(held + free.bytes)} is free, by {free.limit}; a run that gets "
        "no more may be killed without a word. Take a smaller model, method: lora, a lower "
        f"train.micro_batch_tokens or quantize: nf4, {MORE}."
    )
