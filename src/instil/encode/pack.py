"""Encoded examples into packs without padding, and packs into batches bounded by tokens.

A *batch* is what one optimizer step sees: packs whose tokens sum to about `tokens_per_batch`. A
*pack* is what one forward pass sees, at most `micro_batch_tokens` long. Splitting a batch into more
packs changes no figure: the loss is divided by the supervised tokens of the whole batch. Nor does
a shared prefix: batches are cut by the examples' own lengths, whatever is computed only once.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from instil.types import Encoded, Pack


def pack(encoded: Sequence[Encoded], *, max_tokens: int, shared: int = 0) -> tuple[Pack, ...]:
    """Fill packs one after another, in order; an example longer than `max_tokens` gets its own.

    Dropped examples (no ids) are left out. No example is split.

    Args:
        encoded: The examples.
        max_tokens: Tokens computed in one pack.
        shared: How many leading tokens all examples have in common (see `shared_prefix`).
    """
    packs: list[list[Encoded]] = [[]]
    filled = shared
    for item in encoded:
        if not item.ids:
            continue
        own = len(item.ids) - shared
        if packs[-1] and filled + own > max_tokens:
            packs.append([])
            filled = shared
        packs[-1].append(item)
        filled += own
    return tuple(_join(items, shared if len(items) > 1 else 0) for items in packs if items)


def _join(items: Sequence[Encoded], shared: int) -> Pack:
    head = items[0].ids[:shared]
    assert all(item.ids[:shared] == head for item in items), "the prefix must be shared by all"
    return Pack(
        ids=head + tuple(token for item in items for token in item.ids[shared:]),
        mask=(False,) * shared + tuple(m for item in items for m in item.mask[shared:]),
        positions=tuple(range(shared))
        + tuple(place for item in items for place in range(shared, len(item.ids))),
        segments=(-1,) * shared
        + tuple(number for number, item in enumerate(items) for _ in item.ids[shared:]),
        example_ids=tuple(item.example_id for item in items),
        shared=shared,
    )


def halves(whole: Pack) -> tuple[Pack, Pack]:
    """Cut a pack of several examples into two of about the same number of tokens."""
    starts = [n for n in range(len(whole.ids)) if whole.segments[n] != whole.segments[n - 1]]
    starts = [n for n in starts if n >= whole.shared][1:]
    assert starts, "a pack of one example cannot be halved"
    middle = min(starts, key=lambda n: abs(2 * n - len(whole.ids) - whole.shared))
    count = whole.segments[middle]
    front = slice(0, whole.shared)
    rest = slice(middle, None)
    return (
        Pack(
            ids=whole.ids[:middle],
            mask=whole.mask[:middle],
            positions=whole.positions[:middle],
            segments=whole.segments[:middle],
            example_ids=whole.example_ids[:count],
            shared=whole.shared,
        ),
        Pack(
            ids=whole.ids[front] + whole.ids[rest],
            mask=whole.mask[front] + whole.mask[rest],
            positions=whole.positions[front] + whole.positions[rest],
            segments=whole.segments[front] + tuple(n - count for n in whole.segments[rest]),
            example_ids=whole.example_ids[count:],
            shared=whole.shared,
        ),
    )


def shared_prefix(encoded: Sequence[Encoded]) -> int:
    """Return how many leading tokens all examples share within their prompts.

    Each keeps at least one prompt token of its own, from which its completion is predicted.
    """
    items = [item for item in encoded if item.ids]
    if not items:
        return 0
    limit = min(item.mask.index(True) for item in items) - 1
    low, high = min(item.ids for item in items), max(item.ids for item in items)
    shared = 0
    while shared < limit and low[shared] == high[shared]:
        shared += 1
    return max(0, shared)


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
    shared = shared_prefix(order)
    return tuple(
        pack(batch, max_tokens=micro_batch_tokens, shared=shared) for batch in whole if batch
    )
