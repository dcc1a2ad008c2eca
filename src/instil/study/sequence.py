"""`instil sequence`: tasks one after another, each stage from the model of the one before.

After every stage the model, merged into one, is asked the test rows of all tasks: the matrix. The
arm with replay mixes a share of the earlier tasks' training rows into each stage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from instil.compare import seeds as stats
from instil.compare.forgetting import choose_guard
from instil.compare.transfer import backward_transfer
from instil.compare.verdict import TUNED
from instil.config.recipe import Recipe, load_recipe
from instil.data.mix import Pool, mix_counts
from instil.errors import Problem, RecipeError
from instil.evaluate.metrics import NATS
from instil.results import MEAN_SCORE
from instil.stages.context import prepare_rows
from instil.stages.directory import load_summary
from instil.stages.training import mix_rules
from instil.study import collect
from instil.study.folder import Job, StudyFolder, Work
from instil.studyresults import SequenceArm, SequenceStudy
from instil.tasks.task import load_task
from instil.types import Comparison, Task

PLAIN, REPLAY = "plain", "replay"
LABELS = {PLAIN: "one after another", REPLAY: "with replay"}


@dataclass(frozen=True, slots=True)
class SequencePlan:
    """Stages to run."""

    stages: tuple[Recipe, ...]
    """One task each, in order, from the base model."""
    tasks: tuple[Task, ...]
    """The task of each."""
    everything: Recipe
    """All tasks at once: what is asked after every stage."""
    examples: Mapping[str, int]
    """Task -> examples of an epoch of its stage, without replay."""
    seeds: tuple[int, ...]
    """Of every arm."""
    replay: float
    """Share of earlier rows in the arm with replay; 0: there is none."""
    overlap: Mapping[str, int]
    """Task -> training rows that repeat a row which another task is judged on."""

    @property
    def arms(self) -> tuple[str, ...]:
        """The ways of going through the tasks."""
        return (PLAIN, REPLAY) if self.replay else (PLAIN,)

    def run_name(self, arm: str, stage: int, seed: int) -> str:
        """Name the run of a stage; all arms share the first one: there is nothing to replay yet."""
        arm = PLAIN if stage == 0 else arm
        return f"{arm}-{stage + 1}-{self.tasks[stage].id}-seed{seed}"

    def ask_name(self, arm: str, stage: int, seed: int) -> str:
        """Name the look at all tasks after a stage; stage -1: the untouched model."""
        return "untouched" if stage < 0 else f"{self.run_name(arm, stage, seed)}-asked"


def plan_sequence(
    paths: Sequence[Path], *, changes: Sequence[str], seeds: Sequence[int], replay: float
) -> SequencePlan:
    """Return the stages.

    Args:
        paths: One recipe with several tasks, taken in its order, or several of one task each.
        changes: Overrides for all of them.
        seeds: Of every arm.
        replay: Share of earlier tasks' rows to mix into a stage; 0: none.

    Raises:
        RecipeError: Fewer than two tasks, a task that comes twice, or recipes of different models.
    """
    recipes = [load_recipe(path, overrides=changes) for path in paths]
    stages = [
        recipe.model_copy(update={"tasks": (use.model_copy(update={"weight": None}),)})
        for recipe in recipes
        for use in recipe.tasks
    ]
    tasks = [load_task(stage.tasks[0].use) for stage in stages]
    problems = list(_mistakes(recipes, paths, tasks))
    if problems:
        raise RecipeError(*problems)
    stages = [_judged_alike(stage, stages[0], tasks) for stage in stages]
    everything = stages[0].model_copy(update={"tasks": tuple(s.tasks[0] for s in stages)})
    together = prepare_rows(everything)
    alone = [d for stage in stages for d in prepare_rows(stage)]
    pools = [Pool(d.task, d.train, d.templates) for d in alone]
    counts = [mix_counts([p], mix_rules(s))[0] for p, s in zip(pools, stages, strict=True)]
    examples = dict(zip((task.id for task in tasks), counts, strict=True))
    overlap = {
        d.task.id: len({row.id for row in d.train} - {row.id for row in apart.train})
        for d, apart in zip(alone, together, strict=True)
    }
    shared = {task: count for task, count in overlap.items() if count}
    return SequencePlan(
        tuple(stages), tuple(tasks), everything, examples, tuple(seeds), replay, shared
    )


def _mistakes(
    recipes: Sequence[Recipe], paths: Sequence[Path], tasks: Sequence[Task]
) -> list[Problem]:
    found = []
    if len(tasks) < 2:
        found.append(
            Problem(
                "a sequence needs two tasks or more",
                where=str(paths[0]),
                fix="give more recipes, or one that names several tasks",
            )
        )
    several = [str(p) for p, r in zip(paths, recipes, strict=True) if len(r.tasks) > 1]
    if several and len(paths) > 1:
        found.append(
            Problem(
                "one of several recipes names more than one task",
                where=several[0],
                fix="give it alone: its tasks are then taken one after another",
            )
        )
    ids = [task.id for task in tasks]
    found += [
        Problem(f"the task {name} comes twice", fix="a task is a stage: name each once")
        for name in dict.fromkeys(ids)
        if ids.count(name) > 1
    ]
    for what in ("model", "test", "validation", "dtype", "device", "quantize"):
        values = list(dict.fromkeys(str(getattr(recipe, what)) for recipe in recipes))
        if len(values) > 1:
            found.append(
                Problem(
                    f"the recipes differ in {what}",
                    found=", ".join(values),
                    fix=f"say one for all: --set {what}={values[0]}",
                )
            )
    return found


def _judged_alike(stage: Recipe, first: Recipe, tasks: Sequence[Task]) -> Recipe:
    """Give a stage the first one's rows to judge on, and a guard without relatives of any task."""
    watched, _ = choose_guard(
        stage.forgetting.tasks,
        clusters=[task.cluster for task in tasks],
        trained=[task.id for task in tasks],
    )
    forgetting = stage.forgetting.model_copy(update={"tasks": watched or "none"})
    split = stage.split.model_copy(update={"seed": first.judging_seed})
    return stage.model_copy(update={"forgetting": forgetting, "split": split})


