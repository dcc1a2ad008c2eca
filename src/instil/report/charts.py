"""Plots as inline SVG, drawn by Vega-Lite without a browser or the network.

The SVG is rebuilt from a short list of elements and attributes, so that a label can never bring
markup with it. Colours are written as attributes of the light theme; `assets/report.css` maps the
same values to the dark one.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Any

from instil.report import format as fmt
from instil.report.curves import RAW, SMOOTH, VALIDATION
from instil.report.page import CurvePlot, DotPlot, Plot, PointPlot, RatePlot
from instil.sanitize import visible

WIDTH = 350
"""Of a plot, in CSS pixels at its natural size: a telephone's, wider pages enlarge it."""
_SLOT, _LONGEST = 16, 48
INK, SOFT, GRID, BAR = "#1b2128", "#56606b", "#e3e7eb", "#8a949e"
BLUE, _ORANGE, _TEAL, _VIOLET, _GREY = "#1f5fa8", "#b3541e", "#0b7a6b", "#7a4fb0", "#6a737d"
_PALE, _PAPER = "#a9c1dd", "#ffffff"
_COLOURS = {
    "tuned": BLUE,
    "prompting": _ORANGE,
    "zero_shot": _TEAL,
    "tfidf": _GREY,
    "probe": _VIOLET,
    "raw": _GREY,
    "normalised": _VIOLET,
    "calibrated": _TEAL,
    "generated": BLUE,
    "difference": BLUE,
}
CYCLE = (BLUE, _ORANGE, _TEAL, _VIOLET, _GREY)
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross")
_SVG = "http://www.w3.org/2000/svg"
_ELEMENTS = frozenset({"svg", "g", "path", "text", "line", "rect"})
_ATTRIBUTES = frozenset(
    "x y x1 x2 y1 y2 width height d transform fill stroke opacity fill-opacity stroke-opacity "
    "stroke-width stroke-dasharray stroke-linecap stroke-linejoin stroke-miterlimit text-anchor "
    "font-size font-weight font-style viewBox display".split()
)


def draw(plot: Plot, *, ident: str) -> str:
    """Return a plot as one `<svg>` element, with a title and a description.

    Args:
        plot: What to draw; its texts are escaped here.
        ident: A word unique on the page; the ids of title and description begin with it.
    """
    import vl_convert

    chart = _chart(plot)
    # An empty list of allowed addresses: drawing never reaches for anything.
    svg = vl_convert.vegalite_to_svg(chart.to_dict(), allowed_base_urls=[])
    return _clean(svg, plot, ident=ident)


def _chart(plot: Plot) -> Any:
    if isinstance(plot, DotPlot):
        return _dot_chart(plot)
    if isinstance(plot, PointPlot):
        from instil.report.points import point_chart  # which is drawn in the style of this module

        return point_chart(plot)
    return _rate_chart(plot) if isinstance(plot, RatePlot) else _curve_chart(plot)


def _dot_chart(plot: DotPlot) -> Any:
    """Each row is a band of slots, its name in the first and a series in each of the others.

    Names above the dots leave the whole width to the axis, so that a plot serves a telephone too.
    """
    import altair as alt

    base = alt.Chart(alt.InlineData(values=_dot_values(plot)))
    rows = list(short(plot.rows).values())
    # No axis: the names are marks of their own.
    place = {"y": alt.Y("row:N", sort=rows, axis=None), "yOffset": _slots(plot)}
    names = alt.Chart(alt.InlineData(values=[{"row": row, "slot": ""} for row in rows]))
    marks = base.encode(**place, color=_colour(plot))
    layers = [
        *_reference(plot),
        names.mark_text(align="left", dy=-3, **halo(12), limit=WIDTH - 10).encode(
            x=alt.value(0), text="row:N", **place
        ),
        marks.mark_rule(strokeWidth=1.6, opacity=0.75).encode(x=_dot_axis(plot), x2="high:Q"),
        marks.mark_point(filled=True, size=52, opacity=1).encode(
            x="mean:Q", shape=_shape(plot), description="text:N"
        ),
        base.transform_filter("datum.chosen")
        .mark_point(filled=False, size=180, strokeWidth=1.8, color=INK, opacity=1)
        .encode(x="mean:Q", **place),
    ]
    height = len(rows) * _SLOT * (1 + _stacked(plot))
    return styled(alt.layer(*layers).properties(width=WIDTH - 24, height=height))


def _stacked(plot: DotPlot) -> int:
    """Return how many slots the dots of one row take: one where every row holds a single dot."""
    return 1 if _one_a_row(plot) else len(plot.series)


def _slots(plot: DotPlot) -> Any:
    import altair as alt

    slots = [""] + (["dot"] if _one_a_row(plot) else list(short(plot.series).values()))
    return alt.YOffset("slot:N", sort=slots, scale=alt.Scale(domain=slots, padding=0.2))


