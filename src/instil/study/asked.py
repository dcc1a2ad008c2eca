"""A model asked the test rows of tasks, zero-shot, each through its first template.

The same way for every model, so that the figures of several can be set side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from instil.compare.verdict import TUNED
from instil.data.prepare import TaskData
from instil.fitting import fit_context
from instil.opening import Look, open_test
from instil.recipe import Recipe
from instil.run import open_run
from instil.stages import Bench, find_model, keep_splits, load_base, split_rows

if TYPE_CHECKING:
    from rich.progress import Progress

    from instil.model.load import ModelFolder

STAGE = "asked"
"""The stage that asks."""


def ask_recipe(
    recipe: Recipe, *, folder: Path, resume: bool, progress: Progress, shared: Path
) -> None:
    """Ask the recipe's model the test rows of all of its tasks; nothing is trained.

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
        bench = Bench(run, progress)
        rows = split_rows(bench)
        model = find_model(bench)
        data = fit_context(recipe, model, rows)
        keep_splits(bench, data)
        run.kept(STAGE, dict[str, float], lambda: _ask(bench, model, data))


def _ask(bench: Bench, model: ModelFolder, data: Sequence[TaskData]) -> dict[str, float]:
    from instil.compare import contest
    from instil.compare.ladder import Prompting
    from instil.evaluate.choices import RAW
    from instil.evaluate.suite import GENERATED

    open_test(bench.run, look=Look.ONCE)
    loaded, means = load_base(bench.recipe, model), {}
    for d in data:
        with bench.stage(f"test {d.task.id}", len(d.test)) as done:
            found = contest.ask(
                loaded,
                d,
                name=TUNED,
                way=Prompting(d.answering[0]),
                scoring=RAW if d.task.choices else GENERATED,
                rows=d.test,
                on_done=done,
            )
        bench.run.write_scores(f"test-{d.task.id}", contest.score_lines([found]))
        means[d.task.id] = found.marked.summary().mean
    return means
