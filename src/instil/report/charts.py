"""Plots as inline SVG, drawn by matplotlib without a browser, a display or the network.

Colours are those of the light theme; `assets/report.css` maps the same values to the dark one.
Lengths are CSS pixels at the plot's natural size, which matplotlib takes for points.

Tests: `tests/report/test_build.py`.
"""

from __future__ import annotations

import logging
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from instil import format as fmt
from instil.report.page import Axis, Plot
from instil.sanitize import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH = 350
"""Of a plot: a telephone's, wider pages enlarge it."""
_SIZE, _LONGEST = 12, 300
"""Of the words of a plot, and how long they may get."""
_SLOT, _SIDE, _TITLE, _TICKS = 16, 12, 18, 20
"""Room for a dot, beside the axes, for a line of words, and for the labels of the axis below."""
_LINE, _POINT = 28, 15
"""Room for a line and for a point in the legend."""
_INK, _SOFT, _GRID, _BAR = "#1b2128", "#56606b", "#e3e7eb", "#8a949e"
_BLUE, _ORANGE, _TEAL, _VIOLET, _GREY = "#1f5fa8", "#b3541e", "#0b7a6b", "#7a4fb0", "#6a737d"
_CYCLE = (_BLUE, _ORANGE, _TEAL, _VIOLET, _GREY)
_COLOURS = {
    "tuned": _BLUE,
    "prompting": _ORANGE,
    "zero_shot": _TEAL,
    "tfidf": _GREY,
    "probe": _VIOLET,
    "raw": _GREY,
    "normalised": _VIOLET,
    "calibrated": _TEAL,
    "generated": _BLUE,
}
_SHAPES = (("o", 8.0), ("s", 7.0), ("^", 7.6), ("D", 6.0), ("P", 8.2))
"""Marker and size, so that all look equally large."""
_DASHES = (0, (4, 3))
RAW, SMOOTH, VALIDATION = "training, each step", "training, smoothed", "validation"
TRIES, RISK = "tries", "wrong of these"
_LINES: dict[str, dict[str, Any]] = {
    "": {"color": _BAR, "ls": _DASHES, "lw": 1.2},
    RAW: {"color": "#a9c1dd", "lw": 1.0},
    SMOOTH: {"color": _BLUE, "lw": 2.4},
    VALIDATION: {"color": _ORANGE, "lw": 2.0, "ls": (0, (5, 3)), "marker": "o", "ms": 6},
    TRIES: {"color": _BLUE, "lw": 2.0},
    RISK: {"color": _BLUE, "lw": 2.0},
}
"""How a line looks, by its name; one without a name is not in the legend."""
_STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": _SIZE,
    "text.parse_math": False,  # a label with two dollar signs is a label
    "lines.solid_capstyle": "butt",
    "lines.scale_dashes": False,
    "axes.axisbelow": True,
}
_Entry = tuple[str, dict[str, Any]]
"""Of a legend: a name, and the look of its line or marker as `Axes.plot` takes it."""


def draw(plot: Plot, *, ident: str) -> str:
    """Return a plot as one `<svg>` element, with a title and a description.

    Args:
        plot: What to draw; its texts are escaped here.
        ident: A word unique on the page; the ids of title and description begin with it.
    """
    # matplotlib's log is kept off the screen: a reader need not know where its caches are.
    log = logging.getLogger("matplotlib")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        import matplotlib

        from instil.report.svg import to_svg

        # Whatever the user's own matplotlibrc says.
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_STYLE)
            root = to_svg(_figure(plot))
    finally:
        log.setLevel(before)
    root.attrib |= {"class": "chart", "role": "img"}
    root.set("aria-labelledby", f"{ident}-title {ident}-desc")
    for index, (tag, text) in enumerate((("title", plot.title), ("desc", plot.description))):
        element = ET.Element(tag, {"id": f"{ident}-{tag}"})
        element.text = visible(text)
        root.insert(index, element)
    return ET.tostring(root, encoding="unicode")


