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

from functools import lru_cache
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "instil"


Shape = tuple[int, ...]
"""Tokens of a segment: its trunk, then each of its branches."""


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    segments: tuple[Shape, ...] | None = None,
    shared_prefix: int = 0,
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
        kwargs: transformers' `scaling`, `sliding_window`, `dropout` ...

    Returns:
        (1, T, heads, d) and None, as transformers wants it.
    """
    if segments is None:
        plain: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **kwargs
        )
        return plain
    scaling = kwargs.get("scaling") or query.shape[-1] ** -0.5
    window = kwargs.get("sliding_window")
    lengths = [shared_prefix, *map(sum, segments)]
    queries, keys, values = (torch.split(t[0], lengths, dim=1) for t in (query, key, value))
    one = _on_cpu if query.device.type == "cpu" else _sdpa
    blocked = _blocked((shared_prefix,), 0, window, query.device)
    outputs = [one(queries[0], keys[0], values[0], scaling, blocked)] if shared_prefix else []
    for shape, q, k, v in zip(segments, queries[1:], keys[1:], values[1:], strict=True):
        if shared_prefix:
            k, v = torch.cat([keys[0], k], dim=1), torch.cat([values[0], v], dim=1)
        blocked = _blocked(shape, shared_prefix, window, query.device)
        outputs.append(one(q, k, v, scaling, blocked))
    return torch.cat(outputs, dim=1).transpose(0, 1)[None].contiguous(), None


def _on_cpu(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float,
    blocked: torch.Tensor,
) -> torch.Tensor:
    heads, length, width = query.shape
    key_heads, seen = key.shape[:2]
    # Query heads that share a key head are laid one after another: one product serves them all.
    query = (query * scaling).reshape(key_heads, -1, width)
    scores = torch.bmm(query, key.transpose(1, 2)).view(key_heads, -1, length, seen).float()
    weights = (scores + blocked).softmax(-1).to(value.dtype).view(key_heads, -1, seen)
    return torch.bmm(weights, value).view(heads, length, width)


def _sdpa(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float,
    blocked: torch.Tensor,
) -> torch.Tensor:
    return torch.nn.functional.scaled_dot_product_attention(
        query[None],
        key[None],
        value[None],
        attn_mask=blocked.to(query.dtype),
        scale=scaling,
        enable_gqa=query.shape[0] != key.shape[0],
    )[0]


@lru_cache(maxsize=4096)
def _blocked(shape: Shape, shared: int, window: int | None, device: torch.device) -> torch.Tensor:
    """(tokens of the segment, shared + those): 0 where a query may look, -inf where it may not."""
    trunk, *branches = shape
    places = [*range(shared + trunk)]
    owners = [-1] * (shared + trunk)
    for number, length in enumerate(branches):
        places += range(shared + trunk, shared + trunk + length)
        owners += [number] * length
    place, owner = torch.tensor(places, device=device), torch.tensor(owners, device=device)
    far = place[shared:, None] - place[None, :]
    seen = (far >= 0) & ((owner[None, :] == -1) | (owner[shared:, None] == owner[None, :]))
    if window:
        seen &= far < window
    return torch.zeros(seen.shape, device=device).masked_fill_(~seen, float("-inf"))


def register() -> None:
    """Make `attn_implementation="instil"` known to transformers; safe to call twice."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
