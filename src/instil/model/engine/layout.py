"""How a pack's segments are laid out for attention: groups of round sizes, and who may look where.

Few and round sizes, since every new shape costs oneDNN some milliseconds (docs/002).

Tests: `tests/model/engine/test_packed.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

GROUP_TOKENS = 512
"""Queries computed at once, about: their attention weights should stay in the processor's cache."""

Shape = tuple[int, ...]
"""Tokens of a segment: its trunk, then each of its branches."""


@dataclass(frozen=True, slots=True)
class Group:
    """Segments of about one length, filled up to L tokens each, n of them; S keys are shared."""

    count: int
    """n, filled up with empty segments."""
    length: int
    """L."""
    shared: int
    """S."""
    queries: torch.Tensor
    """(n L,) places in the pack; the last one where there is no token."""
    graded: torch.Tensor
    """(n L,) the same for gradients: T where there is no token, behind all that have one."""
    keys: torch.Tensor
    """(n K,) places in the pack, 0 where there is no token; K is S + L, rounded up."""
    blocked: torch.Tensor
    """(1 or n, 1, 1, L, K): 0 where a query may look, -inf where it may not."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a pack is cut into groups, and put together again."""

    groups: tuple[Group, ...]
    """All of them; their outputs stand one behind another."""
    place: torch.Tensor
    """(T,) where each token of the pack stands among those outputs."""
    shared: int
    """Tokens in front that every segment looks back at."""


@lru_cache(maxsize=16)
def lay_out(
    segments: tuple[Shape, ...],
    shared: int,
    window: int | None,
    device: torch.device,
    *,
    own_queries: bool = False,
) -> Layout:
    """Cut a pack into groups; few and round sizes, since new shapes cost oneDNN milliseconds.

    With `own_queries` the prefix stands among the keys alone: it has been read before.
    """
    starts, total = [], shared
    for shape in segments:
        starts.append(total)
        total += sum(shape)
    alike: dict[int, list[tuple[int, Shape]]] = defaultdict(list)
    for start, shape in zip(starts, segments, strict=True):
        alike[rounded_length(sum(shape))].append((start, shape))
    cut: list[tuple[int, int, list[tuple[int, Shape]]]] = []
    if shared and not own_queries:
        cut.append((rounded_length(shared), 0, [(0, (shared,))]))
    for length, members in alike.items():
        most = max(1, GROUP_TOKENS // length)
        cut += [(length, shared, members[n : n + most]) for n in range(0, len(members), most)]
    groups, place, done = [], torch.empty(total, dtype=torch.long), 0
    for length, behind, members in cut:
        group = _group(members, length, behind, window, total, device)
        if own_queries:
            group = replace(group, queries=group.queries - shared, graded=group.graded - shared)
        for number, (start, shape) in enumerate(members):
            first = done + number * group.length
            place[start : start + sum(shape)] = torch.arange(first, first + sum(shape))
        done += group.count * group.length
        groups.append(group)
    place = place[shared:] if own_queries else place
    return Layout(tuple(groups), place.to(device), shared)


def _group(
    members: Sequence[tuple[int, Shape]],
    length: int,
    shared: int,
    window: int | None,
    total: int,
    device: torch.device,
) -> Group:
    count = rounded_count(len(members))
    queries = torch.full((count, length), total)
    keys = torch.zeros((count, rounded_length(shared + length)), dtype=torch.long)
    keys[:, :shared] = torch.arange(shared)
    for number, (start, shape) in enumerate(members):
        own = torch.arange(start, start + sum(shape))
        queries[number, : len(own)] = own
        keys[number, shared : shared + len(own)] = own
    shapes = [shape for _, shape in members]
    if all(len(shape) == 1 for shape in shapes):  # plain causal: no query looks beyond its segment
        shapes = [(length,)]
    blocked = torch.stack([_blocked(shape, length, shared, window) for shape in shapes])
    if 1 < len(shapes) < count:
        blocked = torch.cat([blocked, blocked[:1].expand(count - len(shapes), -1, -1)])
    return Group(
        count,
        length,
        shared,
        queries.flatten().clamp(max=total - 1).to(device),
        queries.flatten().to(device),
        keys.flatten().to(device),
        blocked[:, None, None].contiguous().to(device),
    )


def _blocked(shape: Shape, length: int, shared: int, window: int | None) -> torch.Tensor:
    """(L, K): 0 where a query may look, -inf where it may not.

    What fills the segment up stands behind everything, so no real query looks at it.
    """
    trunk, *branches = shape
    places = [*range(shared + trunk)]
    owners = [-1] * (shared + trunk)
    for number, branch in enumerate(branches):
        places += range(shared + trunk, shared + trunk + branch)
        owners += [number] * branch
    missing = rounded_length(shared + length) - len(places)
    places += range(shared + sum(shape), shared + sum(shape) + missing)
    owners += [-1] * missing
    place, owner = torch.tensor(places), torch.tensor(owners)
    ours = slice(shared, shared + length)
    far = place[ours, None] - place[None, :]
    seen = (far >= 0) & ((owner[None, :] == -1) | (owner[ours, None] == owner[None, :]))
    if window:
        seen &= far < window
    return torch.zeros(seen.shape).masked_fill_(~seen, float("-inf"))


def rounded_length(length: int) -> int:
    """Round a length up to one of few: at most 32 more, or an eighth.

    >>> [rounded_length(n) for n in (5, 33, 300, 1000)]
    [32, 64, 320, 1024]
    """
    step = 32
    while step * 8 < length:
        step *= 2
    return -(-length // step) * step


def rounded_count(count: int) -> int:
    """Round a count up to a power of two, or one and a half of one.

    >>> [rounded_count(n) for n in (1, 3, 5, 7, 13)]
    [1, 3, 6, 8, 16]
    """
    power = 1
    while power < count:
        power *= 2
    return power * 3 // 4 if power >= 4 and power * 3 // 4 >= count else power
