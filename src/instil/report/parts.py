"""What the parts of a report share: cells, dots, axes, and words for a comparison."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from instil import format as fmt
from instil.compare.verdict import Outcome
from instil.format import Unit
from instil.report.page import Cell, Dot, Tone
from instil.types import Summary

TONES = {Outcome.BETTER: Tone.GOOD, Outcome.WORSE: Tone.BAD, Outcome.NOT_SHOWN: Tone.MUTED}
CHANGES = {Outcome.BETTER: "a gain", Outcome.WORSE: "a loss", Outcome.NOT_SHOWN: "no change shown"}
"""What a change of one arm between before and after shows, in words."""


def spread(summaries: Iterable[Summary]) -> tuple[float, float]:
    """Return the ends of an axis that holds all intervals; shares stay within 0 to 1."""
    found = list(summaries)
    low, high = min(each.low for each in found), max(each.high for each in found)
    air = (high - low) * 0.04 or 0.02
    if fmt.style(found[0].metric).unit in (Unit.PERCENT, Unit.POINTS):
        return max(0.0, low - air), min(1.0, high + air)
    return low - air, high + air


def axis_name(metric: str) -> str:
    """Return a metric's name with its unit, for an axis."""
    style = fmt.style(metric)
    return f"{style.label}, %" if style.unit is Unit.PERCENT else style.label


def verdict_word(outcome: Outcome, *, subject: str) -> str:
    """Say what a comparison shows of `subject`, its second arm: better, worse, or nothing."""
    return outcome.value if outcome is Outcome.NOT_SHOWN else f"{subject} {outcome.value}"


def capital(metric: str) -> str:
    """Return a metric's name for the start of a line."""
    label = fmt.style(metric).label
    return label[:1].upper() + label[1:]


def ordered(names: Iterable[str], known: Sequence[str]) -> tuple[str, ...]:
    """Return the distinct names, known ones first and in their order."""
    found = dict.fromkeys(names)
    return tuple([name for name in known if name in found] + [n for n in found if n not in known])


def dot(row: str, *, series: str, summary: Summary, chosen: bool = False) -> Dot:
    """Return a summary as a dot with its interval."""
    text = f"{row}, {series}: {fmt.interval(summary)}"
    return Dot(row, series, summary.mean, summary.low, summary.high, text, chosen)


def summary_cell(summary: Summary | None) -> Cell:
    """Return a mean with its interval as a cell, and how many examples had no score."""
    if summary is None:
        return Cell(fmt.MISSING)
    unscored = f"{fmt.count(summary.unscored)} unscored" if summary.unscored else ""
    return Cell(fmt.interval(summary), unscored)
