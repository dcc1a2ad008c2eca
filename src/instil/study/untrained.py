"""Models that are asked alone, and not trained: prompted as well as they can be, or plainly.

The run directory is that of a run up to there: recipe, manifest, split and `scores/`.

Tests: `tests/study/test_methods.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from instil.config.recipe import Recipe
from instil.data.prepare import TaskData
from instil.results import TUNED, Arm
from instil.stages.context import OnDone, RunContext, keep_splits, prepare
from instil.stages.directory import Run, open_run
from instil.stages.judge import Look, open_test, score_files
from instil.stages.ladder import Ladder, climb_ladders
from instil.stages.preflight import preflight
from instil.study.folder import Work

if TYPE_CHECKING:
    from rich.progress import Progress

    from instil.compare.contest import Contender
    from instil.model.load import LoadedModel

PROMPTED, ASKED = "prompted", "asked"
"""The stages that ask the test rows."""


def ask_untrained(
    recipe: Recipe,
    work: Work,
    *,
    folder: Path,
    resume: bool,
    progress: Progress,
    shared: Path,
) -> None:
    """Ask a model the test rows of all its tasks: prompted as well as it can be, or plainly.

    Plainly is zero-shot by each task's first template, the same way for every model, so that the
    figures of several can be set side by side.

    Args:
        recipe: As for a run; what concerns training is not looked at.
        work: Prompt or ask.
        folder: The run directory; `scores/test-<task>.jsonl` has every answer, and
            `state/prompted.json` the arms.
        resume: Go on with what is there.
        progress: Shows what is under way.
        shared: Where the runs of a study keep what is the same for several of them.

    Raises:
        InstilError: Whatever the user can mend.
    """
    with open_run(recipe, folder=folder, resume=resume, shared=shared) as run:
        context = prepare(recipe, run=run, progress=progress, say=progress.console.print)
        keep_splits(context)
        keep = partial(run.kept, files=score_files(context.data))
        if work is Work.PROMPT:
            preflight(context)
            keep(PROMPTED, dict[str, Arm], partial(_prompt, context, climb_ladders(context)))
        else:
            keep(ASKED, dict[str, float], partial(_ask, context))


def load_prompted(folder: Path) -> Mapping[str, Arm]:
    """Return the arms of a finished one: task -> arm."""
    arms: Mapping[str, Arm] = Run(folder).read(PROMPTED, dict[str, Arm])
    return arms


def _prompt(context: RunContext, ladders: Mapping[str, Ladder]) -> dict[str, Arm]:
    from instil.compare import contest
    from instil.compare.ladder import best_rung

    def ask(loaded: LoadedModel, data: TaskData, on_done: OnDone) -> contest.Contender:
        rung, seed = best_rung(ladders[data.task.id].rungs), context.recipe.seed
        return contest.ask_rung(loaded, data, rung, seed=seed, on_done=on_done)

    arms = {}
    for d, found in _asked(context, ask):
        arms[d.task.id] = contest.to_arm(found, d, costs=ladders[d.task.id].costs)
    return arms


def _ask(context: RunContext) -> dict[str, float]:
    from instil.compare import contest
    from instil.compare.ladder import Prompting
    from instil.evaluate.choices import RAW
    from instil.evaluate.suite import GENERATED

    def ask(loaded: LoadedModel, data: TaskData, on_done: OnDone) -> contest.Contender:
        way, scoring = Prompting(data.answering[0]), RAW if data.task.choices else GENERATED
        plainly = partial(contest.ask, loaded, data, name=TUNED, way=way, scoring=scoring)
        return plainly(rows=data.test, on_done=on_done)

    return {d.task.id: found.marked.summary().mean for d, found in _asked(context, ask)}


def _asked(
    context: RunContext, ask: Callable[[LoadedModel, TaskData, OnDone], Contender]
) -> Iterator[tuple[TaskData, Contender]]:
    """Open the test, and yield what a model answers of each task; its scores are written."""
    from instil.compare.contest import score_lines

    open_test(context.run, look=Look.ONCE)
    loaded = context.load_base()
    for d in context.data:
        with context.stage(f"test {d.task.id}", len(d.test)) as done:
            found = ask(loaded, d, done)
        context.run.write_scores(f"test-{d.task.id}", score_lines([found]))
        yield d, found
