"""How far tuning moved a model: forward KL from the base model, on the new task's inputs.

KL(base || tuned) over the whole vocabulary at every place where a token of the right answer (its
stop token included) is predicted, behind prompt and answer so far; the mean over an example's
places, in nats per token. Measured so, on inputs of the new task, it foretells forgetting better
than anything else that was tried (Shenfeld et al. 2025, "RL's Razor", arXiv:2509.04259: D_KL(pi_0
|| pi) with x from the new task). They sum over sampled answers; here the right answer stands in for
the sample and the sum over each next token is exact, so that there is no noise of sampling and a
model that has not moved gives zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch

from instil.encode.batch import Batch
from instil.evaluate.choices import Request, common_prefix, lay_out, packs, target_request
from instil.model.adapter import adapter_off
from instil.model.engine.divergence import States, divergence, states
from instil.model.load import LoadedModel
from instil.scoring.metrics import NATS
from instil.types import Example, Score


def base_states(loaded: LoadedModel, examples: Sequence[Example]) -> Iterator[States]:
    """Yield the base model's states, a pack at a time; of a LoRA model with its adapter off.

    With the adapter's own model, hand the iterator to `drift` as it is: base and tuned are then
    computed pack by pack. To let go of the base model first, keep its states in a list.
    """
    for _, batch in _batches(loaded, examples):
        with torch.inference_mode(), adapter_off(loaded.model):
            kept = states(loaded.model, batch, build=loaded.build)
        yield kept


def drift(
    loaded: LoadedModel, examples: Sequence[Example], *, base: Iterable[States]
) -> list[Score]:
    """Return KL(base || tuned) of every example, in nats per token of its answer.

    Args:
        loaded: The tuned model.
        examples: With targets; those of one template share their prefix.
        base: The base model's, of the same examples (`base_states`).
    """
    scores: list[Score] = []
    names = iter(example.id for example in examples)
    for (rows, batch), untuned in zip(_batches(loaded, examples), base, strict=True):
        with torch.inference_mode():
            tuned = states(loaded.model, batch, build=loaded.build)
            nats = iter(divergence(untuned, tuned).tolist())
        for row in rows:
            (answer,) = row.completions
            total = sum(next(nats) for _ in answer)
            scores.append(Score(next(names), NATS.name, total / len(answer)))
    return scores


def _batches(
    loaded: LoadedModel, examples: Sequence[Example]
) -> Iterator[tuple[list[Request], Batch]]:
    requests = [target_request(e, loaded.chat) for e in examples]
    shared = common_prefix([r.prompt for r in requests])
    loaded.model.eval()
    for rows in packs(requests, shared):
        yield rows, lay_out(rows, shared, device=loaded.device)
