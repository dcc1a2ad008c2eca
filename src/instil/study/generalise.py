"""`instil generalise`: tuned on all clusters of tasks but one, asked zero-shot on that one.

Folds over the clusters of a recipe's tasks. A worked example, tasks A1 and A2 of one cluster, B of
another, C of a third::

    fold   trained on   asked zero-shot
    A      B, C         A1, A2
    B      A1, A2, C    B
    C      A1, A2, B    C

Each fold's model and the base model are asked the same test rows, through the first template of the
task file: a choice that looks at no row. As an upper mark, a model may be tuned on each task alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean

from instil.compare import seeds as stats
from instil.config.recipe import Recipe, load_recipe
from instil.config.sections import Mix
from instil.data.prepare import pick_templates
from instil.errors import Problem, RecipeError
from instil.results.names import TUNED
from instil.stages.context import OF_UNSEEN, prepare_rows
from instil.stages.runfiles import load_summary
from instil.study import collect
from instil.study.alike import PROMPTS, ROWS, arm_mistakes, think_alike
from instil.study.folder import Job, StudyFolder, Work
from instil.studyresults import GeneraliseArm, GeneraliseStudy, UnseenTask
from instil.tasks.task import load_task
from instil.types import Comparison, Role, Summary, Task

MIXED = "mixed"
"""The arm that is the recipe as it stands."""
BASE, ALONE = "base model", "tuned on the task alone"


@dataclass(frozen=True, slots=True)
class Way:
    """A way of tuning on several tasks: an arm, at one size."""

    name: str
    """Of its runs."""
    label: str
    """For people."""
    changes: tuple[str, ...]
    """What it changes in the recipe."""
    recipe: Recipe
    """With all tasks, but for the seed."""


@dataclass(frozen=True, slots=True)
class GeneralisePlan:
    """Folds, arms and seeds to run."""

    recipe: Recipe
    """All tasks; what every model is asked by."""
    ways: tuple[Way, ...]
    """The first is what the others are compared with."""
    tasks: Mapping[str, Task]
    """What the recipe calls a task -> the task."""
    seeds: tuple[int, ...]
    """Of every arm."""
    alone: bool
    """Whether each task is tuned on by itself, too."""

    @property
    def clusters(self) -> dict[str, list[str]]:
        """Cluster -> what the recipe calls its tasks."""
        clusters: dict[str, list[str]] = {}
        for use, task in self.tasks.items():
            clusters.setdefault(task.cluster, []).append(use)
        return clusters

    def asked(self, uses: Sequence[str], *, name: str, model: str, seed: int = 0) -> Job:
        """Return the job that asks a model the test rows of tasks, by the recipe's own settings."""
        recipe = _only(self.recipe, uses)
        tasks = tuple(use.model_copy(update={"held_out_templates": None}) for use in recipe.tasks)
        update = {"tasks": tasks, "model": model, "seed": seed}
        return Job(f"{name}-asked", recipe.model_copy(update=update), Work.ASK)

    def base(self) -> Job:
        """Return the job that asks the base model all tasks."""
        return self.asked([*self.tasks], name="base", model=self.recipe.model)

    def fold(self, folder: StudyFolder, way: Way, cluster: str, seed: int) -> tuple[Job, Job]:
        """Return the training without a cluster, and the questions of that cluster after it."""
        unseen = self.clusters[cluster]
        recipe = _only(way.recipe, [use for use in self.tasks if use not in unseen])
        split = recipe.split.model_copy(
            update={"apart_from": (*(recipe.split.apart_from or ()), *unseen)}
        )
        run = Job(
            f"{way.name}-without-{_word(cluster)}-seed{seed}",
            recipe.model_copy(update={"split": split, "seed": seed}),
            merge=True,
        )
        return run, self._after(folder, run, unseen, seed)

    def single(self, folder: StudyFolder, use: str, seed: int) -> tuple[Job, Job]:
        """Return the training on one task alone, and the questions of it."""
        recipe = _only(self.recipe, [use])
        tasks = tuple(each.model_copy(update={"weight": None}) for each in recipe.tasks)
        update = {"tasks": tasks, "mix": Mix(), "seed": seed}
        name = f"alone-{self.tasks[use].id}-seed{seed}"
        run = Job(name, recipe.model_copy(update=update), merge=True)
        return run, self._after(folder, run, [use], seed)

    def _after(self, folder: StudyFolder, run: Job, uses: Sequence[str], seed: int) -> Job:
        model = str(folder.merged(run.name).resolve())
        return self.asked(uses, name=run.name, model=model, seed=seed)

    def chains(self, folder: StudyFolder) -> list[list[Job]]:
        """Return all jobs, seed by seed: what is there after a stop compares all arms."""
        chains = [[self.base()]]
        for seed in self.seeds:
            for way in self.ways:
                chains += [[*self.fold(folder, way, each, seed)] for each in self.clusters]
            if self.alone:
                chains += [[*self.single(folder, use, seed)] for use in self.tasks]
        return chains


