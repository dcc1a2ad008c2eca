"""The frozen base in four bits, for LoRA: QLoRA (Dettmers et al. 2023, arXiv:2305.14314).

bitsandbytes packs the decoder's linear layers into 4-bit NormalFloats with doubly quantised scales,
half a byte a weight. A layer's weights become whole again for the moment of their product, forward
and backward, on every device alike. Embeddings, norms and the vocabulary projection stay as they
are.
"""

from __future__ import annotations

import importlib.util
from copy import copy
from functools import partial
from typing import Any

import torch

from instil.errors import ModelError

NF4 = "nf4"


def require_nf4() -> None:
    """Refuse to go on where bitsandbytes is not installed.

    Raises:
        ModelError: It is not.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            "4-bit weights need bitsandbytes, which is not installed",
            where="quantize",
            fix='pip install "instil[qlora]", or leave out quantize',
        )


def loading(compute: torch.dtype, where: torch.device) -> dict[str, Any]:
    """Return what transformers is told, so that it packs each layer as soon as it is read.

    Raises:
        ModelError: bitsandbytes is not installed.
    """
    from transformers import BitsAndBytesConfig

    require_nf4()
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=NF4,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )
    return {"quantization_config": config, "device_map": {"": where}}


def take_over(model: torch.nn.Module) -> None:
    """Compute the packed layers here: bitsandbytes' own CPU kernel has no backward pass."""
    for module in model.modules():
        if is_packed(module):
            module.forward = partial(_linear, module)


def is_packed(layer: Any) -> bool:
    """Whether the layer's weights are in four bits."""
    return packing(getattr(layer, "weight", None)) is not None


def packing(weight: Any) -> Any:
    """Return how a weight is packed (bitsandbytes' `quant_state`); None: it is not."""
    return getattr(weight, "quant_state", None)


def whole(weight: torch.Tensor, state: Any) -> torch.Tensor:
    """Return a weight as (out, in) numbers in the model's type; unpacked ones as they are.

    It is read as one long row: bitsandbytes' CPU kernel begins a block with each row, where the
    packing has blocks of 64 throughout, and so misreads widths such as 48 or 160.
    """
    if state is None:
        return weight
    from bitsandbytes.functional import dequantize_4bit

    flat = copy(state)
    flat.shape = torch.Size((1, state.shape.numel()))
    out: torch.Tensor = dequantize_4bit(weight.detach(), flat)
    return out.view(state.shape)


def count(weight: torch.Tensor) -> int:
    """Count the numbers that a weight stands for."""
    state = packing(weight)
    return weight.numel() if state is None else int(state.shape.numel())


def _linear(layer: Any, x: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = _Linear.apply(x, layer.weight, packing(layer.weight), layer.bias)
    return out


class _Linear(torch.autograd.Function):
    """y = x W^T + b; W is frozen, and whole only within each pass."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, state: Any, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.state, ctx.input_type = state, x.dtype
        ctx.save_for_backward(weight)
        with torch.autocast(x.device.type, enabled=False):
            w = whole(weight, state)
            bias = None if bias is None else bias.to(w.dtype)
            return torch.nn.functional.linear(x.to(w.dtype), w, bias)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        (weight,) = ctx.saved_tensors
        with torch.autocast(grads[0].device.type, enabled=False):
            dx = (grads[0] @ whole(weight, ctx.state)).to(ctx.input_type)
        return dx, None, None, None
