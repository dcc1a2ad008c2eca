"""Plots as inline SVG, drawn by matplotlib without a browser, a display or the network.

Colours are those of the light theme; `assets/report.css` maps the same values to the dark one.
Lengths are CSS pixels at the plot's natural size, which matplotlib takes for points.
"""

from __future__ import annotations

import logging
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from instil import format as fmt
from instil.report.page import CurvePlot, DotPlot, Plot, PointPlot, RatePlot
from instil.report.sections.curves import RAW, SMOOTH, VALIDATION
from instil.sanitize import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 350
"""Of a plot: a telephone's, wider pages enlarge it."""
_SIZE, _LONGEST = 12, 300
"""Of the words of a plot, and how long they may get."""
_SLOT, _SIDE, _TITLE, _TICKS = 16, 12, 18, 20
"""Room for a dot, beside the axes, for a line of words, and for the labels of the axis below."""
_LINE, _POINT = 28, 15
"""Room for a line and for a point in the legend."""
_CURVE_HEIGHT = 180
INK, SOFT, GRID, BAR = "#1b2128", "#56606b", "#e3e7eb", "#8a949e"
BLUE, _ORANGE, _TEAL, _VIOLET, _GREY = "#1f5fa8", "#b3541e", "#0b7a6b", "#7a4fb0", "#6a737d"
_PALE = "#a9c1dd"
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
SHAPES = (("o", 8.0), ("s", 7.0), ("^", 7.6), ("D", 6.0), ("P", 8.2))
"""Marker and size, so that all look equally large."""
DASHES = (0, (4, 3))
_STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": _SIZE,
    "text.parse_math": False,  # a label with two dollar signs is a label
    "lines.solid_capstyle": "butt",
    "lines.scale_dashes": False,
    "axes.axisbelow": True,
}


