"""SHiRA without a second copy of the weights: single weights are changed as a layer is computed.

PEFT adds a sparse matrix to a copy of the weight and keeps the sum for the backward pass, a whole
model of them. Here the sum is made again instead::

    y  = x V^T + b           V = W, but V[i, j] = W[i, j] + s c[n] at the n-th chosen place
    dx = dy V                dc[n] = s (dy^T x)[i, j]

in the type of the base weights, with float32 changes and gradients; at the chosen places weight and
change are added in float32, and the sum alone is rounded. PEFT's modules stay what they are, as in
`fused`; their forward pass is left to PEFT wherever the case is not this plain one.

Tests: `tests/model/test_adapter_kinds.py`.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.shira import Linear as ShiraLinear


def lean_shira(model: torch.nn.Module) -> None:
    """Take over the forward pass of the model's SHiRA layers; the figures stay, to rounding."""
    for layer in model.modules():
        if isinstance(layer, ShiraLinear):
            layer.forward = _forward(layer, layer.forward)


def _forward(layer: Any, plain: Any) -> Any:
    def forward(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        names = layer.active_adapters
        usual = not layer.disable_adapters and not layer.merged and len(names) == 1
        if args or kwargs or not usual or type(layer.base_layer) is not torch.nn.Linear:
            out: torch.Tensor = plain(x, *args, **kwargs)
            return out
        base, (name,) = layer.base_layer, names
        changes, scale = layer.shira_weight[name], layer.scaling[name]
        places = layer.shira_indices[name].to(changes.device)
        y: torch.Tensor = _Changed.apply(x, base.weight, base.bias, changes, places, scale)
        return y

    return forward


def _summed(
    weight: torch.Tensor, changes: torch.Tensor, places: torch.Tensor, scale: float
) -> torch.Tensor:
    rows, columns = places
    out = weight.clone()
    out[rows, columns] = (weight[rows, columns].float() + scale * changes).to(weight.dtype)
    return out


class _Changed(torch.autograd.Function):
    """x: (..., in), weight: (out, in), changes: (places,), places: (2, places)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        changes: torch.Tensor,
        places: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        ctx.scale, ctx.input_type = scale, x.dtype
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(weight.dtype)
            summed = _summed(weight, changes, places, scale)
            y = torch.nn.functional.linear(x, summed, bias)
        ctx.save_for_backward(x, weight, changes, places)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        (grad,) = grads
        x, weight, changes, places = ctx.saved_tensors
        of_x = None
        with torch.autocast(x.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                summed = _summed(weight, changes, places, ctx.scale)
                of_x = (grad @ summed).to(ctx.input_type)
            rows, columns = places
            of_sum = grad.flatten(0, -2).t() @ x.flatten(0, -2)
            of_changes = of_sum[rows, columns].float().mul_(ctx.scale)
        return of_x, None, None, of_changes, None, None
