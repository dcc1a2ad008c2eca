"""`instil sequence`: tasks one after another, each stage from the model of the one before.

After every stage the model, merged into one, is asked the test rows of all tasks: the matrix. The
arm with replay mixes a share of the earlier tasks' training rows into each stage.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from instil.compare import seeds as stats
from instil.compare.forgetting import choose_guard
from instil.compare.transfer import backward_transfer
from instil.config.recipe import Recipe, TaskUse, load_recipe
from instil.data.mix import Pool, mix_counts
from instil.errors import Problem, RecipeError
from instil.results.names import MEAN_SCORE, TUNED
from instil.scoring.metrics import NATS
from instil.stages.context import prepare_rows
from instil.stages.runfiles import load_summary
from instil.stages.training import mix_rules
from instil.study import collect
from instil.study.alike import PROMPTS, ROWS, differing, think_alike, written_out
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
    uses: Mapping[str, TaskUse]
    """Task -> its use in a stage with other tasks: through the templates of its own stage."""
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
        """Name the evaluation of all tasks after a stage; stage -1: the base model."""
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
    if problems := list(_mistakes(recipes, paths, tasks)):
        raise RecipeError(*problems)
    # All are judged on the first one's rows, and none watches a relative of any task.
    judged_on, judged = stages[0].judging_seed, []
    for stage in stages:
        watched, _ = choose_guard(
            stage.forgetting.tasks,
            clusters=[task.cluster for task in tasks],
            trained=[task.id for task in tasks],
        )
        forgetting = stage.forgetting.model_copy(update={"tasks": watched or "none"})
        split = stage.split.model_copy(update={"seed": judged_on})
        # Which seeds are run, the study says; what is counted beforehand is counted by one.
        update = {"forgetting": forgetting, "split": split, "seed": stages[0].seed}
        judged.append(stage.model_copy(update=update))
    stages = judged
    everything = stages[0].model_copy(update={"tasks": tuple(s.tasks[0] for s in stages)})
    together = prepare_rows(everything)
    everything, *stages = think_alike([everything, *stages], together)
    alone = [d for stage in stages for d in prepare_rows(stage)]
    examples, uses = {}, {}
    for data, stage in zip(alone, stages, strict=True):
        pool = Pool(data.task, data.train, data.templates)
        rules = mix_rules(stage.mix, per_row=stage.train.templates_per_row, seed=stage.seed)
        (examples[data.task.id],) = mix_counts([pool], rules)
        uses[data.task.id] = written_out(stage.tasks[0], data)
    overlap = {
        d.task.id: len({row.id for row in d.train} - {row.id for row in apart.train})
        for d, apart in zip(alone, together, strict=True)
    }
    for n, task in enumerate(tasks[1:], start=1):
        own = examples[task.id]
        if replay and round(own / (1 - replay)) - own < n:
            enough = math.ceil(100 * n / (own + n)) / 100
            raise RecipeError(
                f"{replay:g} of an epoch is no example of each earlier task: the stage of "
                f"{task.id} has {own} of its own",
                where="--replay",
                fix=f"--replay {enough:g}, or 0 to leave that arm out",
            )
    shared = {task: count for task, count in overlap.items() if count}
    return SequencePlan(
        tuple(stages), tuple(tasks), everything, uses, examples, tuple(seeds), replay, shared
    )


def _mistakes(
    recipes: Sequence[Recipe], paths: Sequence[Path], tasks: Sequence[Task]
) -> Iterator[Problem]:
    if len(tasks) < 2:
        yield Problem(
            "a sequence needs two tasks or more",
            where=str(paths[0]),
            fix="give more recipes, or one that names several tasks",
        )
    several = [str(p) for p, r in zip(paths, recipes, strict=True) if len(r.tasks) > 1]
    if several and len(paths) > 1:
        yield Problem(
            "one of several recipes names more than one task",
            where=several[0],
            fix="give it alone: its tasks are then taken one after another",
        )
    for name, count in Counter(task.id for task in tasks).items():
        if count > 1:
            yield Problem(f"the task {name} comes twice", fix="a task is a stage: name each once")
    shared = [key for key in (*ROWS, *PROMPTS, "quantize") if key != "split.seed"]
    for what, values in differing(recipes, shared).items():
        yield Problem(
            f"the recipes differ in {what}",
            found=", ".join(values),
            fix=f"say one for all: --set {what}={values[0]}",
        )


# --- jobs -----------------------------------------------------------------------------------------


def first_jobs(plan: SequencePlan, folder: StudyFolder) -> list[list[Job]]:
    """Return what all arms begin with: the base model, and the first stage of every seed."""
    base = Job(plan.ask_name(PLAIN, -1, 0), plan.everything, Work.ASK)
    return [[base], *([*_stage(plan, folder, PLAIN, 0, seed)] for seed in plan.seeds)]


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
    """Return a stage's run, and the evaluation of all tasks after it."""
    name = plan.run_name(arm, stage, seed)
    ahead = plan.stages[stage].model_copy(update={"seed": seed})
    if arm == REPLAY and stage:
        # The rows that earlier stages were trained on are mixed in: an epoch has the stage's own
        # as without replay, and so many examples of the earlier tasks that they are the share.
        own, earlier = plan.tasks[stage], plan.tasks[:stage]
        uses = (
            plan.uses[own.id].model_copy(update={"weight": 1 - plan.replay}),
            *(
                plan.uses[task.id].model_copy(update={"weight": plan.replay / stage})
                for task in earlier
            ),
        )
        examples = round(plan.examples[own.id] / (1 - plan.replay))
        counted = {"examples": examples, "cap": None, "temperature": 1.0}
        mix = ahead.mix.model_copy(update=counted)
        # The earlier tasks are judged as well, but not reported: no worked examples for them.
        baselines = ahead.baselines.model_copy(update={"shots": (0,)})
        ahead = ahead.model_copy(update={"tasks": uses, "mix": mix, "baselines": baselines})
    before = folder.merged(plan.run_name(arm, stage - 1, seed)).resolve()
    recipe = ahead.model_copy(update={"model": str(before)}) if stage else ahead
    merged = str(folder.merged(name).resolve())
    asked = plan.everything.model_copy(update={"model": merged, "seed": seed})
    return (
        Job(name, recipe, merge=True, ahead=ahead),
        Job(plan.ask_name(arm, stage, seed), asked, Work.ASK),
    )


