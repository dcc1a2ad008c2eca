"""Two runs side by side, paired by test row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from instil.compare.pairing import compare
from instil.errors import Problem, RunError
from instil.results import TUNED
from instil.types import Comparison

Lines = Sequence[Mapping[str, Any]]


def compare_scores(
    a_tasks: Mapping[str, Lines], b_tasks: Mapping[str, Lines], *, a: str, b: str
) -> list[Comparison]:
    """Compare the tuned arms of two runs, task by task.

    Args:
        a_tasks: Task -> lines of `scores/test-<task>.jsonl` of the run compared against.
        b_tasks: The same of the run of interest.
        a: Name of the first run.
        b: Name of the second; where there are several tasks, the task's goes before it.

    Raises:
        RunError: The runs have no task in common, judge a task by different metrics, or share
            fewer than two test rows of it.
    """
    shared = [task for task in a_tasks if task in b_tasks]
    if not shared:
        raise RunError(
            Problem(
                f"{a} and {b} have no task in common",
                found=f"{', '.join(a_tasks)} and {', '.join(b_tasks)}",
            )
        )
    several = len(shared) > 1
    return [
        _compare_task(
            a_tasks[task], b_tasks[task], a=a, b=f"{task}: {b}" if several else b, task=task
        )
        for task in shared
    ]


def _compare_task(a_lines: Lines, b_lines: Lines, *, a: str, b: str, task: str) -> Comparison:
    left, right = _tuned(a_lines), _tuned(b_lines)
    metrics = {line["metric"] for line in (*left, *right)}
    if len(metrics) > 1:
        raise RunError(Problem(f"the runs judge {task} differently", found=", ".join(metrics)))
    return compare(
        _values(left),
        _values(right),
        a=a,
        b=b,
        metric=metrics.pop(),
        groups={line["row"]: f"{task}/{line['group']}" for line in (*left, *right)},
    )


def _tuned(lines: Lines) -> list[Mapping[str, Any]]:
    return [line for line in lines if line["arm"] == TUNED]


def _values(lines: Lines) -> dict[str, float]:
    return {line["row"]: line["value"] for line in lines if line["value"] is not None}
