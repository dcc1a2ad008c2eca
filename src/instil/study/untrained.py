"""Models that are asked alone, and not trained: prompted as well as they can be, or plainly.

The run directory is that of a run up to there: recipe, manifest, split and `scores/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from instil.config.recipe import Recipe
from instil.data.prepare import TaskData
from instil.results import TUNED, Arm, Costs
from instil.stages.directory import Run, open_run
from instil.stages.fitting import fit_context
from instil.stages.opening import Look, open_test
from instil.stages.preflight import preflight
from instil.stages.untuned import (
    Bench,
    Ladder,
    climb_ladders,
    find_model,
    keep_splits,
    load_base,
    score_files,
    split_rows,
)

if TYPE_CHECKING:
    from rich.progress import Progress

    from instil.compare.contest import Contender
    from instil.evaluate.suite import OnDone
    from instil.model.load import LoadedModel, ModelFolder

PROMPTED, ASKED = "prompted", "asked"
"""The stages that ask the test rows."""


class _Ready(NamedTuple):
    """What there is before anything is asked."""

    bench: Bench
    model: ModelFolder
    data: tuple[TaskData, ...]


@contextmanager
def _ready(
    recipe: Recipe, *, folder: Path, resume: bool, progress: Progress, shared: Path
) -> Iterator[_Ready]:
    with open_run(recipe, folder=folder, resume=resume, shared=shared) as run:
        bench = Bench(run, progress)
        rows = split_rows(bench)
        model = find_model(bench, rows)
        data = fit_context(recipe, model, rows)
        keep_splits(bench, model, data)
        yield _Ready(bench, model, data)


def prompt_recipe(
    recipe: Recipe, *, folder: Path, resume: bool, progress: Progress, shared: Path
) -> None:
    """Prompt the recipe's model as well as it can be, and ask it the test rows.

    Args:
        recipe: As for a run; what concerns training is not looked at.
        folder: The run directory; the arms go to `state/prompted.json`.
        resume: Go on with what is there.
        progress: Shows what is under way.
        shared: Where the runs of a study keep what is the same for several of them.

    Raises:
        InstilError: Whatever the user can mend.
    """
    with _ready(recipe, folder=folder, resume=resume, progress=progress, shared=shared) as ready:
        preflight(recipe, ready.model, ready.data)
        ladders = climb_ladders(*ready)
        ready.bench.run.kept(
            PROMPTED,
            dict[str, Arm],
            partial(_prompt, *ready, ladders),
            files=score_files(ready.data),
        )


def load_prompted(run: Run) -> Mapping[str, Arm]:
    """Return the arms of a finished one: task -> arm."""
    arms: Mapping[str, Arm] = run.read(PROMPTED, dict[str, Arm])
    return arms


def _prompt(
    bench: Bench, model: ModelFolder, data: Sequence[TaskData], ladders: Mapping[str, Ladder]
) -> dict[str, Arm]:
    from instil.compare.contest import ask_rung, to_arm
    from instil.compare.ladder import best_rung

    def ask(loaded: LoadedModel, d: TaskData, done: OnDone) -> Contender:
        best, seed = best_rung(ladders[d.task.id].rungs), bench.recipe.seed
        return ask_rung(loaded, d, best, seed=seed, on_done=done)

    arms = {}
    for d, found in _tested(bench, model, data, ask):
        ladder = ladders[d.task.id]
        costs = Costs(seconds=ladder.seconds, peak_memory_bytes=ladder.peak_memory_bytes)
        arms[d.task.id] = to_arm(found, d, costs=costs)
    return arms


def ask_recipe(
    recipe: Recipe, *, folder: Path, resume: bool, progress: Progress, shared: Path
) -> None:
    """Ask the recipe's model the test rows of all its tasks, zero-shot, by their first templates.

    The same way for every model, so that the figures of several can be set side by side.

    Args:
        recipe: Names the model and the tasks.
        folder: The run directory; `scores/test-<task>.jsonl` has every answer.
        resume: Go on with what is there.
        progress: Shows what is under way.
        shared: Where the runs of a study keep what is the same for several of them.

    Raises:
        InstilError: Whatever the user can mend.
    """
    with _ready(recipe, folder=folder, resume=resume, progress=progress, shared=shared) as ready:
        ready.bench.run.kept(
            ASKED, dict[str, float], partial(_ask, *ready), files=score_files(ready.data)
        )


def _ask(bench: Bench, model: ModelFolder, data: Sequence[TaskData]) -> dict[str, float]:
    from instil.compare import contest
    from instil.compare.ladder import Prompting
    from instil.evaluate.choices import RAW
    from instil.evaluate.suite import GENERATED

    def ask(loaded: LoadedModel, d: TaskData, done: OnDone) -> Contender:
        way, rule = Prompting(d.answering[0]), RAW if d.task.choices else GENERATED
        return contest.ask(loaded, d, name=TUNED, way=way, scoring=rule, rows=d.test, on_done=done)

    tested = _tested(bench, model, data, ask)
    return {d.task.id: found.marked.summary().mean for d, found in tested}


def _tested(
    bench: Bench,
    model: ModelFolder,
    data: Sequence[TaskData],
    ask: Callable[[LoadedModel, TaskData, OnDone], Contender],
) -> Iterator[tuple[TaskData, Contender]]:
    """Ask the test rows of every task, and keep the answers in `scores/`."""
    from instil.compare.contest import score_lines

    open_test(bench.run, look=Look.ONCE)
    loaded = load_base(bench.recipe, model)
    for d in data:
        with bench.stage(f"test {d.task.id}", len(d.test)) as done:
            found = ask(loaded, d, done)
        bench.run.write_scores(f"test-{d.task.id}", score_lines([found]))
        yield d, found
