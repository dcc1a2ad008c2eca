"""A pack through the model: what it says of the tokens that are predicted, and nothing else.

The final hidden states are taken at the predicted places only; what follows from them is computed a
block at a time (here and in `losses`), so memory grows neither with the vocabulary nor with the
number of predicted tokens.

A pack goes through the model in the first of these ways that `model.engine.proof` allows (`Build`):

1. in our own layers (`model.engine.layers`), llama's build alone;
2. in transformers' layers with our attention: prefix, segments and branches in one row;
3. the same without prefix and branches: each example is a segment from its first token on;
4. row by row, as anyone would compute it with transformers (`model.engine.rows`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from peft import PeftModel

from instil.encode.batch import Batch
from instil.model.engine.attention import Reading, Remembering, by_segments, reading
from instil.model.engine.layers import run_layers
from instil.model.engine.rows import (
    compute_rows,
    forget_lengths,
    keeps_logits,
    side_by_side,
    take_apart,
)

VOCABULARY_BLOCK = 8192
"""Lines of the vocabulary projection that are turned into float32 at a time."""


_DIFFERS = "this model's figures differ"


@dataclass(frozen=True, slots=True)
class Build:
    """Which short cuts give the model's own figures; by default none is taken."""

    segments: bool = False
    """Examples may stand side by side in one row, each a segment."""
    prefix: bool = False
    """Segments may share a prefix that stands in front of them once."""
    branches: bool = False
    """Segments may end in branches."""
    arguments: bool = False
    """Segments are told apart to layers with a state, by `seq_idx`, `cu_seq_lens_q` and the like,
    which transformers passes on to kernels that know them."""
    own_layers: bool = False
    """`model.engine.layers` may stand for the decoder."""
    own_head: bool = False
    """`Head` may stand for what follows the decoder."""
    own_memory: bool = False
    """`model.engine.memory` may stand for transformers' caches when generating."""
    padding: bool = False
    """Rows of several lengths may be computed together, filled up on the right."""
    longest: int | None = None
    """Rows of so many tokens or more are computed one by one; None: any may be packed."""

    def packs(self, batch: Batch) -> bool:
        """Whether a batch may go through the model as it is laid out."""
        return (
            not self.row_by_row(batch)
            and (self.prefix or not batch.shared_prefix)
            and (self.branches or all(len(shape) == 1 for shape in batch.segments))
        )

    def row_by_row(self, batch: Batch) -> bool:
        """Whether each example of a batch goes through the model as a row of its own."""
        reaches = self.longest is None or int(batch.positions.max()) < self.longest
        return not (self.segments and reaches)

    def __str__(self) -> str:
        """Say how rows go through the model, for people."""
        if self.own_layers:
            how = "packed, through instil's own layers"
        elif self.segments and self.prefix and self.branches:
            how = "packed, through transformers' layers with instil's attention"
        elif self.segments:
            missing = [n for n in ("prefix", "branches") if not getattr(self, n)]
            how = f"packed side by side ({' and '.join(missing)} not shared: {_DIFFERS})"
        else:
            together = "several at a time" if self.padding else "one by one"
            how = f"row by row, {together}, through transformers' own code: packed, {_DIFFERS}"
        generated = "instil's memory" if self.own_memory else "transformers' caches"
        limit = f"; from {self.longest} tokens on one by one" if self.longest else ""
        return f"{how}{limit}; generated with {generated}"


@dataclass(frozen=True, slots=True)
class Head:
    """From final hidden states to logits: softcap(multiplier (W h + b))."""

    weight: torch.Tensor
    """(V, hidden)."""
    bias: torch.Tensor | None
    """(V,) or none."""
    multiplier: float
    """Of the logits: Cohere's `logit_scale`, one through Granite's `logits_scaling`."""
    softcap: float | None
    """Gemma 2's: c tanh(x / c)."""

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits of (S, hidden) states, (S, V), in the states' type."""
        return self.shaped(torch.nn.functional.linear(hidden, self.weight, self.bias))

    def shaped(self, logits: torch.Tensor) -> torch.Tensor:
        """Apply multiplier and soft cap."""
        if self.multiplier != 1.0:
            logits = logits * self.multiplier
        if self.softcap:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits


def head_of(model: Any) -> Head:
    """Return the vocabulary projection of a causal language model."""
    layer, config = model.get_output_embeddings(), model.config
    return Head(
        layer.weight,
        getattr(layer, "bias", None),
        getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1),
        getattr(config, "final_logit_softcapping", None),
    )


def base_of(model: Any) -> Any:
    """Return the causal language model itself, with an adapter's layers in it."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


# --- log-probabilities to compare, tokens to go on with (what is trained on stands in `losses`) ---


def log_chances(model: Any, batch: Batch, *, build: Build) -> torch.Tensor:
    """Log-probability of every predicted token, (S,), from float32 logits; no gradient."""
    places, which = batch.predict_from.unique(return_inverse=True)
    if not build.own_head:
        logits = model_logits(model, batch, places, build=build).float()
        return logits.log_softmax(-1)[which, batch.labels]
    hidden = hidden_states(model, batch, places, build=build).float()
    head = head_of(base_of(model))
    total = log_total(logit_blocks(hidden, head))
    mine = head.weight[batch.labels].float()
    chosen = torch.linalg.vecdot(hidden[which], mine)
    if head.bias is not None:
        chosen = chosen + head.bias[batch.labels].float()
    return head.shaped(chosen) - total[which]


def next_logits(model: Any, batch: Batch, *, build: Build, memory: Remembering) -> torch.Tensor:
    """Logits behind each of the batch's places, (S, V); `memory` attends."""
    places = batch.predict_from
    if not build.own_head:
        return _own_logits(model, batch, places, build=build, memory=memory)
    hidden = hidden_states(model, batch, places, build=build, memory=memory)
    return head_of(base_of(model)).logits(hidden)