# --- jobs -----------------------------------------------------------------------------------------


def first_jobs(plan: SequencePlan, folder: StudyFolder) -> list[list[Job]]:
    """Return what all arms begin with: the untouched model, and the first stage of every seed."""
    untouched = Job(plan.ask_name(PLAIN, -1, 0), plan.everything, Work.ASK)
    return [[untouched], *([*_stage(plan, folder, PLAIN, 0, seed)] for seed in plan.seeds)]


def later_jobs(plan: SequencePlan, folder: StudyFolder) -> list[list[Job]]:
    """Return the other stages, a chain an arm and seed."""
    return [
        [
            job
            for stage in range(1, len(plan.stages))
            for job in _stage(plan, folder, arm, stage, seed)
        ]
        for seed in plan.seeds
        for arm in plan.arms
    ]


def _stage(
    plan: SequencePlan, folder: StudyFolder, arm: str, stage: int, seed: int
) -> tuple[Job, Job]:
    """Return a stage's run, and the look at all tasks after it."""
    name = plan.run_name(arm, stage, seed)
    ahead = plan.stages[stage].model_copy(update={"seed": seed})
    if arm == REPLAY and stage:
        ahead = _with_replay(plan, ahead, stage)
    before = folder.merged(plan.run_name(arm, stage - 1, seed)).resolve()
    recipe = ahead.model_copy(update={"model": str(before)}) if stage else ahead
    merged = str(folder.merged(name).resolve())
    asked = plan.everything.model_copy(update={"model": merged, "seed": seed})
    return (
        Job(name, recipe, merge=True, ahead=ahead),
        Job(plan.ask_name(arm, stage, seed), asked, Work.ASK),
    )


def _with_replay(plan: SequencePlan, recipe: Recipe, stage: int) -> Recipe:
    """Mix the rows that earlier stages were trained on into a stage.

    An epoch has the stage's own rows as without replay, and so many examples of the earlier tasks
    beside them that these are the share asked for.
    """
    own = plan.examples[plan.tasks[stage].id]
    earlier = [plan.stages[n].tasks[0] for n in range(stage)]
    uses = [
        recipe.tasks[0].model_copy(update={"weight": 1 - plan.replay}),
        *(use.model_copy(update={"weight": plan.replay / stage}) for use in earlier),
    ]
    examples = epoch_examples(own, share=plan.replay)
    mix = recipe.mix.model_copy(update={"examples": examples, "cap": None, "temperature": 1.0})
    # The earlier tasks are judged as well, but not reported: no worked examples for them.
    baselines = recipe.baselines.model_copy(update={"shots": (0,)})
    return recipe.model_copy(update={"tasks": tuple(uses), "mix": mix, "baselines": baselines})


def epoch_examples(own: int, *, share: float) -> int:
    """Return how many examples an epoch has, of which a share is replayed and the rest are own.

    >>> epoch_examples(600, share=0.05)
    632
    """
    return round(own / (1 - share))


# --- figures --------------------------------------------------------------------------------------


