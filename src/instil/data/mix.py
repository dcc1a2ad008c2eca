"""Several tasks in one training: how many examples of each an epoch holds, and which.

Terms. The *size* of a task is the number of its examples: its training rows, or rows x templates
where every row goes through all. Its *share* of an epoch follows from its size, up to a cap, raised
to 1 / temperature (examples-proportional mixing with an artificial limit and a temperature: Raffel
et al. 2020, T5, section 3.5.2; FLAN caps at 3000), or from a weight that the recipe gives::

    sizes 200, 1000, 9000   cap 3000             ->  shares .048 .238 .714  of 4200 examples
                            cap 3000, temp. 2    ->  shares .141 .315 .545

A *pass* goes once through all examples of a task, in an order of its own. Where an epoch takes
fewer, the next epoch goes on where it stopped, so that every row is seen before one is seen again;
where it takes more, rows come again, through templates drawn anew.

A *few-shot* example shows worked examples first: training rows through the same template, never
the row itself and never a row of its group.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

from instil.data.build import Asked, drawn_templates, render_all, short_rows
from instil.data.split import seeded_key
from instil.errors import DataError, RecipeError
from instil.types import Example, PerRow, Row, Task, Template

TRIES = 32  # draws for a worked example before all rows are gone through in turn


@dataclass(frozen=True, slots=True)
class Prompt:
    """One way of asking, with what it shows to each training row."""

    template: Template
    """The wording, not necessarily one of the task's."""
    shown: Mapping[str, tuple[Row, ...]]
    """Id of a training row -> its worked examples, of other groups."""


@dataclass(frozen=True, slots=True)
class Pool:
    """What a task has to train on."""

    task: Task
    """The task."""
    rows: tuple[Row, ...]
    """Its training rows."""
    templates: tuple[Template, ...]
    """To train through."""
    weight: float | None = None
    """Its share of the mix, relative to the others'; None: by its size."""
    prompt: Prompt | None = None
    """How the few-shot examples are asked; None: through their own template, with rows drawn."""

    def size(self, per_row: str) -> int:
        """Return how many examples one pass holds."""
        return len(self.rows) * (len(self.templates) if PerRow(per_row) is PerRow.ALL else 1)


@dataclass(frozen=True, slots=True)
class MixRules:
    """How an epoch is drawn from the pools."""

    per_row: str
    """`one` template a row and pass, or `all`."""
    seed: int
    """Of every draw."""
    examples: int | None = None
    """Of one epoch over all tasks; None: the sizes, each up to the cap."""
    cap: int | None = None
    """Largest size that a task counts for."""
    temperature: float = 1.0
    """1: by size; higher: more even."""
    few_shot_share: float = 0.0
    """Share of a task's examples that show worked examples, 0 to 1."""
    few_shot: int = 0
    """Worked examples in each of those."""


def mix_counts(pools: Sequence[Pool], rules: MixRules) -> tuple[int, ...]:
    """Return the examples of an epoch for each pool, in the order of the pools.

    The counts add up to what the epoch holds; each differs from its exact share by less than 1.

    Raises:
        RecipeError: A task would get no example at all.
    """
    sizes = [pool.size(rules.per_row) for pool in pools]
    capped = [min(size, rules.cap or size) for size in sizes]
    weights = [
        pool.weight if pool.weight is not None else size ** (1 / rules.temperature)
        for pool, size in zip(pools, capped, strict=True)
    ]
    counts = apportion(rules.examples or sum(capped), weights)
    left_out = [pool.task.id for pool, count in zip(pools, counts, strict=True) if not count]
    if left_out:
        raise RecipeError(
            f"an epoch of {sum(counts)} examples has none of {', '.join(left_out)}",
            where="mix",
            fix="raise mix.examples or mix.temperature, or leave the task out",
        )
    return counts


def apportion(total: int, weights: Sequence[float]) -> tuple[int, ...]:
    """Divide `total` by weights into whole numbers, by largest remainders; ties to the first.

    >>> apportion(10, [1, 1, 1])
    (4, 3, 3)
    """
    scale = total / sum(weights)
    exact = [weight * scale for weight in weights]
    counts = [int(share + 1e-9) for share in exact]
    order = sorted(range(len(exact)), key=lambda n: (counts[n] - exact[n], n))
    for n in order[: total - sum(counts)]:
        counts[n] += 1
    return tuple(counts)


