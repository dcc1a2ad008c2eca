"""What training minimises over a pack: cross-entropy, weighted or not, and distances from a model.

Both are summed over places; the vocabulary projection and what follows from it are computed a few
rows at a time, and the gradients are ready when the sum is. So no tensor of the vocabulary's size
lives longer than one block of rows, whatever the number of places.

Tests: `tests/model/engine/test_packed.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn.functional import cross_entropy, kl_div

from instil.encode.batch import Batch
from instil.model.engine.divergence import States
from instil.model.engine.packed import Build, Head, base_of, head_of, hidden_states, model_logits

CHUNK = 2**24
"""Logits held at once, in number."""
TOP = 20
"""Likeliest tokens whose entropy weighs a loss."""

Weigh = Callable[[torch.Tensor], torch.Tensor]
"""From float32 logits (rows, V): what each row's cross-entropy counts, (rows,); no gradient."""
Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From float32 logits and another model's, both (rows, V): how far they are apart, (rows,)."""

OfRows = Callable[[torch.Tensor, slice], tuple[torch.Tensor, torch.Tensor]]
"""From float32 logits (rows, V) and where the rows stand among all places: the loss summed over
them, and figures to report, (rows, k), without gradient."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where the tuned model is held to another one, and what that one says there."""

    places: torch.Tensor
    """(P,) places of the batch."""
    states: States
    """The other model's, at these."""
    distance: Distance
    """How far it is from it."""


@dataclass(frozen=True, slots=True)
class Losses:
    """The sums over one batch, and what they are made of."""

    total: torch.Tensor
    """Cross-entropy in nats, weighted if that is wanted, summed; a float32 scalar."""
    nats: torch.Tensor
    """(S,) plain cross-entropy of each predicted token, without gradient."""
    weights: torch.Tensor
    """(S, W) what each was weighted with, by each of the W ways asked for."""
    distances: tuple[torch.Tensor, ...]
    """Of each anchor: the distance summed over its places; float32 scalars."""


def summed_loss(model: Any, batch: Batch, *, build: Build, recompute: bool = False) -> torch.Tensor:
    """Cross-entropy in nats, summed over the batch's predicted tokens; a scalar in float32."""
    return losses(model, batch, build=build, recompute=recompute).total


