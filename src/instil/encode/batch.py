"""Packs as tensors."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import torch

from instil.types import Pack


@dataclass(frozen=True, slots=True)
class Batch:
    """One pack on a device; T tokens, S of them predicted and trained on."""

    ids: torch.Tensor
    """(1, T) token ids."""
    positions: torch.Tensor
    """(1, T) position within the segment."""
    segments: tuple[tuple[int, ...], ...]
    """Tokens of each segment, as attention takes them; with the shared prefix they sum to T."""
    shared_prefix: int
    """Tokens in front that every segment looks back at."""
    predict_from: torch.Tensor
    """(S,) places whose next token is trained on."""
    labels: torch.Tensor
    """(S,) those next tokens."""


def to_batch(pack: Pack, *, device: torch.device) -> Batch:
    """Lay a pack out as tensors; a segment's first token is never predicted from its neighbour."""
    mask = torch.tensor(pack.mask)
    first = torch.tensor(pack.segments).diff(prepend=torch.tensor([-2])) != 0
    assert not bool((mask & first).any()), "the first token of a segment cannot be trained on"
    trained = mask.nonzero().flatten()
    ids = torch.tensor(pack.ids)
    return Batch(
        ids=ids[None].to(device),
        positions=torch.tensor(pack.positions)[None].to(device),
        segments=tuple((len(list(run)),) for number, run in groupby(pack.segments) if number >= 0),
        shared_prefix=pack.shared,
        predict_from=(trained - 1).to(device),
        labels=ids[trained].to(device),
    )