def logit_blocks(hidden: torch.Tensor, head: Head) -> Iterator[torch.Tensor]:
    """Yield the float32 logits, (S, at most VOCABULARY_BLOCK) at a time."""
    for start in range(0, head.weight.shape[0], VOCABULARY_BLOCK):
        yield float_logits(hidden, head, slice(start, start + VOCABULARY_BLOCK))


def log_total(blocks: Iterable[torch.Tensor]) -> torch.Tensor:
    """Return the log of the summed exponentials over all blocks of logits, (S,)."""
    return reduce(torch.logaddexp, (logits.logsumexp(-1) for logits in blocks))


def float_logits(hidden: torch.Tensor, head: Head, lines: slice) -> torch.Tensor:
    """Logits of some lines of the vocabulary, (S, lines), in float32."""
    bias = head.bias[lines].float() if head.bias is not None else None
    return head.shaped(torch.nn.functional.linear(hidden, head.weight[lines].float(), bias))


# --- through the model ---------------------------------------------------------------------------


def hidden_states(
    model: Any,
    batch: Batch,
    places: torch.Tensor,
    *,
    build: Build,
    recompute: bool = False,
    memory: Remembering | None = None,
) -> torch.Tensor:
    """Final hidden states, normalised, at some places of the batch: (places, hidden).

    Args:
        model: A transformers model, or PEFT's around one.
        batch: What it reads.
        places: Of the batch's tokens.
        build: Which short cuts fit the model; one of them is its own head.
        recompute: Keep only each layer's input for the backward pass.
        memory: Attends in place of the batch's segments.
    """
    if build.longest is not None:
        forget_lengths(model)
    decoder = decoder_of(model)
    assert decoder is not None, "a model with a head of its own has it on a decoder"
    if memory is None and not build.packs(batch):
        if build.row_by_row(batch):
            _set_recompute(model, recompute)
            return _rows(model, batch, places, build=build, decoder=decoder)
        batch, places = side_by_side(batch, places)
    if build.own_layers:
        return run_layers(decoder, batch, places, recompute=recompute, memory=memory)
    _set_recompute(model, recompute)
    with by_segments(model, Reading(batch.segments, batch.shared_prefix, memory)):
        out = decoder(**batch_inputs(batch, build))
    hidden: torch.Tensor = out.last_hidden_state[0]
    return hidden.index_select(0, places)


def model_logits(
    model: Any, batch: Batch, places: torch.Tensor, *, build: Build, recompute: bool = False
) -> torch.Tensor:
    """The model's own logits at some places of the batch, (places, V)."""
    if build.longest is not None:
        forget_lengths(model)
    _set_recompute(model, recompute)
    if build.row_by_row(batch):
        return _rows(model, batch, places, build=build, decoder=None)
    if not build.packs(batch):
        batch, places = side_by_side(batch, places)
    return _own_logits(model, batch, places, build=build)


def _rows(
    model: Any, batch: Batch, places: torch.Tensor, *, build: Build, decoder: Any
) -> torch.Tensor:
    rows = take_apart(batch, places)
    return compute_rows(model, rows, decoder=decoder, padding=build.padding, longest=build.longest)


def _own_logits(
    model: Any,
    batch: Batch,
    places: torch.Tensor,
    *,
    build: Build,
    memory: Remembering | None = None,
) -> torch.Tensor:
    few = keeps_logits(model)
    kept = {"logits_to_keep": places} if few else {}
    with by_segments(model, Reading(batch.segments, batch.shared_prefix, memory)):
        logits: torch.Tensor = model(**batch_inputs(batch, build), **kept).logits[0]
    return logits if few else logits.index_select(0, places)


def batch_inputs(batch: Batch, build: Build) -> dict[str, Any]:
    """Return what transformers' forward pass takes for a batch."""
    inputs = {"input_ids": batch.ids, "position_ids": batch.positions, "use_cache": False}
    if not build.arguments:
        return inputs
    # Where plain segments begin and end, as transformers' collators write it.
    device = batch.ids.device
    lengths = torch.tensor([length for (length,) in batch.segments], device=device)
    ends = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
    numbers = torch.arange(len(lengths), device=device, dtype=torch.int32)
    longest = int(lengths.max())
    return inputs | {
        "seq_idx": numbers.repeat_interleave(lengths)[None],
        "cu_seq_lens_q": ends,
        "cu_seq_lens_k": ends,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def decoder_of(model: Any) -> Any:
    """Return the part of a model that ends in final hidden states; None: it is not one part."""
    base = base_of(model)
    return getattr(base, base.base_model_prefix or "model", None)


def _set_recompute(model: Any, recompute: bool) -> None:
    """Switch transformers' own activation checkpointing on where it is wanted, and there is any."""
    base = base_of(model)
    if (
        not recompute
        or not base.supports_gradient_checkpointing
        or base.is_activation_checkpointing
    ):
        return

    def contexts() -> tuple[Any, Any]:
        # The backward pass runs layers again: they must attend as they did at first.
        along = reading()
        again = contextlib.nullcontext() if along is None else by_segments(model, along)
        return contextlib.nullcontext(), again

    base.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": contexts})