def draw(plot: Plot, *, ident: str) -> str:
    """Return a plot as one `<svg>` element, with a title and a description.

    Args:
        plot: What to draw; its texts are escaped here.
        ident: A word unique on the page; the ids of title and description begin with it.
    """
    with _quiet():
        import matplotlib

        from instil.report.svg import to_svg

        # Whatever the user's own matplotlibrc says.
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_STYLE)
            root = to_svg(_figure(plot))
    root.attrib |= {"class": "chart", "role": "img"}
    root.set("aria-labelledby", f"{ident}-title {ident}-desc")
    for index, (tag, text) in enumerate((("title", plot.title), ("desc", plot.description))):
        element = ET.Element(tag, {"id": f"{ident}-{tag}"})
        element.text = visible(text)
        root.insert(index, element)
    return ET.tostring(root, encoding="unicode")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep matplotlib's log off the screen: where its caches are is no business of a reader's."""
    log = logging.getLogger("matplotlib")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def _figure(plot: Plot) -> Figure:
    if isinstance(plot, DotPlot):
        return _dot_figure(plot)
    if isinstance(plot, PointPlot):
        from instil.report.points import point_figure  # which is drawn in the style of this module

        return point_figure(plot)
    return _rate_figure(plot) if isinstance(plot, RatePlot) else _curve_figure(plot)


# --- dots in rows ------------------------------------------------------------------------------


def _dot_figure(plot: DotPlot) -> Figure:
    """Each row is a band of slots, its name in the first and a series in each of the others.

    Names above the dots leave the whole width to the axis, so that a plot serves a telephone too.
    """
    scale = fmt.scale(plot.unit)
    one_a_row = len({dot.row for dot in plot.dots}) == len(plot.dots)
    band = _SLOT * (2 if one_a_row else 1 + len(plot.series))
    height = band * len(plot.rows)
    names = {} if one_a_row else short(plot.series)
    entries = [Entry(name, _series_look(plot.series, each)) for each, name in names.items()]
    named = plot.reference is not None
    axes = new_axes(height, entries=entries, title=plot.axis, named=named)
    axes.set_xlim(*(scale * end for end in plot.extent))
    axes.set_ylim(height, 0)
    axes.set_yticks([])
    set_ticks(axes.xaxis, label=_signed if plot.differences else plain)
    if plot.reference is not None:
        mark_x(axes, scale * plot.reference, visible(plot.reference_name), align="center")
    tops = {row: band * n for n, row in enumerate(plot.rows)}
    slots = {series: 0 if one_a_row else n for n, series in enumerate(plot.series)}
    in_plot = ("axes fraction", "data")  # where names stand, not beside it as tick labels
    for row, name in short(plot.rows).items():
        axes.annotate(name, (0, tops[row] + _SLOT - 5), xycoords=in_plot, color=SOFT)
    for dot in plot.dots:
        y = tops[dot.row] + _SLOT * (1.5 + slots[dot.series])
        look = _series_look(plot.series, dot.series)
        low, mean, high = (scale * value for value in (dot.low, dot.mean, dot.high))
        axes.plot((low, high), (y, y), color=look["color"], lw=1.6, alpha=0.75)
        axes.plot(mean, y, **look, gid=visible(dot.text))
        if dot.chosen:
            axes.plot(mean, y, "o", ms=15, mfc="none", mec=INK, mew=1.8)
    return finish(axes)


def _series_look(series: Sequence[str], name: str) -> dict[str, Any]:
    index = series.index(name)
    return marker(_COLOURS.get(name, CYCLE[index % len(CYCLE)]), index)


# --- lines over steps, and over learning rates -------------------------------------------------


def _curve_figure(plot: CurvePlot) -> Figure:
    scale = fmt.scale(plot.unit)
    looks: dict[str, dict[str, Any]] = {
        RAW: {"color": _PALE, "lw": 1.0},
        SMOOTH: {"color": BLUE, "lw": 2.4},
        VALIDATION: {"color": _ORANGE, "lw": 2.0, "ls": (0, (5, 3)), "marker": "o", "ms": 6},
    }
    entries = [Entry(line.name, looks[line.name]) for line in plot.lines]
    axes = new_axes(_CURVE_HEIGHT, entries=entries, title="step", named=plot.best_step > 0)
    for line in plot.lines:
        steps = [point.step for point in line.points]
        axes.plot(steps, [scale * point.value for point in line.points], **looks[line.name])
    axes.margins(x=0.02)
    axes.xaxis.grid(False)
    set_ticks(axes.xaxis, label=_whole, whole=True)
    _show_axis_line(axes)
    if plot.best_step:
        # Near the right edge the words stand to the left of the line.
        late = plot.best_step > max(point.step for line in plot.lines for point in line.points) / 2
        name = f"kept: step {fmt.count(plot.best_step)}"
        mark_x(axes, plot.best_step, name, align="right" if late else "left")
    set_ticks(axes.yaxis, label=plain)
    return finish(axes, up=plot.axis)


def _rate_figure(plot: RatePlot) -> Figure:
    axes = new_axes(_CURVE_HEIGHT, title="learning rate", named=True)
    axes.set_xscale("log")
    low, high = plot.points[0].rate / 1.3, plot.points[-1].rate * 1.3
    axes.set_xlim(low, high)
    # The axis has the rates that were tried for ticks, in the words of the table.
    axes.set_xticks([p.rate for p in plot.points], labels=[p.name for p in plot.points])
    axes.minorticks_off()
    axes.xaxis.grid(False)
    _show_axis_line(axes)
    late = plot.chosen > (low * high) ** 0.5
    mark_x(axes, plot.chosen, plot.chosen_name, align="right" if late else "left")
    line = [point for point in plot.points if point.whole]
    axes.plot([p.rate for p in line], [p.loss for p in line], color=BLUE, lw=2.0)
    for point in plot.points:
        face = BLUE if point.whole else "none"
        axes.plot(point.rate, point.loss, "o", ms=7, mfc=face, mec=BLUE, mew=1.5)
    set_ticks(axes.yaxis, label=plain)
    return finish(axes, up=plot.axis)


def _show_axis_line(axes: Axes) -> None:
    axes.spines["bottom"].set_visible(True)
    axes.tick_params(axis="x", length=5, color=BAR)


# --- what all plots share ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a legend."""

    name: str
    """As it is shown."""
    look: dict[str, Any]
    """Of its line, as `Axes.plot` takes it."""


def short(names: Sequence[str]) -> dict[str, str]:
    """Return each name as the plot has it: seen, short, and still unlike the others.

    The tables have them in full.
    """
    shown: dict[str, str] = {}
    for name in names:
        text = visible(name)
        if text_width(text, size=_SIZE) > _LONGEST:
            room = accumulate(_ems(character) * _SIZE for character in text)
            text = f"{text[: sum(end < _LONGEST - _SIZE for end in room)]}\u2026"
        taken = set(shown.values())
        shown.setdefault(name, f"{text} ({len(shown) + 1})" if text in taken else text)
    return shown


def text_width(text: str, *, size: float) -> float:
    """Estimate how wide a text is, in the unit of its font size.

    >>> text_width("ab", size=10) < text_width("\u6f22\u5b57", size=10)
    True
    """
    return size * sum(map(_ems, text))


def _ems(character: str) -> float:
    # Pages are shown in whatever sans-serif there is: an average, with something to spare.
    return 1.0 if unicodedata.east_asian_width(character) in "WF" else 0.56


def marker(colour: str, index: int) -> dict[str, Any]:
    """Return the look of a series' points, the shape by its number."""
    shape, size = SHAPES[index % len(SHAPES)]
    return {"color": colour, "ls": "none", "marker": shape, "ms": size, "mew": 0}


