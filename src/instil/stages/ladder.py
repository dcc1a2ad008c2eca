"""Before training: the prompting ladder of every task, climbed on validation."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from instil.config.sections import Baselines, Searching
from instil.data.mix import Prompt
from instil.data.prepare import TaskData
from instil.results.prompts import Rung, Search
from instil.results.tasks import Costs
from instil.stages.context import RunContext
from instil.types import Row, Template

if TYPE_CHECKING:
    from instil.compare.ladder import Prompting
    from instil.model.load import LoadedModel


@dataclass(frozen=True, slots=True)
class Ladder:
    """A climbed ladder and what it cost."""

    rungs: tuple[Rung, ...]
    """Every rung."""
    seconds: float
    """To climb it."""
    peak_memory_bytes: int
    """Of the process meanwhile."""
    search: Search | None = None
    """The search for a better prompt, where the recipe wants one."""

    @property
    def costs(self) -> Costs:
        """What choosing its best rung took."""
        searched = self.search.seconds if self.search else 0.0
        return Costs(seconds=self.seconds + searched, peak_memory_bytes=self.peak_memory_bytes)

    def bar(
        self, loaded: LoadedModel, data: TaskData, rows: Sequence[Row], *, seed: int, longest: int
    ) -> tuple[Prompting, str]:
        """Return the way of asking that sets the bar, for rows, and its scoring rule.

        Args:
            loaded: The base model.
            data: The task.
            rows: Rows to ask.
            seed: Of the ladder's worked examples.
            longest: Tokens that the model takes at most; 0: not known.
        """
        from instil.compare.ladder import best_rung, prompting
        from instil.compare.search import prompting_of

        if self.search and self.search.better:
            way = prompting_of(loaded, data, self.search, rows, longest=longest)
            return way, self.search.scoring
        rung = best_rung(self.rungs)
        return prompting(data, template=rung.template, shots=rung.shots, seed=seed), rung.scoring


def climb_ladders(context: RunContext) -> Mapping[str, Ladder]:
    """Climb the ladder of every task, and search on from there: task -> ladder."""
    base = lru_cache(maxsize=1)(context.load_base)

    def climb() -> dict[str, Ladder]:
        return {d.task.id: _climb(context, d, base) for d in context.data}

    ladders = context.run.kept("ladder", dict[str, Ladder], climb)
    if context.recipe.baselines.search is Searching.OFF:
        return ladders

    def search() -> dict[str, Search]:
        return {d.task.id: _search(context, d, ladders[d.task.id], base) for d in context.data}

    searched = context.run.kept("search", dict[str, Search], search)
    return {name: replace(each, search=searched[name]) for name, each in ladders.items()}


def prompts_to_train(context: RunContext, ladders: Mapping[str, Ladder]) -> Mapping[str, Prompt]:
    """Return task -> its best prompt for every training row (`mix.few_shot: best`).

    A row never sees itself, nor a row of its group.
    """
    loaded, seed = context.load_base(), context.recipe.seed
    prompts = {}
    for d in context.data:
        way, _ = ladders[d.task.id].bar(
            loaded, d, d.train, seed=seed, longest=context.recipe.train.max_length
        )
        shown = {row.id: way.by_row.get(row.id, way.exemplars) for row in d.train}
        others = {
            row.id: tuple(each for each in shown[row.id] if each.group != row.group)
            for row in d.train
        }
        prompts[d.task.id] = Prompt(way.template, others)
    return prompts


def ladder_templates(baselines: Baselines, data: TaskData) -> tuple[Template, ...]:
    """Return the templates that a task's ladder is climbed with."""
    wanted, asking = baselines.templates, (*data.answering, *data.held_out)
    return tuple(t for t in asking if wanted == "all" or t.id in wanted) or asking


def search_budget(baselines: Baselines, *, rows: int) -> int:
    """Return how many prompts the search may ask of a task with so many validation rows."""
    from instil.compare.search import EXTENTS

    if baselines.search is Searching.OFF:
        return 0
    return baselines.search_prompts or EXTENTS[baselines.search].prompts_a_row * rows


def _climb(context: RunContext, data: TaskData, base: Callable[[], LoadedModel]) -> Ladder:
    from instil.compare.halving import planned
    from instil.compare.ladder import climb, prompting
    from instil.train.peak import forget_peak, peak_memory

    wanted, seed = context.recipe.baselines, context.recipe.seed
    templates, shots = ladder_templates(wanted, data), wanted.shots
    rows = data.validation[: wanted.validation_rows]

    def measured() -> Ladder:
        loaded = base()
        forget_peak(loaded.device)
        began = time.perf_counter()
        total = sum(ways * more for ways, more in planned(shots * len(templates), rows=len(rows)))
        with context.stage(f"prompting {data.task.id}", total) as done:
            ask = partial(climb, loaded, data, templates=templates, shots=shots, rows=rows)
            rungs = ask(seed=seed, on_done=done)
        return Ladder(rungs, time.perf_counter() - began, peak_memory(loaded.device))

    shown = [
        prompting(data, template=templates[0].id, shots=count, seed=seed).exemplars
        for count in shots
    ]
    inputs = (data.task, templates, shots, shown, rows)
    return context.of_base("ladder", Ladder, measured, inputs=inputs)


def _search(
    context: RunContext, data: TaskData, ladder: Ladder, base: Callable[[], LoadedModel]
) -> Search:
    from instil.compare.search import EXTENTS, search

    wanted, seed = context.recipe.baselines, context.recipe.seed
    extent, rows = EXTENTS[wanted.search], data.validation[: wanted.validation_rows]
    budget = search_budget(wanted, rows=len(rows))

    def searched() -> Search:
        with context.stage(f"searching prompts {data.task.id}", budget) as done:
            return search(
                base(),
                data,
                rungs=ladder.rungs,
                extent=extent,
                rows=rows,
                budget=budget,
                longest=context.longest,
                seed=seed,
                on_done=done,
            )

    inputs = (data.task, data.answering, extent, budget, ladder.rungs, data.train, rows)
    return context.of_base("search", Search, searched, inputs=(*inputs, seed, context.longest))
