"""`instil methods`: ways of tuning on the same rows and seeds, score against forgetting.

An arm is a name and what it changes in the recipe. Prompting comes along for free: every run asks
the base model too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from instil.compare import seeds as stats
from instil.compare.forgetting import choose_guard
from instil.config.recipe import Recipe, TaskUse, load_recipe
from instil.errors import Problem, RecipeError, nearest
from instil.results.names import MEAN_SCORE, PROMPTING, TUNED, TUNED_PROMPTED
from instil.results.tasks import Arm
from instil.scoring.metrics import NATS
from instil.stages.context import prepare_rows, prepare_use
from instil.stages.runfiles import load_summary
from instil.study import collect
from instil.study.alike import arm_mistakes, differing, written_out
from instil.study.folder import Job, StudyFolder, Work
from instil.study.untrained import load_prompted
from instil.studyresults import MethodArm, MethodsStudy
from instil.tasks.task import load_task
from instil.types import Comparison

MULTITASK = "multitask"
_KEEP = "keep={}"
ARMS: dict[str, tuple[str, ...]] = {
    "lora": ("method=lora", _KEEP),
    "full": ("method=full", "train.learning_rate=auto", _KEEP),
    MULTITASK: ("method=lora", _KEEP),
    "interpolate": ("method=lora", _KEEP, "keep.interpolate=auto"),
    "replay": ("method=lora", _KEEP, "keep.replay.share=0.05"),
    "kl": ("method=lora", _KEEP, "keep.kl=0.1"),
    "entropy": ("method=lora", _KEEP, "keep.entropy_weighted=true"),
    "distil": ("method=lora", _KEEP, "keep.distil=1"),
    "prune": ("method=lora", _KEEP, "keep.prune=0.1"),
    "mlp": ("method=lora", _KEEP, "lora.target_modules=mlp"),
    "rslora": ("method=lora", "train.learning_rate=auto", _KEEP, "lora.use_rslora=true"),
    "oft": ("method=oft", "train.learning_rate=auto", _KEEP),
    "shira": ("method=shira", "train.learning_rate=auto", _KEEP),
    "prompted": ("method=lora", _KEEP, "mix.few_shot_share=0.5", "mix.few_shot=best"),
}
"""Arm -> what it changes, as `--set` takes it; `multitask` also adds tasks, see `other_tasks`."""
NAMED_ONLY = frozenset({"distil", "prune", "mlp", "rslora", "oft", "shira", "prompted"})
"""Arms that run when `--arms` names them: what costs more, or not every model has a place for."""
LABELS = {
    "lora": "LoRA",
    "full": "full fine-tuning",
    MULTITASK: "LoRA + other tasks",
    "interpolate": "LoRA + interpolation",
    "replay": "LoRA + replay of own texts",
    "kl": "LoRA + KL to the base model",
    "entropy": "LoRA + entropy-weighted loss",
    "distil": "LoRA + self-distillation",
    "prune": "LoRA, pruned after training",
    "mlp": "LoRA on the MLPs alone",
    "rslora": "rank-stabilized LoRA",
    "oft": "OFT (rotations)",
    "shira": "SHiRA (single weights)",
    "prompted": "LoRA with its best prompt",
}
COMPANIONS = ("social_iqa", "arithmetic", "sarcasm", "spelling")
"""Library tasks to mix with, in order of preference; none is a relative of a guard task."""
COMPANY = 2


@dataclass(frozen=True, slots=True)
class Method:
    """An arm to run."""

    name: str
    """Of its runs."""
    label: str
    """For people."""
    changes: tuple[str, ...]
    """What it changes in the recipe."""
    recipe: Recipe
    """What is run, but for the seed."""
    work: Work = Work.RUN
    """Prompting alone, for another model."""


def choose_arms(names: Sequence[str] | None, *, own: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return arm -> overrides: those asked for, and the user's own.

    Args:
        names: Built-in arms, in order; None: all but those of `NAMED_ONLY`.
        own: `NAME=key=value,key=value`; a name may replace a built-in one.

    Raises:
        RecipeError: Unknown names, or text of another form.

    >>> choose_arms(["lora"], own=["small=lora.r=4,lora.target_modules=[q_proj,v_proj]"])["small"]
    ('lora.r=4', 'lora.target_modules=[q_proj,v_proj]')
    """
    problems = [
        Problem(f"unknown arm {name!r}", allowed=", ".join(ARMS), nearest=nearest(name, ARMS))
        for name in names or ()
        if name not in ARMS
    ]
    usual = [name for name in ARMS if name not in NAMED_ONLY]
    arms = {name: ARMS[name] for name in (usual if names is None else names) if name in ARMS}
    for text in own:
        name, _, changes = text.partition("=")
        parts = split_changes(changes)
        if not name.replace("-", "").replace("_", "").isalnum() or not all(
            "=" in part for part in parts
        ):
            problems.append(
                Problem(
                    "this is not of the form NAME=key=value,key=value",
                    where=f"--arm {text}",
                    fix="--arm small=lora.r=4,train.learning_rate=1e-3",
                )
            )
        arms[name] = parts
    if problems:
        raise RecipeError(*problems)
    return arms


