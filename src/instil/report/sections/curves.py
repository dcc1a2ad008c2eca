"""The learning curves of a run: training and validation loss, and the score on validation."""

from __future__ import annotations

import math
from collections.abc import Sequence

from instil import format as fmt
from instil.format import Unit
from instil.report.page import CurvePlot, Line, Point
from instil.types import Step

MAX_POINTS = 400
"""Longer lines are thinned by averaging, so that the page stays small."""
RAW, SMOOTH, VALIDATION = "training, each step", "training, smoothed", "validation"


def curve_plots(
    steps: Sequence[Step], *, best_step: int, metric: str
) -> tuple[tuple[CurvePlot, ...], str]:
    """Return the plots of a run's steps, and a note on what they leave out (often empty).

    Args:
        steps: In order; losses in nats per token.
        best_step: The step that was kept, or 0.
        metric: The name of the score on validation; empty where several tasks share it.
    """
    if not steps:
        return (), ""
    loss = _loss_plot(steps, best_step)
    score = _score_plot(steps, best_step, metric)
    plots = tuple(plot for plot in (loss, score) if plot)
    lost = sum(not math.isfinite(step.loss) for step in steps)
    counted = f"{fmt.plural(lost, 'step')} without a finite loss {'is' if lost == 1 else 'are'}"
    note = f"{counted} not drawn." if lost else ""
    return plots, note


def smooth(values: Sequence[float], *, reach: int) -> tuple[float, ...]:
    """Return the mean of each value and its neighbours, up to `reach` on both sides.

    Near an end the reach shrinks on both sides alike, so that the line neither lags nor leads.

    >>> smooth([4.0, 2.0, 0.0, 2.0], reach=1)
    (4.0, 2.0, 1.3333333333333333, 2.0)
    """
    result = []
    for index in range(len(values)):
        near = min(reach, index, len(values) - 1 - index)
        window = values[index - near : index + near + 1]
        result.append(sum(window) / len(window))
    return tuple(result)


def thin(points: Sequence[Point], *, at_most: int = MAX_POINTS) -> tuple[Point, ...]:
    """Return at most `at_most` points, each the mean of its neighbours.

    >>> len(thin([Point(step, 1.0) for step in range(1000)], at_most=300))
    250
    """
    width = math.ceil(len(points) / at_most)
    if width <= 1:
        return tuple(points)
    chunks = (points[start : start + width] for start in range(0, len(points), width))
    return tuple(_mean(chunk) for chunk in chunks)


def _mean(points: Sequence[Point]) -> Point:
    n = len(points)
    return Point(sum(each.step for each in points) / n, sum(each.value for each in points) / n)


def _loss_plot(steps: Sequence[Step], best_step: int) -> CurvePlot | None:
    raw = [Point(step.step, step.loss) for step in steps if math.isfinite(step.loss)]
    reach = max(2, len(raw) // 20)
    smoothed = smooth([point.value for point in raw], reach=reach)
    even = [Point(point.step, value) for point, value in zip(raw, smoothed, strict=True)]
    lines = [
        Line(RAW, thin(raw)),
        Line(SMOOTH, thin(even)),
        Line(VALIDATION, _validation(steps, "validation_loss")),
    ]
    drawn = tuple(line for line in lines if line.points)
    if not drawn:
        return None
    ends = ". ".join(_ends(line, "nats_per_token") for line in drawn if line.name != RAW)
    title = "Loss, nats per token"
    return CurvePlot(title, f"{ends}.", "nats per token", Unit.NATS, drawn, best_step)


def _score_plot(steps: Sequence[Step], best_step: int, metric: str) -> CurvePlot | None:
    points = _validation(steps, "validation_score")
    if not points:
        return None
    style = fmt.style(metric) if metric else fmt.MetricStyle("score", Unit.PLAIN)
    axis = f"{style.label}, %" if style.unit is Unit.PERCENT else style.label
    line = Line(VALIDATION, points)
    title = f"{style.label[:1].upper()}{style.label[1:]} on validation"
    return CurvePlot(title, f"{_ends(line, metric)}.", axis, style.unit, (line,), best_step)


def _validation(steps: Sequence[Step], name: str) -> tuple[Point, ...]:
    found = ((step.step, getattr(step, name)) for step in steps)
    return tuple(
        Point(step, value) for step, value in found if value is not None and math.isfinite(value)
    )


def _ends(line: Line, metric: str) -> str:
    first, last = line.points[0], line.points[-1]
    return (
        f"{line.name}: from {fmt.figure(first.value, metric)} at step {fmt.count(first.step)} "
        f"to {fmt.figure(last.value, metric)} at step {fmt.count(last.step)}"
    )
