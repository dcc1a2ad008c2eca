r"""Attention for packs: every segment attends to itself alone.

Registered with transformers under the name `instil`. A forward pass within `by_segments` gets
causal attention within each segment, computed segment by segment: no T x T mask is read, and
nothing can leak from one example into the next. A segment is a *trunk* that may end in *branches*
(the choices behind a prompt), which see the trunk and themselves but not one another; and all
segments may begin with a *shared prefix* that stands once in front::

    prefix | trunk 0 | branch A | branch B B | trunk 1 | branch A | branch B B
    shared   \___________ segment 0 _______/   \________ segment 1 _________/

Two things that some families do to their scores are computed as well: a *soft cap*, c tanh(s / c)
(Gemma 2), and *sinks*, one learned score a head that takes its share of the softmax and gives no
value (gpt-oss; Xiao et al. 2023, arXiv:2309.17453, section 3.3).

On a CPU the products are written out, because SDPA's bf16 backward pass is slow there (docs/002).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from instil.model.engine.layout import Group, Layout, Shape, lay_out, rounded_length

NAME = "instil"

KEPT_WEIGHTS = 512
"""Attention weights over more keys than these are computed again in the backward pass, not kept."""

QUERY_BLOCK = 256
"""Queries of a long segment computed at once: their scores should stay in the processor's cache.
None of them looks at keys behind its block, so those are left out."""


class Remembering(Protocol):
    """Attention in a layer, by its number, over rows as `attend_rows` takes them."""

    def __call__(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        scaling: float,
        window: int | None,
        sinks: torch.Tensor | None = None,
        softcap: float | None = None,
    ) -> torch.Tensor:
        """Return (T, heads, d)."""
        ...


@dataclass(frozen=True, slots=True)
class Reading:
    """Along what a forward pass attends."""

    segments: tuple[Shape, ...]
    """The shape of each segment; with the prefix they sum to T."""
    shared_prefix: int = 0
    """Tokens in front that every segment begins with."""
    memory: Remembering | None = None
    """Attends in place of all this, and keeps keys and values (`model.engine.memory`)."""


# Not an argument of the forward pass: some families (Nemotron) do not hand unknown arguments on to
# their attention, which would then know of no segments.
_reading: ContextVar[Reading | None] = ContextVar("reading", default=None)


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within segments, and from every segment back to the prefix that they share.

    Args:
        module: The attention layer.
        query: (1, heads, T, d).
        key: (1, key heads, T, d).
        value: (1, key heads, T, d).
        attention_mask: Not used.
        kwargs: transformers' `scaling`, `sliding_window`, `s_aux`, `softcap` ...

    Returns:
        (1, T, heads, d) and None, as transformers wants it.
    """
    reading = _reading.get()
    assert reading is not None, "attention by segments within `by_segments` alone"
    scaling = kwargs.get("scaling") or query.shape[-1] ** -0.5
    window = kwargs.get("sliding_window")
    sinks, softcap = kwargs.get("s_aux"), kwargs.get("softcap")
    # Over float32 masters, positions and norms leave queries and keys in float32 beside values in
    # autocast's type.
    q, k, v = (t[0].transpose(0, 1).to(value.dtype) for t in (query, key, value))
    if reading.memory is not None:
        out = reading.memory(
            module.layer_idx,
            q,
            k,
            v,
            scaling=scaling,
            window=window,
            sinks=sinks,
            softcap=softcap,
        )
    else:
        layout = lay_out(reading.segments, reading.shared_prefix, window, query.device)
        out = attend_rows(q, k, v, layout, scaling, sinks=sinks, softcap=softcap)
    return out[None], None


