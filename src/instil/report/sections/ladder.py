"""The prompting ladder: what the base model does with prompting alone, on validation."""

from __future__ import annotations

from instil import format as fmt
from instil.report.page import Block, Note, Plot, Plots, Reference, Table, table
from instil.report.parts import (
    capital,
    chosen_cell,
    ordered,
    row_mark,
    score_axis,
    summary_cell,
)
from instil.results.prompts import Rung
from instil.results.tasks import TaskResult

_SCORINGS = ("raw", "normalised", "calibrated", "generated")


def ladder_blocks(task: TaskResult) -> tuple[Block, ...]:
    """Return the prompting ladder: one plot a number of shots, and every rung in a table."""
    if not task.ladder:
        return (Note("No prompting ladder was climbed."),)
    best = next((rung for rung in task.ladder if rung.best), None)
    bar = "No rung was marked as the bar."
    if best is not None:
        bar = "The best rung, where the search began" if _outdone(task) else "The bar for tuning"
        bar = (
            f"{bar}: {fmt.interval(best.summary)} with {_rung_name(best)}, "
            f"at {fmt.tokens(best.prompt_tokens)} tokens a prompt, "
            f"{fmt.tokens(best.exemplar_tokens)} of them worked examples."
        )
    notes = [Note(bar)]
    if dropped := [rung for rung in task.ladder if not rung.asked_all]:
        notes.append(
            Note(
                "Not asked all rows, since others scored higher on a first share of them: "
                f"{fmt.plural(len(dropped), 'rung')} of {len(task.ladder)}. Their intervals are "
                "wider, and none of them can be the bar. The best template of each number of shots "
                "was asked all rows."
            )
        )
    plots, mark = [], "the best rung" if _outdone(task) else "the bar"
    for count in sorted({rung.shots for rung in task.ladder}):
        rungs = [rung for rung in task.ladder if rung.shots == count]
        top = max(rungs, key=lambda rung: (rung.asked_all, rung.summary.mean))
        plots.append(
            Plot(
                f"{count}-shot",
                f"{len(rungs)} rungs; the highest on all rows is {fmt.interval(top.summary)} with "
                f"{_rung_name(top)}. The table below the plots gives every figure.",
                score_axis(top.summary.metric, (rung.summary for rung in task.ladder)),
                rows=tuple(dict.fromkeys(rung.template for rung in task.ladder)),
                series=ordered((rung.scoring for rung in task.ladder), _SCORINGS),
                marks=tuple(
                    row_mark(rung.template, rung.scoring, rung.summary, ringed=rung.best)
                    for rung in rungs
                ),
                upright=Reference(mark, best.summary.mean) if best else None,
            )
        )
    return (*notes, Plots(tuple(plots)), _ladder_table(task))


def _outdone(task: TaskResult) -> bool:
    """Whether the search went on from the ladder to a better way of asking, which is the bar."""
    return task.search is not None and task.search.better


def _rung_name(rung: Rung) -> str:
    return f"template {rung.template}, {rung.shots}-shot, {rung.scoring}"


def _ladder_table(task: TaskResult) -> Table:
    first = task.ladder[0].summary
    sign = 1 if first.higher_is_better else -1
    mark = "the best rung" if _outdone(task) else "the bar"
    rungs = sorted(task.ladder, key=lambda r: (not r.asked_all, -sign * r.summary.mean))
    rows = [
        (
            chosen_cell(
                rung.template,
                [mark * rung.best],
                chosen=rung.best,
            ),
            str(rung.shots),
            rung.scoring,
            str(rung.summary.scored + rung.summary.unscored),
            summary_cell(rung.summary),
            fmt.tokens(rung.prompt_tokens),
            fmt.tokens(rung.exemplar_tokens),
        )
        for rung in rungs
    ]
    metric = capital(fmt.style(first.metric).label)
    tokens = ("Tokens a prompt", "of them examples")
    return table(
        "Every rung, with the validation rows that it was asked",
        ("Template", "Shots", "Scoring", "Rows", metric, *tokens),
        rows,
        words=("Scoring",),
        fold=f"All {fmt.plural(len(task.ladder), 'rung')} as a table",
    )
