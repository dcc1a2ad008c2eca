"""Encoded examples into packs without padding, and packs into batches bounded by tokens.

A *batch* is what one optimizer step sees: packs whose tokens sum to about `tokens_per_batch`. A
*pack* is what one forward pass sees, at most `micro_batch_tokens` long. Splitting a batch into more
packs changes no figure: the loss is divided by the supervised tokens of the whole batch.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from instil.types import Encoded, Pack


def pack(encoded: Sequence[Encoded], *, max_tokens: int) -> tuple[Pack, ...]:
    """Fill packs one after another, in order; an example longer than `max_tokens` gets its own.

    Dropped examples (no ids) are left out. No example is split.
    """
    packs: list[list[Encoded]] = [[]]
    filled = 0
    for item in encoded:
        if not item.ids:
            continue
        if packs[-1] and filled + len(item.ids) > max_tokens:
            packs.append([])
            filled = 0
        packs[-1].append(item)
        filled += len(item.ids)
    return tuple(_join(items) for items in packs if items)


def _join(items: Sequence[Encoded]) -> Pack:
    return Pack(
        ids=tuple(token for item in items for token in item.ids),
        mask=tuple(trained for item in items for trained in item.mask),
        positions=tuple(place for item in items for place in range(len(item.ids))),
        segments=tuple(number for number, item in enumerate(items) for _ in item.ids),
        example_ids=tuple(item.example_id for item in items),
    )


def batches(
    encoded: Sequence[Encoded],
    *,
    tokens_per_batch: int,
    micro_batch_tokens: int,
    seed: int,
    epoch: int,
) -> tuple[tuple[Pack, ...], ...]:
    """Shuffle one epoch's examples and cut them into batches of packs.

    The order depends on `seed`, `epoch` and the examples' ids only. The last batch may be small.
    """
    order = sorted((e for e in encoded if e.ids), key=lambda e: e.example_id)
    random.Random(f"batches-{seed}-{epoch}").shuffle(order)
    whole: list[list[Encoded]] = [[]]
    filled = 0
    for item in order:
        if whole[-1] and filled + len(item.ids) > tokens_per_batch:
            whole.append([])
            filled = 0
        whole[-1].append(item)
        filled += len(item.ids)
    return tuple(pack(batch, max_tokens=micro_batch_tokens) for batch in whole if batch)
