"""A report as data: what stands on the page and in which order, with no markup.

A `Report` holds `Section`s, a section holds blocks (tables, plots, facts ...), and every text in
them is plain: `html.py` escapes it, `charts.py` draws the plots. `build.py` makes it from a run.

Tests: `tests/report/test_build.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Literal, NamedTuple

from instil.format import Unit
from instil.results.prompts import Turn
from instil.results.tasks import Mistake
from instil.types import Piece


class Tone(StrEnum):
    """How a cell or a key number stands out; its text always says the same in words."""

    PLAIN = "plain"
    GOOD = "good"
    BAD = "bad"
    MUTED = "muted"
    CHOSEN = "chosen"


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
class Table:
    """A table; the first cell of a row is its head."""

    kind: ClassVar[str] = "table"
    caption: str
    """What it shows."""
    titles: tuple[str, ...]
    """One a cell of each row."""
    rows: tuple[tuple[Cell, ...], ...]
    """Top to bottom."""
    note: str = ""
    """How to read it."""
    words: tuple[str, ...] = ()
    """Titles of the columns of text, which stand to the left as the first one does; figures stand
    to the right."""
    fold: str = ""
    """What is inside, for a long table that opens on demand; empty: it is open."""


def table(
    caption: str,
    titles: Sequence[str],
    rows: Iterable[Iterable[object]],
    note: str = "",
    *,
    words: tuple[str, ...] = (),
    fold: str = "",
) -> Table:
    """Return a table, some of whose cells are given as their text alone."""
    cells = (
        tuple(each if isinstance(each, Cell) else Cell(str(each)) for each in row) for row in rows
    )
    return Table(caption, tuple(titles), tuple(cells), note, words, fold)


class Point(NamedTuple):
    """One point of a line, in the units of the axes before scaling."""

    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Line:
    """A line through points."""

    points: tuple[Point, ...]
    """From left to right."""
    name: str = ""
    """In the legend, one of those that `charts` knows; empty: dashed, and not in the legend."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A point with its intervals, in the units of the axes before scaling (0 to 1 for shares)."""

    series: str
    """Its colour and shape, and its name in the legend."""
    x: float
    """Where it stands from left to right."""
    y: float = 0.0
    """Where it stands from bottom to top, unless it stands in a row."""
    text: str = ""
    """Shown while the pointer rests on it."""
    x_ends: tuple[float, float] | None = None
    """Its interval along x, where it has any."""
    y_ends: tuple[float, float] | None = None
    """Its interval along y, where it has any."""
    row: str = ""
    """The row that it stands in."""
    ringed: bool = False
    """Drawn with a ring."""
    hollow: bool = False
    """Drawn as an outline."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a plot."""

    title: str
    """What it measures, with its unit."""
    unit: Unit = Unit.PLAIN
    """How the figures are scaled."""
    extent: tuple[float, float] | None = None
    """Its ends, before scaling; None: a little more than what is drawn."""
    ticks: Mapping[float, str] = field(default_factory=dict)
    """Place -> label; empty: at round figures. With some, the scale is logarithmic."""
    labels: Literal["plain", "signed", "whole"] = "plain"
    """How round figures are written."""
    is_line: bool = False
    """Whether it is drawn as a line, with ticks, in place of a grid."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A dashed line across the plot, to compare with."""

    name: str
    """What it is."""
    at: float
    """Where it stands, before scaling."""
    ends: tuple[float, float] | None = None
    """Its interval, drawn as a band."""


@dataclass(frozen=True, slots=True)
class Plot:
    """Marks and lines between two axes; or marks in rows, over the horizontal axis alone."""

    title: str
    """Above the plot."""
    description: str
    """The plot in words, for those who cannot see it."""
    x: Axis
    """From left to right."""
    y: Axis | None = None
    """From bottom to top; None: the marks stand in rows."""
    rows: tuple[str, ...] = ()
    """Top to bottom."""
    marks: tuple[Mark, ...] = ()
    """In any order."""
    series: tuple[str, ...] = ()
    """Of the marks, in the order of the legend; a lone one needs none."""
    lines: tuple[Line, ...] = ()
    """In the order of the legend."""
    upright: Reference | None = None
    """A vertical line."""
    level: Reference | None = None
    """A horizontal line."""
    height: int = 180
    """In CSS pixels; rows take the height that they need."""


@dataclass(frozen=True, slots=True)
class Plots:
    """Plots side by side where there is room."""

    kind: ClassVar[str] = "plots"
    plots: tuple[Plot, ...]
    """From left to right."""


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
class Facts:
    """A list of names and values."""

    kind: ClassVar[str] = "facts"
    title: str
    """Above the list; may be empty."""
    facts: Mapping[str, str]
    """Name -> value, top to bottom."""


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


Block = Table | Plots | Heading | Note | Facts | Mistakes | Turns | Tokens


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
