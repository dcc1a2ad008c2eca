"""Models between base and tuned: W = (1 - s) base + s tuned, for a share s of the way.

For LoRA that is the adapter's scale, W + s (alpha / r) B A, and what is exported is the same
adapter with s lora_alpha in its config: PEFT loads it as it is. For SHiRA it is an adapter whose
changes are multiplied with s. For OFT there is none: W ((1 - s) I + s R) is no rotation of W.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.oft import OFTLayer
from peft.tuners.shira import ShiraLayer

from instil.files import write_whole
from instil.model.load import LoadedModel

Blend = Callable[[float], None]
"""Puts a model in place at a share of the way."""


def blend(tuned: LoadedModel, *, base: LoadedModel | None = None) -> Blend:
    """Return what moves `tuned` to any share of the way from its base; 0 and 1 are exact.

    Args:
        tuned: Its weights change in place, or the scale of its adapter.
        base: The base model, where there is no adapter. Then a copy of the tuned weights is
            kept as well: three models in memory.
    """
    if isinstance(tuned.model, PeftModel):
        modules = [*tuned.model.modules()]
        assert not any(isinstance(module, OFTLayer) for module in modules), "the recipe refuses it"
        layers = [layer for layer in modules if isinstance(layer, LoraLayer)]
        sparse = [layer for layer in modules if isinstance(layer, ShiraLayer)]
        changes = [change for layer in sparse for change in layer.shira_weight.values()]
        wholes = [change.detach().clone() for change in changes]

        def scale_adapters(share: float) -> None:
            for layer in layers:
                for adapter in layer.active_adapters:
                    layer.set_scale(adapter, share)
            with torch.no_grad():
                for change, whole in zip(changes, wholes, strict=True):
                    change.copy_(share * whole)

        return scale_adapters
    assert base is not None, "full weights lie between two models"
    weights = dict(tuned.model.named_parameters())
    starts = dict(base.model.named_parameters())
    assert weights.keys() == starts.keys(), "the two are of one build"
    ends = {name: weight.detach().clone() for name, weight in weights.items()}

    def mix_weights(share: float) -> None:
        with torch.no_grad():
            for name, weight in weights.items():
                # lerp gives either end bit for bit; in float32, so that only the sum is rounded
                weight.copy_(torch.lerp(starts[name].float(), ends[name].float(), share))

    return mix_weights


def scale_adapter(folder: Path, *, lora_alpha: float) -> None:
    """Write another `lora_alpha` into a saved LoRA adapter's config.

    PEFT gives layers that it joins (experts' gate and up) a rank of their own, and an alpha that
    grows with it; that one changes too.
    """
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["lora_alpha"] = int(lora_alpha) if lora_alpha == int(lora_alpha) else lora_alpha
    ranks, rank = config.get("rank_pattern") or {}, config["r"]
    for layers in config.get("alpha_pattern") or {}:
        config["alpha_pattern"][layers] = lora_alpha * ranks.get(layers, rank) / rank
    write_whole(path, json.dumps(config, indent=2, sort_keys=True).encode())
