"""What the finished arms of a study hold, with all seeds of an arm put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from instil.compare.seeds import Scores, difference
from instil.compare.verdict import TEXT
from instil.evaluate.metrics import NATS
from instil.results import MEAN_SCORE, Arm, Costs, TaskResult
from instil.stages.directory import load_scores, load_summary
from instil.types import Comparison

Line = Mapping[str, Any]


def test_scores(folders: Sequence[Path], *, tasks: Sequence[str], arm: str) -> Scores:
    """Return an arm's scores of the test rows, a run a seed.

    Args:
        folders: The run directories, one a seed.
        tasks: Whose rows.
        arm: `tuned`, `prompting` ...
    """
    by_seed = [
        [line for task in tasks for line in load_scores(folder, f"test-{task}")]
        for folder in folders
    ]
    mine = [[line for line in lines if line["arm"] == arm] for lines in by_seed]
    return _scores(mine, key="row", value="value")


@dataclass(frozen=True, slots=True)
class Before:
    """Guard scores before and after training, a run a seed."""

    before: Scores
    """Of the untouched model."""
    after: Scores
    """Of what was handed over."""


def change(found: Before | None, *, metric: str) -> Comparison | None:
    """Return after minus before; None where it was not measured."""
    if found is None:
        return None
    return difference(found.before, found.after, names=("before", "after"), metric=metric)


def text_scores(folders: Sequence[Path]) -> Before | None:
    """Return the cross-entropies on general text; None where it was not measured."""
    return _guard(folders, lambda line: line["task"] == TEXT)


def guard_scores(folders: Sequence[Path]) -> Before | None:
    """Return the guard tasks' scores, each in its own metric; None where there are none."""
    return _guard(folders, lambda line: line["metric"] != NATS.name)


def _guard(folders: Sequence[Path], wanted: Callable[[Line], bool]) -> Before | None:
    found = [[line for line in load_scores(f, "guard") if wanted(line)] for f in folders]
    if not all(found):
        return None
    return Before(*(_scores(found, key="example", value=side) for side in ("before", "after")))


def _scores(by_seed: Sequence[Sequence[Line]], *, key: str, value: str) -> Scores:
    everyone = [line for lines in by_seed for line in lines]

    def name(line: Line) -> str:
        return f"{line['task']}/{line[key]}"

    return Scores(
        tuple(
            {name(line): line[value] for line in lines if line[value] is not None}
            for lines in by_seed
        ),
        {name(line): f"{line['task']}/{line['group']}" for line in everyone},
        {name(line): line["task"] for line in everyone},
    )


def tasks_of(folder: Path, *, names: Sequence[str]) -> list[TaskResult]:
    """Return what a run found for some of its tasks."""
    return [task for task in load_summary(folder).tasks if task.task in names]


def shared_metric(metrics: Iterable[str]) -> str:
    """Return the metric that decides all of the tasks, or that they differ in it."""
    found = set(metrics)
    return found.pop() if len(found) == 1 else MEAN_SCORE


def stage_seconds(runs: Iterable[Path]) -> float:
    """Return what all stages of finished runs took."""
    return sum(sum(load_summary(run).stage_seconds.values()) for run in runs)


def mean_costs(arms: Sequence[Arm]) -> Costs:
    """Put the costs of an arm's runs (and tasks) together: means, and the highest peak."""
    costs = [arm.costs for arm in arms]
    return Costs(
        trainable_parameters=costs[0].trainable_parameters,
        trainable_share=costs[0].trainable_share,
        seconds=fmean(each.seconds for each in costs),
        peak_memory_bytes=max(each.peak_memory_bytes for each in costs),
        bytes_on_disk=round(fmean(each.bytes_on_disk for each in costs)),
        tokens_per_prediction=fmean(each.tokens_per_prediction for each in costs),
        # A thousand predictions, dealt over the tasks: the mean of times, not of speeds.
        predictions_per_second=1 / fmean(1 / each.predictions_per_second for each in costs),
    )
