"""The optimizer and its schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch


def adamw(
    parameters: Mapping[str, torch.nn.Parameter], *, learning_rate: float, weight_decay: float
) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101); vectors (norms, biases) do not decay."""
    matrices = [p for p in parameters.values() if p.ndim >= 2]
    vectors = [p for p in parameters.values() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    # Fused: one pass over each tensor instead of ten.
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=learning_rate, fused=True)


def rate(step: int, *, peak: float, steps: int, warmup_ratio: float, schedule: str) -> float:
    """Return the learning rate of a step, counted from 1 to `steps`.

    It climbs linearly to `peak` over the warm-up, then falls to zero along a line or a cosine, or
    stays.

    >>> [round(rate(s, peak=1.0, steps=4, warmup_ratio=0.25, schedule="linear"), 2)
    ...  for s in (1, 2, 3, 4)]
    [1.0, 0.75, 0.5, 0.25]
    """
    warmup = max(1, round(steps * warmup_ratio))
    if step <= warmup:
        return peak * step / warmup
    done = (step - warmup) / max(1, steps - warmup + 1)
    if schedule == "constant":
        return peak
    if schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * done))
    return peak * (1 - done)
