"""Points with intervals between two axes: score against forgetting, score by rows."""

from __future__ import annotations

from typing import Any

from instil.report import format as fmt
from instil.report.charts import BAR, CYCLE, SHAPES, WIDTH, halo, short, styled
from instil.report.page import Axis, Mark, PointPlot
from instil.sanitize import visible

_HEIGHT = 230
_AIR = 0.06


def point_chart(plot: PointPlot) -> Any:
    """Return the Vega-Lite chart of a point plot; its texts are escaped when it is drawn."""
    import altair as alt

    names = short(plot.series)
    values = [_values(mark, plot, names) for mark in plot.marks]
    marks = alt.Chart(alt.InlineData(values=values)).encode(color=_colour(plot))
    x, y = _scale(plot, plot.x, 0), _scale(plot, plot.y, 1)
    layers = [
        *_reference(plot, x, y),
        *_lines(plot),
        marks.transform_filter("datum.x0 != null")
        .mark_rule(strokeWidth=1.4, opacity=0.7)
        .encode(x=alt.X("x0:Q", **x), x2="x1:Q", y=alt.Y("y:Q", **y)),
        marks.transform_filter("datum.y0 != null")
        .mark_rule(strokeWidth=1.4, opacity=0.7)
        .encode(x=alt.X("x:Q", **x), y=alt.Y("y0:Q", **y), y2="y1:Q"),
        marks.mark_point(filled=True, size=62, opacity=1).encode(
            x=alt.X("x:Q", **x), y=alt.Y("y:Q", **y), shape=_shape(plot), description="text:N"
        ),
    ]
    return styled(alt.layer(*layers).properties(width=WIDTH - 62, height=_HEIGHT))


def _values(mark: Mark, plot: PointPlot, names: dict[str, str]) -> dict[str, object]:
    across, up = fmt.scale(plot.x.unit), fmt.scale(plot.y.unit)
    x_ends, y_ends = mark.x_ends or (None, None), mark.y_ends or (None, None)
    return {
        "series": names[mark.series],
        "x": across * mark.x,
        "y": up * mark.y,
        "x0": None if x_ends[0] is None else across * x_ends[0],
        "x1": None if x_ends[1] is None else across * x_ends[1],
        "y0": None if y_ends[0] is None else up * y_ends[0],
        "y1": None if y_ends[1] is None else up * y_ends[1],
        "text": visible(mark.text),
    }


def _scale(plot: PointPlot, axis: Axis, side: int) -> dict[str, Any]:
    """Return title, scale and axis of x (side 0) or y (side 1)."""
    import altair as alt

    low, high = _extent(plot, axis, side)
    ticks = {"values": list(axis.ticks)} if axis.ticks else {"tickCount": 5}
    kind = {"type": "log"} if axis.ticks else {"zero": False}
    return {
        "title": short([axis.title])[axis.title],
        "scale": alt.Scale(domain=[low, high], nice=False, **kind),
        "axis": alt.Axis(
            format=",d" if axis.ticks else ".6~g",
            domain=False,
            ticks=False,
            labelPadding=6,
            **ticks,
        ),
    }


def _extent(plot: PointPlot, axis: Axis, side: int) -> tuple[float, float]:
    found = [value for mark in plot.marks for value in _reach(mark, side)]
    if side and plot.reference is not None:
        found += [plot.reference.y, *plot.reference.ends]
    low, high = min(found), max(found)
    if axis.ticks:
        return low / (1 + 2 * _AIR), high * (1 + 2 * _AIR)
    air = (high - low) * _AIR or 0.02
    scale = fmt.scale(axis.unit)
    return scale * (low - air), scale * (high + air)


def _reach(mark: Mark, side: int) -> list[float]:
    ends = (mark.x_ends, mark.y_ends)[side]
    return [(mark.x, mark.y)[side], *(ends or ())]


def _colour(plot: PointPlot) -> Any:
    import altair as alt

    names = list(short(plot.series).values())
    colours = [CYCLE[n % len(CYCLE)] for n in range(len(names))]
    scale = alt.Scale(domain=names, range=colours)
    return alt.Color("series:N", title=None, scale=scale, legend=_legend(plot))


def _shape(plot: PointPlot) -> Any:
    import altair as alt

    names = list(short(plot.series).values())
    # Another turn of the colours comes with other shapes, so that no two series look alike.
    turns = [SHAPES[(n + n // len(CYCLE)) % len(SHAPES)] for n in range(len(names))]
    scale = alt.Scale(domain=names, range=turns)
    return alt.Shape("series:N", title=None, scale=scale, legend=_legend(plot))


def _legend(plot: PointPlot) -> Any:
    import altair as alt

    if len(plot.series) < 2:
        return None
    columns = 2 if max(map(len, plot.series)) < 20 else 1
    return alt.Legend(orient="top", offset=4, labelLimit=WIDTH - 30, columns=columns)


def _lines(plot: PointPlot) -> list[Any]:
    import altair as alt

    across, up = fmt.scale(plot.x.unit), fmt.scale(plot.y.unit)
    found = []
    for line in plot.lines:
        values = [{"x": across * point.step, "y": up * point.value} for point in line]
        base = alt.Chart(alt.InlineData(values=values))
        found.append(
            base.mark_line(color=BAR, strokeDash=[4, 3], strokeWidth=1.2).encode(x="x:Q", y="y:Q")
        )
    return found


def _reference(plot: PointPlot, x: dict[str, Any], y: dict[str, Any]) -> list[Any]:
    import altair as alt

    if plot.reference is None:
        return []
    up = fmt.scale(plot.y.unit)
    low, high = plot.reference.ends
    left, right = x["scale"].domain
    values = [
        {
            "left": left,
            "right": right,
            "y": up * plot.reference.y,
            "low": up * low,
            "high": up * high,
            "name": visible(short([plot.reference.name])[plot.reference.name]),
        }
    ]
    base = alt.Chart(alt.InlineData(values=values)).encode(x=alt.X("left:Q", **x), x2="right:Q")
    band = base.mark_rect(opacity=0.16, color=BAR).encode(y=alt.Y("low:Q", **y), y2="high:Q")
    rule = base.mark_rule(color=BAR, strokeDash=[4, 3], strokeWidth=1.4).encode(y=alt.Y("y:Q", **y))
    text = (
        alt.Chart(alt.InlineData(values=values))
        .mark_text(align="left", dx=3, dy=-7, **halo(11))
        .encode(x=alt.value(0), y=alt.Y("y:Q", **y), text="name:N")
    )
    return [band, rule, text]
