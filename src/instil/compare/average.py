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

from instil.results.names import MEAN_SCORE, TUNED
from instil.results.tasks import Average, TaskResult
from instil.stats.intervals import pooled_df
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
    alike = {metric: [task for task in tasks if task.metric == metric] for metric in metrics}
    return (
        _average(tasks, ""),
        *(_average(several, metric) for metric, several in alike.items() if len(several) > 1),
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


def df_of(comparisons: Sequence[Comparison]) -> float | None:
    """Return the degrees of freedom of the average of independent comparisons."""
    return pooled_df([(each.high - each.low, each.df) for each in comparisons])


def _average(tasks: Sequence[TaskResult], metric: str) -> Average:
    shown = metric or MEAN_SCORE
    arms: dict[str, Summary] = {}
    against: list[Comparison] = []
    for name in dict.fromkeys(arm.name for task in tasks for arm in task.arms):
        own = [arm.summaries.get(task.metric) for task in tasks if (arm := task.arm(name))]
        scored = [summary for summary in own if summary is not None]
        if len(scored) == len(tasks):
            mean = mean_of([Estimate(s.mean, s.low, s.high) for s in scored])
            arms[name] = Summary(
                shown,
                mean.mean,
                mean.low,
                mean.high,
                scored=sum(summary.scored for summary in scored),
                unscored=sum(summary.unscored for summary in scored),
            )
        compared = [pair for task in tasks if (pair := task.against(name))]
        if name != TUNED and len(compared) == len(tasks):
            gap = mean_of([Estimate(pair.difference, pair.low, pair.high) for pair in compared])
            count, ends = sum(pair.n for pair in compared), (gap.low, gap.high)
            df = df_of(compared)
            pair = Comparison(name, TUNED, shown, count, gap.mean, *ends, p_value=None, df=df)
            against.append(pair)
    return Average(metric, tuple(task.task for task in tasks), arms, tuple(against))
