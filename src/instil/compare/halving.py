"""Successive halving: many ways of asking on few rows, the best few of them on all rows.

Every way is asked a first share of the rows, half of the ways are dropped, what is left is asked
the next share, and so on (Karnin, Koren & Somekh 2013, "Almost optimal exploration in multi-armed
bandits"). The best way of every *kind* is kept, so that all kinds are known on all rows, then the
best of the others until half are. A way that would not reach the leader even if it had all its
remaining rows right, and the leader none, is not kept though there is room: that is exact, and
loses nothing.

A worked example: nine ways (three templates, three numbers of shots; the kind is the number of
shots) on 150 validation rows. All nine are asked 50 rows, five of them 50 more, the best of each
kind all 150: 850 prompts in place of 1,350.

A look at few rows errs, but the ways are paired by row, and one that is dropped wrongly was most
often about as good as one that was kept: docs/003 has what choosing so has cost.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

FEWEST = 24
"""Rows of a look, at least: where a third is fewer, looks are further apart."""
LOOKS = 3
"""Looks, at most; the last is at all rows."""
FIRST = 16
"""Rows of the first look where ways are many; see `doubling`."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a way's scores, each from 0 to 1, have come to."""

    total: float
    """Their sum."""
    scored: int
    """How many there are."""
    unscored: int = 0
    """Rows asked that no answer could be scored on."""

    @property
    def mean(self) -> float:
        """Of the scores; 0 where there are none."""
        return self.total / self.scored if self.scored else 0.0

    def at_best(self, rows: int) -> float:
        """The mean on so many rows if all those not asked yet were right."""
        left = rows - self.scored - self.unscored
        return (self.total + left) / max(1, self.scored + left)

    def at_worst(self, rows: int) -> float:
        """The mean on so many rows if all those not asked yet were wrong."""
        return self.total / max(1, rows - self.unscored)


def looks(rows: int) -> tuple[int, ...]:
    """Return after how many rows ways are dropped; the last look is at all rows.

    >>> looks(150), looks(100), looks(60), looks(40)
    ((50, 100, 150), (33, 66, 100), (30, 60), (40,))
    """
    count = max(1, min(LOOKS, rows // FEWEST))
    return tuple(rows * n // count for n in range(1, count + 1))


def doubling(rows: int) -> tuple[int, ...]:
    """Return looks for many ways: with half of them left rows double, so that looks cost alike.

    >>> doubling(150), doubling(20)
    ((16, 32, 64, 128, 150), (16, 20))
    """
    at, look = [], FIRST
    while look < rows:
        at.append(look)
        look *= 2
    return (*at, rows)


def affordable(ways: int, *, rows: int, budget: int, beside: int = 0) -> int:
    """Return how many of so many ways can be raced at the looks of `doubling` within a budget.

    Args:
        ways: There are.
        rows: To ask each of those that are left at the end.
        budget: Prompts that may be asked.
        beside: Prompts that each look takes of each way, beside the rows.

    >>> affordable(200, rows=150, budget=3000), affordable(10, rows=150, budget=100)
    (72, 0)
    """
    at = doubling(rows)
    for count in range(ways, 0, -1):
        plan = planned([0] * count, rows=rows, at=at)
        if sum(n * (more + beside) for n, more in plan) <= budget:
            return count
    return 0


def survivors(
    standings: Sequence[Standing], *, kinds: Sequence[Hashable], rows: int
) -> tuple[int, ...]:
    """Return the places of the ways that are asked further, in their order.

    Args:
        standings: A way each; all were asked the same rows.
        kinds: The kind of each; the best of every kind stays.
        rows: There are in all.

    >>> ways = [Standing(20, 24), Standing(12, 24), Standing(18, 24), Standing(9, 24)]
    >>> survivors(ways, kinds="aabb", rows=96)
    (0, 2)
    """
    ranked = sorted(range(len(standings)), key=lambda n: -standings[n].mean)
    best = {kinds[n]: n for n in reversed(ranked)}.values()
    leader = standings[ranked[0]].at_worst(rows)
    able = [n for n in ranked if n not in best and standings[n].at_best(rows) >= leader]
    return tuple(sorted([*best, *able[: kept_of(len(standings), kinds=len(best)) - len(best)]]))


def kept_of(ways: int, *, kinds: int) -> int:
    """Return how many of so many ways are kept at a look, at most."""
    return max((ways + 1) // 2, kinds)


def planned(
    kinds: Sequence[Hashable], *, rows: int, at: Sequence[int] = ()
) -> tuple[tuple[int, int], ...]:
    """Return how many ways are asked how many more rows at each look, at most.

    Args:
        kinds: The kind of each way.
        rows: How many rows there are.
        at: The looks; empty: those of `looks`.

    >>> planned([0, 1, 5] * 3, rows=150)
    ((9, 50), (5, 50), (3, 50))
    """
    ways, plan = len(kinds), []
    for before, look in itertools.pairwise((0, *(at or looks(rows)))):
        plan.append((ways, look - before))
        ways = kept_of(ways, kinds=len(set(kinds)))
    return tuple(plan)


def race(
    ask: Callable[[int, slice], Standing],
    *,
    kinds: Sequence[Hashable],
    rows: int,
    alone: bool = False,
    at: Sequence[int] = (),
) -> tuple[int, ...]:
    """Ask ways, dropping the worse ones on the way; return the places of those left at the end.

    Args:
        ask: Asks a way, by its place, some more of the rows, and returns its standing since the
            first row.
        kinds: The kind of each way.
        rows: How many rows there are.
        alone: Whether the race ends when one way is left, though rows are left too.
        at: After how many rows ways are dropped, all rows last; empty: as `looks` says.
    """
    left, before = tuple(range(len(kinds))), 0
    for look in at or looks(rows):
        if alone and len(left) == 1:
            break
        standings = [ask(way, slice(before, look)) for way in left]
        before = look
        if look < rows:
            kept = survivors(standings, kinds=[kinds[way] for way in left], rows=rows)
            left = tuple(left[n] for n in kept)
    return left
