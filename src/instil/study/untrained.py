"""Models that are asked alone, and not trained: prompted as well as they can be, or plainly.

The run directory is that of a run up to there: recipe, manifest, split and `scores/`.

Tests: `tests/study/test_methods.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from instil.config.recipe import Recipe
from instil.data.prepare import TaskData
from instil.results.names import PROMPTING, TUNED
from instil.results.tasks import Arm
from instil.stages.context import RunContext, keep_splits, prepare
from instil.stages.directory import Run, open_run
from instil.stages.judge import Look, open_test, score_files
from instil.stages.ladder import climb_ladders
from instil.stages.preflight import preflight
from instil.stages.runfiles import ASKED_ALONE
from instil.study.folder import Work

if TYPE_CHECKING:
    from rich.progress import Progress

    from instil.compare.contest import Contender
    from instil.compare.ladder import Prompting
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
    from instil.compare import contest
    from instil.compare.ladder import Prompting

    with open_run(recipe, folder=folder, resume=resume, shared=shared) as run:
        run.note(**{ASKED_ALONE: True})
        context = prepare(recipe, run=run, progress=progress, say=progress.console.print)
        keep_splits(context)
        files = score_files(context.data)
        if work is Work.PROMPT:
            preflight(context)
            ladders = climb_ladders(context)
            if run.finished(PROMPTED):
                return

            def best(loaded: LoadedModel, d: TaskData) -> tuple[Prompting, str]:
                ladder, longest = ladders[d.task.id], context.longest
                return ladder.bar(loaded, d, d.test, seed=recipe.seed, longest=longest)

            arms = {
                d.task.id: contest.to_arm(contender, d, costs=ladders[d.task.id].costs)
                for d, contender in _asked(context, PROMPTING, best)
            }
            run.keep(PROMPTED, dict[str, Arm], arms, files=files)
        elif not run.finished(ASKED):
            asked = _asked(context, TUNED, lambda _, d: (Prompting(d.answering[0]), ""))
            means = {d.task.id: contender.marked.summary().mean for d, contender in asked}
            run.keep(ASKED, dict[str, float], means, files=files)


def load_prompted(folder: Path) -> Mapping[str, Arm]:
    """Return the arms of a finished one: task -> arm."""
    return Run(folder).read(PROMPTED, dict[str, Arm])


def _asked(
    context: RunContext,
    name: str,
    way_of: Callable[[LoadedModel, TaskData], tuple[Prompting, str]],
) -> Iterator[tuple[TaskData, Contender]]:
    """Open the test, and yield what a model answers of each task; its scores are written.

    Args:
        context: The run.
        name: Of the arm.
        way_of: Returns a task's way of asking and scoring rule, as `contest.ask` takes them.
    """
    from instil.compare import contest

    open_test(context.run, look=Look.ONCE)
    loaded = context.load_base()
    for d in context.data:
        way, scoring = way_of(loaded, d)
        with context.stage(f"test {d.task.id}", len(d.test)) as done:
            contender = contest.ask(
                loaded, d, name=name, way=way, scoring=scoring, rows=d.test, on_done=done
            )
        context.run.write_scores(f"test-{d.task.id}", contest.score_lines([contender], d))
        yield d, contender