def attend_rows(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: Layout,
    scaling: float,
    *,
    sinks: torch.Tensor | None = None,
    softcap: float | None = None,
) -> torch.Tensor:
    """Attend along a layout.

    Args:
        query: (T, heads, d).
        key: (T, key heads, d).
        value: (T, key heads, d).
        layout: Which token looks at which.
        scaling: Of the scores.
        sinks: (heads,) a score that takes its share of each softmax and has no value.
        softcap: c of c tanh(s / c), for all scores but the sinks.

    Returns:
        (T, heads, d).
    """
    if query.device.type == "cpu" or sinks is not None or softcap:
        out: torch.Tensor = _Attention.apply(query, key, value, sinks, layout, scaling, softcap)
        return out
    outputs = []
    for group in layout.groups:
        q, k, v = (
            t.index_select(0, places).view(group.count, -1, *t.shape[1:]).transpose(1, 2)
            for t, places in ((query, group.queries), (key, group.keys), (value, group.keys))
        )
        attended = torch.nn.functional.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=group.blocked[:, 0].to(q.dtype),
            scale=scaling,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        outputs.append(attended.transpose(1, 2).reshape(-1, *query.shape[1:]))
    return torch.cat(outputs).index_select(0, layout.place)


# --- written out, with its own backward pass -----------------------------------------------------


