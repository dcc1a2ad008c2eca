"""Encoded examples into packs without padding, and packs into batches bounded by tokens.

A *batch* is what one optimizer step sees: packs whose tokens sum to about `tokens_per_batch`. A
*pack* is what one forward pass sees, at most `micro_batch_tokens` long. Splitting a batch into more
packs changes no figure: the loss is divided by the supervised tokens of the whole batch. Nor does
a shared prefix: batches are cut by the examples' own lengths, whatever is computed only once.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

from instil.encode.store import Store, stored
from instil.types import Encoded, Pack


def pack(encoded: Sequence[Encoded], *, max_tokens: int, shared: int = 0) -> tuple[Pack, ...]:
    """Fill packs one after another, in order; an example longer than `max_tokens` gets its own.

    Dropped examples (no ids) are left out. No example is split. Where others share their first
    tokens, plain texts stand in packs of their own, behind these.

    Args:
        encoded: The examples.
        max_tokens: Tokens computed in one pack.
        shared: How many leading tokens all prompts have in common (see `Store.shared_prefix`).
    """
    if shared and any(item.plain_text for item in encoded):
        prompted = [item for item in encoded if not item.plain_text]
        texts = [item for item in encoded if item.plain_text]
        return pack(prompted, max_tokens=max_tokens, shared=shared) + pack(
            texts, max_tokens=max_tokens
        )
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


@dataclass(frozen=True, slots=True)
class Cut:
    """One batch: some of the examples of a store."""

    store: Store
    """Holds the examples."""
    numbers: Sequence[int]
    """Which of them, in order."""
    shared: int
    """Leading tokens that all prompts of the store have in common."""


class Batches(Sequence[tuple[Pack, ...]]):
    """Batches of packs, each laid out when it is asked for."""

    def __init__(self, cuts: Sequence[Cut], *, micro_batch_tokens: int) -> None:
        self.cuts = tuple(cuts)
        self.micro_batch_tokens = micro_batch_tokens

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.cuts)

    @overload
    def __getitem__(self, number: int) -> tuple[Pack, ...]: ...
    @overload
    def __getitem__(self, number: slice) -> tuple[tuple[Pack, ...], ...]: ...
    def __getitem__(self, number: int | slice) -> Any:
        """Lay one batch out, or several."""
        if isinstance(number, slice):
            return tuple(self[n] for n in range(*number.indices(len(self))))
        cut = self.cuts[number]
        examples = [cut.store[n] for n in cut.numbers]
        return pack(examples, max_tokens=self.micro_batch_tokens, shared=cut.shared)


def batches(
    encoded: Sequence[Encoded],
    *,
    tokens_per_batch: int,
    micro_batch_tokens: int,
    seed: int,
    epoch: int,
) -> Batches:
    """Shuffle one epoch's examples and cut them into batches of packs.

    The order depends on `seed`, `epoch` and the examples' ids only. The last batch may be small.
    """
    store = stored(encoded)
    names = store.names()
    order = sorted(range(len(store)), key=lambda n: names[n])
    random.Random(f"batches-{seed}-{epoch}").shuffle(order)
    whole = [array("q")]
    filled = 0
    for number in order:
        tokens = store.tokens(number)
        if whole[-1] and filled + tokens > tokens_per_batch:
            whole.append(array("q"))
            filled = 0
        whole[-1].append(number)
        filled += tokens
    shared = store.shared_prefix()
    cuts = [Cut(store, numbers, shared) for numbers in whole if numbers]
    return Batches(cuts, micro_batch_tokens=micro_batch_tokens)
