"""What a study found: the contents of `study.json`, from which its report is made.

A study is several runs that differ in one thing; an arm is what they are compared by, and has one
run a seed. Differences between arms are paired by test row and by seed (`compare.seeds`).

Tests: `tests/study/test_curve.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from instil.results.tasks import Costs
from instil.types import Comparison, Summary


@dataclass(frozen=True, slots=True)
class MethodArm:
    """One way of doing it."""

    name: str
    """As given on the command line."""
    label: str
    """For people."""
    changes: tuple[str, ...]
    """What it changes in the recipe, as `key=value`."""
    model: str
    """The base model."""
    trained: bool
    """False for prompting."""
    score: Summary
    """On test, over tasks, rows and seeds."""
    by_seed: tuple[float, ...]
    """The score of each seed."""
    costs: Costs
    """Means over seeds; the peak of memory is the highest."""
    text: Comparison | None = None
    """General text, after minus before, in nats per token; None where it was not measured."""
    points: Comparison | None = None
    """Mean over the guard tasks in their own metrics, after minus before; None: not measured."""
    score_against: Comparison | None = None
    """Its score minus the reference arm's; None for that arm itself."""
    text_against: Comparison | None = None
    """Its change on general text minus the reference arm's: below zero, it forgot less."""
    points_against: Comparison | None = None
    """Its change on the guard tasks minus the reference arm's."""
    picked: Mapping[str, float] = field(default_factory=dict)
    """What was chosen by the runs themselves: the mean interpolation weight."""


@dataclass(frozen=True, slots=True)
class MethodsStudy:
    """Arms on the same rows and seeds, score against forgetting."""

    name: str
    """The study's name."""
    model: str
    """The base model that is tuned."""
    tasks: tuple[str, ...]
    """What is trained and judged in every arm."""
    metric: str
    """That decides; `mean_score` where tasks are judged by different ones."""
    rows: Mapping[str, int]
    """part -> rows, over the tasks."""
    guard: tuple[str, ...]
    """The guard tasks."""
    seeds: tuple[int, ...]
    """Of every arm."""
    reference: str
    """The arm that the others are compared with."""
    arms: tuple[MethodArm, ...]
    """Prompting first, then in the order asked for."""
    seconds: float
    """Wall time of all runs."""
    kind: Literal["methods"] = "methods"
    """Which study this is."""
    format_version: int = 1
    """Of this file."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One size of the training set."""

    asked: int
    """Rows asked for, a task."""
    rows: float
    """Rows trained on, mean over seeds: duplicates of judged rows are taken out."""
    score: Summary
    """On test, over tasks, rows and seeds."""
    by_seed: tuple[float, ...]
    """The score of each seed."""
    against_prompting: Comparison
    """Tuned minus the prompting of the reference line."""
    seconds: float
    """Of training, mean over seeds."""
    text: Comparison | None = None
    """General text, after minus before; None where it was not measured."""


@dataclass(frozen=True, slots=True)
class CurveStudy:
    """Score by number of training rows."""

    name: str
    """The study's name."""
    model: str
    """The base model."""
    method: str
    """lora, full, oft or shira."""
    tasks: tuple[str, ...]
    """What is trained and judged."""
    metric: str
    """That decides; `mean_score` where tasks are judged by different ones."""
    test_rows: int
    """The same for every run."""
    seeds: tuple[int, ...]
    """Of every size."""
    points: tuple[CurvePoint, ...]
    """From the smallest to the largest."""
    prompting: Summary
    """The base model at its best rung, with the most rows to draw worked examples from."""
    last_step: Comparison | None
    """The largest size minus the second largest; None with one size."""
    seconds: float
    """Wall time of all runs."""
    kind: Literal["curve"] = "curve"
    """Which study this is."""
    format_version: int = 1
    """Of this file."""


@dataclass(frozen=True, slots=True)
class UnseenTask:
    """A task, asked zero-shot."""

    task: str
    """Its id."""
    cluster: str
    """Its cluster: no task of it was trained on."""
    metric: str
    """That decides."""
    template: str
    """The template that every model is asked through."""
    rows: int
    """Test rows."""
    base: Summary
    """The base model."""
    alone: Summary | None = None
    """The model tuned on this task alone; None: not run."""