class _Attention(torch.autograd.Function):
    """Softmax attention of a layout; arguments as those of `attend_rows`."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sinks: torch.Tensor | None,
        layout: Layout,
        scaling: float,
        softcap: float | None,
    ) -> torch.Tensor:
        heads, key_heads = query.shape[1], key.shape[1]
        outputs, kept = [], []
        with torch.autocast(query.device.type, enabled=False):
            for group in layout.groups:
                q = _queries(query, group.queries, group, key_heads).mul_(scaling)
                k, v = _keys(key, group), _keys(value, group)
                kept += [q, k, v]
                keep = any(ctx.needs_input_grad) and group.blocked.shape[-1] <= KEPT_WEIGHTS
                attended = []
                for rows, keys in _blocks(group):
                    own = _cut(q, group, rows)
                    weights, rest = _weights(own, k[:, :keys], group, rows, sinks, softcap)
                    attended.append(torch.bmm(weights, v[:, :keys]))
                    kept += [weights, rest] if keep else [q.new_empty(0)] * 2
                outputs.append(_rows(_joined(attended, group), group, heads))
        ctx.layout, ctx.scaling, ctx.heads = layout, scaling, (heads, key_heads)
        ctx.softcap = softcap
        ctx.save_for_backward(sinks, *kept)
        return torch.cat(outputs).index_select(0, layout.place)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        layout, (heads, key_heads) = ctx.layout, ctx.heads
        kept = iter(ctx.saved_tensors)
        sinks = next(kept)
        of_sinks = None if sinks is None else sinks.new_zeros(sinks.shape, dtype=torch.float32)
        # What fills a segment up has no gradient: its place reads this last row of zeros.
        grad = torch.cat([grad, grad.new_zeros(1, *grad.shape[1:])])
        by_group: list[tuple[torch.Tensor, ...]] = []
        shared = []
        with torch.autocast(grad.device.type, enabled=False):
            for group in layout.groups:
                out = _queries(grad, group.graded, group, key_heads)
                dq, dk, dv, ds = _group_gradient(out, kept, group, sinks, ctx.softcap)
                if of_sinks is not None:
                    of_sinks += ds
                dq.mul_(ctx.scaling)
                (own_k, shared_k), (own_v, shared_v) = (_apart(t, group) for t in (dk, dv))
                by_group.append((_rows(dq, group, heads), own_k, own_v))
                if group.shared:
                    shared.append((shared_k, shared_v))
        together = [
            torch.cat(parts).index_select(0, layout.place) for parts in zip(*by_group, strict=True)
        ]
        if shared:
            for whole, parts in zip(together[1:], zip(*shared, strict=True), strict=True):
                front = whole[: layout.shared]
                front.copy_(front.float() + torch.stack(parts).sum(0))
        own_sinks = None if of_sinks is None else of_sinks.to(sinks.dtype)
        return (*together, own_sinks, None, None, None)


def _group_gradient(
    grad: torch.Tensor,
    kept: Iterator[torch.Tensor],
    group: Group,
    sinks: torch.Tensor | None,
    softcap: float | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | float]:
    """Return the gradients of a group's scaled queries, keys and values, and of the sinks.

    `kept` yields q, k and v, and the weights of each block with what its sinks take; empty ones are
    computed again.
    """
    q, k, v = next(kept), next(kept), next(kept)
    dqs, dks, dvs = [], [], []
    of_sinks: torch.Tensor | float = 0.0
    for rows, keys in _blocks(group):
        own, own_k, out = _cut(q, group, rows), k[:, :keys], _cut(grad, group, rows)
        weights, rest = next(kept), next(kept)
        if not weights.numel():
            weights, rest = _weights(own, own_k, group, rows, sinks, softcap)
        dvs.append(torch.bmm(weights.transpose(1, 2), out))
        dw = torch.bmm(out, v[:, :keys].transpose(1, 2))
        # With sinks the weights sum to less than one; the formula is the same, since a sink's own
        # weight is multiplied by no value.
        ds = torch._softmax_backward_data(dw, weights, -1, weights.dtype)
        if sinks is not None:
            lost = rest * torch.linalg.vecdot(dw.float(), weights.float())
            by_head = lost.view(group.count, len(lost) // group.count, -1, rows.stop - rows.start)
            of_sinks = of_sinks - by_head.sum((0, 3)).flatten()
        if softcap:
            slope = torch.bmm(own, own_k.transpose(1, 2)).div_(softcap).tanh_().square_()
            ds = ds.mul_(slope.neg_().add_(1))
        dqs.append(torch.bmm(ds, own_k))
        dks.append(torch.bmm(ds.transpose(1, 2), own))
    return _joined(dqs, group), _summed(dks), _summed(dvs), of_sinks


# --- a long segment, some of its queries at a time -----------------------------------------------


def _blocks(group: Group) -> list[tuple[slice, int]]:
    """Return the blocks of a group's queries, each with the number of keys before its end.

    >>> group = Group(1, 640, 40, *[torch.empty(0)] * 3, torch.empty(1, 1, 1, 640, 768))
    >>> _blocks(group)
    [(slice(0, 256, None), 320), (slice(256, 512, None), 640), (slice(512, 640, None), 768)]
    """
    length, keys = group.blocked.shape[-2:]
    if length <= 2 * QUERY_BLOCK:
        return [(slice(0, length), keys)]
    ends = [*range(QUERY_BLOCK, length, QUERY_BLOCK), length]
    return [
        (slice(start, end), min(keys, rounded_length(group.shared + end)))
        for start, end in zip([0, *ends], ends, strict=False)
    ]


def _cut(whole: torch.Tensor, group: Group, rows: slice) -> torch.Tensor:
    """Take some queries of every segment: (n key heads, L heads / key heads, d), of fewer L."""
    by_head = whole.view(len(whole), -1, group.length, whole.shape[-1])
    return by_head[:, :, rows].reshape(len(whole), -1, whole.shape[-1])


def _joined(parts: list[torch.Tensor], group: Group) -> torch.Tensor:
    """Undo `_cut`."""
    if len(parts) == 1:
        return parts[0]
    per_query = sum(part.shape[1] for part in parts) // group.length
    by_head = [part.view(len(part), per_query, -1, part.shape[-1]) for part in parts]
    return torch.cat(by_head, dim=2).flatten(1, 2)


def _summed(parts: list[torch.Tensor]) -> torch.Tensor:
    """Add up, in float32, what each block gives to the keys before its end; the last has all."""
    if len(parts) == 1:
        return parts[0]
    total = parts[-1].float()
    for part in parts[:-1]:
        total[:, : part.shape[1]] += part
    return total.to(parts[-1].dtype)


# --- between the pack and its groups -------------------------------------------------------------


def _queries(
    rows: torch.Tensor, places: torch.Tensor, group: Group, key_heads: int
) -> torch.Tensor:
    """(T, heads, d) -> (n key heads, L heads / key heads, d): heads that share keys together."""
    n, length = group.count, group.length
    cut = rows.index_select(0, places).view(n, length, key_heads, -1, rows.shape[-1])
    return cut.permute(0, 2, 3, 1, 4).reshape(n * key_heads, -1, rows.shape[-1])


def _keys(rows: torch.Tensor, group: Group) -> torch.Tensor:
    """(T, key heads, d) -> (n key heads, K, d)."""
    cut = rows.index_select(0, group.keys).view(group.count, -1, *rows.shape[1:])
    return cut.transpose(1, 2).reshape(-1, cut.shape[1], rows.shape[-1])


def _weights(
    q: torch.Tensor,
    k: torch.Tensor,
    group: Group,
    rows: slice,
    sinks: torch.Tensor | None,
    softcap: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax of some queries' scores, (n key heads, of these L heads / key heads, keys).

    And what is left of it for the sinks, without the last dimension; empty where there are none.
    """
    blocked = group.blocked[..., rows, : k.shape[1]]
    scores = torch.bmm(q, k.transpose(1, 2))
    if softcap:
        scores.div_(softcap).tanh_().mul_(softcap)
    by_segment = scores.view(
        group.count, -1, scores.shape[1] // blocked.shape[-2], *blocked.shape[-2:]
    )
    # In one type: added in two, every score would be cast for itself.
    by_segment += blocked.to(scores.dtype)
    if sinks is None:
        return scores.softmax(-1), scores.new_empty(0)
    total = scores.float().logsumexp(-1)
    own = sinks.float().view(by_segment.shape[1], -1, 1)  # (key heads, heads / key heads, 1)
    by_head = total.view(group.count, *own.shape[:2], -1)
    rest = torch.sigmoid(own - by_head).view(total.shape)
    return scores.softmax(-1).mul_((1 - rest)[..., None]), rest