def _dot_values(plot: DotPlot) -> list[dict[str, object]]:
    scale = fmt.scale(plot.unit)
    rows, series = short(plot.rows), short(plot.series)
    return [
        {
            "row": rows[dot.row],
            "series": series[dot.series],
            "slot": "dot" if _one_a_row(plot) else series[dot.series],
            "mean": scale * dot.mean,
            "low": scale * dot.low,
            "high": scale * dot.high,
            "text": visible(dot.text),
            "chosen": dot.chosen,
        }
        for dot in plot.dots
    ]


def short(names: Sequence[str]) -> dict[str, str]:
    """Return each name as the plot has it: seen, short, and still unlike the others.

    Vega takes half a second to fit six names of 300 letters; the tables have them in full.
    """
    found: dict[str, str] = {}
    for name in names:
        text = visible(name)
        text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}\u2026"
        taken = set(found.values())
        found.setdefault(name, f"{text} ({len(found) + 1})" if text in taken else text)
    return found


def _one_a_row(plot: DotPlot) -> bool:
    """Say whether every row holds one dot, so that rows need neither offsets nor a legend."""
    return len({dot.row for dot in plot.dots}) == len(plot.dots)


def _dot_axis(plot: DotPlot) -> Any:
    import altair as alt

    scale = fmt.scale(plot.unit)
    domain = [scale * end for end in plot.extent]
    axis = alt.Axis(
        format="+.6~g" if plot.differences else ".6~g",
        labelExpr="datum.value == 0 ? '0' : datum.label",
        tickCount=5,
        domain=False,
        ticks=False,
        labelPadding=6,
    )
    scaling = alt.Scale(domain=domain, nice=False, zero=False)
    return alt.X("low:Q", title=short([plot.axis])[plot.axis], scale=scaling, axis=axis)


def _colour(plot: DotPlot) -> Any:
    import altair as alt

    names = list(short(plot.series).values())
    colours = [_series_colour(name, index) for index, name in enumerate(plot.series)]
    scale = alt.Scale(domain=names, range=colours)
    return alt.Color("series:N", title=None, scale=scale, legend=_legend(plot))


def _series_colour(name: str, index: int) -> str:
    return _COLOURS.get(name, CYCLE[index % len(CYCLE)])


def _shape(plot: DotPlot) -> Any:
    import altair as alt

    names = list(short(plot.series).values())
    shapes = [SHAPES[index % len(SHAPES)] for index in range(len(names))]
    scale = alt.Scale(domain=names, range=shapes)
    return alt.Shape("series:N", title=None, scale=scale, legend=_legend(plot))


def _legend(plot: DotPlot) -> Any:
    import altair as alt

    if len(plot.series) < 2 or _one_a_row(plot):
        return None
    # Fonts differ from machine to machine: one under another where a line could get too long.
    columns = len(plot.series) if sum(map(len, plot.series)) < 34 else 1
    return alt.Legend(orient="top", offset=4, labelLimit=WIDTH - 30, columns=columns)


def _reference(plot: DotPlot) -> list[Any]:
    import altair as alt

    if plot.reference is None:
        return []
    at = fmt.scale(plot.unit) * plot.reference
    name = visible(plot.reference_name)
    base = alt.Chart(alt.InlineData(values=[{"at": at, "name": name}])).encode(x="at:Q")
    rule = base.mark_rule(color=BAR, strokeDash=[4, 3], strokeWidth=1.4)
    text = base.mark_text(dy=-7, **halo(11)).encode(text="name:N", y=alt.value(0))
    return [rule, text]


def _curve_chart(plot: CurvePlot) -> Any:
    import altair as alt

    scale = fmt.scale(plot.unit)
    values = [
        {"series": line.name, "step": point.step, "value": scale * point.value}
        for line in plot.lines
        for point in line.points
    ]
    base = alt.Chart(alt.InlineData(values=values)).encode(
        x=alt.X("step:Q", title="step", axis=alt.Axis(grid=False, tickCount=6, format=",d")),
        y=alt.Y(
            "value:Q",
            title=short([plot.axis])[plot.axis],
            scale=alt.Scale(zero=False),
            axis=alt.Axis(tickCount=5, format=".6~g", domain=False, ticks=False),
        ),
        color=_line_scale(plot, alt.Color, (_PALE, BLUE, _ORANGE)),
    )
    lines = base.mark_line().encode(
        strokeWidth=_line_scale(plot, alt.StrokeWidth, (1, 2.4, 2)),
        strokeDash=_line_scale(plot, alt.StrokeDash, ([1, 0], [1, 0], [5, 3])),
    )
    dots = base.transform_filter(alt.datum.series == VALIDATION).mark_point(
        filled=True, size=34, opacity=1
    )
    chart = alt.layer(*_best(plot), lines, dots).properties(width=WIDTH - 58, height=180)
    return styled(chart)


def _line_scale(plot: CurvePlot, channel: Any, values: tuple[Any, ...]) -> Any:
    import altair as alt

    names = [line.name for line in plot.lines]
    styles = dict(zip((RAW, SMOOTH, VALIDATION), values, strict=True))
    legend = (
        alt.Legend(orient="top", offset=4, symbolSize=320, symbolType="stroke", columns=2)
        if len(names) > 1
        else None
    )
    scale = alt.Scale(domain=names, range=[styles[name] for name in names])
    return channel("series:N", title=None, scale=scale, legend=legend)


