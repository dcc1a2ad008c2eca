"""A run's model as one GGUF file, or its adapter as another one.

Tests: `tests/ship/test_gguf_families.py`.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import (
    GGML_QUANT_SIZES,
    GGML_QUANT_VERSION,
    MODEL_ARCH_NAMES,
    GGMLQuantizationType,
    GGUFReader,
    GGUFWriter,
    Keys,
    LlamaFileType,
    get_tensor_name_map,
)
from gguf.quants import quantize
from peft.tuners.lora import LoraLayer

from instil.errors import ModelError, Problem, RunError
from instil.model.load import LoadedModel
from instil.ship.formats import USE_MERGED, Quantization
from instil.ship.gguf.families import FAMILIES, Family, in_pairs, of_query_or_key
from instil.ship.gguf.vocabulary import vocabulary, write_vocabulary

TYPES: Mapping[str, GGMLQuantizationType] = {
    str(each): GGMLQuantizationType[each.name] for each in Quantization
}
"""How weights may be kept."""
_ROUGH = {"q5_1", "q5_0", "q4_1", "q4_0"}
_OTHERWISE = GGMLQuantizationType.Q8_0
"""Of embeddings where the rest is kept in 4 or 5 bits: all else is computed from them."""
_FILE_TYPES: Mapping[str, int] = {
    "f32": LlamaFileType.ALL_F32,
    **{name: LlamaFileType[f"MOSTLY_{name.upper()}"] for name in TYPES if name != "f32"},
}
CERTIFICATE = "instil.certificate"
"""The key of the certificate."""


def require_known(loaded: LoadedModel) -> Family:
    """Return what llama.cpp knows of a model's family.

    Raises:
        ModelError: It does not know the family, something in its config, or its tokenizer.
    """
    config = loaded.model.config
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise ModelError(
            f"no GGUF file can be written of the family {config.model_type}",
            where="export",
            allowed=", ".join(FAMILIES),
            fix=USE_MERGED,
        )
    limits = list(family.limits(config))
    if limits:
        raise ModelError(
            *(
                Problem(
                    f"llama.cpp computes {config.model_type} without {each}",
                    where="export",
                    fix=USE_MERGED,
                )
                for each in limits
            )
        )
    vocabulary(loaded.chat.tokenizer, rows=_embeddings(loaded))
    return family


def write_model(
    loaded: LoadedModel, out: Path, *, kind: str, name: str, certificate: Mapping[str, object]
) -> dict[str, int]:
    """Write a whole model.

    Args:
        loaded: Without an adapter; see `model.adapter.merged`.
        out: The file; appears whole or not at all.
        kind: How matrices are kept. Vectors stay in 32 bits, and a matrix whose rows do not fill
            blocks in 16.
        name: What people call the model.
        certificate: Goes along under `instil.certificate`, as JSON.

    Returns:
        How many tensors are kept in each type.

    Raises:
        ModelError: As `require_known`, or a weight that llama.cpp has no name for.
    """
    family, model, config = require_known(loaded), loaded.model, loaded.model.config
    tied = _tied(loaded)
    tensors: dict[str, torch.Tensor] = {}
    for inner, weight in model.state_dict().items():
        if inner.endswith((".attn.bias", ".masked_bias", "rotary_emb.inv_freq")):
            continue  # made from the config
        if tied and inner == "lm_head.weight":
            continue  # it is the input embeddings
        weight = weight.detach().float().cpu()
        heads = of_query_or_key(inner, config) if family.pairs else 0
        weight = in_pairs(weight, heads=heads) if heads else family.weight(inner, weight, config)
        tensors[_gguf_name(inner, family, config)] = weight
    tensors |= family.extra(config)
    kept = {each: _type_of(each, weight, kind) for each, weight in tensors.items()}
    writer = _writer(family, "model", name=name, certificate=certificate)
    writer.add_file_type(_FILE_TYPES[kind])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    for setting, value in family.settings(config).items():
        getattr(writer, f"add_{setting}")(value)
    write_vocabulary(writer, loaded.chat, rows=_embeddings(loaded))
    _finish(writer, out, tensors, kept)
    return dict(Counter(each.name.lower() for each in kept.values()))


def write_adapter(
    loaded: LoadedModel, out: Path, *, name: str, certificate: Mapping[str, object]
) -> int:
    """Write the adapter alone, for llama.cpp's `--lora` beside a GGUF file of the base model.

    Args:
        loaded: With a LoRA adapter.
        out: The file; appears whole or not at all.
        name: As in `write_model`.
        certificate: As in `write_model`.

    Returns:
        How many matrices it adds to.

    Raises:
        ModelError: As `require_known`, no adapter, or one that llama.cpp cannot add.
    """
    family, config = require_known(loaded), loaded.model.config
    lora: Any = getattr(loaded.model, "peft_config", {}).get("default")
    modules = () if lora is None else loaded.model.get_base_model().named_modules()
    layers = {inner: module for inner, module in modules if isinstance(module, LoraLayer)}
    head = loaded.model.get_output_embeddings()
    odd = [
        what
        for what, has in (
            ("without LoRA", not layers),
            ("with DoRA", getattr(lora, "use_dora", False)),
            ("with ranks of its own for some layers", getattr(lora, "rank_pattern", {})),
            ("with an alpha of its own for some layers", getattr(lora, "alpha_pattern", {})),
            ("on embeddings", any("default" in each.lora_embedding_A for each in layers.values())),
            # The file of the model has one matrix for both, and no name for the output's.
            (
                "on output embeddings that are the input's",
                head in layers.values() and _tied(loaded),
            ),
        )
        if has
    ]
    if odd:
        raise ModelError(
            f"llama.cpp cannot add an adapter {odd[0]}",
            where="export",
            fix="export the whole model: --format gguf",
        )
    tensors: dict[str, torch.Tensor] = {}
    for module, layer in layers.items():
        inner = f"{module}.weight"
        heads = of_query_or_key(inner, config) if family.pairs else 0
        a, b = (part["default"].weight.detach().float() for part in (layer.lora_A, layer.lora_B))
        named = _gguf_name(inner, family, config)
        tensors[f"{named}.lora_a"] = a
        tensors[f"{named}.lora_b"] = in_pairs(b, heads=heads) if heads else b
    writer = _writer(family, "adapter", name=name, certificate=certificate)
    writer.add_string(Keys.Adapter.TYPE, "lora")
    # The numerator of the adapter's scale: llama.cpp divides it by the rank.
    alpha = lora.lora_alpha * (math.sqrt(lora.r) if lora.use_rslora else 1)
    writer.add_float32(Keys.Adapter.LORA_ALPHA, float(alpha))
    _finish(writer, out, tensors, dict.fromkeys(tensors, GGMLQuantizationType.F32))
    return len(tensors) // 2


def _tied(loaded: LoadedModel) -> bool:
    """Whether input and output embeddings are one matrix."""
    output = loaded.model.get_output_embeddings()
    return output is not None and output.weight is loaded.model.get_input_embeddings().weight


def is_adapter(path: Path) -> bool:
    """Whether a GGUF file holds an adapter and no model.

    Raises:
        RunError: It is no GGUF file.
    """
    try:
        kind = GGUFReader(path).get_field(Keys.General.TYPE)
    except (ValueError, OSError, IndexError) as error:
        raise RunError(
            "this is no whole GGUF file",
            where=str(path),
            found=str(error),
            fix="export it anew",
        ) from error
    return kind is not None and kind.contents() == "adapter"


def _gguf_name(name: str, family: Family, config: Any) -> str:
    names = get_tensor_name_map(family.architecture, config.num_hidden_layers)
    known = names.get_name(name, try_suffixes=(".weight", ".bias"))
    if known is None:
        raise ModelError(
            f"llama.cpp has no name for a weight of {config.model_type}",
            where=name,
            fix="export it as `merged`",
        )
    return str(known)


def _embeddings(loaded: LoadedModel) -> int:
    return int(loaded.model.get_input_embeddings().weight.shape[0])


def _type_of(name: str, weight: torch.Tensor, kind: str) -> GGMLQuantizationType:
    """Return what a weight is kept in: vectors in 32 bits, matrices in the kind asked for."""
    if weight.dim() < 2:
        return GGMLQuantizationType.F32
    wanted = TYPES[kind]
    if kind in _ROUGH and name in ("token_embd.weight", "output.weight", "position_embd.weight"):
        wanted = _OTHERWISE
    block, _ = GGML_QUANT_SIZES[wanted]
    return wanted if weight.shape[-1] % block == 0 else GGMLQuantizationType.F16


def _writer(
    family: Family, kind: str, *, name: str, certificate: Mapping[str, object]
) -> GGUFWriter:
    writer = GGUFWriter(None, MODEL_ARCH_NAMES[family.architecture])
    writer.add_type(kind)
    writer.add_name(name)
    writer.add_string(CERTIFICATE, json.dumps(certificate, ensure_ascii=False, sort_keys=True))
    return writer


def _finish(
    writer: GGUFWriter,
    out: Path,
    tensors: Mapping[str, torch.Tensor],
    kept: Mapping[str, GGMLQuantizationType],
) -> None:
    """Write the file under another name, weight by weight, and rename it."""
    for name, weight in tensors.items():
        block, size = GGML_QUANT_SIZES[kept[name]]
        total = weight.numel() // block * size
        writer.add_tensor_info(name, weight.shape, np.dtype("f4"), total, raw_dtype=kept[name])
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        part = Path(scratch) / out.name
        try:
            writer.write_header_to_file(part)
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for name, weight in tensors.items():
                values = weight.float().cpu().contiguous().numpy()
                writer.write_tensor_data(quantize(values, kept[name]))
        finally:
            writer.close()
        os.replace(part, out)
