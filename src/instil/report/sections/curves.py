"""The learning curves of a run: training and validation loss, and the score on validation."""

from __future__ import annotations

import math
from collections.abc import Sequence

from instil import format as fmt
from instil.format import Unit
from instil.report.charts import RAW, SMOOTH, VALIDATION
from instil.report.page import Axis, Line, Plot, Point, Reference
from instil.report.parts import axis_name, capital
from instil.types import Step

MAX_POINTS = 400
"""Longer lines are thinned by averaging, so that the page stays small."""


def curve_plots(steps: Sequence[Step], *, best_step: int, metric: str) -> tuple[Plot, ...]:
    """Return the plots of a run's steps: the loss where it is finite, and the score.

    Args:
        steps: In order; losses in nats per token.
        best_step: The step that was kept, or 0.
        metric: The name of the score on validation; empty where several tasks share it.
    """
    raw = [Point(step.step, step.loss) for step in steps if math.isfinite(step.loss)]
    smoothed = smooth([point.y for point in raw], reach=max(2, len(raw) // 20))
    even = [Point(point.x, value) for point, value in zip(raw, smoothed, strict=True)]
    losses = (
        Line(thin(raw), RAW),
        Line(thin(even), SMOOTH),
        Line(_validation(steps, "validation_loss"), VALIDATION),
    )
    score = Line(_validation(steps, "validation_score"), VALIDATION)
    style = fmt.style(metric) if metric else fmt.MetricStyle("score", Unit.PLAIN)
    kept = Reference(f"kept: step {fmt.count(best_step)}", best_step) if best_step else None
    x = Axis("step", labels="whole", is_line=True)
    plots = []
    for lines, named, title, y in (
        (losses, "nats_per_token", "Loss, nats per token", Axis("nats per token", Unit.NATS)),
        (
            (score,),
            metric,
            f"{capital(style.label)} on validation",
            Axis(axis_name(metric) if metric else style.label, style.unit),
        ),
    ):
        drawn = tuple(line for line in lines if line.points)
        ends = []
        for line in (each for each in drawn if each.name != RAW):
            was, became = (
                f"{fmt.figure(point.y, named)} at step {fmt.count(point.x)}"
                for point in (line.points[0], line.points[-1])
            )
            ends.append(f"{line.name}: from {was} to {became}")
        if drawn:
            plots.append(Plot(title, f"{'. '.join(ends)}.", x, y, lines=drawn, upright=kept))
    return tuple(plots)


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


def thin(points: Sequence[Point]) -> tuple[Point, ...]:
    """Return at most `MAX_POINTS` points, each the mean of its neighbours.

    >>> len(thin([Point(step, 1.0) for step in range(1000)]))
    334
    """
    width = math.ceil(len(points) / MAX_POINTS)
    if width <= 1:
        return tuple(points)
    chunks = (points[start : start + width] for start in range(0, len(points), width))
    return tuple(
        Point(sum(p.x for p in chunk) / len(chunk), sum(p.y for p in chunk) / len(chunk))
        for chunk in chunks
    )


def _validation(steps: Sequence[Step], name: str) -> tuple[Point, ...]:
    values = ((step.step, getattr(step, name)) for step in steps)
    return tuple(Point(x, y) for x, y in values if y is not None and math.isfinite(y))
