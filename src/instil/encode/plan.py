"""All batches of a training, in order: templates drawn, encoded, shuffled and packed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from instil.encode.mask import ChatFormat, encode_all, fates, require_supervised
from instil.encode.pack import batches
from instil.results import MixLine
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
    mix: tuple[MixLine, ...] = ()
    """What the first epoch holds, a line a task."""


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
    mix: tuple[MixLine, ...] = ()
    for epoch in range(math.ceil(epochs)):
        examples = examples_of(epoch)
        encoded = encode_all(examples, chat, max_length=max_length, too_long=TooLong(too_long))
        every += encoded
        mix = mix or mix_lines(examples, encoded)
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
    return TrainingData(tuple(made), fates(every), sample, mix)


def mix_lines(examples: Sequence[Example], encoded: Sequence[Encoded]) -> tuple[MixLine, ...]:
    """Count what each task gives to an epoch, tasks in the order of their first example.

    Examples that the length policy dropped have no tokens and do not count.
    """
    found: dict[str, list[tuple[Example, Encoded]]] = {}
    for example, made in zip(examples, encoded, strict=True):
        kept = found.setdefault(example.task, [])
        if made.ids:
            kept.append((example, made))
    return tuple(
        MixLine(
            task,
            rows=len({example.row for example, _ in pairs}),
            examples=len(pairs),
            few_shot=sum(example.shots > 0 for example, _ in pairs),
            tokens=sum(len(made.ids) for _, made in pairs),
            supervised_tokens=sum(sum(made.mask) for _, made in pairs),
        )
        for task, pairs in found.items()
    )
