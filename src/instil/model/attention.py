"""Attention for packs: every segment attends to itself alone.

Registered with transformers under the name `instil`. A forward pass that gives `segment_lengths`
(their sum is T) gets causal attention within each segment, computed segment by segment: no T x T mask
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
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within segments.

    Args:
        module: The attention layer, for `num_key_value_groups`.
        query: (1, heads, T, d).
        key: (1, key heads, T, d).
        value: (1, key heads, T, d).
        attention_mask: Only used without `segment_lengths`.
        segment_lengths: Tokens of each segment; they sum to T.
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
    parts = [torch.split(t[0], list(segment_lengths), dim=1) for t in (query, key, value)]
    one = _segment_on_cpu if query.device.type == "cpu" else _segment_sdpa
    outputs = [one(q, k, v, scaling, window) for q, k, v in zip(*parts, strict=True)]
    return torch.cat(outputs, dim=1).transpose(0, 1)[None].contiguous(), None


def _segment_on_cpu(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, window: int | None
) -> torch.Tensor:
    heads, length, width = query.shape
    key_heads = key.shape[0]
    # Query heads that share a key head are laid one after another: one product serves them all.
    query = (query * scaling).reshape(key_heads, -1, width)
    scores = torch.bmm(query, key.transpose(1, 2)).view(key_heads, -1, length, length).float()
    scores = scores + _blocked(length, window, query.device)
    weights = scores.softmax(-1).to(value.dtype).view(key_heads, -1, length)
    return torch.bmm(weights, value).view(heads, length, width)


def _segment_sdpa(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, window: int | None
) -> torch.Tensor:
    length = query.shape[1]
    mask = _blocked(length, window, query.device).to(query.dtype) if window else None
    return torch.nn.functional.scaled_dot_product_attention(
        query[None],
        key[None],
        value[None],
        attn_mask=mask,
        is_causal=mask is None,
        scale=scaling,
        enable_gqa=query.shape[0] != key.shape[0],
    )[0]


def _blocked(length: int, window: int | None, device: torch.device) -> torch.Tensor:
    """(length, length): 0 where a query may look, -inf where it may not."""
    future = torch.ones(length, length, dtype=torch.bool, device=device).triu(1)
    if window and length > window:
        future |= torch.ones_like(future).tril(-window)
    return torch.zeros(length, length, device=device).masked_fill_(future, float("-inf"))


def register() -> None:
    """Make `attn_implementation="instil"` known to transformers; safe to call twice."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
