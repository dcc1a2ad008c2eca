"""Models that are asked alone, and not trained: prompted as well as they can be, or plainly.

The run directory is that of a run up to there: recipe, manifest, split and `scores/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from instil.compare.verdict import TUNED
from instil.config.recipe import Recipe
from instil.results import Arm, Costs
from instil.stages.context import RunContext, keep_splits, prepare
from instil.stages.directory import Run, open_run
from instil.stages.judge import Look, open_test, score_files
from instil.stages.ladder import Ladder, climb_ladders
from instil.stages.preflight import preflight

if TYPE_CHECKING:
    from rich.progress import Progress

PROMPTED, ASKED = "prompted", "asked"
"""The stages that ask the test rows."""


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
    with open_run(recipe, folder=folder, resume=resume, shared=shared) as run:
        context = prepare(recipe, run=run, progress=progress, say=progress.console.print)
        keep_splits(context)
        preflight(context)
        prompt = partial(_prompt, context, climb_ladders(context))
        run.kept(PROMPTED, dict[str, Arm], prompt, files=score_files(context.data))


def load_prompted(folder: Path) -> Mapping[str, Arm]:
    """Return the arms of a finished one: task -> arm."""
    arms: Mapping[str, Arm] = Run(folder).read(PROMPTED, dict[str, Arm])
    return arms


def _prompt(context: RunContext, ladders: Mapping[str, Ladder]) -> dict[str, Arm]:
    from instil.compare import contest
    from instil.compare.ladder import best_rung

    open_test(context.run, look=Look.ONCE)
    base, arms = context.load_base(), {}
    for d in context.data:
        ladder = ladders[d.task.id]
        with context.stage(f"test {d.task.id}", len(d.test)) as done:
            rung, seed = best_rung(ladder.rungs), context.recipe.seed
            found = contest.ask_rung(base, d, rung, seed=seed, on_done=done)
        context.run.write_scores(f"test-{d.task.id}", contest.score_lines([found]))
        costs = Costs(seconds=ladder.seconds, peak_memory_bytes=ladder.peak_memory_bytes)
        arms[d.task.id] = contest.to_arm(found, d, costs=costs)
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
    with open_run(recipe, folder=folder, resume=resume, shared=shared) as run:
        context = prepare(recipe, run=run, progress=progress, say=progress.console.print)
        keep_splits(context)
        files = score_files(context.data)
        run.kept(ASKED, dict[str, float], partial(_ask, context), files=files)


def _ask(context: RunContext) -> dict[str, float]:
    from instil.compare import contest
    from instil.compare.ladder import Prompting
    from instil.evaluate.choices import RAW
    from instil.evaluate.suite import GENERATED

    open_test(context.run, look=Look.ONCE)
    loaded, means = context.load_base(), {}
    for d in context.data:
        way, scoring = Prompting(d.answering[0]), RAW if d.task.choices else GENERATED
        ask = partial(contest.ask, loaded, d, name=TUNED, way=way, scoring=scoring)
        with context.stage(f"test {d.task.id}", len(d.test)) as done:
            found = ask(rows=d.test, on_done=done)
        context.run.write_scores(f"test-{d.task.id}", contest.score_lines([found]))
        means[d.task.id] = found.marked.summary().mean
    return means