def _figure(plot: Plot) -> Figure:
    """Draw lines, references and marks.

    A row is a band of slots, its name in the first and a series in each of the others: names above
    the marks leave the whole width to the axis, so that a plot serves a telephone too.
    """
    alone = bool(plot.rows) and len({mark.row for mark in plot.marks}) == len(plot.marks)
    band = _SLOT * (2 if alone else 1 + len(plot.series))
    looks: dict[str, dict[str, Any]] = {}
    for n, name in enumerate(plot.series):
        turns, colour = divmod(n, len(_CYCLE))
        # Another turn of the colours comes with other shapes, so that no two series look alike.
        shape, size = _SHAPES[(n + turns) % len(_SHAPES)]
        looks[name] = {
            "color": _COLOURS.get(name, _CYCLE[colour]),
            "ls": "none",
            "marker": shape,
            "ms": size,
            "mew": 0,
        }
    entries = [(line.name, _LINES[line.name]) for line in plot.lines if line.name]
    entries += [] if alone else [(name, looks[each]) for each, name in short(plot.series).items()]
    axes = _new_axes(plot, entries, height=band * len(plot.rows) if plot.rows else plot.height)
    across, up = fmt.scale(plot.x.unit), fmt.scale(plot.y.unit) if plot.y else 1.0
    for line in plot.lines:
        xs, ys = [across * point.x for point in line.points], [up * p.y for p in line.points]
        axes.plot(xs, ys, **_LINES[line.name])
    _set_axis(axes, "x", plot.x)
    if plot.y:
        _set_axis(axes, "y", plot.y)
    else:
        axes.set_ylim(band * len(plot.rows), 0)
        axes.set_yticks([])
    _show_references(axes, plot, across=across, up=up)
    for n, name in enumerate(short(plot.rows).values()):
        # Not beside the plot, as tick labels stand.
        axes.annotate(
            name, (0, band * n + _SLOT - 5), xycoords=("axes fraction", "data"), color=_SOFT
        )
    for mark in plot.marks:
        look = looks[mark.series]
        slot = 0 if alone else plot.series.index(mark.series)
        x, y = across * mark.x, up * mark.y
        if plot.rows:
            y = band * plot.rows.index(mark.row) + _SLOT * (1.5 + slot)
        bar = {"color": look["color"], "lw": 1.6, "alpha": 0.75}
        if mark.x_ends:
            axes.plot([across * end for end in mark.x_ends], (y, y), **bar)
        if mark.y_ends:
            axes.plot((x, x), [up * end for end in mark.y_ends], **bar)
        outline = {"mfc": "none", "mew": 1.5} if mark.hollow else {}
        axes.plot(x, y, **(look | outline), gid=visible(mark.text))
        if mark.ringed:
            axes.plot(x, y, "o", ms=15, mfc="none", mec=_INK, mew=1.8)
    figure = axes.get_figure(root=True)
    assert figure is not None, "_new_axes makes one"
    if plot.y:
        # What stands beside the vertical axis; room is made for it and for the tick labels.
        low, high = axes.get_ylim()
        ticks = [tick for tick in axes.get_yticks() if low <= tick <= high]
        labels = axes.yaxis.get_major_formatter().format_ticks(ticks)
        left = _TITLE + 10 + max((text_width(label, size=_SIZE) for label in labels), default=0)
        box, title = axes.get_position(), plot.y.title
        axes.set_position((left / _WIDTH, box.y0, 1 - (left + _SIDE) / _WIDTH, box.height))
        place: Any = {"rotation": 90, "rotation_mode": "anchor", "ha": "center", "color": _SOFT}
        figure.text(12 / _WIDTH, box.y0 + box.height / 2, short([title])[title], **place)
    return figure


def short(names: Sequence[str]) -> dict[str, str]:
    """Return each name as the plot has it: seen, short, and still unlike the others.

    The tables have them in full.
    """
    shown: dict[str, str] = {}
    for name in names:
        text = visible(name)
        if text_width(text, size=_SIZE) > _LONGEST:
            room = accumulate(text_width(character, size=_SIZE) for character in text)
            text = f"{text[: sum(end < _LONGEST - _SIZE for end in room)]}\u2026"
        taken = set(shown.values())
        shown.setdefault(name, f"{text} ({len(shown) + 1})" if text in taken else text)
    return shown


def text_width(text: str, *, size: float) -> float:
    """Estimate how wide a text is, in the unit of its font size.

    Pages are shown in whatever sans-serif there is: an average, with something to spare.

    >>> text_width("ab", size=10) < text_width("\u6f22\u5b57", size=10)
    True
    """
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return size * (wide + 0.56 * (len(text) - wide))


