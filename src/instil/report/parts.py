"""What the parts of a report share: cells, marks, axes, and words for a comparison.

Tests: `tests/report/test_build.py`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from instil import format as fmt
from instil.compare.verdict import Outcome, outcome, outcomes
from instil.format import Unit
from instil.report.page import Axis, Block, Cell, KeyNumber, Mark, Report, Section, Tone
from instil.results.tasks import Costs
from instil.studyresults import CurveStudy, GeneraliseStudy, MethodsStudy, SequenceStudy
from instil.types import Comparison, Summary

K = TypeVar("K", bound=Hashable)
TONES = {Outcome.BETTER: Tone.GOOD, Outcome.WORSE: Tone.BAD, Outcome.NOT_SHOWN: Tone.MUTED}
CHANGES = {Outcome.BETTER: "a gain", Outcome.WORSE: "a loss", Outcome.NOT_SHOWN: "no change shown"}
"""What a change of one arm between before and after shows, in words."""


def extent(
    ends: Iterable[float], *, air: float = 0.06, within: tuple[float, float] | None = None
) -> tuple[float, float]:
    """Return the ends of an axis that holds all of `ends`, with some air beside them.

    Args:
        ends: In the axis's own scale.
        air: Share of the range to leave free on both sides.
        within: What the axis does not go beyond.
    """
    places = list(ends)
    low, high = min(places), max(places)
    room = (high - low) * air or 0.02
    least, most = within or (low - room, high + room)
    return max(least, low - room), min(most, high + room)


def score_axis(metric: str, summaries: Iterable[Summary]) -> Axis:
    """Return the axis of a metric that holds all intervals; shares stay within 0 to 1."""
    unit = fmt.style(metric).unit
    ends = [end for each in summaries for end in (each.low, each.high)]
    within = (0.0, 1.0) if unit in (Unit.PERCENT, Unit.POINTS) else None
    return Axis(axis_name(metric), unit, extent(ends, air=0.04, within=within))


def axis_name(metric: str) -> str:
    """Return a metric's name with its unit, for an axis."""
    style = fmt.style(metric)
    return f"{style.label}, %" if style.unit is Unit.PERCENT else style.label


def capital(text: str) -> str:
    """Return a text with a capital at its start.

    >>> capital("macro-F1")
    'Macro-F1'
    """
    return text[:1].upper() + text[1:]


def ordered(names: Iterable[str], known: Sequence[str]) -> tuple[str, ...]:
    """Return the distinct names, known ones first and in their order."""
    distinct = dict.fromkeys(names)
    rest = [name for name in distinct if name not in known]
    return (*(name for name in known if name in distinct), *rest)


def row_mark(
    row: str, series: str, figure: Summary | Comparison, *, name: str = "", ringed: bool = False
) -> Mark:
    """Return a mean or a difference as a mark with its interval, in a row of a plot.

    Args:
        row: The row's name.
        series: The mark's.
        figure: The mean or the difference.
        name: What the text says it is of; empty: row and series.
        ringed: Whether it stands out.
    """
    if isinstance(figure, Summary):
        x, text = figure.mean, fmt.interval(figure)
    else:
        x, text = figure.difference, fmt.change_with_interval(figure)
    text = f"{name or f'{row}, {series}'}: {text}"
    return Mark(series, x, text=text, x_ends=(figure.low, figure.high), row=row, ringed=ringed)


USE = ("Time to make", "Peak memory", "To store")


def use_cells(costs: Costs) -> list[Cell]:
    """Return the cells of the columns `USE`."""
    alone = "" if costs.needs_model else "no language model"
    made, memory = fmt.seconds(costs.seconds), fmt.size(costs.peak_memory_bytes)
    return [Cell(made), Cell(memory), Cell(fmt.size(costs.bytes_on_disk), alone)]


def summary_cell(summary: Summary | None) -> Cell:
    """Return a mean with its interval as a cell, and how many examples had no score."""
    if summary is None:
        return Cell(fmt.MISSING)
    unscored = f"{fmt.count(summary.unscored)} unscored" if summary.unscored else ""
    return Cell(fmt.interval(summary), unscored)


def chosen_cell(text: str, words: Iterable[str], *, chosen: bool) -> Cell:
    """Return the head of a row, which stands out where it is what was chosen."""
    return Cell(text, ", ".join(filter(None, words)), Tone.CHOSEN if chosen else Tone.PLAIN)


def outcomes_by(compared: Mapping[K, Comparison | None]) -> dict[K, Outcome]:
    """Return what each comparison shows, corrected over all that are given (Holm); None is none."""
    known = {key: comparison for key, comparison in compared.items() if comparison is not None}
    return dict(zip(known, outcomes([*known.values()]), strict=True))


def verdict_word(shown: Outcome, *, subject: str) -> str:
    """Say what a comparison shows of `subject`, its second arm: better, worse, or nothing."""
    return shown.value if shown is Outcome.NOT_SHOWN else f"{subject} {shown.value}"


COMPARED = ("metric", "examples", "difference", "interval", "p", "shown")


def compared_texts(comparisons: Sequence[Comparison]) -> list[tuple[str, ...]]:
    """Return what the columns `COMPARED` say of differences that are told together."""
    return [
        (
            fmt.style(pair.metric).label,
            fmt.count(pair.n),
            fmt.change(pair),
            fmt.change_interval(pair),
            fmt.p_value(pair.p_value),
            shown.value,
        )
        for pair, shown in zip(comparisons, outcomes(comparisons), strict=True)
    ]


def difference_cell(
    difference: Comparison | None,
    shown: Outcome | None = None,
    *,
    words: str | Mapping[Outcome, str],
    has_unit: bool = True,
) -> Cell:
    """Return a difference with its interval as a cell, and what it shows; a dash for none.

    Args:
        difference: The difference.
        shown: What it shows among others; None: what it shows by itself.
        words: What each outcome is called, or who is better or worse.
        has_unit: Whether the cell names the unit; else its column does.
    """
    if difference is None:
        return Cell(fmt.MISSING)
    shown = shown or outcome(difference)
    word = verdict_word(shown, subject=words) if isinstance(words, str) else words[shown]
    text = (
        fmt.change_with_interval(difference) if has_unit else fmt.figures_with_interval(difference)
    )
    return Cell(text, word, TONES[shown])


def difference_number(
    label: str, difference: Comparison, shown: Outcome, *, subject: str, of: str = ""
) -> KeyNumber:
    """Return a difference as a key number, its interval and what it shows beneath."""
    detail = f"{of}{fmt.change_interval(difference)}, {verdict_word(shown, subject=subject)}"
    return KeyNumber(label, fmt.change(difference), detail, TONES[shown])


def study_report(
    study: MethodsStudy | CurveStudy | SequenceStudy | GeneraliseStudy,
    *,
    subtitle: str,
    verdict: tuple[str, ...],
    sections: Sequence[Section],
    made: Sequence[Block],
    key_numbers: Sequence[KeyNumber] = (),
) -> Report:
    """Return the report of a study; `made` says how it was made, in the last section."""
    last = Section("made", "How it was made", "How it was made", "", tuple(made))
    return Report(
        title=study.name,
        subtitle=subtitle,
        verdict=verdict,
        key_numbers=tuple(key_numbers),
        sections=(*sections, last),
        footer=f"instil, format {study.format_version}.",
        brand=f"instil {study.kind}",
    )


def marks_in_words(marks: Sequence[Mark]) -> str:
    """Return a plot's marks in words, for its description."""
    return ". ".join(mark.text for mark in marks) + "."
