"""`instil methods`: ways of tuning on the same rows and seeds, score against forgetting.

An arm is a name and what it changes in the recipe. Prompting comes along for free: every run asks
the untouched model too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from instil.compare import seeds as stats
from instil.compare.forgetting import choose_guard
from instil.compare.verdict import PROMPTING, TUNED
from instil.config.recipe import Recipe, load_recipe
from instil.errors import Problem, RecipeError, nearest
from instil.evaluate.metrics import NATS
from instil.results import MEAN_SCORE, Arm
from instil.stages.directory import load_summary
from instil.study import collect
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
}
"""Arm -> what it changes, as `--set` takes it; `multitask` also adds tasks, see `other_tasks`."""
LABELS = {
    "lora": "LoRA",
    "full": "full fine-tuning",
    MULTITASK: "LoRA + other tasks",
    "interpolate": "LoRA + interpolation",
    "replay": "LoRA + replay of own texts",
    "kl": "LoRA + KL to the untouched model",
    "entropy": "LoRA + entropy-weighted loss",
}
COMPANIONS = ("social_iqa", "arithmetic", "sarcasm", "spelling")
"""Library tasks to mix with, in order of preference; none is a relative of a guard task."""
COMPANY = 2
COMPANION_ROWS = 300


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
        names: Built-in arms, in order; None: all of them.
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
    found = {name: ARMS[name] for name in names or ARMS if name in ARMS}
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
        found[name] = parts
    if problems:
        raise RecipeError(*problems)
    return found


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
    found: list[Method] = []
    problems: list[Problem] = []
    for name, own in arms.items():
        own = (*own, *(other_tasks(base) if name == MULTITASK and own == ARMS[name] else ()))
        try:
            recipe = load_recipe(path, overrides=[*changes, judged, *own])
        except RecipeError as bad:
            problems += bad.problems
            continue
        found.append(Method(name, LABELS.get(name, name), tuple(own), recipe))
    if model is not None:
        own = (f"model={model}",)
        recipe = load_recipe(path, overrides=[*changes, judged, *own])
        word = "".join(c if c.isalnum() else "-" for c in Path(model).name)
        found.append(Method(f"prompted-{word}", model, own, recipe, Work.PROMPT))
    if problems:
        raise RecipeError(*dict.fromkeys(problems))
    return tuple(found)


def other_tasks(recipe: Recipe) -> tuple[str, ...]:
    """Return overrides that mix the recipe's tasks with others of the library, half and half.

    Those are no relatives of what is trained or of what the guard watches, so that the guard stays
    the same in all arms.
    """
    own = [load_task(use.use) for use in recipe.tasks]
    watched, _ = choose_guard(
        recipe.forgetting.tasks,
        clusters=[task.cluster for task in own],
        trained=[task.id for task in own],
    )
    taken = {task.cluster for task in (*own, *map(load_task, watched))}
    company = [name for name in COMPANIONS if load_task(name).cluster not in taken][:COMPANY]
    uses = [use.model_dump(mode="json", exclude_defaults=True) for use in recipe.tasks]
    rows = [use.train for use in recipe.tasks if use.train is not None]
    each = max(1, sum(rows) // len(company)) if rows and company else COMPANION_ROWS
    weights = [use.weight for use in recipe.tasks if use.weight is not None]
    share = {"weight": sum(weights) / len(company)} if weights and company else {}
    uses += [{"use": name, "train": each, **share} for name in company]
    # The others are judged too, but not reported here: their ladders need no worked examples.
    return (f"tasks={json.dumps(uses)}", "baselines.shots=[0]")


def job_of(method: Method, seed: int) -> Job:
    """Return an arm's run of a seed."""
    recipe, ahead = method.recipe, None
    if method.work is Work.PROMPT:  # what takes about as long, to check and to estimate with
        forgetting = recipe.forgetting.model_copy(update={"tasks": "none"})
        little = recipe.train.model_copy(update={"num_train_epochs": 0.1})
        ahead = recipe.model_copy(update={"forgetting": forgetting, "train": little})
    seeded = recipe.model_copy(update={"seed": seed})
    return Job(f"{method.name}-seed{seed}", seeded, method.work, ahead=ahead)


# --- from finished runs to figures ----------------------------------------------------------------


