"""`instil curve`: the score by number of training rows, and whether more of them would pay.

Every size and seed is a run of its own. Test and validation rows are the same in all of them; a
seed draws its own training rows, so that what varies is rows *and* seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from instil.compare import seeds as stats
from instil.config.recipe import Recipe, load_recipe
from instil.errors import RecipeError
from instil.results.names import PROMPTING, TUNED
from instil.scoring.metrics import NATS
from instil.stages.context import prepare_rows
from instil.stages.runfiles import load_summary
from instil.study import collect
from instil.study.folder import Job, StudyFolder
from instil.studyresults import CurvePoint, CurveStudy
from instil.tasks.task import load_task

SIZES = (50, 100, 250, 500, 1000)
"""Rows of each task, where the user does not say."""


@dataclass(frozen=True, slots=True)
class CurvePlan:
    """Sizes and seeds to run."""

    recipe: Recipe
    """But for size and seed."""
    sizes: tuple[int, ...]
    """From the smallest to the largest."""
    seeds: tuple[int, ...]
    """Of every size."""
    left_out: tuple[int, ...] = ()
    """Sizes that the rows do not suffice for, or of fewer rows than there are classes."""

    def job(self, size: int, seed: int) -> Job:
        """Return the run of a size and a seed."""
        tasks = tuple(use.model_copy(update={"train": size}) for use in self.recipe.tasks)
        recipe = self.recipe.model_copy(update={"tasks": tasks, "seed": seed})
        return Job(f"rows{size}-seed{seed}", recipe)

    def jobs(self) -> list[Job]:
        """Return all runs, the largest size first: its ladder has the most rows to draw from."""
        return [self.job(size, seed) for seed in self.seeds for size in reversed(self.sizes)]


def plan_curve(
    path: Path, *, changes: Sequence[str], sizes: Sequence[int] | None, seeds: Sequence[int]
) -> CurvePlan:
    """Return what is to be run.

    Args:
        path: The recipe file.
        changes: Overrides for all runs.
        sizes: Rows of each task; None: those of `SIZES` that there are rows for.
        seeds: Of every size.

    Raises:
        RecipeError: Mistakes in the recipe, or more rows asked for than there are.
        DataError: The rows cannot be read.
    """
    judged = f"split.seed={load_recipe(path, overrides=changes).judging_seed}"
    recipe = load_recipe(path, overrides=[*changes, judged])
    every = tuple(use.model_copy(update={"train": None}) for use in recipe.tasks)
    data = prepare_rows(recipe.model_copy(update={"tasks": every}))
    # A few go as duplicates of rows that are judged, so that what is left is what can be asked for.
    most = min(len(d.train) for d in data)
    wanted = sorted(set(sizes or SIZES))
    # Every class is trained on, so that fewer rows than classes cannot be drawn.
    least = max(len(d.task.choices) for d in data)
    if sizes and wanted[0] < least:
        raise RecipeError(
            "there are more classes than rows",
            where="--sizes",
            found=", ".join(str(size) for size in wanted if size < least),
            allowed=f"from {least} on, as many as there are classes",
            fix=f"--sizes {','.join(str(s) for s in wanted if s >= least) or least}",
        )
    fits = tuple(size for size in wanted if least <= size <= most)
    if not fits or (sizes and len(fits) < len(wanted)):
        raise RecipeError(
            "there are not as many rows to train on",
            where="--sizes",
            found=", ".join(str(size) for size in wanted if size not in fits),
            allowed=f"up to {most}, with validation: {recipe.validation} and test: {recipe.test}",
            fix=f"--sizes {','.join(map(str, fits or (most,)))}",
        )
    return CurvePlan(recipe, fits, tuple(seeds), tuple(s for s in wanted if s not in fits))


def sum_up_curve(folder: StudyFolder, plan: CurvePlan) -> CurveStudy:
    """Put the finished runs together."""
    runs = {
        size: [folder.arm(plan.job(size, seed).name) for seed in plan.seeds] for size in plan.sizes
    }
    own = [load_task(use.use).id for use in plan.recipe.tasks]
    largest = runs[plan.sizes[-1]]
    results = collect.tasks_of(largest[0], names=own)
    metric = collect.shared_metric(results)
    tested = {s: collect.test_scores(runs[s], tasks=own, arm=TUNED) for s in plan.sizes}
    prompting = collect.test_scores(largest, tasks=own, arm=PROMPTING)
    points = []
    for size, folders in runs.items():
        text = collect.guard_scores(folders, metric=NATS.name)
        trained = [sum(t.rows["train"] for t in collect.tasks_of(f, names=own)) for f in folders]
        names = (PROMPTING, f"{size} rows")
        points.append(
            CurvePoint(
                asked=size,
                rows=fmean(trained),
                score=stats.level(tested[size], metric=metric),
                by_seed=tested[size].means,
                against_prompting=stats.difference(
                    prompting, tested[size], names=names, metric=metric
                ),
                seconds=fmean(load_summary(run).training.seconds for run in folders),
                text=text.change if text else None,
            )
        )
    step = None
    if len(plan.sizes) > 1:
        small, large = plan.sizes[-2:]
        names = (f"{small} rows", f"{large} rows")
        step = stats.difference(tested[small], tested[large], names=names, metric=metric)
    return CurveStudy(
        name=folder.name,
        model=load_summary(largest[0]).model,
        method=str(plan.recipe.method),
        tasks=tuple(own),
        metric=metric,
        test_rows=sum(task.rows["test"] for task in results),
        seeds=plan.seeds,
        points=tuple(points),
        prompting=stats.level(prompting, metric=metric),
        last_step=step,
        seconds=collect.run_seconds(run for folders in runs.values() for run in folders),
    )
