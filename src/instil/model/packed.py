"""A pack through the model: what it says of the tokens that are predicted, and nothing else.

The final hidden states are taken at the predicted places only; what follows from them is computed a
block at a time (here and in `losses`), so memory grows neither with the vocabulary nor with the
number of predicted tokens.

Both short cuts (our own layers, and the head apart from the model) are tried on a few tokens when a
model is loaded. Where they do not give the model's own logits, as with a build that we do not know,
the model's own forward pass is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from peft import PeftModel

from instil.encode.batch import Batch, make_batch
from instil.model.attention import Remembering
from instil.model.layers import fits, run_layers

BFLOAT16_NOISE = 0.1
"""How far another order of bfloat16 roundings may move logits, as a share of their spread: on 30
layers and random tokens it was .04. Exactness is shown in float32, by tests."""
VOCABULARY_BLOCK = 8192
"""Lines of the vocabulary projection that are turned into float32 at a time."""


@dataclass(frozen=True, slots=True)
class Build:
    """Which short cuts give the model's own figures."""

    own_layers: bool = False
    """`model.layers` may stand for the decoder."""
    own_head: bool = False
    """`Head` may stand for what follows the decoder."""


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
        logits = model_logits(model, batch).float()
        return -torch.nn.functional.cross_entropy(logits, batch.labels, reduction="none")
    hidden = hidden_states(model, batch, places, build=build).float()
    head = head_of(base_of(model))
    total = log_total(logit_blocks(hidden, head))
    mine = head.weight[batch.labels].float()
    chosen = torch.linalg.vecdot(hidden[which], mine)
    if head.bias is not None:
        chosen = chosen + head.bias[batch.labels].float()
    return head.shaped(chosen) - total[which]


def next_tokens(model: Any, batch: Batch, *, build: Build, memory: Remembering) -> torch.Tensor:
    """The likeliest token behind each of the batch's places, (S,); `memory` attends."""
    if not build.own_head:
        return model_logits(model, batch, memory=memory).argmax(-1)
    hidden = hidden_states(model, batch, batch.predict_from, build=build, memory=memory)
    head = head_of(base_of(model))
    return head.shaped(torch.nn.functional.linear(hidden, head.weight, head.bias)).argmax(-1)


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


# --- through the decoder -----------------------------------------------------------------------


def hidden_states(
    model: Any,
    batch: Batch,
    places: torch.Tensor,
    *,
    build: Build,
    recompute: bool = False,
    memory: Remembering | None = None,
) -> torch.Tensor:
    """Final hidden states, normalised, at some places of the batch: (places, hidden)."""
    base = base_of(model)
    decoder = getattr(base, base.base_model_prefix)
    if build.own_layers:
        return run_layers(
            decoder,
            batch.ids,
            batch.positions,
            segments=batch.segments,
            shared_prefix=batch.shared_prefix,
            places=places,
            recompute=recompute,
            memory=memory,
        )
    out = decoder(
        input_ids=batch.ids,
        position_ids=batch.positions,
        segments=batch.segments,
        shared_prefix=batch.shared_prefix,
        memory=memory,
        use_cache=False,
    )
    hidden: torch.Tensor = out.last_hidden_state[0]
    return hidden.index_select(0, places)


def model_logits(model: Any, batch: Batch, *, memory: Remembering | None = None) -> torch.Tensor:
    """The model's own logits at the predicted places, (S, V)."""
    logits: torch.Tensor = model(
        input_ids=batch.ids,
        position_ids=batch.positions,
        segments=batch.segments,
        shared_prefix=batch.shared_prefix,
        logits_to_keep=batch.predict_from,
        memory=memory,
        use_cache=False,
    ).logits[0]
    return logits


# --- which short cuts this model allows --------------------------------------------------------


def find_build(model: Any) -> Build:
    """Try the short cuts on a few tokens, with a shared prefix and two segments."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary, (24,), generator=generator).tolist()
    batch = make_batch(
        ids,
        [*range(4), *range(4, 16), *range(4, 12)],
        segments=((12,), (8,)),
        shared_prefix=4,
        predict_from=torch.arange(4, 24),
        labels=torch.zeros(20, dtype=torch.long),
        device=model.get_input_embeddings().weight.device,
    )
    with torch.inference_mode():
        wanted = model_logits(model, batch).float()

        def agrees(build: Build) -> bool:
            hidden = hidden_states(model, batch, batch.predict_from, build=build).float()
            found = float_logits(hidden, head_of(model), slice(None))
            far = (found - wanted).pow(2).mean().sqrt() / wanted.std()
            return bool(far < (1e-4 if model.dtype is torch.float32 else BFLOAT16_NOISE))

        base = model.base_model
        own_layers = fits(base) and agrees(Build(own_layers=True))
        return Build(own_layers, own_layers or agrees(Build()))
