"""Points with intervals between two axes: score against forgetting, score by rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from instil import format as fmt
from instil.report.charts import (
    BAR,
    CYCLE,
    DASHES,
    SHAPES,
    SOFT,
    Entry,
    finish,
    marker,
    new_axes,
    plain,
    set_ticks,
    short,
)
from instil.report.page import Axis, Mark, PointPlot
from instil.sanitize import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEIGHT = 230
_AIR = 0.06


def point_figure(plot: PointPlot) -> Figure:
    """Return the figure of a point plot."""
    entries = [Entry(name, _look(plot, series)) for series, name in short(plot.series).items()]
    axes = new_axes(_HEIGHT, entries=entries, title=plot.x.title)
    for side, axis in enumerate((plot.x, plot.y)):
        _set_scale(axes, plot, axis, side)
    across, up = fmt.scale(plot.x.unit), fmt.scale(plot.y.unit)
    if plot.reference is not None:
        _show_reference(axes, plot, scale=up)
    for line in plot.lines:
        steps = [across * point.step for point in line]
        axes.plot(steps, [up * point.value for point in line], color=BAR, ls=DASHES, lw=1.2)
    for mark in plot.marks:
        x, y, look = across * mark.x, up * mark.y, _look(plot, mark.series)
        bar = {"color": look["color"], "lw": 1.4, "alpha": 0.7}
        if mark.x_ends is not None:
            axes.plot([across * end for end in mark.x_ends], (y, y), **bar)
        if mark.y_ends is not None:
            axes.plot((x, x), [up * end for end in mark.y_ends], **bar)
        axes.plot(x, y, **look, gid=visible(mark.text))
    return finish(axes, up=plot.y.title)


def _look(plot: PointPlot, series: str) -> dict[str, Any]:
    n, turn = plot.series.index(series), len(CYCLE)
    # Another turn of the colours comes with other shapes, so that no two series look alike.
    return marker(CYCLE[n % turn], (n + n // turn) % len(SHAPES))


def _set_scale(axes: Axes, plot: PointPlot, axis: Axis, side: int) -> None:
    """Set range and ticks of x (side 0) or y (side 1)."""
    name, drawn = "xy"[side], (axes.xaxis, axes.yaxis)[side]
    if axis.ticks:
        axes.set(**{f"{name}scale": "log"})
    axes.set(**{f"{name}lim": _extent(plot, axis, side)})
    if axis.ticks:
        drawn.set_ticks(axis.ticks, labels=[f"{tick:,.0f}" for tick in axis.ticks])
        axes.minorticks_off()
    else:
        set_ticks(drawn, label=plain)


def _extent(plot: PointPlot, axis: Axis, side: int) -> tuple[float, float]:
    values = [value for mark in plot.marks for value in _reach(mark, side)]
    if side and plot.reference is not None:
        values += [plot.reference.y, *plot.reference.ends]
    low, high = min(values), max(values)
    if axis.ticks:
        return low / (1 + 2 * _AIR), high * (1 + 2 * _AIR)
    air = (high - low) * _AIR or 0.02
    scale = fmt.scale(axis.unit)
    return scale * (low - air), scale * (high + air)


def _reach(mark: Mark, side: int) -> list[float]:
    ends = (mark.x_ends, mark.y_ends)[side]
    return [(mark.x, mark.y)[side], *(ends or ())]


def _show_reference(axes: Axes, plot: PointPlot, *, scale: float) -> None:
    """Draw a level with its interval as a band, and its name on the line."""
    assert plot.reference is not None
    name, level = plot.reference.name, scale * plot.reference.y
    axes.axhspan(*(scale * end for end in plot.reference.ends), color=BAR, alpha=0.16, lw=0)
    axes.axhline(level, color=BAR, ls=DASHES, lw=1.4, zorder=1.5)
    place: dict[str, Any] = {
        "xycoords": ("axes fraction", "data"),
        "textcoords": "offset points",
        "fontsize": 11,
    }
    axes.annotate(short([name])[name], (0, level), (3, 4), **place, color=SOFT)
