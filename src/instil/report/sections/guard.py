"""The forgetting section: guard tasks before and after training.

Tests: `tests/report/test_build.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from instil import format as fmt
from instil.compare.kept import guard_claims, mean_claim, mean_of_several
from instil.compare.verdict import Outcome, outcomes
from instil.format import Unit
from instil.report.page import Axis, Block, Cell, Note, Plot, Plots, Reference, Table, table
from instil.report.parts import difference_cell, extent, marks_in_words, row_mark
from instil.results.guard import GuardResult, Margins
from instil.scoring.metrics import NATS


def guard_blocks(
    guards: Sequence[GuardResult], *, margins: Margins, replayed: Sequence[str] = ()
) -> tuple[Block, ...]:
    """Return the differences as plots, one a unit, then the table.

    Args:
        guards: Before and after, a line a task and metric.
        margins: Losses up to which a task counts as kept.
        replayed: Tasks of which other rows were trained on.
    """
    if not guards:
        return (Note("No guard task was run, so forgetting was not measured."),)
    parts = {
        "Guard tasks: left of zero is a loss": _in_points(guards),
        "General text: right of zero is a loss": [
            each for each in guards if fmt.style(each.comparison.metric).unit is Unit.NATS
        ],
    }
    plots = []
    several = mean_of_several(guards)
    for title, shown in parts.items():
        marks = tuple(row_mark(g.task, "difference", g.comparison, name=g.task) for g in shown)
        if not marks:
            continue
        if shown[0].comparison.metric != NATS.name and several:
            mean, tasks = several
            name = f"mean of {tasks}"
            marks = (*marks, row_mark(name, "difference", mean, name=name, ringed=True))
        unit = fmt.style(shown[0].comparison.metric).unit
        measured = "nats per token" if unit is Unit.NATS else "points"
        ends = extent([0.0, *(end for mark in marks for end in mark.x_ends or ())])
        plots.append(
            Plot(
                title,
                marks_in_words(marks),
                Axis(f"after minus before, {measured}", unit, ends, labels="signed"),
                rows=tuple(mark.row for mark in marks),
                series=("difference",),
                marks=marks,
                upright=Reference("no change", 0.0),
            )
        )
    drawn = _table(guards, margins, replayed)
    return (Plots(tuple(plots)), drawn) if plots else (drawn,)


def guard_outcomes(guards: Sequence[GuardResult]) -> tuple[Outcome, ...]:
    """Return what each guard task shows, corrected for there being several of them."""
    return outcomes([guard.comparison for guard in guards])


def worst_guard(guards: Sequence[GuardResult]) -> GuardResult | None:
    """Return the task with the largest loss among those scored in points; None without any."""

    def gain(guard: GuardResult) -> float:
        sign = 1 if guard.comparison.higher_is_better else -1
        return sign * guard.comparison.difference

    return min(_in_points(guards), key=gain, default=None)


def _in_points(guards: Sequence[GuardResult]) -> list[GuardResult]:
    units = (Unit.PERCENT, Unit.POINTS)
    return [each for each in guards if fmt.style(each.comparison.metric).unit in units]


def _table(guards: Sequence[GuardResult], margins: Margins, replayed: Sequence[str]) -> Table:
    rows, said = [], guard_claims(guards, margins)
    for guard, shown, claim in zip(guards, guard_outcomes(guards), said, strict=True):
        change = guard.comparison
        seen = ", seen in replay" if guard.task in replayed else ""
        rows.append(
            (
                Cell(guard.task, f"{guard.kind}{seen}"),
                fmt.style(change.metric).label,
                fmt.count(change.n),
                fmt.interval(guard.before),
                fmt.interval(guard.after),
                difference_cell(change, shown, words="after is"),
                *([claim or fmt.MISSING] if any(said) else []),
                fmt.p_value(change.p_value),
            )
        )
    if several := mean_of_several(guards):
        mean, tasks = several
        rows.append(
            (
                Cell("mean", f"over {tasks} guard tasks"),
                fmt.style(mean.metric).label,
                fmt.count(mean.n),
                fmt.MISSING,
                fmt.MISSING,
                difference_cell(mean, words="after is"),
                *([mean_claim(mean, margins)] if any(said) else []),
                fmt.MISSING,
            )
        )
    note = (
        "In brackets the 95 % interval; differences are paired, row by row. A change is named only "
        "where its interval excludes zero, after Holm's correction over all guard tasks."
    )
    if any(said):
        note += (
            " Kept is shown where the whole interval lies above minus the margin, after Holm's "
            "correction over all lines with a margin."
        )
    if any(guard.comparison.anytime_p is not None for guard in guards):
        note += (
            " Rows were asked until something was shown: the intervals hold at any stopping time, "
            "and are wider than those of a fixed number of rows."
        )
    if any(guard.task in replayed for guard in guards):
        note += (
            " Seen in replay: other rows of the task were trained on, so it no longer speaks for "
            "tasks that were not."
        )
    caption = "Guard tasks before and after training"
    margin = ["Against the margin"] if any(said) else []
    figures = ("Rows", "Before", "After", "After minus before")
    titles = ("Guard task", "Metric", *figures, *margin, "McNemar p")
    return table(caption, titles, rows, note, words=("Metric", *margin))