def losses(
    model: Any,
    batch: Batch,
    *,
    build: Build,
    recompute: bool = False,
    shares: torch.Tensor | None = None,
    weigh: Sequence[Weigh] = (),
    anchors: Sequence[Anchor] = (),
) -> Losses:
    """Run a batch through a model, and return the sums that training minimises.

    Args:
        model: To be trained.
        batch: Its predicted tokens have a cross-entropy each.
        build: Which short cuts fit the model.
        recompute: Keep only each layer's input for the backward pass.
        shares: (S,) what each predicted token's cross-entropy counts, float32; None: 1.
        weigh: What each token's cross-entropy is multiplied with besides.
        anchors: Where it is held to another model.
    """
    tokens = batch.predict_from.shape[0]
    if anchors:
        wanted = torch.cat([batch.predict_from, *(anchor.places for anchor in anchors)])
        batch = replace(batch, predict_from=wanted)
    places = batch.predict_from
    if build.own_head:
        outputs = hidden_states(model, batch, places, build=build, recompute=recompute)
        head = head_of(base_of(model))
    else:
        outputs = model_logits(model, batch, places, build=build, recompute=recompute)
        head = None

    def labelled(logits: torch.Tensor, where: slice) -> tuple[torch.Tensor, torch.Tensor]:
        nats = cross_entropy(logits, batch.labels[where], reduction="none")
        weights = [of_logits(logits) for of_logits in weigh]
        summed = nats
        for each in (*weights, *([] if shares is None else [shares[where]])):
            summed = summed * each
        return summed.sum(), torch.stack([nats.detach(), *weights], dim=1)

    rows = max(1, CHUNK // (outputs.shape[1] if head is None else head.weight.shape[0]))
    total, columns = _summed(outputs[:tokens], head, labelled, rows=rows)
    # A quarter of the rows: several tensors of a block's size are held for each.
    held = outputs[tokens:].split([anchor.places.shape[0] for anchor in anchors])
    distances = tuple(
        _summed(at_places, head, _from_anchor(anchor), rows=max(1, rows // 4))[0]
        if len(at_places)
        else total.new_zeros(())
        for at_places, anchor in zip(held, anchors, strict=True)
    )
    return Losses(total, columns[:, 0], columns[:, 1:], distances)


def _from_anchor(anchor: Anchor) -> OfRows:
    """How far rows of logits are from the other model's."""
    other = anchor.states

    def of_rows(logits: torch.Tensor, where: slice) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            values = other.values[where]
            theirs = (values if other.head is None else other.head.logits(values)).float()
        far = anchor.distance(logits, theirs)
        return far.sum(), far.detach()[:, None]

    return of_rows


def forward_kl(logits: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """KL(base || model) in nats, exact over the vocabulary: (rows,) of two (rows, V)."""
    log_p, log_q = base.log_softmax(-1), logits.log_softmax(-1)
    return kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)


def entropy_weights(logits: torch.Tensor) -> torch.Tensor:
    """How unsure the model is at each place, 0 to 1, without gradient: (rows,) of (rows, V).

    The entropy of the 20 likeliest tokens, their chances scaled to sum to 1, over ln 20: the gate
    of entropy-adaptive fine-tuning (Diao et al. 2026, arXiv:2601.02151; their code divides by 3).
    """
    top = min(TOP, logits.shape[-1])
    with torch.no_grad():
        log_p = logits.topk(top).values.log_softmax(-1)
        return -(log_p.exp() * log_p).sum(-1) / math.log(top)


def _summed(
    outputs: torch.Tensor, head: Head | None, of_rows: OfRows, *, rows: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum over places, `rows` of them at a time; `outputs`: final hidden states, or logits."""
    if head is None:
        return of_rows(outputs.float(), slice(None))
    if not torch.is_grad_enabled():
        blocks = (slice(n, n + rows) for n in range(0, len(outputs), rows))
        parts = [of_rows(head.logits(outputs[where]).float(), where) for where in blocks]
        return torch.stack([part for part, _ in parts]).sum(), torch.cat([c for _, c in parts])
    total: torch.Tensor
    columns: torch.Tensor
    total, columns = _ByRows.apply(outputs, head.weight, head.bias, head, of_rows, rows)
    return total, columns


class _ByRows(torch.autograd.Function):
    """A sum over rows and its gradients, some rows at a time; both are ready at once."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        head: Head,
        of_rows: OfRows,
        rows: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        wanted = [hidden, weight, *([] if bias is None else [bias])]
        needed = [t for t, need in zip(wanted, ctx.needs_input_grad, strict=False) if need]
        total = hidden.new_zeros((), dtype=torch.float32)
        of_hidden, others = [], [torch.zeros_like(t) for t in needed if t is not hidden]
        reported = []
        for start in range(0, hidden.shape[0], rows):
            where = slice(start, start + rows)
            with torch.enable_grad():
                part = hidden[where].detach().requires_grad_(ctx.needs_input_grad[0])
                loss, columns = of_rows(head.logits(part).float(), where)
            total += loss.detach()
            reported.append(columns)
            if needed:
                inputs = [part if t is hidden else t for t in needed]
                gradients = list(torch.autograd.grad(loss, inputs))
                if ctx.needs_input_grad[0]:
                    of_hidden.append(gradients.pop(0))
                for whole, more in zip(others, gradients, strict=True):
                    whole += more
        ctx.gradients = [*([torch.cat(of_hidden)] if of_hidden else []), *others]
        columns = torch.cat(reported)
        ctx.mark_non_differentiable(columns)
        return total, columns

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, _: torch.Tensor) -> Any:
        gradients = iter(ctx.gradients)
        needs = ctx.needs_input_grad[:3]
        return (*(next(gradients).mul_(grad) if need else None for need in needs), None, None, None)