def split_changes(text: str) -> tuple[str, ...]:
    """Split overrides at commas that stand in no brackets.

    >>> split_changes("lora.r=4,baselines.shots=[0,1]")
    ('lora.r=4', 'baselines.shots=[0,1]')
    """
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return tuple(part.strip() for part in parts)


def plan_methods(
    path: Path,
    *,
    changes: Sequence[str],
    arms: Mapping[str, Sequence[str]],
    model: str | None = None,
) -> tuple[Method, ...]:
    """Return the arms with their recipes; the first is the one that others are compared with.

    Args:
        path: The recipe file.
        changes: Overrides for all arms.
        arms: Arm -> its own overrides.
        model: Another model, to be prompted alone.

    Raises:
        RecipeError: All mistakes in the recipe and in the arms' overrides.
    """
    base = load_recipe(path, overrides=changes)
    judged = f"split.seed={base.judging_seed}"
    base = load_recipe(path, overrides=[*changes, judged])
    methods: list[Method] = []
    problems: list[Problem] = []
    for name, own in arms.items():
        if name == MULTITASK and own == ARMS[name]:
            own = (*own, *other_tasks(base))
        try:
            recipe = load_recipe(path, overrides=[*changes, judged, *own])
        except RecipeError as bad:
            problems += bad.problems
            continue
        problems += _arm_mistakes(recipe, base, name=name)
        methods.append(Method(name, LABELS.get(name, name), tuple(own), recipe))
    if model is not None:
        own = (f"model={model}",)
        recipe = load_recipe(path, overrides=[*changes, judged, *own])
        word = "".join(c if c.isalnum() else "-" for c in Path(model).name)
        methods.append(Method(f"prompted-{word}", model, own, recipe, Work.PROMPT))
    if problems:
        raise RecipeError(*dict.fromkeys(problems))
    return tuple(methods)


def _arm_mistakes(arm: Recipe, base: Recipe, *, name: str) -> Iterator[Problem]:
    yield from arm_mistakes(arm, base, name=name)
    if lacking := [u.use for u in base.tasks if u.use not in {own.use for own in arm.tasks}]:
        yield Problem(
            f"the arm {name} leaves out what the others are judged on",
            where=f"--arm {name}",
            found=", ".join(lacking),
            fix="keep the recipe's tasks, and add others",
        )
    for key in differing([arm, base], ("forgetting.tasks", "forgetting.rows", "forgetting.text")):
        yield Problem(
            f"the arm {name} changes {key}, and what it forgot could not be compared",
            where=f"--arm {name}",
            fix=f"change {key} for all arms: --set {key}=...",
        )


