"""`instil sequence`: tasks one after another, each stage from the model of the one before.

After every stage the model, merged into one, is asked the test rows of all tasks: the matrix. The
arm with replay mixes a share of the earlier tasks' training rows into each stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from instil.compare import seeds as stats
from instil.compare.forgetting import choose_guard
from instil.compare.transfer import backward_transfer
from instil.compare.verdict import TUNED
from instil.config.recipe import Recipe, TaskUse, load_recipe
from instil.data.mix import Pool, mix_counts
from instil.data.prepare import TaskData
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
        recipe.model_copy(update={"tasks": (_plain(use),)})
        for recipe in recipes
        for use in recipe.tasks
    ]
    tasks = [load_task(stage.tasks[0].use) for stage in stages]
    problems = list(_mistakes(recipes, paths, tasks))
    if problems:
        raise RecipeError(*problems)
    stages = [_judged(stage, stages[0], _guard(stage, tasks)) for stage in stages]
    everything = stages[0].model_copy(update={"tasks": tuple(s.tasks[0] for s in stages)})
    together = prepare_rows(everything)
    alone = [d for stage in stages for d in prepare_rows(stage)]
    examples = {d.task.id: _own_examples(d, stage) for d, stage in zip(alone, stages, strict=True)}
    overlap = {
        d.task.id: len({row.id for row in d.train} - {row.id for row in apart.train})
        for d, apart in zip(alone, together, strict=True)
    }
    shared = {task: count for task, count in overlap.items() if count}
    return SequencePlan(
        tuple(stages), tuple(tasks), everything, examples, tuple(seeds), replay, shared
    )


def _own_examples(data: TaskData, stage: Recipe) -> int:
    pool = Pool(data.task, data.train, data.templates)
    (count,) = mix_counts([pool], mix_rules(stage))
    return count


def _plain(use: TaskUse) -> TaskUse:
    return use.model_copy(update={"weight": None})


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


def _guard(stage: Recipe, tasks: Sequence[Task]) -> str | tuple[str, ...]:
    """Return the guard tasks of every stage: no relatives of any task in the sequence."""
    watched, _ = choose_guard(
        stage.forgetting.tasks,
        clusters=[task.cluster for task in tasks],
        trained=[task.id for task in tasks],
    )
    return watched or "none"


def _judged(stage: Recipe, first: Recipe, guard: str | tuple[str, ...]) -> Recipe:
    forgetting = stage.forgetting.model_copy(update={"tasks": guard})
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
    arms = [_arm(folder, plan, arm) for arm in plan.arms]
    runs = {
        folder.arm(plan.run_name(arm, stage, seed))
        for arm in plan.arms
        for stage in range(len(plan.stages))
        for seed in plan.seeds
    }
    own = [
        collect.tasks_of(folder.arm(plan.run_name(PLAIN, n, plan.seeds[0])), names=[task.id])[0]
        for n, task in enumerate(plan.tasks)
    ]
    return SequenceStudy(
        name=folder.name,
        model=plan.everything.model,
        tasks=tuple(task.id for task in plan.tasks),
        metrics=tuple(task.metric for task in plan.tasks),
        rows={task.task: dict(task.rows) for task in own},
        replay=plan.replay,
        seeds=plan.seeds,
        arms=tuple(arms),
        seconds=sum(sum(load_summary(run).stage_seconds.values()) for run in runs),
        overlap=plan.overlap,
    )


def _arm(folder: StudyFolder, plan: SequencePlan, arm: str) -> SequenceArm:
    last = len(plan.tasks) - 1
    end, own = _final(folder, plan, arm), _own(folder, plan, arm)
    names = ("after its own stage", "after the last stage")
    metric = _metric(plan)
    by_task = tuple(
        stats.difference(
            _asked(folder, plan, arm, n, [task.id]),
            _asked(folder, plan, arm, last, [task.id]),
            names=(task.id, task.id),
            metric=task.metric,
        )
        for n, task in enumerate(plan.tasks[:last])
    )
    against: dict[str, Comparison] = {}
    if arm != PLAIN:
        theirs = _final(folder, plan, PLAIN), _own(folder, plan, PLAIN)
        pair = LABELS[PLAIN], LABELS[arm]
        earlier = stats.minus(theirs[0], theirs[1]), stats.minus(end, own)
        against["backward_against"] = stats.difference(*earlier, names=pair, metric=metric)
        against["average_against"] = stats.difference(theirs[0], end, names=pair, metric=metric)
    return SequenceArm(
        name=arm,
        label=LABELS[arm] + (f" ({100 * plan.replay:g} %)" if arm == REPLAY else ""),
        matrix=tuple(
            tuple(
                stats.level(_asked(folder, plan, arm, stage, [task.id]), metric=task.metric)
                for task in plan.tasks
            )
            for stage in range(-1, last + 1)
        ),
        average=stats.level(end, metric=metric),
        backward=stats.difference(own, end, names=names, metric=metric),
        backward_by_seed=_by_seed(folder, plan, arm),
        by_task=by_task,
        text=_since_base(folder, plan, arm, NATS.name),
        points=_since_base(folder, plan, arm, MEAN_SCORE),
        seconds=_training_seconds(folder, plan, arm),
        **against,
    )


def _metric(plan: SequencePlan) -> str:
    metrics = {task.metric for task in plan.tasks}
    return metrics.pop() if len(metrics) == 1 else MEAN_SCORE


def _asked(
    folder: StudyFolder, plan: SequencePlan, arm: str, stage: int, tasks: Sequence[str]
) -> stats.Scores:
    runs = [folder.arm(plan.ask_name(arm, stage, seed)) for seed in plan.seeds]
    # The untouched model is the same for all seeds: once is enough.
    runs = runs[:1] if stage < 0 else runs
    return collect.test_scores(runs, tasks=tasks, arm=TUNED)


def _final(folder: StudyFolder, plan: SequencePlan, arm: str) -> stats.Scores:
    """The scores of all tasks after the last stage."""
    last = len(plan.tasks) - 1
    return _asked(folder, plan, arm, last, [task.id for task in plan.tasks])


def _own(folder: StudyFolder, plan: SequencePlan, arm: str) -> stats.Scores:
    """The scores of every task but the last after its own stage."""
    found = [_asked(folder, plan, arm, n, [task.id]) for n, task in enumerate(plan.tasks[:-1])]
    return stats.joined(found)


def _by_seed(folder: StudyFolder, plan: SequencePlan, arm: str) -> tuple[float, ...]:
    """Return the backward transfer of each seed's own matrix."""
    stages = range(len(plan.stages))
    means = [
        [_asked(folder, plan, arm, stage, [task.id]).means for task in plan.tasks]
        for stage in stages
    ]
    return tuple(
        backward_transfer([[cell[n] for cell in line] for line in means])
        for n in range(len(plan.seeds))
    )


def _since_base(
    folder: StudyFolder, plan: SequencePlan, arm: str, metric: str
) -> Comparison | None:
    """Compare the guard after the last stage with the untouched model, on the same rows."""
    ends = []
    for stage in (0, len(plan.stages) - 1):
        runs = [folder.arm(plan.run_name(arm, stage, seed)) for seed in plan.seeds]
        find = collect.text_scores if metric == NATS.name else collect.guard_scores
        ends.append(find(runs))
    first, last = ends
    if first is None or last is None:
        return None
    return stats.difference(
        first.before,
        last.after,
        names=("untouched", "after the last stage"),
        metric=metric,
    )


def _training_seconds(folder: StudyFolder, plan: SequencePlan, arm: str) -> float:
    found = [
        load_summary(folder.arm(plan.run_name(arm, stage, seed))).training.seconds
        for stage in range(len(plan.stages))
        for seed in plan.seeds
    ]
    return sum(found) / len(plan.seeds)
