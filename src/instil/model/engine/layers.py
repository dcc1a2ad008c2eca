"""The decoder's layers, written out for packs: what transformers computes, with less around it.

For models of llama's build (Llama, SmolLM2, Mistral, Qwen2, Qwen3)::

    x + attention(norm(x))        q, k, v -> rotate q, k -> attend within segments -> o
    x + mlp(norm(x))              gate, up -> act(gate) up -> down

The modules and weights are transformers' own (with PEFT's adapters in them); only the operations
between the matrix products are fewer, and keep less for the backward pass. The last layer's output
is computed only at the places that are asked for. Other builds go through transformers' own code.

Tests: `tests/model/engine/test_packed.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers.activations import SiLUActivation

from instil.encode.batch import Batch
from instil.model.engine.attention import Remembering, attend_rows
from instil.model.engine.fused import linears
from instil.model.engine.layout import lay_out

KNOWN = ("llama", "mistral", "qwen2", "qwen3")
"""transformers' names of the builds written out here."""


def fits(decoder: Any) -> bool:
    """Whether the decoder is of a build that the tests hold to float32's rounding."""
    return decoder.config.model_type in KNOWN


def run_layers(
    decoder: Any,
    batch: Batch,
    places: torch.Tensor,
    *,
    recompute: bool = False,
    memory: Remembering | None = None,
    depth: int | None = None,
) -> torch.Tensor:
    """Return the final hidden states at some places.

    Args:
        decoder: A transformers decoder that `fits`.
        batch: What it reads, T tokens.
        places: (S,) which of the T tokens are wanted.
        recompute: Keep only each layer's input, and compute it again in the backward pass.
        memory: Attends in place of the batch's segments, as in `attention.attend`.
        depth: Compute so many layers, and leave the final norm out; None: all of it.

    Returns:
        (S, hidden).
    """
    x = decoder.embed_tokens(batch.ids)
    turn = tuple(t[0, :, None] for t in decoder.rotary_emb(x, position_ids=batch.positions))
    x = x[0]
    layers = decoder.layers[:depth]
    last = len(layers) - 1
    for number, layer in enumerate(layers):
        everywhere = getattr(decoder.config, "sliding_window", None)
        window = getattr(layer.self_attn, "sliding_window", everywhere)
        scaling = layer.self_attn.scaling
        if memory is not None:
            attention = partial(memory, number, scaling=scaling, window=window)
        else:
            layout = lay_out(batch.segments, batch.shared_prefix, window, x.device)
            attention = partial(attend_rows, layout=layout, scaling=scaling)
        wanted = places if number == last else None
        if recompute and torch.is_grad_enabled():
            x = checkpoint(_layer, layer, x, turn, attention, wanted, use_reentrant=False)
        else:
            x = _layer(layer, x, turn, attention, wanted)
    return x if len(layers) < len(decoder.layers) else rms_norm(x, decoder.norm)


def _layer(
    layer: Any,
    x: torch.Tensor,
    turn: tuple[torch.Tensor, ...],
    attend: Callable[..., torch.Tensor],
    places: torch.Tensor | None,
) -> torch.Tensor:
    """One layer over (T, hidden); with `places` its output at those alone.

    `turn`: cosine and sine of each token's position, (T, 1, d) each.
    """
    attention, mlp = layer.self_attn, layer.mlp
    width = attention.head_dim
    h = rms_norm(x, layer.input_layernorm)
    outputs = linears(h, attention.q_proj, attention.k_proj, attention.v_proj)
    q, k, v = (y.view(len(y), -1, width) for y in outputs)
    if hasattr(attention, "q_norm"):
        q, k = rms_norm(q, attention.q_norm), rms_norm(k, attention.k_norm)
    cos, sin = (t.to(q.dtype) for t in turn)
    # Over float32 masters, a norm of q and k leaves them in float32 beside v in autocast's type.
    q, k = (_Rotated.apply(t, cos, sin).to(v.dtype) for t in (q, k))
    h = attend(q, k, v).flatten(1)
    if places is not None:
        x, h = x.index_select(0, places), h.index_select(0, places)
    (y,) = linears(h, attention.o_proj)
    x = x + y
    h = rms_norm(x, layer.post_attention_layernorm)
    gate, up = linears(h, mlp.gate_proj, mlp.up_proj)
    (y,) = linears(gated(gate, up, mlp.act_fn), mlp.down_proj)
    return x + y


def rms_norm(x: torch.Tensor, norm: Any) -> torch.Tensor:
    """Root-mean-square norm over the last dimension (Zhang & Sennrich 2019, arXiv:1910.07467)."""
    out: torch.Tensor = _RmsNorm.apply(x, norm.weight, norm.variance_epsilon)
    return out


class _RmsNorm(torch.autograd.Function):
    """y = w * x / sqrt(mean(x^2) + eps), in float32 up to the product with w."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            out: torch.Tensor
            squares = torch.linalg.vector_norm(
                x, dim=-1, keepdim=True, dtype=torch.float32
            ).square_()
            root = squares.div_(x.shape[-1]).add_(eps).rsqrt_()
            ctx.save_for_backward(x, weight, root)
            out = (x * root).to(x.dtype) * weight
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        x, weight, root = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            unit = x * root
            of_weight = None
            if ctx.needs_input_grad[1]:
                of_weight = (grad.float() * unit).flatten(0, -2).sum(0).to(weight.dtype)
            of_unit = grad.float() * weight
            along = torch.linalg.vecdot(of_unit, unit).div_(x.shape[-1]).unsqueeze(-1)
            of_x = of_unit.sub_(unit.mul_(along)).mul_(root).to(x.dtype)
        return of_x, of_weight, None


class _Rotated(torch.autograd.Function):
    """Rotary positions (Su et al. 2021, arXiv:2104.09864): (a, b) -> (a c - b s, b c + a s)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotate(x, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        cos, sin = ctx.saved_tensors
        return _rotate(grad, cos, sin, -1), None, None


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, way: int) -> torch.Tensor:
    out = x * cos
    half = x.shape[-1] // 2
    out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-way)
    out[..., half:].addcmul_(x[..., :half], sin[..., half:], value=way)
    return out


def gated(gate: torch.Tensor, up: torch.Tensor, act: Any) -> torch.Tensor:
    """act(gate) * up."""
    if isinstance(act, (torch.nn.SiLU, SiLUActivation)):
        out: torch.Tensor = _SiluGated.apply(gate, up)
        return out
    plain: torch.Tensor = act(gate) * up
    return plain


class _SiluGated(torch.autograd.Function):
    """silu(gate) * up, of which only gate and up are kept."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        return torch.nn.functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        gate, up = ctx.saved_tensors
        of_up = torch.nn.functional.silu(gate).mul_(grad)
        return torch.ops.aten.silu_backward(grad * up, gate), of_up
