"""Packs as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

from instil.types import Pack

ROUND = 32
"""Tokens of a batch are filled up to a multiple of this: every new shape costs oneDNN a
compilation, which takes longer than a few tokens do."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One pack on a device; T tokens (filled up to a round number), S of them predicted."""

    ids: torch.Tensor
    """(1, T) token ids."""
    positions: torch.Tensor
    """(1, T) position within the segment."""
    segments: tuple[tuple[int, ...], ...]
    """Tokens of each segment, as attention takes them; with the shared prefix they sum to T."""
    shared_prefix: int
    """Tokens in front that every segment looks back at."""
    predict_from: torch.Tensor
    """(S,) places whose next token is predicted."""
    labels: torch.Tensor
    """(S,) those next tokens."""
    prompts: tuple[int, ...] = ()
    """Tokens of each segment, the shared prefix included, that an encoder reads; empty where the
    batch is only read by decoders."""


def make_batch(
    ids: Sequence[int],
    positions: Sequence[int],
    *,
    segments: tuple[tuple[int, ...], ...],
    shared_prefix: int,
    predict_from: torch.Tensor,
    labels: torch.Tensor,
    device: torch.device,
    prompts: tuple[int, ...] = (),
) -> Batch:
    """Make tensors; what fills them up is a segment of its own, which nothing looks at."""
    fill = -len(ids) % ROUND
    return Batch(
        ids=torch.tensor([[*ids, *([ids[0]] * fill)]], device=device),
        positions=torch.tensor([[*positions, *range(fill)]], device=device),
        segments=(*segments, (fill,)) if fill else segments,
        shared_prefix=shared_prefix,
        predict_from=predict_from.to(device),
        labels=labels.to(device),
        prompts=(*prompts, fill) if fill and prompts else prompts,
    )


def to_batch(pack: Pack, *, device: torch.device) -> Batch:
    """Lay a pack out as tensors; a segment's first token is never predicted from its neighbour."""
    mask = torch.tensor(pack.mask)
    first = torch.tensor(pack.segments).diff(prepend=torch.tensor([-2])) != 0
    assert not bool((mask & first).any()), "the first token of a segment cannot be trained on"
    trained = mask.nonzero().flatten()
    runs = [
        list(run)
        for number, run in groupby(range(len(pack.ids)), key=pack.segments.__getitem__)
        if number >= 0
    ]
    return make_batch(
        pack.ids,
        pack.positions,
        segments=tuple((len(run),) for run in runs),
        shared_prefix=pack.shared,
        predict_from=trained - 1,
        labels=torch.tensor(pack.ids)[trained],
        device=device,
        prompts=tuple(  # up to the first token of a segment that is trained on
            pack.shared + next((n for n, place in enumerate(run) if pack.mask[place]), len(run))
            for run in runs
        ),
    )