def other_tasks(recipe: Recipe) -> tuple[str, ...]:
    """Return overrides that mix a recipe's tasks with others of the library, half and half.

    Those are no relatives of what is trained or of what the guard watches, so that the guard stays
    the same in all arms. The recipe's own tasks keep their rows and templates.
    """
    uses, data = recipe.tasks, prepare_rows(recipe)
    own = [d.task for d in data]
    watched, _ = choose_guard(
        recipe.forgetting.tasks,
        clusters=[task.cluster for task in own],
        trained=[task.id for task in own],
    )
    taken = {task.cluster for task in (*own, *map(load_task, watched))}
    company = [name for name in COMPANIONS if load_task(name).cluster not in taken][:COMPANY]
    rows = sum(len(d.train) for d in data)
    each = max(1, rows // len(company)) if company else 0
    weights = [use.weight for use in uses if use.weight is not None]
    share = {"weight": sum(weights) / len(company)} if weights and company else {}
    kept = [
        written_out(*pair) if len(uses) == 1 else pair[0] for pair in zip(uses, data, strict=True)
    ]
    tasks = [use.model_dump(mode="json", exclude_defaults=True) for use in kept]
    tasks += [
        {"use": name, "train": min(each, rows_to_train(recipe, name)), **share} for name in company
    ]
    # The others are judged too, but not reported here: their ladders need no worked examples.
    return (f"tasks={json.dumps(tasks)}", "baselines.shots=[0]")


def rows_to_train(recipe: Recipe, name: str) -> int:
    """Count what a task has to train on beside a recipe's validation and test rows."""
    return len(prepare_use(recipe, TaskUse(use=name)).train)


def jobs_of(method: Method, *, seeds: Sequence[int]) -> list[Job]:
    """Return an arm's runs, one a seed."""
    ahead = None
    if method.work is Work.PROMPT:  # takes about as long as prompting, to check and to estimate
        forgetting = method.recipe.forgetting.model_copy(update={"tasks": "none"})
        little = method.recipe.train.model_copy(update={"num_train_epochs": 0.1})
        ahead = method.recipe.model_copy(update={"forgetting": forgetting, "train": little})
    recipes = {seed: method.recipe.model_copy(update={"seed": seed}) for seed in seeds}
    return [
        Job(f"{method.name}-seed{seed}", recipe, method.work, ahead=ahead)
        for seed, recipe in recipes.items()
    ]


# --- from finished runs to figures ----------------------------------------------------------------


def _judged(method: Method) -> str:
    """The arm of a run's test that a method is judged by."""
    return TUNED_PROMPTED if method.recipe.mix.few_shot == "best" else TUNED


def sum_up_methods(
    folder: StudyFolder, methods: Sequence[Method], *, seeds: Sequence[int]
) -> MethodsStudy:
    """Compare the finished arms."""
    runs = {m.name: [folder.arm(job.name) for job in jobs_of(m, seeds=seeds)] for m in methods}
    reference = next(m for m in methods if m.work is Work.RUN)
    first = runs[reference.name]
    own = [load_task(use.use).id for use in reference.recipe.tasks]
    results = collect.tasks_of(first[0], names=own)
    metric = collect.shared_metric(results)
    bar = collect.test_scores(first, tasks=own, arm=_judged(reference))
    forgot = {each: collect.guard_scores(first, metric=each) for each in (NATS.name, MEAN_SCORE)}

    def arm(name: str, paths: Sequence[Path], of: str, tested: Sequence[Arm]) -> MethodArm:
        """Return what every arm has: the score, against the reference arm's, and the costs."""
        scores = collect.test_scores(paths, tasks=own, arm=of)
        pair = (reference.name, name)
        return MethodArm(
            name,
            tested[0].label if len({each.label for each in tested}) == 1 else "prompting",
            (),
            reference.recipe.model,
            trained=of in (TUNED, TUNED_PROMPTED),
            score=stats.level(scores, metric=metric),
            by_seed=scores.means,
            costs=collect.mean_costs(tested),
            score_against=None
            if name == reference.name
            else stats.difference(bar, scores, names=pair, metric=metric),
        )

    def arms_of(paths: Sequence[Path], name: str) -> list[Arm]:
        tasks = [task for path in paths for task in collect.tasks_of(path, names=own)]
        return [arm for task in tasks for arm in task.arms if arm.name == name]

    # The base model at its best rung: every run asked it, those of other tasks zero-shot alone.
    asked = [m for m in methods if m.work is Work.RUN and m.name != MULTITASK] or [reference]
    prompting = runs[asked[0].name]
    arms = [arm(PROMPTING, prompting, PROMPTING, arms_of(prompting, PROMPTING))]
    for method in methods:
        paths, model = runs[method.name], method.recipe.model
        if method.work is Work.PROMPT:
            prompted = [load_prompted(path) for path in paths]
            answered = [by_task[task] for by_task in prompted for task in own]
            made = arm(method.name, paths, PROMPTING, answered)
            label = f"{model}, prompted ({answered[0].label})"
        else:
            judged = _judged(method)
            made = arm(method.name, paths, judged, arms_of(paths, judged))
            made, label = _forgotten(made, paths, reference.name, forgot), method.label
        arms.append(replace(made, label=label, changes=method.changes, model=model))
    trained = [path for m in methods if m.work is Work.RUN for path in runs[m.name]]
    summary = load_summary(first[0])
    return MethodsStudy(
        name=folder.name,
        model=summary.model,
        tasks=tuple(own),
        metric=metric,
        rows={part: sum(t.rows[part] for t in results) for part in results[0].rows},
        guard=tuple(dict.fromkeys(g.task for g in summary.forgetting)),
        seeds=tuple(seeds),
        reference=reference.name,
        arms=tuple(arms),
        seconds=collect.run_seconds(trained),
    )


def _forgotten(
    arm: MethodArm,
    paths: Sequence[Path],
    reference: str,
    theirs: Mapping[str, collect.Before | None],
) -> MethodArm:
    """Add what a tuned arm forgot, against what the reference arm did, row by row."""
    changes: list[Comparison | None] = []
    against: list[Comparison | None] = []
    for metric, bar in theirs.items():
        own = collect.guard_scores(paths, metric=metric)
        changes.append(own.change if own else None)
        names = (reference, arm.name)
        against.append(
            stats.difference(bar.changes, own.changes, names=names, metric=metric)
            if own and bar and arm.name != reference
            else None
        )
    results = [load_summary(path).interpolation for path in paths]
    chosen = [result.chosen for result in results if result is not None]
    return replace(
        arm,
        text=changes[0],
        points=changes[1],
        text_against=against[0],
        points_against=against[1],
        picked={"share of the way": fmean(chosen)} if chosen else {},
    )
