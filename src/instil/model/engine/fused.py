"""LoRA without waste: layers that read the same input are computed together.

PEFT computes each adapted layer by itself: the input is cast to float32, multiplied with A, with B,
scaled, added; and the backward pass adds up one gradient of the input a layer. q, k and v (or gate
and up) share their input x, so here::

    h = x [A_q A_k A_v]^T            one product                       (T, 3 r)
    y_i = x W_i^T + h_i (s B_i)^T    the second product adds in place  (T, out_i)

    dx = sum_i dy_i W_i + dh [A_q A_k A_v]      dh_i = dy_i (s B_i)
    dA = dh^T x                                 one product for all
    dB_i = s (h_i^T dy_i)^T                     tall matrices are read along their rows

in the type of the base weights, with float32 adapter weights and gradients. The base weights get no
gradient; 4-bit ones (`model.nf4`) are made whole in each pass. PEFT's modules stay what they are
(saving, merging and switching off are its own); only their forward pass is taken over, and left to
PEFT wherever the case is not this plain one.

Tests: `tests/model/engine/test_packed.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora import LoraLayer

from instil.model.nf4 import is_packed, packing, whole


def fuse_lora(model: torch.nn.Module) -> None:
    """Take over the forward pass of the model's LoRA layers; the figures stay, to rounding."""
    for layer in model.modules():
        if _is_lora(layer):
            layer.forward = _forward(layer, layer.forward)


def _forward(layer: Any, plain: Any) -> Any:
    def forward(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if args or kwargs or not _is_plain(layer):
            out: torch.Tensor = plain(x, *args, **kwargs)
            return out
        return lora_linears(x, [layer])[0]

    return forward


def linears(x: torch.Tensor, *layers: Any) -> tuple[torch.Tensor, ...]:
    """Apply layers, with adapters or without, that read the same input."""
    if all(_is_lora(layer) and _is_plain(layer) for layer in layers):
        return lora_linears(x, layers)
    return tuple(layer(x) for layer in layers)


def _is_lora(layer: Any) -> bool:
    """Whether this is PEFT's layer around a linear one, whole or packed."""
    return type(layer) is LoraLinear or (
        isinstance(layer, LoraLayer) and is_packed(layer.base_layer)
    )


def _is_plain(layer: Any) -> bool:
    """Whether this is W x + s B A x and nothing else, now."""
    if layer.disable_adapters or layer.merged or len(layer.active_adapters) != 1:
        return False
    name = layer.active_adapters[0]
    return (
        (type(layer.base_layer) is torch.nn.Linear or is_packed(layer.base_layer))
        and name in layer.lora_A
        and name not in layer.lora_variant
        and layer.lora_B[name].bias is None
        and not layer.base_layer.weight.requires_grad
        and not (layer.training and getattr(layer.lora_dropout[name], "p", 0.0))
    )


def lora_linears(x: torch.Tensor, layers: Sequence[Any]) -> tuple[torch.Tensor, ...]:
    """Apply plain LoRA layers to one input.

    Args:
        x: (..., in).
        layers: PEFT's, each of (in -> out_i).

    Returns:
        One (..., out_i) a layer, in the type of the base weights.
    """
    name = [layer.active_adapters[0] for layer in layers]
    flat = []
    for layer, adapter in zip(layers, name, strict=True):
        flat += [
            layer.base_layer.weight,
            layer.base_layer.bias,
            layer.lora_A[adapter].weight,
            layer.lora_B[adapter].weight,
        ]
    states = tuple(packing(layer.base_layer.weight) for layer in layers)
    scales = tuple(layer.scaling[a] for layer, a in zip(layers, name, strict=True))
    rows = x.reshape(-1, x.shape[-1])
    outputs: tuple[torch.Tensor, ...] = _LoraLinears.apply(rows, scales, states, *flat)
    return tuple(y.view(*x.shape[:-1], y.shape[-1]) for y in outputs)


class _LoraLinears(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        scales: tuple[float, ...],
        states: tuple[Any, ...],
        *flat: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        bases, biases, downs, ups = (flat[n::4] for n in range(4))
        with torch.autocast(x.device.type, enabled=False):
            kind = bases[0].dtype if states[0] is None else states[0].dtype
            ctx.input_type = x.dtype
            x = x.to(kind)
            down = torch.cat(downs).to(kind)
            hidden = x @ down.t()
            outputs = []
            parts = hidden.split([a.shape[0] for a in downs], dim=1)
            scaled = [(b * s).to(kind) for b, s in zip(ups, scales, strict=True)]
            each = zip(bases, states, biases, scaled, parts, strict=True)
            for base, state, bias, up, h in each:
                y = torch.nn.functional.linear(x, whole(base, state), bias)
                outputs.append(y.addmm_(h, up.t()))
        ctx.states = states
        ctx.scales, ctx.ranks = scales, [a.shape[0] for a in downs]
        ctx.save_for_backward(x, hidden, down, *bases, *scaled)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        x, hidden, down, *rest = ctx.saved_tensors
        count = len(ctx.ranks)
        bases, scaled = rest[:count], rest[count:]
        with torch.autocast(x.device.type, enabled=False):
            dh = torch.cat([g @ up for g, up in zip(grads, scaled, strict=True)], dim=1)
            dx = None
            if ctx.needs_input_grad[0]:
                dx = dh @ down
                for g, base, state in zip(grads, bases, ctx.states, strict=True):
                    dx.addmm_(g, whole(base, state))
                dx = dx.to(ctx.input_type)
            d_downs = (dh.t() @ x).float().split(ctx.ranks)
            parts = hidden.split(ctx.ranks, dim=1)
            d_ups = [
                (h.t() @ g).t().float().mul_(s)
                for h, g, s in zip(parts, grads, ctx.scales, strict=True)
            ]
        flat = [each for a, b in zip(d_downs, d_ups, strict=True) for each in (None, None, a, b)]
        return (dx, None, None, *flat)
