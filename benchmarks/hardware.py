"""The machine: what it is, and how fast it multiplies matrices."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instil.stages.provenance import machine

CPU_SIZES = (512, 1024, 2048)
GPU_SIZES = (2048, 4096, 8192)
SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class ModelSize:
    """What decides how many operations a token takes."""

    weights: int
    """Of all layers, without the embedding and the projection onto the vocabulary."""
    projection: int
    """Vocabulary times width: the weights of that projection."""


def model_size(folder: Path) -> ModelSize:
    """Count a model's weights from its config; none is read."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    outer = {id(m.weight): m.weight for m in (model.get_input_embeddings(), model.lm_head)}
    projection = model.lm_head.weight.numel()
    total = sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())
    return ModelSize(total - sum(w.numel() for w in outer.values()), projection)


def matrix_peaks(device: str) -> dict[str, float]:
    """Measure square bfloat16 products: size -> operations a second, the best of many."""
    import torch

    sizes = GPU_SIZES if device == "cuda" else CPU_SIZES
    return {str(n): _speed(torch.rand(n, n, device=device, dtype=torch.bfloat16)) for n in sizes}


def _speed(a: Any) -> float:
    import torch

    (a @ a).sum().item()  # the first product sets things up, and has no part in the time
    best, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        began = time.perf_counter()
        a @ a
        if a.device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return float(2 * len(a) ** 3 / best)


def described(device: str) -> dict[str, Any]:
    """The machine, its card where there is one, and the libraries."""
    import torch

    found = dict(machine())
    if device == "cuda":
        found["card"] = torch.cuda.get_device_name()
    found["python"] = platform.python_version()
    for package in ("torch", "transformers", "peft"):
        found[package] = importlib.metadata.version(package)
    return found
