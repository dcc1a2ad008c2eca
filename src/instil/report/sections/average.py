"""Every task and the averages over them, side by side: a table of the report and the console."""

from __future__ import annotations

from collections.abc import Mapping

from instil import format as fmt
from instil.compare.verdict import PROBE, PROMPTING, TFIDF, TUNED, ZERO_SHOT, outcome
from instil.report.page import Align, Block, Cell, Column, KeyNumber, Table, Tone
from instil.report.parts import TONES, ordered, summary_cell, verdict_word
from instil.results import Average, RunSummary
from instil.types import Comparison, Summary

_ARMS = {
    TUNED: "tuned",
    PROMPTING: "best prompting",
    ZERO_SHOT: "untouched, zero-shot",
    TFIDF: "TF-IDF",
    PROBE: "linear probe",
}


def average_blocks(summary: RunSummary) -> tuple[Block, ...]:
    """Return the table of all tasks and averages."""
    titles = average_titles(summary)
    columns = (Column(titles[0], Align.TEXT), *map(Column, titles[1:]))
    note = (
        "In brackets the 95 % interval. That of an average is put together from the tasks' "
        "intervals, their rows taken as independent (MOVER, Zou and Donner 2008); it is about "
        "these tasks, not about others."
    )
    rows = tuple(average_rows(summary))
    return (Table("Each task in the metric that decides it", columns, rows, note),)


def average_numbers(summary: RunSummary) -> list[KeyNumber]:
    """Return tuned minus prompting on average over all tasks, as a key number."""
    for average in summary.averages[:1]:
        found = _against(average.comparisons)
        if found is not None:
            shown = outcome(found)
            detail = f"{fmt.change_interval(found)}, {verdict_word(shown, subject='tuned is')}"
            label = f"Mean of {len(average.tasks)} tasks: tuned minus prompting"
            return [KeyNumber(label, fmt.change(found), detail, TONES[shown])]
    return []


def average_titles(summary: RunSummary) -> list[str]:
    """Return the heads of the columns: one an arm, and the difference."""
    return ["Task", *(_ARMS.get(arm, arm) for arm in _arms(summary)), "tuned minus prompting"]


def average_rows(summary: RunSummary) -> list[tuple[Cell, ...]]:
    """Return a row a task, then one an average."""
    arms = _arms(summary)
    rows = []
    for task in summary.tasks:
        found = {arm.name: arm.summaries[task.metric] for arm in task.arms}
        cells = _cells(found, arms, _against(task.comparisons))
        rows.append((Cell(task.task, fmt.style(task.metric).label), *cells))
    for average in summary.averages:
        cells = _cells(average.arms, arms, _against(average.comparisons))
        rows.append((_name(average), *cells))
    return rows


def _name(average: Average) -> Cell:
    count = fmt.plural(len(average.tasks), "task")
    metric = fmt.style(average.metric).label if average.metric else "each in its own metric"
    return Cell(f"mean of {count}: {metric}", tone=Tone.CHOSEN)


def _arms(summary: RunSummary) -> tuple[str, ...]:
    return ordered((arm.name for task in summary.tasks for arm in task.arms), tuple(_ARMS))


def _against(comparisons: tuple[Comparison, ...]) -> Comparison | None:
    return next((c for c in comparisons if (c.a, c.b) == (PROMPTING, TUNED)), None)


def _cells(
    found: Mapping[str, Summary], arms: tuple[str, ...], difference: Comparison | None
) -> list[Cell]:
    cells = [summary_cell(found.get(arm)) for arm in arms]
    if difference is None:
        return [*cells, Cell(fmt.MISSING)]
    shown = outcome(difference)
    text = fmt.change_with_interval(difference)
    return [*cells, Cell(text, verdict_word(shown, subject="tuned is"), TONES[shown])]
