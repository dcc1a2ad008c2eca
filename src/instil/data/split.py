"""Who trains, who validates, who is tested: decided on groups, before any rendering.

Terms. A *group* is what must never straddle two parts: all sentences of one review, say. A part
*asks* for a number of rows; groups are given to it whole until it is full. The *surplus* is what
the last group brought beyond that number: it stays unused, for another part must not see it.

A worked example with groups a (3 rows), b (2) and c (4), and test asking for 4: group a fits (3),
then b is the smallest that fills the rest (1 of its 2 rows, the other one unused), and c is left to
validation and train.

The order of groups and of rows is that of a seeded hash of their names. So the same seed gives the
same split on every machine, and, where rows have ids of their own (`row_id` in the task), whatever
their order in the file. Without, a row's id is its number: rows may then be added at the end, but a
row taken out shifts all that follow.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from instil.errors import DataError, Problem
from instil.files import write_whole
from instil.types import Part, Row, Split, Task

FORMAT_VERSION = 1
WINDOW = 64  # groups compared for a better balance of labels; bounded, so that time is linear


def seeded_key(*parts: object) -> int:
    """Return 64 pseudo-random bits that depend on `parts` alone, on every machine and in every run.

    >>> seeded_key(7, "row", "17_3") == seeded_key(7, "row", "17_3")
    True
    >>> seeded_key("a", "bc") == seeded_key("ab", "c")
    False
    """
    text = json.dumps([str(part) for part in parts])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


@dataclass(frozen=True, slots=True)
class _Group:
    """Rows that stay together, in seeded order, with their labels counted."""

    name: str
    rows: tuple[Row, ...]
    labels: Mapping[str, int]


class _Pool:
    """The groups that no part has taken yet, in seeded order."""

    def __init__(self, groups: Iterable[_Group], *, spare_classes: bool) -> None:
        self.groups = {group.name: group for group in groups}
        self.spare_classes = spare_classes
        self.holders = Counter(label for group in self for label in group.labels)

    def __iter__(self) -> Iterator[_Group]:
        return iter(tuple(self.groups.values()))  # a copy: groups are removed meanwhile

    @property
    def size(self) -> int:
        return sum(len(group.rows) for group in self.groups.values())

    def allows(self, group: _Group) -> bool:
        """Whether every class keeps a group for training once this one is gone."""
        return not self.spare_classes or all(self.holders[label] > 1 for label in group.labels)

    def remove(self, group: _Group) -> None:
        del self.groups[group.name]
        self.holders.subtract(group.labels.keys())


@dataclass(slots=True)
class _Draft:
    """A part while it is being filled."""

    asked: int
    quotas: Mapping[str, int]
    label_of: Callable[[Row], str]
    rows: list[Row] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def need(self) -> int:
        return self.asked - len(self.rows)

    def excess(self, group: _Group) -> int:
        """Rows by which the group would carry its labels beyond their quotas."""
        return sum(
            max(0, self.counts[label] + n - max(self.quotas[label], self.counts[label]))
            for label, n in group.labels.items()
        )

    def take(self, group: _Group, pool: _Pool) -> None:
        """Take the group; of one that is larger than the need, the rows that balance best."""
        pool.remove(group)
        rows = group.rows
        if len(rows) > self.need:
            room = Counter(self.quotas)
            room.subtract(self.counts)
            wanted, others = list[Row](), list[Row]()
            for row in rows:  # first those whose label has room left
                label = self.label_of(row)
                (wanted if room[label] > 0 else others).append(row)
                room[label] -= 1
            rows = tuple((wanted + others)[: self.need])
        self.rows.extend(rows)
        self.counts.update(self.label_of(row) for row in rows)


def split_rows(
    rows: Sequence[Row],
    *,
    task: Task,
    train: int | None,
    validation: int,
    test: int,
    seed: int,
    train_seed: int | None = None,
) -> Split:
    """Give whole groups to test, then to validation, then to train.

    For a task with choices, the shares of the labels in each part follow those of the whole as far
    as groups allow, and every class keeps a group for train. Linear in the rows, but for sorting.

    Args:
        rows: All rows of the task, in any order, with unique ids.
        task: Says which field holds the label.
        train: Rows to train on; None: all that remain; 0: none (a task that is only tested).
        validation: Rows to validate on.
        test: Rows to test on.
        seed: Another seed gives another split.
        train_seed: Another one gives other training rows beside the same test and validation; None:
            `seed`.

    Returns:
        The split; each part has exactly the rows asked for, in a seeded order, so that the first
        100 rows of a part are a random sample of it. Rows left over are counted in `unused`.

    Raises:
        DataError: Too few rows, or a class that train would lack.
    """
    assert len({row.id for row in rows}) == len(rows), "row ids must be unique"
    assert min(train or 0, validation, test) >= 0, "sizes cannot be negative"

    def label_of(row: Row) -> str:
        return str(row.fields[task.target]) if task.choices else ""

    shares = Counter(map(label_of, rows))
    pool = _Pool(_groups(rows, task=task, seed=seed, label_of=label_of), spare_classes=train != 0)

    def draft(asked: int) -> _Draft:
        """Begin a part, its rows shared out over the labels by largest remainder."""
        total = len(rows) or 1
        quotas = {label: asked * n // total for label, n in shares.items()}
        by_remainder = sorted(shares, key=lambda label: (-(asked * shares[label] % total), label))
        for label in by_remainder[: asked - sum(quotas.values())]:
            quotas[label] += 1
        return _Draft(asked=asked, quotas=quotas, label_of=label_of)

    drafts = {Part.TEST: draft(test), Part.VALIDATION: draft(validation)}
    for part in drafts.values():
        _fill(part, pool)
    remaining = pool.size
    pool.spare_classes = False
    seeds = {Part.TRAIN: seed if train_seed is None else train_seed}
    if seeds[Part.TRAIN] != seed:
        left = [row for group in pool for row in group.rows]
        groups = _groups(left, task=task, seed=seeds[Part.TRAIN], label_of=label_of)
        pool = _Pool(groups, spare_classes=False)
    to_train = drafts[Part.TRAIN] = draft(remaining if train is None else train)
    for group in pool:  # one of every class comes before anything else
        if len(group.rows) <= to_train.need and group.labels.keys() - to_train.counts.keys():
            to_train.take(group, pool)
    _fill(to_train, pool)
    _check_sizes(drafts, rows=rows, task=task, train=train, remaining=remaining)
    _check_classes(to_train, shares=shares, task=task)
    ids = {
        part: tuple(row.id for row in _shuffled(d.rows, task=task, seed=seeds.get(part, seed)))
        for part, d in drafts.items()
    }
    return Split(
        task=task.id,
        seed=seed,
        train=ids[Part.TRAIN],
        validation=ids[Part.VALIDATION],
        test=ids[Part.TEST],
        unused=len(rows) - sum(map(len, ids.values())),
    )


def _groups(
    rows: Sequence[Row], *, task: Task, seed: int, label_of: Callable[[Row], str]
) -> list[_Group]:
    members: dict[str, list[Row]] = {}
    for row in rows:
        members.setdefault(row.group, []).append(row)
    names = sorted(members, key=lambda name: (seeded_key(seed, task.id, "group", name), name))
    return [
        _Group(
            name=name,
            rows=tuple(_shuffled(members[name], task=task, seed=seed)),
            labels=Counter(map(label_of, members[name])),
        )
        for name in names
    ]


def _shuffled(rows: Iterable[Row], *, task: Task, seed: int) -> list[Row]:
    return sorted(rows, key=lambda row: (seeded_key(seed, task.id, "row", row.id), row.id))


def _fill(draft: _Draft, pool: _Pool) -> None:
    """Fill a part: groups that keep every quota, then those that stray least, then part of one."""
    for group in pool:
        if _fits(draft, pool, group) and not draft.excess(group):
            draft.take(group, pool)
    queue = deque(pool)
    window: list[_Group] = []
    while draft.need:  # the group of a sliding window that strays least, while any fits
        window = [group for group in window if _fits(draft, pool, group)]
        while queue and len(window) < WINDOW:
            group = queue.popleft()
            if _fits(draft, pool, group):
                window.append(group)
        if not window:
            break
        best = min(window, key=draft.excess)
        window.remove(best)
        draft.take(best, pool)
    allowed = [group for group in pool if pool.allows(group)]
    if draft.need and allowed:
        group = min(allowed, key=lambda group: (len(group.rows), draft.excess(group)))
        draft.take(group, pool)


def _fits(draft: _Draft, pool: _Pool, group: _Group) -> bool:
    return len(group.rows) <= draft.need and pool.allows(group)


def _check_sizes(
    drafts: Mapping[Part, _Draft],
    *,
    rows: Sequence[Row],
    task: Task,
    train: int | None,
    remaining: int,
) -> None:
    short = [part for part, draft in drafts.items() if draft.need]
    if train is None and not remaining and Part.TRAIN not in short:
        short.append(Part.TRAIN)
    if not short:
        return
    asked = ", ".join(f"{part} {draft.asked}" for part, draft in drafts.items() if draft.asked)
    what = "; ".join(
        f"{part} asks for {max(1, drafts[part].asked)} and can have {len(drafts[part].rows)}"
        for part in short
    )
    n = len(rows)
    test, validation = n // 5, n // 10
    fix = f"for example test: {test}, validation: {validation}, train: {n - test - validation}; "
    fix = f"{fix}or add rows" if n >= 10 else "add rows"
    groups = len({row.group for row in rows})
    judged = drafts[Part.TEST].asked + drafts[Part.VALIDATION].asked
    if groups < n and judged + (train or 1) <= n:
        fix = "ask for fewer rows, add groups, or leave the task's `group` out: it is too coarse"
    if short == [Part.TRAIN] and remaining:
        fix = f"train: {remaining}"
    raise DataError(
        f"too few rows for the split: {what}",
        where=f"task {task.id}",
        found=f"{n} rows in {groups} groups for {asked}",
        allowed="whole groups only, and a group of every class is kept for train",
        fix=fix,
    )


def _check_classes(draft: _Draft, *, shares: Mapping[str, int], task: Task) -> None:
    if not draft.asked:
        return
    problems = []
    for label in (choice for choice in task.choices if not draft.counts[choice]):
        if shares[label]:
            found = f"{shares[label]} rows of it in all, none among the {draft.asked} for train"
            fix = "raise train, or lower test and validation"
        else:
            found = "no row has this label"
            fix = "take it out of the task's choices, or add rows of it"
        what = f"the class {label!r} is missing from train"
        problems.append(Problem(what, where=f"task {task.id}", found=found, fix=fix))
    if problems:
        raise DataError(*problems)


def part_rows(split: Split, rows: Sequence[Row], part: Part) -> tuple[Row, ...]:
    """Return the rows of one part, in the split's order.

    Raises:
        DataError: The split names rows that the data no longer has.
    """
    wanted: tuple[str, ...] = getattr(split, part.value)
    by_id = {row.id: row for row in rows}
    lost = [row_id for row_id in wanted if row_id not in by_id]
    if lost:
        raise DataError(
            f"{len(lost)} of the {len(wanted)} {part} rows are not in the data any more",
            where=f"task {split.task}",
            found=", ".join(lost[:3]),
            fix="use the data that the split was made from, or make a new split",
        )
    return tuple(by_id[row_id] for row_id in wanted)


def save_splits(splits: Sequence[Split], path: Path) -> None:
    """Write the splits as JSON; the file is whole or not there."""
    content = {"format_version": FORMAT_VERSION, "splits": [asdict(split) for split in splits]}
    write_whole(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def load_splits(path: Path) -> list[Split]:
    """Read what `save_splits` wrote.

    Raises:
        DataError: It cannot be read.
    """
    try:
        content = json.loads(path.read_bytes())
        return TypeAdapter(list[Split]).validate_python(content["splits"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError("this file of splits cannot be read", where=str(path)) from error