def _rows(cut: torch.Tensor, group: Group, heads: int) -> torch.Tensor:
    """Undo `_queries`: (n L, heads, d)."""
    n, length, d = group.count, group.length, cut.shape[-1]
    by_head = cut.view(n, -1, heads * n // cut.shape[0], length, d)
    return by_head.permute(0, 3, 1, 2, 4).reshape(n * length, heads, d)


def _apart(cut: torch.Tensor, group: Group) -> tuple[torch.Tensor, torch.Tensor]:
    """Undo `_keys`: the segments' own part, (n L, key heads, d), and that of the shared keys.

    The latter is summed over the segments, in float32: (S, key heads, d).
    """
    n, length, shared = group.count, group.length, group.shared
    by_head = cut.view(n, -1, *cut.shape[1:])
    own = by_head[:, :, shared : shared + length].transpose(1, 2)
    of_shared = by_head[:, :, :shared].float().sum(0).transpose(0, 1)
    return own.reshape(n * length, -1, cut.shape[-1]), of_shared


# --- through transformers' registry --------------------------------------------------------------


def register() -> None:
    """Make `attn_implementation="instil"` known to transformers; safe to call twice."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def can_take_over(model: Any) -> bool:
    """Whether the model's attention layers ask transformers' registry how to attend."""
    register()
    return bool(model._can_set_attn_implementation())


def reading() -> Reading | None:
    """Return along what the forward pass attends that this is called in; None: in its own way."""
    return _reading.get()


@contextlib.contextmanager
def by_segments(model: Any, along: Reading) -> Iterator[None]:
    """Within the block the model attends by `attend`; outside of it by its own implementation.

    A backward pass that computes layers again must run within the same block too.
    """
    register()
    held: list[Any] = [getattr(module, "config", None) for module in model.modules()]
    configs = {id(c): c for c in held if hasattr(c, "_attn_implementation_internal")}
    before = {key: config._attn_implementation_internal for key, config in configs.items()}
    for config in configs.values():
        config._attn_implementation_internal = NAME
    token = _reading.set(along)
    try:
        yield
    finally:
        _reading.reset(token)
        for key, config in configs.items():
            config._attn_implementation_internal = before[key]