def sum_up_sequence(folder: StudyFolder, plan: SequencePlan) -> SequenceStudy:
    """Put the finished stages together."""
    plain, *others = (_Stages(folder, plan, arm) for arm in plan.arms)
    own = [
        collect.tasks_of(plain.runs(n)[0], names=[task.id])[0] for n, task in enumerate(plan.tasks)
    ]
    return SequenceStudy(
        name=folder.name,
        model=plan.everything.model,
        tasks=tuple(task.id for task in plan.tasks),
        metrics=tuple(task.metric for task in plan.tasks),
        rows={task.task: dict(task.rows) for task in own},
        replay=plan.replay,
        seeds=plan.seeds,
        arms=(plain.figures(), *(other.figures(against=plain) for other in others)),
        seconds=collect.stage_seconds({run for arm in (plain, *others) for run in arm.all_runs}),
        overlap=plan.overlap,
    )


@dataclass(frozen=True, slots=True)
class _Stages:
    """The finished stages of an arm."""

    folder: StudyFolder
    plan: SequencePlan
    arm: str

    @property
    def all_runs(self) -> list[Path]:
        return [run for n in range(len(self.plan.stages)) for run in self.runs(n)]

    def runs(self, stage: int) -> list[Path]:
        """The runs of a stage, one a seed."""
        names = [self.plan.run_name(self.arm, stage, seed) for seed in self.plan.seeds]
        return [self.folder.arm(name) for name in names]

    def asked(self, stage: int, *tasks: Task) -> stats.Scores:
        """The scores of tasks after a stage; of the untouched model (-1) once for all seeds."""
        seeds = self.plan.seeds[:1] if stage < 0 else self.plan.seeds
        runs = [self.folder.arm(self.plan.ask_name(self.arm, stage, seed)) for seed in seeds]
        return collect.test_scores(runs, tasks=[task.id for task in tasks], arm=TUNED)

    def ends(self) -> tuple[stats.Scores, stats.Scores]:
        """The scores of every task but the last after its own stage, and of all after the last."""
        tasks = self.plan.tasks
        own = stats.joined([self.asked(n, task) for n, task in enumerate(tasks[:-1])])
        return own, self.asked(len(tasks) - 1, *tasks)

    def figures(self, against: _Stages | None = None) -> SequenceArm:
        """Sum the arm up, beside another."""
        plan, tasks, last = self.plan, self.plan.tasks, len(self.plan.tasks) - 1
        own, end = self.ends()
        metric = collect.shared_metric(task.metric for task in tasks)
        more: dict[str, Comparison] = {}
        if against is not None:
            their_own, their_end = against.ends()
            compare = partial(
                stats.difference, names=(LABELS[against.arm], LABELS[self.arm]), metric=metric
            )
            lost = stats.minus(their_end, their_own), stats.minus(end, own)
            more = {"backward_against": compare(*lost), "average_against": compare(their_end, end)}
        matrix = tuple(
            tuple(stats.level(self.asked(stage, task), metric=task.metric) for task in tasks)
            for stage in range(-1, last + 1)
        )
        return SequenceArm(
            name=self.arm,
            label=LABELS[self.arm] + (f" ({100 * plan.replay:g} %)" if self.arm == REPLAY else ""),
            matrix=matrix,
            average=stats.level(end, metric=metric),
            backward=stats.difference(
                own, end, names=("after its own stage", "after the last stage"), metric=metric
            ),
            backward_by_seed=self._by_seed(),
            by_task=tuple(
                stats.difference(
                    self.asked(n, task),
                    self.asked(last, task),
                    names=(task.id, task.id),
                    metric=task.metric,
                )
                for n, task in enumerate(tasks[:last])
            ),
            text=self._since_base(collect.text_scores, NATS.name),
            points=self._since_base(collect.guard_scores, MEAN_SCORE),
            seconds=sum(load_summary(run).training.seconds for run in self.all_runs)
            / len(plan.seeds),
            **more,
        )

    def _by_seed(self) -> tuple[float, ...]:
        """Return the backward transfer of each seed's own matrix."""
        tasks = self.plan.tasks
        means = [[self.asked(n, task).means for task in tasks] for n in range(len(tasks))]
        return tuple(
            backward_transfer([[cell[n] for cell in line] for line in means])
            for n in range(len(self.plan.seeds))
        )

    def _since_base(
        self, find: Callable[[Sequence[Path]], collect.Before | None], metric: str
    ) -> Comparison | None:
        """Compare the guard after the last stage with the untouched model, on the same rows."""
        first, last = find(self.runs(0)), find(self.runs(len(self.plan.stages) - 1))
        if first is None or last is None:
            return None
        names = ("untouched", "after the last stage")
        return stats.difference(first.before, last.after, names=names, metric=metric)
