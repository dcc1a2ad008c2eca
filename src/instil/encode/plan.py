"""All batches of a training, in order: templates drawn, encoded, shuffled and packed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from instil.encode.mask import ChatFormat, encode_all, fates, require_supervised
from instil.encode.pack import batches
from instil.types import Encoded, Example, Pack, TooLong


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What one training sees."""

    batches: tuple[tuple[Pack, ...], ...]
    """Every epoch's batches, one after another."""
    fates: Mapping[str, int]
    """What became of the examples of all epochs: fate -> number."""
    sample: Encoded
    """One encoded example, for people to look at."""


def plan_training(
    examples_of: Callable[[int], Sequence[Example]],
    chat: ChatFormat,
    *,
    epochs: float,
    max_length: int,
    too_long: str,
    tokens_per_batch: int,
    micro_batch_tokens: int,
    seed: int,
) -> TrainingData:
    """Encode and pack all epochs.

    Args:
        examples_of: Epoch (from 0) -> its examples.
        chat: The model's tokenizer and chat template.
        epochs: May end in a fraction: the last epoch then takes that share of its batches.
        max_length: Longest example, in tokens.
        too_long: What to do with longer ones.
        tokens_per_batch: Tokens of an optimizer step.
        micro_batch_tokens: Tokens of a forward pass.
        seed: Of the order.

    Raises:
        DataError: An example is too long under the policy `error`, or nothing is left to train on.
    """
    made: list[tuple[Pack, ...]] = []
    every: list[Encoded] = []
    for epoch in range(math.ceil(epochs)):
        encoded = encode_all(
            examples_of(epoch), chat, max_length=max_length, too_long=TooLong(too_long)
        )
        every += encoded
        whole = batches(
            encoded,
            tokens_per_batch=tokens_per_batch,
            micro_batch_tokens=micro_batch_tokens,
            seed=seed,
            epoch=epoch,
        )
        share = min(1.0, epochs - epoch)
        made += whole[: max(1, math.ceil(share * len(whole) - 1e-9))]
    require_supervised(every)
    sample = next(item for item in every if item.ids)
    return TrainingData(tuple(made), fates(every), sample)
