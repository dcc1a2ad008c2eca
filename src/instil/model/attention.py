r"""Attention for packs: every segment attends to itself alone.

Registered with transformers under the name `instil`. A forward pass that gives `segments` gets
causal attention within each segment, computed segment by segment: no T x T mask is made, and
nothing can leak from one example into the next. A segment is a *trunk* that may end in *branches*
(the choices behind a prompt), which see the trunk and themselves but not one another; and all
segments may begin with a *shared prefix* that stands once in front::

    prefix | trunk 0 | branch A | branch B B | trunk 1 | branch A | branch B B
    shared   \___________ segment 0 _______/   \________ segment 1 _________/

Without `segments` it is transformers' own SDPA attention with its masks.

On a CPU the products are written out, because SDPA's bf16 backward pass is slow there (docs/002).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "instil"

KEPT_WEIGHTS = 512
"""Attention weights over more keys than these are computed again in the backward pass, not kept."""

GROUP_TOKENS = 512
"""Queries computed at once, about: their attention weights should stay in the processor's cache."""

Shape = tuple[int, ...]
"""Tokens of a segment: its trunk, then each of its branches."""


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
    ) -> torch.Tensor:
        """Return (T, heads, d)."""
        ...


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    segments: tuple[Shape, ...] | None = None,
    shared_prefix: int = 0,
    memory: Remembering | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within segments, and from every segment back to the prefix that they share.

    Args:
        module: The attention layer.
        query: (1, heads, T, d).
        key: (1, key heads, T, d).
        value: (1, key heads, T, d).
        attention_mask: Only used without `segments`.
        segments: The shape of each segment; with the prefix they sum to T.
        shared_prefix: Tokens in front that every segment begins with.
        memory: Attends in place of all this, and keeps keys and values (`model.memory`).
        kwargs: transformers' `scaling`, `sliding_window`, `dropout` ...

    Returns:
        (1, T, heads, d) and None, as transformers wants it.
    """
    if segments is None and memory is None:
        plain: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **kwargs
        )
        return plain
    scaling = kwargs.get("scaling") or query.shape[-1] ** -0.5
    window = kwargs.get("sliding_window")
    q, k, v = (t[0].transpose(0, 1) for t in (query, key, value))
    if memory is not None:
        return memory(module.layer_idx, q, k, v, scaling=scaling, window=window)[None], None
    assert segments is not None
    layout = lay_out(segments, shared_prefix, window, query.device)
    return attend_rows(q, k, v, layout, scaling)[None], None


def attend_rows(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: Layout, scaling: float
) -> torch.Tensor:
    """Attend along a layout: query (T, heads, d), key and value (T, key heads, d), as the query."""
    if query.device.type == "cpu":
        out: torch.Tensor = _Attention.apply(query, key, value, layout, scaling)
        return out
    return _sdpa(query, key, value, layout, scaling)


# --- which tokens are computed together ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Group:
    """Segments of about one length, filled up to L tokens each, n of them; S keys are shared."""

    count: int
    """n, filled up with empty segments."""
    length: int
    """L."""
    shared: int
    """S."""
    queries: torch.Tensor
    """(n L,) places in the pack; the last one where there is no token."""
    graded: torch.Tensor
    """(n L,) the same for gradients: T where there is no token, behind all that have one."""
    keys: torch.Tensor
    """(n K,) places in the pack, 0 where there is no token; K is S + L, rounded up."""
    blocked: torch.Tensor
    """(1 or n, 1, 1, L, K): 0 where a query may look, -inf where it may not."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a pack is cut into groups, and put together again."""

    groups: tuple[Group, ...]
    """All of them; their outputs stand one behind another."""
    place: torch.Tensor
    """(T,) where each token of the pack stands among those outputs."""
    shared: int
    """Tokens in front that every segment looks back at."""


