"""What the finished arms of a study hold, with all seeds of an arm put together.

Tests: `tests/study/test_methods.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from instil.compare.contest import same_by
from instil.compare.seeds import Scores, difference, minus
from instil.data.prepare import TaskData
from instil.errors import RunError
from instil.results.names import MEAN_SCORE, TEXT
from instil.results.tasks import Arm, Costs, TaskResult
from instil.scoring.metrics import NATS
from instil.stages.runfiles import load_scores, load_summary
from instil.types import Comparison, Task

Line = Mapping[str, Any]


def test_scores(folders: Sequence[Path], *, tasks: Sequence[str], arm: str) -> Scores:
    """Return an arm's scores of the test rows, a run a seed.

    Args:
        folders: The run directories, one a seed.
        tasks: Whose rows.
        arm: `tuned`, `prompting` ...
    """

    def lines(folder: Path) -> list[Line]:
        every = (line for task in tasks for line in load_scores(folder, f"test-{task}"))
        return [line for line in every if line["arm"] == arm]

    return _scores([lines(folder) for folder in folders], key="row", value="value")


Rows = dict[tuple[str, str], tuple[str, str]]
"""Task and row id -> what tells the row from another of its id, and where it was seen."""


def require_same_rows(folders: Iterable[Path], *, known: Rows) -> None:
    """See that rows of one id are the same row in all runs, since they are paired by it.

    Args:
        folders: Finished runs.
        known: Rows that are known already; those of the runs are added.

    Raises:
        RunError: They are not: the data was changed between two runs. Scores of earlier versions
            do not tell.
    """
    for folder in folders:
        for path in sorted((folder / "scores").glob("test-*.jsonl")):
            for line in load_scores(folder, path.stem):
                if not (own := line.get("same_by")):
                    continue
                row = line["task"], line["row"]
                other, seen = known.setdefault(row, (own, folder.name))
                if own != other:
                    raise RunError(
                        f"row {row[1]} of {row[0]} is another one in {folder.name} than in {seen}: "
                        "the data was changed between them",
                        where=str(folder),
                        fix="begin a new study with --folder ANOTHER, or bring back the rows",
                    )


def rows_of(data: Iterable[TaskData]) -> Rows:
    """Return the test rows of tasks as they are today, for `require_same_rows`."""
    return {
        (d.task.id, row.id): (same_by(d.task, row), "today's data") for d in data for row in d.test
    }


@dataclass(frozen=True, slots=True)
class Before:
    """Guard scores before and after training, a run a seed."""

    before: Scores
    """Of the base model."""
    after: Scores
    """Of the exported model."""
    metric: str
    """Of the scores."""

    @property
    def change(self) -> Comparison:
        """After minus before."""
        return difference(self.before, self.after, names=("before", "after"), metric=self.metric)

    @property
    def changes(self) -> Scores:
        """After minus before, row by row."""
        return minus(self.after, self.before)


def guard_scores(folders: Sequence[Path], *, metric: str) -> Before | None:
    """Return what the guard scored; None where it was not measured.

    Args:
        folders: The run directories, one a seed.
        metric: `nats_per_token` for general text; else the guard tasks, each in its own metric.
    """

    def wanted(line: Line) -> bool:
        is_text: bool = line["task"] == TEXT
        return is_text if metric == NATS.name else line["metric"] != NATS.name

    lines = [[line for line in load_scores(f, "guard") if wanted(line)] for f in folders]
    if not all(lines):
        return None
    before, after = (_scores(lines, key="example", value=side) for side in ("before", "after"))
    return Before(before, after, metric)


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


def shared_metric(tasks: Iterable[TaskResult | Task]) -> str:
    """Return the metric that decides all of the tasks, or that they differ in it."""
    metrics = {task.metric for task in tasks}
    return metrics.pop() if len(metrics) == 1 else MEAN_SCORE


def run_seconds(folders: Iterable[Path]) -> float:
    """Return the wall time of finished runs."""
    return sum(sum(load_summary(folder).stage_seconds.values()) for folder in folders)


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