@dataclass(frozen=True, slots=True)
class GeneraliseArm:
    """One way of tuning on all clusters but one."""

    name: str
    """As given on the command line, and the size where there are several."""
    label: str
    """For people."""
    changes: tuple[str, ...]
    """What it changes in the recipe, as `key=value`."""
    examples: float
    """Training examples of an epoch, mean over folds and seeds."""
    scores: tuple[Summary, ...]
    """Of each task by the models that saw no task of its cluster, in the order of the tasks."""
    against_base: tuple[Comparison, ...]
    """Each task's score minus the base model's."""
    against_alone: tuple[Comparison, ...]
    """Each task's score minus that of the model tuned on it alone; empty: not run."""
    average: Summary
    """Over tasks, rows and seeds."""
    by_seed: tuple[float, ...]
    """The average of each seed."""
    gain: Comparison
    """The average minus the base model's."""
    short_of: Comparison | None
    """The average minus that of tuning on each task alone; None: not run."""
    against_first: Comparison | None
    """The average minus the first arm's; None for that one."""
    removed: int
    """Training rows taken out since they repeat a judged row of an unseen task, over folds, of the
    first seed."""
    seconds: float
    """Of training, all folds, mean over seeds."""


@dataclass(frozen=True, slots=True)
class GeneraliseStudy:
    """Tuned on all clusters of tasks but one, asked zero-shot on that one, for each cluster."""

    name: str
    """The study's name."""
    model: str
    """The base model."""
    tasks: tuple[UnseenTask, ...]
    """Cluster by cluster."""
    metric: str
    """Of the averages; `mean_score` where tasks are judged by different ones."""
    seeds: tuple[int, ...]
    """Of every arm."""
    base: Summary
    """The base model over all tasks."""
    alone: Summary | None
    """Tuning on each task alone, over all tasks; None: not run."""
    arms: tuple[GeneraliseArm, ...]
    """The others are compared with the first."""
    seconds: float
    """Wall time of all trainings."""
    kind: Literal["generalise"] = "generalise"
    """Which study this is."""
    format_version: int = 1
    """Of this file."""


@dataclass(frozen=True, slots=True)
class SequenceArm:
    """One way of going through the tasks."""

    name: str
    """plain or replay."""
    label: str
    """For people."""
    matrix: tuple[tuple[Summary, ...], ...]
    """Stage -> task -> score on the task's test rows; the first line is the base model."""
    average: Summary
    """After the last stage, over tasks, rows and seeds."""
    backward: Comparison
    """Backward transfer: after the last stage minus after its own, over all tasks but the last."""
    backward_by_seed: tuple[float, ...]
    """The same of each seed's matrix."""
    by_task: tuple[Comparison, ...]
    """The same, a line a task."""
    text: Comparison | None
    """General text, after the last stage minus the base model; None: not measured."""
    points: Comparison | None
    """The same of the guard tasks, in their own metrics."""
    seconds: float
    """Of training, all stages, mean over seeds."""
    backward_against: Comparison | None = None
    """Its backward transfer minus that of the plain arm; None for that one."""
    average_against: Comparison | None = None
    """Its average minus that of the plain arm."""


@dataclass(frozen=True, slots=True)
class SequenceStudy:
    """Tasks one after another, each stage from the model of the one before."""

    name: str
    """The study's name."""
    model: str
    """The base model."""
    tasks: tuple[str, ...]
    """In order."""
    metrics: tuple[str, ...]
    """Of each task."""
    rows: Mapping[str, Mapping[str, int]]
    """Task -> part -> rows."""
    replay: float
    """Share of earlier tasks' rows beside a stage's own, in the arm with replay; 0: no such arm."""
    seeds: tuple[int, ...]
    """Of every arm."""
    arms: tuple[SequenceArm, ...]
    """The plain one first."""
    seconds: float
    """Wall time of all stages."""
    overlap: Mapping[str, int] = field(default_factory=dict)
    """Task -> its training rows that repeat a row which another task of the sequence is judged
    on."""
    kind: Literal["sequence"] = "sequence"
    """Which study this is."""
    format_version: int = 1
    """Of this file."""
