"""The prompting ladder: what the untouched model does with prompting alone, on validation."""

from __future__ import annotations

from instil import format as fmt
from instil.report.page import (
    Align,
    Block,
    Cell,
    Column,
    DotPlot,
    Fold,
    Note,
    Plots,
    Table,
    Tone,
)
from instil.report.parts import axis_name, capital, dot, ordered, spread, summary_cell
from instil.results import Rung, TaskResult

_SCORINGS = ("raw", "normalised", "calibrated", "generated")


def ladder_blocks(task: TaskResult) -> tuple[Block, ...]:
    """Return the prompting ladder: one plot a number of shots, and every rung in a table."""
    if not task.ladder:
        return (Note("No prompting ladder was climbed."),)
    best = next((rung for rung in task.ladder if rung.best), None)
    extent = spread(rung.summary for rung in task.ladder)
    shots = sorted({rung.shots for rung in task.ladder})
    plots = tuple(_ladder_plot(task, each, best=best, extent=extent) for each in shots)
    title = f"All {fmt.plural(len(task.ladder), 'rung')} as a table"
    notes = [Note(text) for text in (_bar(best), _dropped(task)) if text]
    return (*notes, Plots(plots), Fold(title, _ladder_table(task)))


def _dropped(task: TaskResult) -> str:
    dropped = [rung for rung in task.ladder if not rung.asked_all]
    if not dropped:
        return ""
    return (
        "Not asked all rows, since others scored higher on a first share of them: "
        f"{fmt.plural(len(dropped), 'rung')} of {len(task.ladder)}. Their intervals are wider, and "
        "none of them can be the bar. The best template of each number of shots was asked all rows."
    )


def _bar(best: Rung | None) -> str:
    if best is None:
        return "No rung was marked as the bar."
    return (
        f"The bar for tuning: {fmt.interval(best.summary)} with {_rung_name(best)}, "
        f"at {fmt.tokens(best.prompt_tokens)} tokens a prompt, "
        f"{fmt.tokens(best.exemplar_tokens)} of them worked examples."
    )


def _rung_name(rung: Rung) -> str:
    return f"template {rung.template}, {rung.shots}-shot, {rung.scoring}"


def _ladder_plot(
    task: TaskResult, shots: int, *, best: Rung | None, extent: tuple[float, float]
) -> DotPlot:
    rungs = [rung for rung in task.ladder if rung.shots == shots]
    metric = rungs[0].summary.metric
    top = max(rungs, key=lambda rung: (rung.asked_all, rung.summary.mean))
    return DotPlot(
        title=f"{shots}-shot",
        description=f"{len(rungs)} rungs; the highest on all rows is {fmt.interval(top.summary)} "
        f"with {_rung_name(top)}. The table below the plots gives every figure.",
        axis=axis_name(metric),
        unit=fmt.style(metric).unit,
        rows=tuple(dict.fromkeys(rung.template for rung in task.ladder)),
        series=ordered((rung.scoring for rung in task.ladder), _SCORINGS),
        dots=tuple(
            dot(rung.template, series=rung.scoring, summary=rung.summary, chosen=rung.best)
            for rung in rungs
        ),
        extent=extent,
        reference=best.summary.mean if best else None,
        reference_name="the bar",
    )


def _ladder_table(task: TaskResult) -> Table:
    metric = task.ladder[0].summary.metric
    columns = (
        Column("Template", Align.TEXT),
        Column("Shots"),
        Column("Scoring", Align.TEXT),
        Column("Rows"),
        Column(capital(metric)),
        Column("Tokens a prompt"),
        Column("of them examples"),
    )
    sign = 1 if task.ladder[0].summary.higher_is_better else -1
    rungs = sorted(task.ladder, key=lambda r: (not r.asked_all, -sign * r.summary.mean))
    rows = tuple(_rung_row(rung) for rung in rungs)
    return Table("Every rung, with the validation rows that it was asked", columns, rows)


def _rung_row(rung: Rung) -> tuple[Cell, ...]:
    tone = Tone.CHOSEN if rung.best else Tone.PLAIN
    return (
        Cell(rung.template, "the bar" if rung.best else "", tone),
        Cell(str(rung.shots)),
        Cell(rung.scoring),
        Cell(str(rung.summary.scored + rung.summary.unscored)),
        summary_cell(rung.summary),
        Cell(fmt.tokens(rung.prompt_tokens)),
        Cell(fmt.tokens(rung.exemplar_tokens)),
    )
