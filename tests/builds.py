"""The ways through a model, from the fastest to the plain one; and LoRA on it."""

from typing import Any

from instil.config.methods import Lora
from instil.model.adapter import add_adapter
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


def add_lora(loaded: LoadedModel, *, seed: int, **settings: Any) -> LoadedModel:
    """Wrap the model in LoRA with some of its settings."""
    return add_adapter(loaded, Lora(**settings), seed=seed)
