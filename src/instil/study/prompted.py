"""Prompting alone, for a model that is not tuned: the ladder on validation, its best rung on test.

The run directory is that of a run up to there: recipe, manifest, split, `scores/`, and the arms in
`state/prompted.json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from instil.compare.verdict import PROMPTING
from instil.data.prepare import TaskData
from instil.fitting import fit_context
from instil.opening import Look, open_test
from instil.preflight import preflight
from instil.recipe import Recipe
from instil.results import Arm, Costs
from instil.run import Run, open_run
from instil.stages import (
    Bench,
    Ladder,
    climb_ladders,
    find_model,
    keep_splits,
    load_base,
    split_rows,
)

if TYPE_CHECKING:
    from rich.progress import Progress

    from instil.model.load import ModelFolder

STAGE = "prompted"
"""The stage that asks the test rows."""


def prompt_recipe(
    recipe: Recipe, *, folder: Path, resume: bool, progress: Progress, shared: Path
) -> Mapping[str, Arm]:
    """Prompt the recipe's model as well as it can be, and ask it the test rows.

    Args:
        recipe: As for a run; what concerns training is not looked at.
        folder: The run directory.
        resume: Go on with what is there.
        progress: Shows what is under way.
        shared: Where the runs of a study keep what is the same for several of them.

    Returns:
        Task -> the prompting arm.

    Raises:
        InstilError: Whatever the user can mend.
    """
    with open_run(recipe, folder=folder, resume=resume, shared=shared) as run:
        bench = Bench(run, progress)
        rows = split_rows(bench)
        model = find_model(bench)
        data = fit_context(recipe, model, rows)
        keep_splits(bench, data)
        preflight(recipe, model, data)
        ladders = climb_ladders(bench, model, data)
        ask = partial(_ask, bench, model, data, ladders)
        return run.kept(STAGE, dict[str, Arm], ask)


def load_prompted(run: Run) -> Mapping[str, Arm]:
    """Return the arms of a finished one."""

    def missing() -> dict[str, Arm]:
        raise AssertionError("a finished job has them")

    return run.kept(STAGE, dict[str, Arm], missing)


def _ask(
    bench: Bench, model: ModelFolder, data: Sequence[TaskData], ladders: Mapping[str, Ladder]
) -> dict[str, Arm]:
    from instil.compare import contest
    from instil.compare.ladder import best_rung

    open_test(bench.run, look=Look.ONCE)
    base, arms = load_base(bench.recipe, model), {}
    for d in data:
        ladder = ladders[d.task.id]
        with bench.stage(f"test {d.task.id}", len(d.test)) as done:
            found = contest.ask_rung(
                base, d, best_rung(ladder.rungs), seed=bench.recipe.seed, on_done=done
            )
        bench.run.write_scores(f"test-{d.task.id}", contest.score_lines([found]))
        costs = Costs(seconds=ladder.seconds, peak_memory_bytes=ladder.peak_memory_bytes)
        arms[d.task.id] = contest.to_arm(found, d, costs=costs)
        assert found.name == PROMPTING
    return arms