# --- figures --------------------------------------------------------------------------------------


def sum_up_sequence(folder: StudyFolder, plan: SequencePlan) -> SequenceStudy:
    """Put the finished stages together."""
    arms = [_Arm(folder, plan, arm) for arm in plan.arms]
    runs = {run for arm in arms for stage in range(len(plan.stages)) for run in arm.runs(stage)}
    rows = {}
    for stage, task in enumerate(plan.tasks):
        (result,) = collect.tasks_of(arms[0].runs(stage)[0], names=[task.id])
        rows[task.id] = dict(result.rows)
    return SequenceStudy(
        name=folder.name,
        model=plan.everything.model,
        tasks=tuple(task.id for task in plan.tasks),
        metrics=tuple(task.metric for task in plan.tasks),
        rows=rows,
        replay=plan.replay,
        seeds=plan.seeds,
        arms=tuple(arm.sum_up() for arm in arms),
        seconds=collect.run_seconds(runs),
        overlap=plan.overlap,
    )


@dataclass(frozen=True, slots=True)
class _Arm:
    """The finished stages of one way of going through the tasks."""

    folder: StudyFolder
    plan: SequencePlan
    name: str

    def runs(self, stage: int) -> list[Path]:
        """The run directories of a stage, a seed each."""
        plan = self.plan
        return [self.folder.arm(plan.run_name(self.name, stage, seed)) for seed in plan.seeds]

    def asked(self, stage: int, *tasks: Task) -> stats.Scores:
        """The scores of some tasks after a stage; stage -1: the base model."""
        names = [self.plan.ask_name(self.name, stage, seed) for seed in self.plan.seeds]
        # The base model is the same for all seeds: once is enough.
        folders = [self.folder.arm(name) for name in dict.fromkeys(names)]
        return collect.test_scores(folders, tasks=[task.id for task in tasks], arm=TUNED)

    def ends(self) -> tuple[stats.Scores, stats.Scores]:
        """The scores of each task but the last after its own stage, and of all after the last."""
        tasks = self.plan.tasks
        own = stats.joined([self.asked(n, task) for n, task in enumerate(tasks[:-1])])
        return own, self.asked(len(tasks) - 1, *tasks)

    def since_base(self, metric: str) -> Comparison | None:
        """Compare the guard after the last stage with the base model, on the same rows."""
        stages = (0, len(self.plan.stages) - 1)
        first, last = (collect.guard_scores(self.runs(n), metric=metric) for n in stages)
        if first is None or last is None:
            return None
        names = ("base model", "after the last stage")
        return stats.difference(first.before, last.after, names=names, metric=metric)

    def sum_up(self) -> SequenceArm:
        """Return the matrix and what it comes to, against the plain arm where this is another."""
        tasks = self.plan.tasks
        last = len(tasks) - 1
        metric = collect.shared_metric(tasks)
        own, end = self.ends()
        against: dict[str, Comparison] = {}
        if self.name != PLAIN:
            plain_own, plain_end = _Arm(self.folder, self.plan, PLAIN).ends()
            pair = LABELS[PLAIN], LABELS[self.name]
            earlier = stats.minus(plain_end, plain_own), stats.minus(end, own)
            against["backward_against"] = stats.difference(*earlier, names=pair, metric=metric)
            against["average_against"] = stats.difference(plain_end, end, names=pair, metric=metric)
        by_task = [
            stats.difference(
                self.asked(n, task),
                self.asked(last, task),
                names=(task.id, task.id),
                metric=task.metric,
            )
            for n, task in enumerate(tasks[:last])
        ]
        asked = [[self.asked(stage, task) for task in tasks] for stage in range(-1, last + 1)]
        matrix = [
            tuple(stats.level(c, metric=t.metric) for c, t in zip(line, tasks, strict=True))
            for line in asked
        ]
        by_seed = [
            backward_transfer([[cell.means[n] for cell in line] for line in asked[1:]])
            for n in range(len(self.plan.seeds))
        ]
        names = ("after its own stage", "after the last stage")
        paths = [path for stage in range(len(tasks)) for path in self.runs(stage)]
        seconds = sum(load_summary(path).training.seconds for path in paths)
        share = f" ({100 * self.plan.replay:g} %)" if self.name == REPLAY else ""
        return SequenceArm(
            name=self.name,
            label=f"{LABELS[self.name]}{share}",
            matrix=tuple(matrix),
            average=stats.level(end, metric=metric),
            backward=stats.difference(own, end, names=names, metric=metric),
            backward_by_seed=tuple(by_seed),
            by_task=tuple(by_task),
            text=self.since_base(NATS.name),
            points=self.since_base(MEAN_SCORE),
            seconds=seconds / len(self.plan.seeds),
            **against,
        )
