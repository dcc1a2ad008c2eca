"""What a model makes of each token halfway up: hidden states behind the middle one of its layers.

Final hidden states are made to predict the next token; what a text is about, and how it is meant,
is told best by those of the middle layers (Skean et al. 2025, arXiv:2502.02013), at half the work.

They come on the same ways as final ones (see `packed`), as far as the model's proof allows:
through our own layers, which stop in the middle; through transformers' layers in one pack; or row
by row. Of an encoder-decoder model they are the encoder's.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from instil.encode.batch import Batch
from instil.model.engine.attention import Reading, by_segments
from instil.model.engine.layers import run_layers
from instil.model.engine.packed import Build, batch_inputs, decoder_of
from instil.model.engine.rows import compute_rows, forget_lengths, side_by_side, take_apart


def middle_states(model: Any, batch: Batch, places: torch.Tensor, *, build: Build) -> torch.Tensor:
    """Hidden states behind the middle layer, not normalised, at some places: (places, hidden).

    Args:
        model: A transformers model without adapters.
        batch: What it reads; every token belongs to a prompt.
        places: Of the batch's tokens.
        build: Which short cuts fit the model.
    """
    if build.longest is not None:
        forget_lengths(model)
    encodes = model.config.is_encoder_decoder
    if encodes or build.row_by_row(batch):
        part = _halfway(model.get_encoder() if encodes else decoder_of(model) or model)
        return compute_rows(
            model,
            take_apart(batch, places),
            decoder=None if encodes else part,
            encoder=part if encodes else None,
            padding=build.padding,
            longest=build.longest,
        )
    if not build.packs(batch):
        batch, places = side_by_side(batch, places)
    decoder = decoder_of(model) or model
    if build.own_layers:
        return run_layers(decoder, batch, places, depth=_middle(len(decoder.layers)))
    with by_segments(model, Reading(batch.segments, batch.shared_prefix)):
        out = _halfway(decoder)(**batch_inputs(batch, build))
    hidden: torch.Tensor = out.last_hidden_state[0]
    return hidden.index_select(0, places)


def _middle(layers: int) -> int:
    """Return how many of the layers to go through."""
    return (layers + 1) // 2


def _halfway(part: Any) -> Callable[..., Any]:
    """Return a part of a model as one whose last hidden states are those in the middle."""

    def run(**inputs: Any) -> Any:
        states = part(**inputs, output_hidden_states=True).hidden_states
        middle = states[_middle(len(states) - 1)]  # the first are the embeddings
        # Gemma 3n carries several streams side by side, and predicts from the first.
        return SimpleNamespace(last_hidden_state=middle if middle.dim() == 3 else middle[0])

    return run