def _best(plot: CurvePlot) -> list[Any]:
    import altair as alt

    if not plot.best_step:
        return []
    # Near the right edge the words stand to the left of the line.
    last = max(point.step for line in plot.lines for point in line.points)
    late = plot.best_step > last / 2
    values = [{"step": plot.best_step, "name": f"kept: step {fmt.count(plot.best_step)}"}]
    base = alt.Chart(alt.InlineData(values=values)).encode(x="step:Q")
    rule = base.mark_rule(color=BAR, strokeDash=[4, 3], strokeWidth=1.4)
    text = base.mark_text(
        align="right" if late else "left", dx=-2 if late else 2, dy=-7, **halo(11)
    ).encode(text="name:N", y=alt.value(0))
    return [rule, text]


def _rate_chart(plot: RatePlot) -> Any:
    import altair as alt

    rates = [point.rate for point in plot.points]
    values = [{"rate": p.rate, "loss": p.loss, "whole": p.whole} for p in plot.points]
    # The axis has the rates that were tried for ticks, in the words of the table.
    named = (f"abs(datum.value / {p.rate!r} - 1) < 1e-6 ? '{p.name}'" for p in plot.points)
    label = " : ".join(named)
    reach = (rates[0] / 1.3, rates[-1] * 1.3)
    base = alt.Chart(alt.InlineData(values=values)).encode(
        x=alt.X(
            "rate:Q",
            title="learning rate",
            scale=alt.Scale(type="log", domain=reach, nice=False),
            axis=alt.Axis(grid=False, values=rates, labelExpr=f"{label} : ''"),
        ),
        y=alt.Y(
            "loss:Q",
            title=plot.axis,
            scale=alt.Scale(zero=False),
            axis=alt.Axis(tickCount=5, format=".6~g", domain=False, ticks=False),
        ),
    )
    late = plot.chosen > (reach[0] * reach[1]) ** 0.5
    marked = [{"rate": plot.chosen, "name": plot.chosen_name}]
    mark = alt.Chart(alt.InlineData(values=marked)).encode(x="rate:Q")
    rule = mark.mark_rule(color=BAR, strokeDash=[4, 3], strokeWidth=1.4)
    text = mark.mark_text(
        align="right" if late else "left", dx=-2 if late else 2, dy=-7, **halo(11)
    ).encode(text="name:N", y=alt.value(0))
    whole, stopped = base.transform_filter("datum.whole"), base.transform_filter("!datum.whole")
    line = whole.mark_line(color=BLUE, strokeWidth=2)
    dots = whole.mark_point(color=BLUE, filled=True, size=48, opacity=1)
    rings = stopped.mark_point(color=BLUE, filled=False, size=48, opacity=1)
    return styled(alt.layer(rule, text, line, dots, rings).properties(width=WIDTH - 58, height=180))


def halo(size: int) -> dict[str, object]:
    """Return the style of words on the plot itself: the page's colour keeps lines off them."""
    return {"fontSize": size, "color": SOFT, "stroke": _PAPER, "strokeWidth": 3}


def styled(chart: Any) -> Any:
    """Return a chart in the style of all plots."""
    words = {"labelColor": SOFT, "titleColor": SOFT, "labelFontSize": 12, "titleFontSize": 12}
    axis = {**words, "titleFontWeight": "normal", "gridColor": GRID, "domainColor": BAR}
    return (
        chart.configure(font="Arial, sans-serif", background="transparent", padding=4)
        .configure_view(stroke=None)
        .configure_axis(**axis, tickColor=BAR)
        .configure_legend(labelColor=INK, labelFontSize=12, columnPadding=26, rowPadding=4)
    )


def _clean(svg: str, plot: Plot, *, ident: str) -> str:
    """Rebuild the SVG from what is allowed, and give it a title and a description."""
    source = ET.fromstring(svg)
    root = _copy(source)
    assert root is not None, "Vega draws an svg element"
    width, height = source.attrib["width"], source.attrib["height"]
    root.attrib.update({"class": "chart", "role": "img", "width": width, "height": height})
    root.set("aria-labelledby", f"{ident}-title {ident}-desc")
    for index, (tag, text) in enumerate((("title", plot.title), ("desc", plot.description))):
        element = ET.Element(tag, {"id": f"{ident}-{tag}"})
        element.text = visible(text)
        root.insert(index, element)
    return ET.tostring(root, encoding="unicode", short_empty_elements=True)


def _copy(source: ET.Element) -> ET.Element | None:
    """Copy an element with its allowed attributes and children; None where it is not allowed."""
    tag = source.tag.removeprefix(f"{{{_SVG}}}")
    if tag not in _ELEMENTS or source.get("display") == "none":
        return None
    kept = {name: value for name, value in source.attrib.items() if name in _ATTRIBUTES}
    copy = ET.Element(tag, kept)
    copy.text = source.text if tag == "text" else None
    if source.get("aria-roledescription") == "point" and source.get("aria-label"):
        ET.SubElement(copy, "title").text = source.get("aria-label")
    copy.extend(child for child in map(_copy, source) if child is not None)
    return copy
