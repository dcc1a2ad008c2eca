"""The forgetting section: guard tasks before and after training."""

from __future__ import annotations

from collections.abc import Sequence

from instil import format as fmt
from instil.compare.verdict import Outcome, outcomes
from instil.format import Unit
from instil.report.page import Align, Block, Cell, Column, Dot, DotPlot, Note, Plots, Table
from instil.report.parts import TONES, verdict_word
from instil.results import GuardResult

_AXES = {
    Unit.PERCENT: "after minus before, points",
    Unit.POINTS: "after minus before, points",
    Unit.NATS: "after minus before, nats per token",
    Unit.PLAIN: "after minus before",
}


def guard_blocks(
    guards: Sequence[GuardResult], *, replayed: Sequence[str] = ()
) -> tuple[Block, ...]:
    """Return the differences as plots, one a unit, then the table.

    Args:
        guards: Before and after, a line a task and metric.
        replayed: Tasks of which other rows were trained on.
    """
    if not guards:
        return (Note("No guard task was run, so forgetting was not measured."),)
    scores = [each for each in guards if _unit(each) in (Unit.PERCENT, Unit.POINTS)]
    nats = [each for each in guards if _unit(each) is Unit.NATS]
    plots = []
    if scores:
        title = "Guard tasks: left of zero is a loss"
        plots.append(_plot(scores, title))
    if nats:
        plots.append(_plot(nats, "General text: right of zero is a loss"))
    table = _table(guards, guard_outcomes(guards), replayed)
    return (Plots(tuple(plots)), table) if plots else (table,)


def guard_outcomes(guards: Sequence[GuardResult]) -> tuple[Outcome, ...]:
    """Return what each guard task shows, corrected for there being several of them."""
    return outcomes([guard.comparison for guard in guards])


def worst_guard(guards: Sequence[GuardResult]) -> GuardResult | None:
    """Return the task with the largest loss among those scored in points; None without any."""
    scores = [each for each in guards if _unit(each) in (Unit.PERCENT, Unit.POINTS)]
    return min(scores, key=_gain, default=None)


def _unit(guard: GuardResult) -> Unit:
    return fmt.style(guard.comparison.metric).unit


def _gain(guard: GuardResult) -> float:
    sign = 1 if guard.comparison.higher_is_better else -1
    return sign * guard.comparison.difference


def _plot(guards: Sequence[GuardResult], title: str) -> DotPlot:
    dots = tuple(_dot(guard) for guard in guards)
    low, high = min(0.0, *(dot.low for dot in dots)), max(0.0, *(dot.high for dot in dots))
    air = (high - low) * 0.06 or 0.01
    unit = _unit(guards[0])
    return DotPlot(
        title=title,
        description=". ".join(dot.text for dot in dots) + ".",
        axis=_AXES[unit],
        unit=unit,
        rows=tuple(dot.row for dot in dots),
        series=("difference",),
        dots=dots,
        extent=(low - air, high + air),
        reference=0.0,
        reference_name="no change",
        differences=True,
    )


def _dot(guard: GuardResult) -> Dot:
    found = guard.comparison
    text = f"{guard.task}: {fmt.change_with_interval(found)}"
    return Dot(guard.task, "difference", found.difference, found.low, found.high, text)


def _table(
    guards: Sequence[GuardResult], shown: Sequence[Outcome], replayed: Sequence[str]
) -> Table:
    columns = (
        Column("Guard task", Align.TEXT),
        Column("Metric", Align.TEXT),
        Column("Rows"),
        Column("Before"),
        Column("After"),
        Column("After minus before"),
        Column("McNemar p"),
    )
    note = (
        "In brackets the 95 % interval; differences are paired, row by row. A change is named only "
        "where its interval excludes zero, after Holm's correction over all guard tasks."
    )
    if any(guard.task in replayed for guard in guards):
        note += (
            " Seen in replay: other rows of the task were trained on, so it no longer speaks for "
            "tasks that were not."
        )
    rows = tuple(
        _row(guard, outcome, seen=guard.task in replayed)
        for guard, outcome in zip(guards, shown, strict=True)
    )
    return Table("Guard tasks before and after training", columns, rows, note)


def _row(guard: GuardResult, outcome: Outcome, *, seen: bool) -> tuple[Cell, ...]:
    found = guard.comparison
    word = verdict_word(outcome, subject="after is")
    change = fmt.change_with_interval(found)
    return (
        Cell(guard.task, f"{guard.kind}, seen in replay" if seen else guard.kind),
        Cell(fmt.style(found.metric).label),
        Cell(fmt.count(found.n)),
        Cell(fmt.interval(guard.before)),
        Cell(fmt.interval(guard.after)),
        Cell(change, word, TONES[outcome]),
        Cell(fmt.p_value(found.p_value)),
    )