def _new_axes(plot: Plot, entries: Sequence[_Entry], *, height: float) -> Axes:
    """Return the axes of a new figure, with the legend above: a lone entry needs none."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    legend = _lay_out(entries) if len(entries) > 1 else []
    # The name of an upright line stands between the legend and the plot.
    above = _TITLE * len(legend) + (6 if legend else 0) + (_TITLE if plot.upright else 8)
    below = _TICKS + _TITLE + 6
    total = above + height + below
    figure = Figure(figsize=(_WIDTH / 72, total / 72), dpi=72, frameon=False)
    axes = figure.add_axes((_SIDE / _WIDTH, below / total, 1 - 2 * _SIDE / _WIDTH, height / total))
    axes.patch.set_visible(False)
    axes.spines[:].set_visible(False)
    axes.spines[:].set_color(_BAR)
    axes.grid(True, color=_GRID, lw=1)
    axes.tick_params(which="both", length=0, pad=6, labelcolor=_SOFT)
    axes.set_xlabel(short([plot.x.title])[plot.x.title], color=_SOFT, labelpad=4)
    for n, line in enumerate(legend):
        y = total - _TITLE * (n + 0.5)
        for x, entry in line:  # a line or marker from x on, its name beside it
            name, look = entry
            is_line = _is_line(entry)
            reach = (x, x + _LINE - 6) if is_line else (x + 5, x + 5)
            look = {key: value for key, value in look.items() if not is_line or key != "marker"}
            figure.add_artist(Line2D([end / _WIDTH for end in reach], [y / total] * 2, **look))
            words = x + (_LINE if is_line else _POINT)
            figure.text(words / _WIDTH, (y - 4) / total, name, color=_INK)
    return axes


def _lay_out(entries: Sequence[_Entry]) -> list[list[tuple[float, _Entry]]]:
    """Return the lines of a legend, each entry with its place: as many columns as fit.

    matplotlib's own runs down the columns, whose width it takes from its own font.
    """

    def width(entry: _Entry) -> float:
        return (_LINE if _is_line(entry) else _POINT) + text_width(entry[0], size=_SIZE) + 16

    for columns in range(len(entries), 0, -1):
        lines = [entries[start : start + columns] for start in range(0, len(entries), columns)]
        widths = [max(width(line[n]) for line in lines if n < len(line)) for n in range(columns)]
        starts = list(accumulate(widths, initial=4.0))
        if starts[-1] <= _WIDTH or columns == 1:
            break
    return [list(zip(starts, line, strict=False)) for line in lines]


def _is_line(entry: _Entry) -> bool:
    return entry[1].get("ls") != "none"


def _set_axis(axes: Axes, name: str, axis: Axis) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    scale, drawn = fmt.scale(axis.unit), {"x": axes.xaxis, "y": axes.yaxis}[name]
    if axis.ticks:
        axes.set(**{f"{name}scale": "log"})
    if axis.extent:
        axes.set(**{f"{name}lim": [scale * end for end in axis.extent]})
    elif axis.is_line:
        axes.margins(x=0.02)
    if axis.ticks:
        drawn.set_ticks([*axis.ticks], labels=[*axis.ticks.values()])
        axes.minorticks_off()
    else:
        whole = axis.labels == "whole"
        drawn.set_major_locator(MaxNLocator(6, integer=whole, steps=[1, 2, 5, 10]))
        form = {"plain": ".6g", "signed": "+.6g", "whole": ",.0f"}[axis.labels]
        drawn.set_major_formatter(
            FuncFormatter(lambda value, _: "" if whole and value % 1 else tick_label(value, form))
        )
    if axis.is_line:
        drawn.grid(False)
        axes.spines["bottom"].set_visible(True)
        axes.tick_params(axis="x", length=5, color=_BAR)


def tick_label(value: float, form: str = ".6g") -> str:
    """Write a figure of an axis.

    >>> tick_label(0.1 + 0.2), tick_label(-5.0), tick_label(-1e-20, "+.6g")
    ('0.3', '\u22125', '0')
    """
    rounded = round(value, 12)
    return f"{rounded:{form}}".replace("-", "\u2212") if rounded else "0"


def _show_references(axes: Axes, plot: Plot, *, across: float, up: float) -> None:
    """Draw dashed lines, an upright one with its name above the plot, a level with its interval."""
    dashed: Any = {"color": _BAR, "ls": _DASHES, "lw": 1.4, "zorder": 1.5}
    words: Any = {"textcoords": "offset points", "color": _SOFT, "fontsize": 11}
    if plot.upright:
        at = across * plot.upright.at
        axes.axvline(at, **dashed)
        # Near the right edge the words stand to the left of the line.
        (place, _) = axes.transAxes.inverted().transform(axes.transData.transform((at, 0)))
        side = "center" if plot.rows else "right" if round(place, 3) >= 0.5 else "left"
        offset = ({"left": 2, "right": -2, "center": 0}[side], 6)
        anchor: Any = ("data", "axes fraction")
        name = visible(plot.upright.name)
        axes.annotate(name, (at, 1), offset, xycoords=anchor, ha=side, **words)
    if plot.level:
        if plot.level.ends:
            axes.axhspan(*(up * end for end in plot.level.ends), color=_BAR, alpha=0.16, lw=0)
        axes.axhline(up * plot.level.at, **dashed)
        name, anchor = short([plot.level.name])[plot.level.name], ("axes fraction", "data")
        axes.annotate(name, (0, up * plot.level.at), (3, 4), xycoords=anchor, **words)