def _only(recipe: Recipe, uses: Sequence[str]) -> Recipe:
    """Return a recipe with some of its tasks."""
    tasks = tuple(use for use in recipe.tasks if use.use in uses)
    return recipe.model_copy(update={"tasks": tasks})


def _zero_shot_alone(recipe: Recipe) -> Recipe:
    """Return a recipe without baselines: trained tasks are judged as well, but not reported."""
    baselines = {"shots": (0,), "tfidf": False, "probe": False}
    return recipe.model_copy(update={"baselines": recipe.baselines.model_copy(update=baselines)})


def _word(cluster: str) -> str:
    """Return a cluster's name for folders; another one for each."""
    word = re.sub(r"[^A-Za-z0-9]+", "-", cluster)
    return word if word == cluster else f"{word}-{hashlib.sha256(cluster.encode()).hexdigest()[:6]}"


def plan_generalise(
    path: Path,
    *,
    changes: Sequence[str],
    arms: Mapping[str, Sequence[str]],
    sizes: Sequence[int],
    seeds: Sequence[int],
    alone: bool,
) -> GeneralisePlan:
    """Return what is to be run; forgetting is not measured.

    Args:
        path: The recipe file; its tasks are of two clusters or more.
        changes: Overrides for all arms.
        arms: Arms beside the recipe as it stands -> their own overrides.
        sizes: Training examples of an epoch, each an arm; empty: as the recipe says.
        seeds: Of every arm.
        alone: Whether each task is tuned on by itself, too.

    Raises:
        RecipeError: All mistakes in the recipe, its tasks and the arms' overrides.
    """
    changes = [*changes, "forgetting.tasks=none"]
    judged = f"split.seed={load_recipe(path, overrides=changes).judging_seed}"
    recipe = load_recipe(path, overrides=[*changes, judged])
    ways: list[Way] = []
    problems: list[Problem] = []
    for name, own in {MIXED: (), **arms}.items():
        for size in sizes or (None,):
            sized = [] if size is None else [f"mix.examples={size}"]
            try:
                arm = load_recipe(path, overrides=[*changes, judged, *own, *sized])
            except RecipeError as bad:
                problems += bad.problems
                continue
            problems += _mistakes(arm, recipe, name)
            beside = "" if size is None else f", {size} examples"
            label = "all other clusters" if name == MIXED else name
            ways.append(
                Way(
                    name if size is None else f"{name}-{size}",
                    f"{label}{beside}",
                    (*own, *sized),
                    _zero_shot_alone(arm),
                )
            )
    tasks = {use.use: load_task(use.use) for use in recipe.tasks}
    clusters = dict.fromkeys(task.cluster for task in tasks.values())
    if len(clusters) < 2:
        problems.append(
            Problem(
                "the tasks are of one cluster: none is left to train on without it",
                where=str(path),
                found=", ".join(clusters),
                fix="add tasks of other clusters (`instil tasks`), or give the tasks clusters of "
                "their own: `cluster:` in the task file",
            )
        )
    if problems:
        raise RecipeError(*dict.fromkeys(problems))
    recipes = [recipe, *(way.recipe for way in ways)]
    recipe, *recipes = think_alike(recipes, prepare_rows(recipe))
    ways = [replace(way, recipe=own) for way, own in zip(ways, recipes, strict=True)]
    return GeneralisePlan(_zero_shot_alone(recipe), tuple(ways), tasks, tuple(seeds), alone)


def _mistakes(arm: Recipe, recipe: Recipe, name: str) -> Iterator[Problem]:
    yield from arm_mistakes(arm, recipe, name=name, same=(*ROWS, *PROMPTS))
    if [use.use for use in arm.tasks] != [use.use for use in recipe.tasks]:
        yield Problem(
            f"the arm {name} changes tasks, and would be asked other rows",
            where=f"--arm {name}",
            fix="change tasks for all arms: --set tasks=...",
        )
    if arm.forgetting.tasks != "none":
        yield Problem(
            "forgetting is not measured here, and a guard may be of the tasks left out",
            where=f"--arm {name}",
            found="forgetting.tasks",
            fix="leave it out; `instil methods` measures forgetting",
        )
    if arm.keep.replay.share is not None and arm.keep.replay.of != "own":
        yield Problem(
            "a replay of other tasks' rows may be of the tasks left out",
            where=f"--arm {name}" if name != MIXED else "keep.replay.of",
            found=str(arm.keep.replay.of),
            fix="keep.replay.of: own",
        )


