"""Before training: the prompting ladder of every task, climbed on validation."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from instil.config.sections import Baselines
from instil.data.prepare import TaskData
from instil.results import Costs, Rung
from instil.stages.context import RunContext
from instil.types import Template

if TYPE_CHECKING:
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

    @property
    def costs(self) -> Costs:
        """What choosing its best rung took."""
        return Costs(seconds=self.seconds, peak_memory_bytes=self.peak_memory_bytes)


def climb_ladders(context: RunContext) -> Mapping[str, Ladder]:
    """Climb the ladder of every task: task -> ladder."""

    def climb() -> dict[str, Ladder]:
        base = lru_cache(maxsize=1)(context.load_base)
        return {d.task.id: _climb(context, d, base) for d in context.data}

    return context.run.kept("ladder", dict[str, Ladder], climb)


def ladder_templates(baselines: Baselines, data: TaskData) -> tuple[Template, ...]:
    """Return the templates that a task's ladder is climbed with."""
    wanted, asking = baselines.templates, (*data.answering, *data.held_out)
    return tuple(t for t in asking if wanted == "all" or t.id in wanted) or asking


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
