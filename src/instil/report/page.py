"""A report as data: what stands on the page and in which order, with no markup.

A `Report` holds `Section`s, a section holds blocks (tables, plots, facts ...), and every text in
them is plain: `html.py` escapes it, `charts.py` draws the plots. `build.py` makes it from a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from instil.format import Unit
from instil.results import Mistake, Turn
from instil.types import Piece


class Tone(StrEnum):
    """How a cell or a key number stands out; its text always says the same in words."""

    PLAIN = "plain"
    GOOD = "good"
    BAD = "bad"
    MUTED = "muted"
    CHOSEN = "chosen"


class Align(StrEnum):
    """On which side a column's text stands."""

    TEXT = "text"
    NUMBER = "number"


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table."""

    text: str
    """What it says."""
    detail: str = ""
    """A second, smaller line."""
    tone: Tone = Tone.PLAIN
    """How it stands out."""


@dataclass(frozen=True, slots=True)
class Column:
    """The head of a column."""

    title: str
    """Its name."""
    align: Align = Align.NUMBER
    """Figures to the right, text to the left."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table; the first cell of a row is its head."""

    kind: ClassVar[str] = "table"
    caption: str
    """What it shows."""
    columns: tuple[Column, ...]
    """One a cell of each row."""
    rows: tuple[tuple[Cell, ...], ...]
    """Top to bottom."""
    note: str = ""
    """How to read it."""


@dataclass(frozen=True, slots=True)
class Dot:
    """A mean and its interval, in the metric's own scale (0 to 1 for shares)."""

    row: str
    """The row that it stands in."""
    series: str
    """Its colour and shape."""
    mean: float
    """Where the dot stands."""
    low: float
    """Where the line begins."""
    high: float
    """Where the line ends."""
    text: str
    """Shown while the pointer rests on it."""
    chosen: bool = False
    """Drawn with a ring."""


@dataclass(frozen=True, slots=True)
class DotPlot:
    """Dots with intervals in rows, over one horizontal axis."""

    kind: ClassVar[str] = "dots"
    title: str
    """Above the plot."""
    description: str
    """The plot in words, for those who cannot see it."""
    axis: str
    """What the axis measures, with its unit."""
    unit: Unit
    """How the figures are scaled."""
    rows: tuple[str, ...]
    """Top to bottom."""
    series: tuple[str, ...]
    """In the order of the legend; a lone one needs none."""
    dots: tuple[Dot, ...]
    """In any order."""
    extent: tuple[float, float]
    """Ends of the axis, in the metric's scale."""
    reference: float | None = None
    """A vertical line."""
    reference_name: str = ""
    """What that line is."""
    differences: bool = False
    """Whether the axis shows differences, with signs."""


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a line."""

    step: float
    """Optimizer step."""
    value: float
    """In the plot's unit before scaling."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a curve plot."""

    name: str
    """In the legend."""
    points: tuple[Point, ...]
    """From left to right."""


@dataclass(frozen=True, slots=True)
class CurvePlot:
    """Lines over optimizer steps, the kept step marked."""

    kind: ClassVar[str] = "curves"
    title: str
    """Above the plot."""
    description: str
    """The plot in words, for those who cannot see it."""
    axis: str
    """What the vertical axis measures, with its unit."""
    unit: Unit
    """How the figures are scaled."""
    lines: tuple[Line, ...]
    """At least one."""
    best_step: int
    """The step that was kept; 0: none."""


@dataclass(frozen=True, slots=True)
class RatePoint:
    """What one learning rate came to."""

    rate: float
    """The learning rate."""
    loss: float
    """In the plot's unit."""
    name: str
    """The rate, for people."""
    whole: bool = True
    """Whether it got to its end; else the point is open, and not on the line."""