def new_axes(
    height: float, *, title: str, entries: Sequence[Entry] = (), named: bool = False
) -> Axes:
    """Return the axes of a new figure, in the style of all plots.

    Args:
        height: Of the plot itself.
        title: Below the horizontal axis.
        entries: Of the legend above the plot; a lone one needs none.
        named: Whether a line between the two names a mark (see `mark_x`).
    """
    from matplotlib.figure import Figure

    legend = _lay_out(entries) if len(entries) > 1 else []
    above = _TITLE * len(legend) + (6 if legend else 0) + (_TITLE if named else 8)
    below = _TICKS + _TITLE + 6
    total = above + height + below
    figure = Figure(figsize=(WIDTH / 72, total / 72), dpi=72, frameon=False)
    axes = figure.add_axes((_SIDE / WIDTH, below / total, 1 - 2 * _SIDE / WIDTH, height / total))
    axes.patch.set_visible(False)
    axes.spines[:].set_visible(False)
    axes.spines[:].set_color(BAR)
    axes.grid(True, color=GRID, lw=1)
    axes.tick_params(which="both", length=0, pad=6, labelcolor=SOFT)
    axes.set_xlabel(short([title])[title], color=SOFT, labelpad=4)
    for n, line in enumerate(legend):
        for x, entry in line:
            _show_entry(figure, entry, x, total - _TITLE * (n + 0.5))
    return axes


def _lay_out(entries: Sequence[Entry]) -> list[list[tuple[float, Entry]]]:
    """Return the lines of a legend, each entry with its place: as many columns as fit.

    matplotlib's own runs down the columns, whose width it takes from its own font.
    """
    for columns in range(len(entries), 0, -1):
        lines = [entries[start : start + columns] for start in range(0, len(entries), columns)]
        widths = [
            max(_entry_width(line[n]) for line in lines if n < len(line)) for n in range(columns)
        ]
        starts = list(accumulate(widths, initial=4.0))
        if starts[-1] <= WIDTH or columns == 1:
            break
    return [list(zip(starts, line, strict=False)) for line in lines]


def _entry_width(entry: Entry) -> float:
    return (_LINE if _is_line(entry) else _POINT) + text_width(entry.name, size=_SIZE) + 16


def _is_line(entry: Entry) -> bool:
    return entry.look.get("ls") != "none"


def _show_entry(figure: Figure, entry: Entry, x: float, y: float) -> None:
    """Draw a legend's line or point from x on, at the height y, and its name beside it."""
    from matplotlib.lines import Line2D

    width, height = 72 * figure.get_size_inches()
    line = _is_line(entry)
    reach = (x, x + _LINE - 6) if line else (x + 5, x + 5)
    look = {name: value for name, value in entry.look.items() if not line or name != "marker"}
    figure.add_artist(Line2D([end / width for end in reach], [y / height] * 2, **look))
    words = x + (_LINE if line else _POINT)
    figure.text(words / width, (y - 4) / height, entry.name, color=INK)


def set_ticks(axis: Any, *, label: Callable[[float, int], str], whole: bool = False) -> None:
    """Give an axis a few ticks at round figures, written by `label`."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(6, integer=whole, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(FuncFormatter(label))


def plain(value: float, _: int = 0) -> str:
    """Write a figure of an axis.

    >>> plain(0.1 + 0.2), plain(-5.0)
    ('0.3', '\u22125')
    """
    return f"{value:.6g}".replace("-", "\u2212")


def _signed(value: float, _: int) -> str:
    return "0" if plain(value) in ("0", "\u22120") else f"{value:+.6g}".replace("-", "\u2212")


def _whole(value: float, _: int) -> str:
    return f"{value:,.0f}"


def mark_x(axes: Axes, at: float, name: str, *, align: str) -> None:
    """Draw a dashed vertical line, with its name above the plot."""
    axes.axvline(at, color=BAR, ls=DASHES, lw=1.4, zorder=1.5)
    place: Any = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
    offset = ({"left": 2, "right": -2, "center": 0}[align], 6)
    axes.annotate(name, (at, 1), offset, **place, color=SOFT, fontsize=11, ha=align)


def finish(axes: Axes, *, up: str = "") -> Figure:
    """Make room for the labels of the vertical axis, and return the figure.

    Args:
        axes: With all that they show.
        up: What stands beside the vertical axis; empty where that has no labels.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None, "new_axes makes one"
    if up:
        low, high = axes.get_ylim()
        ticks = [tick for tick in axes.get_yticks() if low <= tick <= high]
        labels = axes.yaxis.get_major_formatter().format_ticks(ticks)
        left = _TITLE + 10 + max((text_width(label, size=_SIZE) for label in labels), default=0)
        box = axes.get_position()
        axes.set_position((left / WIDTH, box.y0, 1 - (left + _SIDE) / WIDTH, box.height))
        place: dict[str, Any] = {"rotation": 90, "rotation_mode": "anchor", "ha": "center"}
        middle = box.y0 + box.height / 2
        figure.text(12 / WIDTH, middle, short([up])[up], color=SOFT, **place)
    return figure
