"""The average over several tasks, each counting the same, with its interval.

The tasks' intervals are put together by the method of variance estimates recovery (MOVER: Zou &
Donner 2008, Statistics in Medicine 27(10), equation 4): for a mean of T estimates m with limits l
and u of independent rows,

    low  = mean(m) - sqrt(sum((m - l)^2)) / T
    high = mean(m) + sqrt(sum((u - m)^2)) / T

so what each interval knows (groups taken together, ends that keep to the scale) is kept, and no
score is needed again. Rows of different tasks are taken as independent; which tasks they are is
taken as given: the interval says nothing about a task that was not tried.
"""

from __future__ import annotations

from collections.abc import Sequence

from instil.results import MEAN_SCORE, TUNED, Average, TaskResult
from instil.types import Comparison, Estimate, Summary


def averages(tasks: Sequence[TaskResult]) -> tuple[Average, ...]:
    """Return the average over all tasks, and over those of each metric that two or more share.

    Arms and comparisons that some of the tasks lack are left out of an average.
    """
    if len(tasks) < 2:
        return ()
    metrics = dict.fromkeys(task.metric for task in tasks)
    if len(metrics) == 1:
        return (_average(tasks, next(iter(metrics))),)
    alike = [(metric, [t for t in tasks if t.metric == metric]) for metric in metrics]
    return (
        _average(tasks, ""),
        *(_average(found, metric) for metric, found in alike if len(found) > 1),
    )


def mean_of(estimates: Sequence[Estimate]) -> Estimate:
    """Average independent estimates.

    >>> both = mean_of([Estimate(0.5, 0.4, 0.6), Estimate(0.7, 0.6, 0.8)])
    >>> round(both.mean, 4), round(both.low, 4), round(both.high, 4)
    (0.6, 0.5293, 0.6707)
    """
    count = len(estimates)
    mean = sum(each.mean for each in estimates) / count
    below = sum((each.mean - each.low) ** 2 for each in estimates) ** 0.5 / count
    above = sum((each.high - each.mean) ** 2 for each in estimates) ** 0.5 / count
    return Estimate(mean, mean - below, mean + above)


def _average(tasks: Sequence[TaskResult], metric: str) -> Average:
    names = dict.fromkeys(arm.name for task in tasks for arm in task.arms)
    arms = {name: found for name in names if (found := _arm(tasks, name, metric)) is not None}
    against = [_comparison(tasks, name, metric) for name in names if name != TUNED]
    return Average(
        metric,
        tuple(task.task for task in tasks),
        arms,
        tuple(each for each in against if each is not None),
    )


def _arm(tasks: Sequence[TaskResult], name: str, metric: str) -> Summary | None:
    summaries = [
        arm.summaries[task.metric]
        for task in tasks
        for arm in task.arms
        if arm.name == name and task.metric in arm.summaries
    ]
    if len(summaries) < len(tasks):
        return None
    mean = mean_of([Estimate(each.mean, each.low, each.high) for each in summaries])
    return Summary(
        metric or MEAN_SCORE,
        mean.mean,
        mean.low,
        mean.high,
        scored=sum(each.scored for each in summaries),
        unscored=sum(each.unscored for each in summaries),
    )


def _comparison(tasks: Sequence[TaskResult], arm: str, metric: str) -> Comparison | None:
    found = [
        each
        for task in tasks
        for each in task.comparisons
        if (each.a, each.b, each.metric) == (arm, TUNED, task.metric)
    ]
    if len(found) < len(tasks):
        return None
    mean = mean_of([Estimate(each.difference, each.low, each.high) for each in found])
    return Comparison(
        arm,
        TUNED,
        metric or MEAN_SCORE,
        n=sum(each.n for each in found),
        difference=mean.mean,
        low=mean.low,
        high=mean.high,
        p_value=None,
    )
