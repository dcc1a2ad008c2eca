"""Packs in which each example has been read before, with its answer: what a teacher is shown.

::

    ids        q q a a | r b b           mask on a a and b b, twice on the same question
    shown      q q a a q q a a | r b b r b b        mask on the second a a and b b alone

Where the answer is predicted, the example itself stands in front as a worked one. What is replayed
has no question to answer, and is left out.
"""

from __future__ import annotations

from dataclasses import replace

from instil.types import Pack


def shown(pack: Pack, *, bos: int | None) -> Pack | None:
    """Return the pack with every example's tokens said twice; None: all of it is replayed.

    Its tokens trained on are those of the second time, in the order of `pack`'s.

    Args:
        pack: Of the batch.
        bos: The token that texts begin with. It is not said again where it stands once in an
            example, as where it begins one turn of each it is a part of how turns are written.
    """
    own: list[list[int]] = [[] for _ in pack.example_ids]
    for number, segment in enumerate(pack.segments):
        if segment >= 0:
            own[segment].append(number)
    head = list(range(pack.shared))
    ids = [pack.ids[n] for n in head]
    mask, segments = [False] * len(head), [-1] * len(head)
    positions = list(head)
    names: list[str] = []
    for numbers, name, again in zip(own, pack.example_ids, pack.replayed, strict=True):
        if again:
            continue
        whole = head + numbers
        tokens = [pack.ids[n] for n in whole]
        skip = int(tokens[0] == bos and tokens.count(tokens[0]) == 1)
        ids += [pack.ids[n] for n in numbers] + tokens[skip:]
        mask += [False] * len(numbers) + [pack.mask[n] for n in whole[skip:]]
        positions += range(len(head), 2 * len(whole) - skip)
        segments += [len(names)] * (len(numbers) + len(whole) - skip)
        names.append(name)
    if not names:
        return None
    return replace(
        pack,
        ids=tuple(ids),
        mask=tuple(mask),
        positions=tuple(positions),
        segments=tuple(segments),
        example_ids=tuple(names),
    )