@dataclass(frozen=True, slots=True)
class RatePlot:
    """A line over learning rates on a logarithmic axis, the chosen one marked."""

    kind: ClassVar[str] = "rates"
    title: str
    """Above the plot."""
    description: str
    """The plot in words, for those who cannot see it."""
    axis: str
    """What the vertical axis measures, with its unit."""
    points: tuple[RatePoint, ...]
    """From low to high; at least two."""
    chosen: float
    """The rate that is marked."""
    chosen_name: str
    """What stands beside the mark."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A point between two axes, with its interval on each."""

    series: str
    """Its colour and shape, and its name in the legend."""
    x: float
    """Where it stands from left to right."""
    y: float
    """Where it stands from bottom to top."""
    text: str
    """Shown while the pointer rests on it."""
    x_ends: tuple[float, float] | None = None
    """Its interval along x, where it has any."""
    y_ends: tuple[float, float] | None = None
    """Its interval along y, where it has any."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a point plot."""

    title: str
    """What it measures, with its unit."""
    unit: Unit
    """How the figures are scaled."""
    ticks: tuple[float, ...] = ()
    """Where its labels stand; none: where it suits. With some, the scale is logarithmic."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A horizontal line with its interval as a band."""

    name: str
    """What it is."""
    y: float
    """Where the line stands."""
    ends: tuple[float, float]
    """The band."""


@dataclass(frozen=True, slots=True)
class PointPlot:
    """Points with intervals between two axes."""

    kind: ClassVar[str] = "points"
    title: str
    """Above the plot."""
    description: str
    """The plot in words, for those who cannot see it."""
    x: Axis
    """From left to right."""
    y: Axis
    """From bottom to top."""
    marks: tuple[Mark, ...]
    """In any order."""
    series: tuple[str, ...]
    """In the order of the legend; a lone one needs none."""
    lines: tuple[tuple[Point, ...], ...] = ()
    """Drawn through the points given, from left to right."""
    reference: Reference | None = None
    """A level to compare with."""


@dataclass(frozen=True, slots=True)
class Plots:
    """Plots side by side where there is room."""

    kind: ClassVar[str] = "plots"
    plots: tuple[Plot, ...]
    """From left to right."""


Plot = DotPlot | CurvePlot | RatePlot | PointPlot


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading within a section: the task's name, where there are several."""

    kind: ClassVar[str] = "heading"
    text: str
    """What it says."""


@dataclass(frozen=True, slots=True)
class Note:
    """A paragraph."""

    kind: ClassVar[str] = "note"
    text: str
    """What it says."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A name and its value."""

    name: str
    """What it is."""
    value: str
    """For people."""


@dataclass(frozen=True, slots=True)
class Facts:
    """A list of names and values."""

    kind: ClassVar[str] = "facts"
    title: str
    """Above the list; may be empty."""
    facts: tuple[Fact, ...]
    """Top to bottom."""


@dataclass(frozen=True, slots=True)
class Mistakes:
    """Wrong answers, the prompt in full."""

    kind: ClassVar[str] = "mistakes"
    mistakes: tuple[Mistake, ...]
    """The worst first."""


@dataclass(frozen=True, slots=True)
class Turns:
    """Rendered examples."""

    kind: ClassVar[str] = "turns"
    turns: tuple[Turn, ...]
    """One a template."""


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring tokens with one fate."""

    pieces: tuple[Piece, ...]
    """In order; all trained on, or none."""
    trained: bool
    """Which of the two."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """One training example, token by token."""

    kind: ClassVar[str] = "tokens"
    runs: tuple[Run, ...]
    """In order."""


@dataclass(frozen=True, slots=True)
class Fold:
    """A table that opens on demand, since it is long."""

    kind: ClassVar[str] = "fold"
    title: str
    """What is inside."""
    table: Table
    """The table."""


Block = Table | Plots | Heading | Note | Facts | Mistakes | Turns | Tokens | Fold


@dataclass(frozen=True, slots=True)
class KeyNumber:
    """A figure that is read first."""

    label: str
    """What it is."""
    value: str
    """The figure."""
    detail: str = ""
    """Its interval, or what it is compared with."""
    tone: Tone = Tone.PLAIN
    """How it stands out."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page."""

    id: str
    """The anchor: our own word, never a user's."""
    title: str
    """The heading."""
    short: str
    """The heading in the list of contents."""
    intro: str
    """How to read it, in a sentence or two."""
    blocks: tuple[Block, ...]
    """Top to bottom."""


@dataclass(frozen=True, slots=True)
class Report:
    """A whole report."""

    title: str
    """The run's name."""
    subtitle: str
    """Model, method and tasks."""
    verdict: tuple[str, ...]
    """The headline sentences."""
    key_numbers: tuple[KeyNumber, ...]
    """Beneath the verdict."""
    sections: tuple[Section, ...]
    """Top to bottom."""
    footer: str
    """With what it was made."""
    brand: str = "instil run"
    """The command that it is the result of."""
