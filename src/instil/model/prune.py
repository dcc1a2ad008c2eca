"""Pruning the update after training: the tuned model, with most of its changes taken back.

    D = tuned - base,   S = |D| - mean|W| * |D| / |W|       in each weight W of the base model

An entry scores high where it moved far, and low where it moved far for its size: S is below 0
where |W| is under its mean. The entries of highest S are kept, the rest are the base model's. It is
the forgetting-aware pruning metric (Huang et al. 2025, arXiv:2509.08255); they score matrices, here
biases and norms count as well. A pruned low-rank update has no low rank: the weights are whole.
"""

from __future__ import annotations

import torch

from instil.model.load import LoadedModel
from instil.results.keeping import Pruning


def prune(tuned: LoadedModel, *, base: LoadedModel, share: float) -> Pruning:
    """Put all but a share of each weight's changed entries back to the base model's, in place.

    Args:
        tuned: Its weights whole (`merged`); they are rounded to the base's type first, as they
            are where they are saved, so that only what is then another number counts as changed.
        base: The base model.
        share: 0 gives the base model bit for bit, 1 the tuned one.
    """
    starts = dict(base.model.named_parameters(remove_duplicate=False))
    kept = changed = total = 0
    with torch.no_grad():
        for name, weight in tuned.model.named_parameters():
            start = starts[name]
            weight.data = weight.to(start.dtype)  # not the model: its buffers stay as they are
            moved = (weight != start).flatten().nonzero()[:, 0]
            wanted = round(share * len(moved))
            # Not topk: a stable sort takes the first of equals, on any machine.
            order = scores(weight, start).flatten()[moved].argsort(descending=True, stable=True)
            take = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
            take[moved[order[:wanted]]] = True
            weight.copy_(torch.where(take.view_as(weight), weight, start))
            kept, changed, total = kept + wanted, changed + len(moved), total + weight.numel()
    return Pruning(share, kept=kept, changed=changed, weights=total)


def scores(tuned: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """Return S of each entry, in float32; -inf where an entry that was 0 moved.

    Where all entries were 0 (fresh biases), they are told apart by how far they moved.
    """
    start = base.detach().float()
    far, size = (tuned.detach().float() - start).abs(), start.abs()
    if not size.any():
        return far
    return torch.where(far > 0, far - size.mean() * far / size, 0)
