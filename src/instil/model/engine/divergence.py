"""How far two models' next-token distributions lie apart, over the whole vocabulary.

KL(p || q) = sum over v of p(v) (log p(v) - log q(v)), in nats, at each of S places. Final hidden
states are all that is kept of a model: the logits are made again a block of the vocabulary at a
time, twice (for their sum, then for the divergence), so no S x V tensor is held.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from instil.encode.batch import Batch
from instil.model.engine.packed import (
    VOCABULARY_BLOCK,
    Build,
    Head,
    base_of,
    head_of,
    hidden_states,
    log_total,
    logit_blocks,
    model_logits,
)

ROWS = 256
"""Places computed at a time: with a block of the vocabulary, 8 MB of logits each."""


@dataclass(frozen=True, slots=True)
class States:
    """All that is needed of a model to know its next-token distribution at S places."""

    values: torch.Tensor
    """(S, hidden) final hidden states; without a head, (S, V) logits."""
    head: Head | None
    """What makes logits of them; None with a build that only its own forward pass is right for."""

    def rows(self, places: slice) -> States:
        """Some of the places."""
        return States(self.values[places], self.head)

    def blocks(self) -> Iterator[torch.Tensor]:
        """Yield the float32 logits, (S, at most VOCABULARY_BLOCK) at a time."""
        if self.head is None:
            return iter(self.values.float().split(VOCABULARY_BLOCK, dim=1))
        return logit_blocks(self.values.float(), self.head)


def states(model: Any, batch: Batch, *, build: Build) -> States:
    """Run a batch through a model and keep its states at the predicted places."""
    if not build.own_head:
        return States(model_logits(model, batch, batch.predict_from, build=build), None)
    hidden = hidden_states(model, batch, batch.predict_from, build=build)
    return States(hidden, head_of(base_of(model)))


def divergence(base: States, tuned: States) -> torch.Tensor:
    """KL(base || tuned) at each place, (S,), in nats, from float32 logits."""
    nats = torch.zeros(base.values.shape[:1], device=base.values.device)
    for start in range(0, len(nats), ROWS):
        where = slice(start, start + ROWS)
        p, q = base.rows(where), tuned.rows(where)
        p_total, q_total = (log_total(states.blocks())[:, None] for states in (p, q))
        for p_block, q_block in zip(p.blocks(), q.blocks(), strict=True):
            log_p, log_q = p_block - p_total, q_block - q_total
            nats[where] += (log_p.exp() * (log_p - log_q)).sum(-1)
    return nats