@lru_cache(maxsize=16)
def lay_out(
    segments: tuple[Shape, ...],
    shared: int,
    window: int | None,
    device: torch.device,
    *,
    own_queries: bool = False,
) -> Layout:
    """Cut a pack into groups; few and round sizes, since new shapes cost oneDNN milliseconds.

    With `own_queries` the prefix stands among the keys alone: it has been read before.
    """
    starts, total = [], shared
    for shape in segments:
        starts.append(total)
        total += sum(shape)
    alike: dict[int, list[tuple[int, Shape]]] = defaultdict(list)
    for start, shape in zip(starts, segments, strict=True):
        alike[rounded_length(sum(shape))].append((start, shape))
    cut: list[tuple[int, int, list[tuple[int, Shape]]]] = []
    if shared and not own_queries:
        cut.append((rounded_length(shared), 0, [(0, (shared,))]))
    for length, members in alike.items():
        most = max(1, GROUP_TOKENS // length)
        cut += [(length, shared, members[n : n + most]) for n in range(0, len(members), most)]
    groups, place, done = [], torch.empty(total, dtype=torch.long), 0
    for length, behind, members in cut:
        group = _group(members, length, behind, window, total)
        if own_queries:
            group = replace(group, queries=group.queries - shared, graded=group.graded - shared)
        for number, (start, shape) in enumerate(members):
            first = done + number * group.length
            place[start : start + sum(shape)] = torch.arange(first, first + sum(shape))
        done += group.count * group.length
        groups.append(_moved(group, device))
    place = place[shared:] if own_queries else place
    return Layout(tuple(groups), place.to(device), shared)


def _group(
    members: Sequence[tuple[int, Shape]], length: int, shared: int, window: int | None, total: int
) -> Group:
    count = rounded_count(len(members))
    queries = torch.full((count, length), total)
    keys = torch.zeros((count, rounded_length(shared + length)), dtype=torch.long)
    keys[:, :shared] = torch.arange(shared)
    for number, (start, shape) in enumerate(members):
        own = torch.arange(start, start + sum(shape))
        queries[number, : len(own)] = own
        keys[number, shared : shared + len(own)] = own
    shapes = [shape for _, shape in members]
    if all(len(shape) == 1 for shape in shapes):  # plain causal: no query looks beyond its segment
        shapes = [(length,)]
    blocked = torch.stack([_blocked(shape, length, shared, window) for shape in shapes])
    if 1 < len(shapes) < count:
        blocked = torch.cat([blocked, blocked[:1].expand(count - len(shapes), -1, -1)])
    return Group(
        count,
        length,
        shared,
        queries.flatten().clamp(max=total - 1),
        queries.flatten(),
        keys.flatten(),
        blocked[:, None, None].contiguous(),
    )


def _moved(group: Group, device: torch.device) -> Group:
    tensors = (group.queries, group.graded, group.keys, group.blocked)
    return Group(group.count, group.length, group.shared, *(t.to(device) for t in tensors))


def _blocked(shape: Shape, length: int, shared: int, window: int | None) -> torch.Tensor:
    """(L, K): 0 where a query may look, -inf where it may not.

    What fills the segment up stands behind everything, so no real query looks at it.
    """
    trunk, *branches = shape
    places = [*range(shared + trunk)]
    owners = [-1] * (shared + trunk)
    for number, branch in enumerate(branches):
        places += range(shared + trunk, shared + trunk + branch)
        owners += [number] * branch
    missing = rounded_length(shared + length) - len(places)
    places += range(shared + sum(shape), shared + sum(shape) + missing)
    owners += [-1] * missing
    place, owner = torch.tensor(places), torch.tensor(owners)
    ours = slice(shared, shared + length)
    far = place[ours, None] - place[None, :]
    seen = (far >= 0) & ((owner[None, :] == -1) | (owner[ours, None] == owner[None, :]))
    if window:
        seen &= far < window
    return torch.zeros(seen.shape).masked_fill_(~seen, float("-inf"))


def rounded_length(length: int) -> int:
    """Round a length up to one of few: at most 32 more, or an eighth.

    >>> [rounded_length(n) for n in (5, 33, 300, 1000)]
    [32, 64, 320, 1024]
    """
    step = 32
    while step * 8 < length:
        step *= 2
    return -(-length // step) * step


def rounded_count(count: int) -> int:
    """Round a count up to a power of two, or one and a half of one.

    >>> [rounded_count(n) for n in (1, 3, 5, 7, 13)]
    [1, 3, 6, 8, 16]
    """
    power = 1
    while power < count:
        power *= 2
    return power * 3 // 4 if power >= 4 and power * 3 // 4 >= count else power


# --- on a CPU: written out, with its own backward pass -------------------------------------------


class _Attention(torch.autograd.Function):
    """Softmax attention of a layout; query (T, heads, d), key and value (T, key heads, d)."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        layout: Layout,
        scaling: float,
    ) -> torch.Tensor:
        heads, key_heads = query.shape[1], key.shape[1]
        outputs, kept = [], []
        with torch.autocast("cpu", enabled=False):
            for group in layout.groups:
                q = _queries(query, group.queries, group, key_heads).mul_(scaling)
                k, v = _keys(key, group), _keys(value, group)
                weights = _weights(q, k, group)
                outputs.append(_rows(torch.bmm(weights, v), group, heads))
                many = weights.shape[-1] > KEPT_WEIGHTS
                kept += [q, k, v, q.new_empty(0) if many else weights]
        ctx.layout, ctx.scaling, ctx.heads = layout, scaling, (heads, key_heads)
        ctx.save_for_backward(*kept)
        return torch.cat(outputs).index_select(0, layout.place)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        layout, (heads, key_heads) = ctx.layout, ctx.heads
        kept = ctx.saved_tensors
        # What fills a segment up has no gradient: its place reads this last row of zeros.
        grad = torch.cat([grad, grad.new_zeros(1, *grad.shape[1:])])
        found: list[tuple[torch.Tensor, ...]] = []
        shared = []
        with torch.autocast("cpu", enabled=False):
            for n, group in enumerate(layout.groups):
                q, k, v, weights = kept[4 * n : 4 * n + 4]
                if not weights.numel():
                    weights = _weights(q, k, group)
                out = _queries(grad, group.graded, group, key_heads)
                dv = torch.bmm(weights.transpose(1, 2), out)
                dw = torch.bmm(out, v.transpose(1, 2))
                ds = torch._softmax_backward_data(dw, weights, -1, weights.dtype)
                dq = torch.bmm(ds, k).mul_(ctx.scaling)
                dk = torch.bmm(ds.transpose(1, 2), q)
                found.append((_rows(dq, group, heads), *(_own(t, group) for t in (dk, dv))))
                if group.shared:
                    shared.append([_of_shared(t, group) for t in (dk, dv)])
        together = [
            torch.cat(each).index_select(0, layout.place) for each in zip(*found, strict=True)
        ]
        if shared:
            for whole, parts in zip(together[1:], zip(*shared, strict=True), strict=True):
                front = whole[: layout.shared]
                front.copy_(front.float() + torch.stack(parts).sum(0))
        return (*together, None, None)


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


def _weights(q: torch.Tensor, k: torch.Tensor, group: Group) -> torch.Tensor:
    """Softmax of the scores, (n key heads, L heads / key heads, K)."""
    scores = torch.bmm(q, k.transpose(1, 2))
    by_segment = scores.view(
        group.count, -1, scores.shape[1] // group.length, *group.blocked.shape[-2:]
    )
    by_segment += group.blocked
    return scores.softmax(-1)


def _rows(cut: torch.Tensor, group: Group, heads: int) -> torch.Tensor:
    """Undo `_queries`: (n L, heads, d)."""
    n, length, d = group.count, group.length, cut.shape[-1]
    by_head = cut.view(n, -1, heads * n // cut.shape[0], length, d)
    return by_head.permute(0, 3, 1, 2, 4).reshape(n * length, heads, d)


def _own(cut: torch.Tensor, group: Group) -> torch.Tensor:
    """Undo `_keys` for the segments' own keys: (n L, key heads, d)."""
    own = slice(group.shared, group.shared + group.length)
    by_head = cut.view(group.count, -1, *cut.shape[1:])[:, :, own]
    return by_head.transpose(1, 2).reshape(group.count * group.length, -1, cut.shape[-1])


def _of_shared(cut: torch.Tensor, group: Group) -> torch.Tensor:
    """Sum the shared keys' part over the segments, in float32: (S, key heads, d)."""
    by_head = cut.view(group.count, -1, *cut.shape[1:])[:, :, : group.shared]
    return by_head.float().sum(0).transpose(0, 1)


# --- elsewhere: the library's kernels on the same layout -----------------------------------------


def _sdpa(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: Layout, scaling: float
) -> torch.Tensor:
    outputs = []
    for group in layout.groups:
        q, k, v = (
            t.index_select(0, places).view(group.count, -1, *t.shape[1:]).transpose(1, 2)
            for t, places in ((query, group.queries), (key, group.keys), (value, group.keys))
        )
        out = torch.nn.functional.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=group.blocked[:, 0].to(q.dtype),
            scale=scaling,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        outputs.append(out.transpose(1, 2).reshape(-1, *query.shape[1:]))
    return torch.cat(outputs).index_select(0, layout.place)


def register() -> None:
    """Make `attn_implementation="instil"` known to transformers; safe to call twice."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