def mixed_examples(pools: Sequence[Pool], rules: MixRules, *, epoch: int) -> Iterator[Example]:
    """Yield the examples of one epoch, rendered, in the order of `mixed`.

    Raises:
        DataError, TaskError: As `render_example`; too few groups to show worked examples from.
        RecipeError: As `mix_counts`.
    """
    return render_all(mixed(pools, rules, epoch=epoch))


def mixed(pools: Sequence[Pool], rules: MixRules, *, epoch: int) -> Iterator[Asked]:
    """Yield what one epoch asks, task by task.

    A task that an epoch takes whole comes in the order of its rows.

    Raises:
        DataError: Too few groups to show worked examples from.
        RecipeError: As `mix_counts`.
    """
    counts = mix_counts(pools, rules)
    for pool, count in zip(pools, counts, strict=True):
        yield from _epoch(pool, rules, count=count, epoch=epoch)


@dataclass(frozen=True, slots=True)
class _Unit:
    """One example to be: a row, a template, and the pass that it belongs to."""

    row: Row
    template: Template
    number: int


def _epoch(pool: Pool, rules: MixRules, *, count: int, epoch: int) -> Iterator[Asked]:
    drawn = _units(pool, rules, first=epoch * count, last=(epoch + 1) * count)
    if not rules.few_shot_share:  # a million units are not held
        yield from (Asked(pool.task, unit.template, unit.row) for unit in drawn)
        return
    units = list(drawn)
    shown = _Shown(pool, rules, units)
    for place, unit in enumerate(units):
        if place in shown.places and pool.prompt:
            template, rows = pool.prompt.template, pool.prompt.shown[unit.row.id]
            yield Asked(pool.task, template, unit.row, rows)
        else:
            exemplars = shown(unit) if place in shown.places else ()
            yield Asked(pool.task, unit.template, unit.row, exemplars)


def _units(pool: Pool, rules: MixRules, *, first: int, last: int) -> Iterator[_Unit]:
    """Yield the examples from number `first` to `last` of an endless row of passes."""
    size = pool.size(rules.per_row)
    while first < last:
        number, begin = divmod(first, size)
        end = min(size, begin + last - first)
        units: Iterable[_Unit] = (
            _Unit(row, template, number)
            for row in pool.rows
            for template in drawn_templates(
                row, pool.templates, per_row=rules.per_row, seed=rules.seed, draw=number
            )
        )
        if end - begin < size:  # a stretch of the pass in its own, seeded order
            units = sorted(units, key=partial(_key, "mix", pool=pool, rules=rules))[begin:end]
        yield from units
        first += end - begin


def _key(what: str, unit: _Unit, *more: int, pool: Pool, rules: MixRules) -> int:
    ids = pool.task.id, unit.number, unit.row.id, unit.template.id
    return seeded_key(rules.seed, what, *ids, *more)


class _Shown:
    """Which examples of an epoch show worked examples, and which ones."""

    def __init__(self, pool: Pool, rules: MixRules, units: Sequence[_Unit]) -> None:
        self.pool, self.rules = pool, rules
        count = round(rules.few_shot_share * len(units))
        by_key = sorted(
            range(len(units)) if count else (),
            key=lambda n: (_key("few-shot", units[n], pool=pool, rules=rules), n),
        )
        self.places = frozenset(by_key[:count])
        self.rows = short_rows(pool.task, pool.rows) if count else []
        groups = len({row.group for row in pool.rows})
        if count and groups <= rules.few_shot:
            fix = f"mix: {{few_shot: {groups - 1}}}" if groups > 1 else "mix: {few_shot_share: 0}"
            raise DataError(
                "too few groups of training rows to show worked examples of other groups",
                where=f"task {pool.task.id}",
                found=f"{groups} groups for {rules.few_shot} worked examples",
                fix=fix,
            )
        if len({row.group for row in self.rows}) <= rules.few_shot:
            self.rows = list(pool.rows)

    def _key(self, unit: _Unit, *more: int) -> int:
        return _key("exemplar", unit, *more, pool=self.pool, rules=self.rules)

    def __call__(self, unit: _Unit) -> tuple[Row, ...]:
        """Draw rows of other groups than the unit's, each of a group of its own."""
        taken: set[str] = {unit.row.group}
        picked: list[Row] = []
        count = len(self.rows)
        start = self._key(unit) % count
        draws = (self.rows[self._key(unit, n) % count] for n in range(TRIES))
        for row in chain(draws, self.rows[start:], self.rows[:start]):
            if row.group not in taken:
                taken.add(row.group)
                picked.append(row)
                if len(picked) == self.rules.few_shot:
                    break
        return tuple(picked)