def sum_up_methods(
    folder: StudyFolder, methods: Sequence[Method], *, seeds: Sequence[int]
) -> MethodsStudy:
    """Compare the finished arms."""
    runs = {m.name: [folder.arm(job_of(m, seed).name) for seed in seeds] for m in methods}
    reference = next(m for m in methods if m.work is Work.RUN)
    own = [load_task(use.use).id for use in reference.recipe.tasks]
    results = collect.tasks_of(runs[reference.name][0], names=own)
    metric = collect.shared_metric(task.metric for task in results)
    table = _Table(runs, own, metric, reference.name)
    arms = [table.prompting(reference)]
    arms += [table.prompted(m) if m.work is Work.PROMPT else table.tuned(m) for m in methods]
    trained = [path for m in methods if m.work is Work.RUN for path in runs[m.name]]
    first = load_summary(trained[0])
    return MethodsStudy(
        name=folder.name,
        model=first.model,
        tasks=tuple(own),
        metric=metric,
        rows={part: sum(t.rows[part] for t in results) for part in results[0].rows},
        guard=tuple(dict.fromkeys(g.task for g in first.forgetting)),
        seeds=tuple(seeds),
        reference=reference.name,
        arms=tuple(arms),
        seconds=collect.stage_seconds(trained),
    )


@dataclass(frozen=True, slots=True)
class _Table:
    """The finished runs, and what they are compared by."""

    runs: Mapping[str, Sequence[Path]]
    tasks: Sequence[str]
    metric: str
    reference: str

    def prompting(self, reference: Method) -> MethodArm:
        """The untouched model at its best rung: every run asked it."""
        found = self._arms(self.reference, PROMPTING)
        label = found[0].label if len({a.label for a in found}) == 1 else "prompting"
        method = replace(reference, name=PROMPTING, label=label, changes=())
        return self._line(method, self._test(self.reference, PROMPTING), found)

    def prompted(self, method: Method) -> MethodArm:
        """Another model, prompted alone."""
        found = [load_prompted(run)[t] for run in self.runs[method.name] for t in self.tasks]
        label = f"{method.recipe.model}, prompted ({found[0].label})"
        scores = self._test(method.name, PROMPTING)
        return self._line(replace(method, label=label), scores, found)

    def tuned(self, method: Method) -> MethodArm:
        """A tuned arm, with what it forgot."""
        runs = self.runs[method.name]
        text, points = collect.text_scores(runs), collect.guard_scores(runs)
        theirs = self.runs[self.reference]
        their_text, their_points = collect.text_scores(theirs), collect.guard_scores(theirs)
        taken = [found.chosen for run in runs if (found := load_summary(run).interpolation)]
        scores, arms = self._test(method.name, TUNED), self._arms(method.name, TUNED)
        return replace(
            self._line(method, scores, arms),
            trained=True,
            text=collect.change(text, metric=NATS.name),
            points=collect.change(points, metric=MEAN_SCORE),
            text_against=self._further(method.name, their_text, text, NATS.name),
            points_against=self._further(method.name, their_points, points, MEAN_SCORE),
            picked={"share of the way": fmean(taken)} if taken else {},
        )

    def _line(self, method: Method, scores: stats.Scores, found: Sequence[Arm]) -> MethodArm:
        against = None
        if method.name != self.reference:
            reference, names = self._test(self.reference, TUNED), (self.reference, method.name)
            against = stats.difference(reference, scores, names=names, metric=self.metric)
        return MethodArm(
            method.name,
            method.label,
            method.changes,
            method.recipe.model,
            trained=False,
            score=stats.level(scores, metric=self.metric),
            by_seed=scores.means,
            costs=collect.mean_costs(found),
            score_against=against,
        )

    def _test(self, name: str, arm: str) -> stats.Scores:
        return collect.test_scores(self.runs[name], tasks=self.tasks, arm=arm)

    def _further(
        self, name: str, theirs: collect.Before | None, found: collect.Before | None, metric: str
    ) -> Comparison | None:
        """Compare an arm's change with the reference arm's, row by row."""
        if name == self.reference or found is None or theirs is None:
            return None
        changes = (stats.minus(each.after, each.before) for each in (theirs, found))
        return stats.difference(*changes, names=(self.reference, name), metric=metric)

    def _arms(self, name: str, arm: str) -> list[Arm]:
        tasks = [t for run in self.runs[name] for t in collect.tasks_of(run, names=self.tasks)]
        return [found for task in tasks for found in task.arms if found.name == arm]
