"""What is trained: a LoRA adapter around the frozen base, or all of its weights.

The adapter is PEFT's own (Hu et al. 2021, arXiv:2106.09685): W x + (alpha / r) B A x, with B zero
at the start, so the untrained adapter is the identity. Its weights are float32 whatever the base is
in.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import (
    LoraConfig,
    PeftModel,
    TaskType,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from instil.errors import ModelError, Problem
from instil.model.fused import fuse_lora
from instil.model.load import (
    LoadedModel,
    ModelFolder,
    load_model,
    parameter_count,
    quiet,
    unreadable,
)
from instil.model.nf4 import is_packed, packing, whole
from instil.model.soundness import brief, check_folder


def add_lora(
    loaded: LoadedModel,
    *,
    r: int,
    lora_alpha: float,
    lora_dropout: float,
    target_modules: str | list[str],
    seed: int,
) -> LoadedModel:
    """Wrap the model in a fresh LoRA adapter, initialised from `seed`; the base is frozen.

    Raises:
        ModelError: `target_modules` names no layer of this model.
    """
    config = LoraConfig(
        r=r,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        target_modules=target_modules,
        task_type=TaskType.CAUSAL_LM,
    )
    torch.manual_seed(seed)
    try:
        with quiet():
            model = get_peft_model(loaded.model, config)
    except ValueError as error:
        raise ModelError(
            Problem(f"the adapter does not fit: {error}", where="lora.target_modules")
        ) from error
    # From here PEFT loads the base by itself; a catalogue's name would mean nothing to it.
    base = loaded.folder.hub_id or str(loaded.folder.path)
    model.peft_config["default"].base_model_name_or_path = base
    fuse_lora(model)
    return replace(loaded, model=model)


def train_all(loaded: LoadedModel) -> LoadedModel:
    """Make every weight trainable (full fine-tuning)."""
    loaded.model.requires_grad_(True)
    return loaded


def linear_layers(folder: ModelFolder) -> tuple[str, ...]:
    """Name the layers that can have an adapter; the weights are not read.

    Raises:
        ModelError: The folder's config is of no model.
    """
    try:
        with quiet(), torch.device("meta"):
            config = AutoConfig.from_pretrained(folder.path, trust_remote_code=False)
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # as `load_model`
        raise unreadable(folder, error) from error
    kinds = (torch.nn.Linear, torch.nn.Embedding, Conv1D)
    return tuple(name for name, module in model.named_modules() if isinstance(module, kinds))


def load_adapter(loaded: LoadedModel, path: Path) -> LoadedModel:
    """Put a saved adapter on a base model.

    Raises:
        ModelError: the folder holds no adapter, or one for another model.
    """
    if not (path / "adapter_config.json").is_file():
        raise ModelError(Problem(f"{path} holds no adapter (adapter_config.json)"))
    try:
        with quiet():
            model = PeftModel.from_pretrained(loaded.model, str(path))
    # peft, transformers and safetensors raise many unrelated kinds
    except Exception as error:
        raise ModelError(
            Problem(
                f"the adapter cannot be put on the model: {brief(error)}",
                where=str(path),
                fix="copy the folder again, or make the run anew",
            )
        ) from error
    fuse_lora(model)
    model.eval()
    return replace(loaded, model=model)


def trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Name -> weight of everything that is trained, tied weights once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def trainable_share(model: torch.nn.Module) -> tuple[int, float]:
    """Number of trained weights, and their share of all."""
    count = sum(p.numel() for p in trainable(model).values())
    return count, count / parameter_count(model)


def base_parameters(model: torch.nn.Module) -> int:
    """Number of the base model's weights, without those of an adapter."""
    added = sum(p.numel() for name, p in model.named_parameters() if "lora_" in name)
    return parameter_count(model) - added


def snapshot(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copy the trained weights to the CPU."""
    return {name: p.detach().to("cpu", copy=True) for name, p in trainable(model).items()}


def restore(model: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Put copied weights back, bit for bit."""
    here = trainable(model)
    assert here.keys() == weights.keys(), "the copy is of another set of weights"
    with torch.no_grad():
        for name, p in here.items():
            p.copy_(weights[name])


@contextlib.contextmanager
def adapter_off(model: Any) -> Iterator[None]:
    """Within the block a LoRA model is its base model, exactly."""
    if isinstance(model, PeftModel):
        with model.disable_adapter():
            yield
    else:
        yield


def load_shipped(
    path: Path, *, base: ModelFolder, device: str, dtype: str, quantize: str | None = None
) -> LoadedModel:
    """Load what a run handed over: an adapter on its base model, or full weights.

    Args:
        path: The run's `model/` folder.
        base: The base model's folder, for an adapter.
        device: auto, cpu or cuda.
        dtype: auto, bfloat16 or float32.
        quantize: nf4 for an adapter on a 4-bit base; None: on whole weights.

    Raises:
        ModelError: The folder holds neither.
    """
    if (path / "adapter_config.json").is_file():
        return load_adapter(load_model(base, device=device, dtype=dtype, quantize=quantize), path)
    # The template that was exported is the one chosen; no other is beside it.
    chat = replace(base.chat, template="")
    folder = replace(base, path=check_folder(path), chat=chat)
    return load_model(folder, device=device, dtype=dtype)


def merged(loaded: LoadedModel) -> LoadedModel:
    """Fold the adapter into the base weights; added in float32, so only the sum is rounded.

    A 4-bit base is unpacked first: what the adapter was trained on is what it is added to.
    """
    model = loaded.model
    if isinstance(model, PeftModel):
        if any(map(is_packed, model.modules())):
            model = _unpacked(model)
        model = model.to(torch.float32).merge_and_unload()
    return replace(loaded, model=model)


def _unpacked(model: PeftModel) -> PeftModel:
    """Put the adapter around the same base with whole weights."""
    config = model.peft_config["default"]
    weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    base = model.unload()
    read = {n: whole(m.weight, packing(m.weight)) for n, m in base.named_modules() if is_packed(m)}
    with quiet(), torch.no_grad():
        plain = base.dequantize()  # the right modules; `nf4.whole` has the right numbers
        for name, weight in read.items():
            plain.get_submodule(name).weight.copy_(weight)
        around = get_peft_model(plain, config)
        set_peft_model_state_dict(around, weights)
    return around
