"""Cross-entropy of packs, without training."""

import torch

from instil.encode.batch import to_batch
from instil.model.engine.losses import summed_loss


def pack_loss(loaded, pack, *, recompute=False) -> torch.Tensor:
    """Cross-entropy in nats, summed over the pack's supervised tokens; a scalar in float32."""
    batch = to_batch(pack, device=loaded.device)
    return summed_loss(loaded.model, batch, build=loaded.build, recompute=recompute)


def mean_loss(loaded, packs) -> float:
    """Nats per supervised token."""
    loaded.model.eval()
    with torch.inference_mode():
        total = sum(float(pack_loss(loaded, pack)) for pack in packs)
    return total / max(1, sum(sum(pack.mask) for pack in packs))
