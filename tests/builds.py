"""The ways through a model, from the fastest to the plain one; and LoRA on it."""

from typing import Any

import torch

from instil.config.methods import Lora
from instil.model.adapter import add_adapter, trainable
from instil.model.engine.packed import Build
from instil.model.load import LoadedModel

PLAIN = Build()
PADDED = Build(padding=True)
SIDE_BY_SIDE = Build(segments=True)
PACKED = Build(segments=True, prefix=True, branches=True)
PACKED_HEAD = Build(segments=True, prefix=True, branches=True, own_head=True)
OWN = Build(
    segments=True, prefix=True, branches=True, own_layers=True, own_head=True, own_memory=True
)
EACH = (OWN, PACKED_HEAD, PACKED, SIDE_BY_SIDE, PADDED, PLAIN)


def shaken(loaded: LoadedModel) -> LoadedModel:
    """Draw what is trained anew, so that an adapter is heard."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in trainable(loaded.model).values():
            weight.normal_(std=0.1)
    return loaded


def add_lora(loaded: LoadedModel, *, seed: int, **settings: Any) -> LoadedModel:
    """Wrap the model in LoRA with some of its settings."""
    return add_adapter(loaded, Lora(**settings), seed=seed)