# --- from finished runs to figures ----------------------------------------------------------------


def sum_up_generalise(folder: StudyFolder, plan: GeneralisePlan) -> GeneraliseStudy:
    """Compare the finished folds with the base model and with tuning on each task alone."""
    uses = [use for cluster in plan.clusters.values() for use in cluster]
    tasks = [plan.tasks[use] for use in uses]
    metric = collect.shared_metric(tasks)
    base_folder = folder.arm(plan.base().name)
    base = [collect.test_scores([base_folder], tasks=[t.id], arm=TUNED) for t in tasks]
    singles = {use: [plan.single(folder, use, seed) for seed in plan.seeds] for use in uses}
    alone = []
    if plan.alone:
        for use, task in zip(uses, tasks, strict=True):
            folders = [folder.arm(ask.name) for _, ask in singles[use]]
            alone.append(collect.test_scores(folders, tasks=[task.id], arm=TUNED))
    arms: list[GeneraliseArm] = []
    first: stats.Scores | None = None
    runs = [folder.arm(run.name) for jobs in singles.values() for run, _ in jobs if plan.alone]
    for way in plan.ways:
        folds = {
            cluster: [plan.fold(folder, way, cluster, seed) for seed in plan.seeds]
            for cluster in plan.clusters
        }
        scores = [
            collect.test_scores(
                [folder.arm(ask.name) for _, ask in folds[task.cluster]],
                tasks=[task.id],
                arm=TUNED,
            )
            for task in tasks
        ]
        trained = [folder.arm(run.name) for jobs in folds.values() for run, _ in jobs]
        runs += trained
        summaries = [load_summary(path) for path in trained]
        whole = stats.joined(scores)
        over_all = partial(stats.difference, b=whole, metric=metric)
        arms.append(
            GeneraliseArm(
                name=way.name,
                label=way.label,
                changes=way.changes,
                examples=fmean(sum(line.examples for line in s.mix) for s in summaries),
                scores=_levels(scores, tasks),
                against_base=_against(base, scores, tasks, name=BASE),
                against_alone=_against(alone, scores, tasks, name=ALONE) if alone else (),
                average=stats.level(whole, metric=metric),
                by_seed=whole.means,
                gain=over_all(stats.joined(base), names=(BASE, way.name)),
                short_of=over_all(stats.joined(alone), names=(ALONE, way.name)) if alone else None,
                against_first=over_all(first, names=(arms[0].name, way.name)) if first else None,
                removed=sum(_removed(folder.arm(jobs[0][0].name)) for jobs in folds.values()),
                seconds=sum(s.training.seconds for s in summaries) / len(plan.seeds),
            )
        )
        first = first or whole
    level_alone = _levels(alone, tasks) if alone else [None] * len(tasks)
    return GeneraliseStudy(
        name=folder.name,
        model=plan.recipe.model,
        tasks=tuple(
            UnseenTask(
                task.id,
                task.cluster,
                task.metric,
                template=_template(plan.recipe, use, task),
                rows=len(scores.groups),
                base=level,
                alone=own,
            )
            for use, task, scores, level, own in zip(
                uses, tasks, base, _levels(base, tasks), level_alone, strict=True
            )
        ),
        metric=metric,
        seeds=plan.seeds,
        base=stats.level(stats.joined(base), metric=metric),
        alone=stats.level(stats.joined(alone), metric=metric) if alone else None,
        arms=tuple(arms),
        seconds=collect.run_seconds(runs),
    )


def _against(
    a: Sequence[stats.Scores], b: Sequence[stats.Scores], tasks: Sequence[Task], *, name: str
) -> tuple[Comparison, ...]:
    """Compare task by task: `b` minus `a`."""
    return tuple(
        stats.difference(before, after, names=(name, task.id), metric=task.metric)
        for before, after, task in zip(a, b, tasks, strict=True)
    )


def _levels(scores: Sequence[stats.Scores], tasks: Sequence[Task]) -> tuple[Summary, ...]:
    return tuple(stats.level(s, metric=t.metric) for s, t in zip(scores, tasks, strict=True))


def _template(recipe: Recipe, use: str, task: Task) -> str:
    """Return the template that `Work.ASK` asks a task through: the first that asks."""
    (asked,) = (each for each in recipe.tasks if each.use == use)
    chosen = pick_templates(task, "all" if asked.templates == "auto" else asked.templates)
    return next(template.id for template in chosen if template.role is Role.ANSWER)


def _removed(run: Path) -> int:
    """Count the training rows that a fold takes out as repeats of an unseen task's rows."""
    tasks = load_summary(run).tasks
    return sum(n for task in tasks for why, n in task.removed.items() if why.endswith(OF_UNSEEN))
