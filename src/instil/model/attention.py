"""Attention for packs: every segment attends to itself alone.

Registered with transformers under the name `instil`. A forward pass that gives `segment_lengths`
gets causal attention within each segment, computed segment by segment: no T x T mask
is made, and nothing can leak from one example into the next. Without `segment_lengths` it is
transformers' own SDPA attention with its masks.

On a CPU the products are written out, because SDPA's bf16 backward pass is slow there (docs/002).
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "instil"


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    segment_lengths: tuple[int, ...] | None = None,
    shared_prefix: int = 0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within segments, and from every segment back to a prefix that they share.

    Args:
        module: The attention layer.
        query: (1, heads, T, d).
        key: (1, key heads, T, d).
        value: (1, key heads, T, d).
        attention_mask: Only used without `segment_lengths`.
        segment_lengths: Tokens of each segment; with the prefix they sum to T.
        shared_prefix: Tokens in front that every segment begins with.
        kwargs: transformers' `scaling`, `sliding_window`, `dropout` ...

    Returns:
        (1, T, heads, d) and None, as transformers wants it.
    """
    if segment_lengths is None:
        plain: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **kwargs
        )
        return plain
    scaling = kwargs.get("scaling") or query.shape[-1] ** -0.5
    window = kwargs.get("sliding_window")
    lengths = [shared_prefix, *segment_lengths]
    queries, keys, values = (torch.split(t[0], lengths, dim=1) for t in (query, key, value))
    one = _segment_on_cpu if query.device.type == "cpu" else _segment_sdpa
    outputs = [one(queries[0], keys[0], values[0], scaling, window)] if shared_prefix else []
    for q, k, v in zip(queries[1:], keys[1:], values[1:], strict=True):
        if shared_prefix:
            k, v = torch.cat([keys[0], k], dim=1), torch.cat([values[0], v], dim=1)
        outputs.append(one(q, k, v, scaling, window))
    return torch.cat(outputs, dim=1).transpose(0, 1)[None].contiguous(), None


def _segment_on_cpu(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, window: int | None
) -> torch.Tensor:
    heads, length, width = query.shape
    key_heads, seen = key.shape[:2]
    # Query heads that share a key head are laid one after another: one product serves them all.
    query = (query * scaling).reshape(key_heads, -1, width)
    scores = torch.bmm(query, key.transpose(1, 2)).view(key_heads, -1, length, seen).float()
    scores = scores + _blocked(length, seen, window, query.device)
    weights = scores.softmax(-1).to(value.dtype).view(key_heads, -1, seen)
    return torch.bmm(weights, value).view(heads, length, width)


def _segment_sdpa(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, window: int | None
) -> torch.Tensor:
    length, seen = query.shape[1], key.shape[1]
    causal = window is None and length == seen
    mask = None if causal else _blocked(length, seen, window, query.device).to(query.dtype)
    return torch.nn.functional.scaled_dot_product_attention(
        query[None],
        key[None],
        value[None],
        attn_mask=mask,
        is_causal=causal,
        scale=scaling,
        enable_gqa=query.shape[0] != key.shape[0],
    )[0]


def _blocked(length: int, seen: int, window: int | None, device: torch.device) -> torch.Tensor:
    """(length, seen): 0 where a query may look, -inf where not; the queries are the last keys."""
    offset = seen - length
    blocked = torch.ones(length, seen, dtype=torch.bool, device=device).triu(offset + 1)
    if window and seen > window:
        blocked |= torch.ones_like(blocked).tril(offset - window)
    return torch.zeros(length, seen, device=device).masked_fill_(blocked, float("-inf"))


def register() -> None:
    """Make `attn_implementation="instil"` known to transformers; safe to call twice."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
