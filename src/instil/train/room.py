"""Room for a step: packs that do not fit into memory are cut, and the figures stay the same.

A batch's loss is divided by the supervised tokens of the whole batch, so its packs may be cut at
will. When memory runs out, packs are halved (by examples); single examples that still do not fit
are computed with each layer's inner values computed again in the backward pass. Both hold for the
rest of the training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from instil.encode.pack import halves
from instil.types import Pack


@dataclass(slots=True)
class Room:
    """How much is computed at once; it only ever gets less."""

    max_tokens: int | None = None
    """Tokens of a pack at most, where it can be cut; None: as the packs come."""
    recompute: bool = False
    """Whether layers keep their inputs only (activation checkpointing)."""
    apart: bool = False
    """Whether to compute in threads that may be spoilt (see `model.shortage`)."""

    @property
    def tightened(self) -> bool:
        """Whether memory has run out."""
        return self.recompute or self.max_tokens is not None

    def cut(self, packs: Sequence[Pack]) -> list[Pack]:
        """Halve packs until they fit, or hold one example each."""
        if self.max_tokens is None:
            return list(packs)
        cut: list[Pack] = []
        for pack in packs:
            if len(pack.ids) <= self.max_tokens or len(pack.example_ids) == 1:
                cut.append(pack)
            else:
                cut += self.cut(halves(pack))
        return cut

    def tighten(self, packs: Sequence[Pack]) -> bool:
        """Ask for less than these packs took; False where nothing is left to give up."""
        self.apart = True
        several = [pack for pack in self.cut(packs) if len(pack.example_ids) > 1]
        if several:
            self.max_tokens = max(len(pack.ids) for pack in several) // 2
            return True
        if not self.recompute:
            self.recompute = True
            return True
        return False
