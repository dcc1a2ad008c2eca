"""At which places of a pack a tuned model is held to the base model.

A place is that of a token from which the next one is predicted. Which ones are chosen depends on
the examples, the seed and the step alone, never on how the examples of a batch are packed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from instil.encode.store import common_start
from instil.types import KlOn, Pack

PER_PROMPT = 16
"""Places drawn from a prompt, at most."""


def places(pack: Pack, on: KlOn, *, seed: int, step: int, skip: int) -> list[int]:
    """Return the places of a pack, as numbers of its tokens; one may come twice.

    Args:
        pack: Of the batch.
        on: Of which tokens.
        seed: Of the draw from the prompts.
        step: Another step draws others.
        skip: Tokens that all prompts of the batch begin with (`same_start`): said once, not drawn.
    """
    if on is not KlOn.PROMPT:
        wanted, replayed = on is KlOn.REPLAY, pack.replayed
        segments = zip(pack.mask, pack.segments, strict=True)
        trained = (n for n, (mask, segment) in enumerate(segments) if mask)
        return [n - 1 for n in trained if replayed[pack.segments[n]] is wanted]
    chosen: list[int] = []
    for name, numbers in _examples(pack):
        # The prompt's tokens that are predicted from one before them, counted within the example.
        drawn = [n for n in range(max(1, skip), len(numbers)) if not pack.mask[numbers[n]]]
        if len(drawn) > PER_PROMPT:
            drawn = sorted(random.Random(f"kl-{seed}-{step}-{name}").sample(drawn, PER_PROMPT))
        chosen += (numbers[n - 1] for n in drawn)
    return chosen


def _examples(pack: Pack) -> Iterator[tuple[str, list[int]]]:
    """Yield each example's id, and where its tokens stand in the pack, the shared ones first."""
    own: list[list[int]] = [[] for _ in pack.example_ids]
    for number, segment in enumerate(pack.segments):
        if segment >= 0:
            own[segment].append(number)
    head = list(range(pack.shared))
    for name, numbers in zip(pack.example_ids, own, strict=True):
        yield name, head + numbers


def same_start(packs: Sequence[Pack]) -> int:
    """Return how many tokens all prompts of a batch begin with; 0 where there is only one."""
    texts = {
        tuple(pack.ids[n] for n in numbers)
        for pack in packs
        for _, numbers in _examples(pack)
        if len(numbers) > 1 and not pack.mask[numbers[1]]
    }
    if len(texts) < 2:
        return 0
    low, high = min(texts), max(texts)
    return common_start(low, high, limit=min(len(low), len(high)))
