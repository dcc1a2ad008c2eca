"""Every task and the averages over them, side by side: a table of the report and the console."""

from __future__ import annotations

from collections.abc import Mapping

from instil import format as fmt
from instil.compare.verdict import Outcome, outcome
from instil.report.page import Cell, KeyNumber, Table, Tone, table
from instil.report.parts import difference_cell, difference_number, ordered, summary_cell
from instil.report.sections.arms import arm_outcomes
from instil.results.names import PROBE, PROMPTING, TFIDF, TUNED, TUNED_PROMPTED, ZERO_SHOT
from instil.results.run import RunSummary
from instil.types import Comparison, Summary

_ARMS = {
    TUNED: "tuned",
    TUNED_PROMPTED: "tuned, best prompt",
    PROMPTING: "best prompting",
    ZERO_SHOT: "base model, zero-shot",
    TFIDF: "TF-IDF",
    PROBE: "linear probe",
}


def average_table(summary: RunSummary) -> Table:
    """Return a row a task, then one an average; a column an arm, and the difference."""
    arms = ordered((arm.name for task in summary.tasks for arm in task.arms), tuple(_ARMS))

    def cells(
        means: Mapping[str, Summary], difference: Comparison | None, shown: Outcome | None = None
    ) -> list[Cell]:
        figures = [summary_cell(means.get(arm)) for arm in arms]
        return [*figures, difference_cell(difference, shown, words="tuned is")]

    rows, known = [], arm_outcomes(summary.tasks)
    for task in summary.tasks:
        means = {arm.name: arm.summaries[task.metric] for arm in task.arms}
        head = Cell(task.task, fmt.style(task.metric).label)
        rows.append(
            [head, *cells(means, task.against(PROMPTING), known.get((task.task, PROMPTING)))]
        )
    for average in summary.averages:
        metric = fmt.style(average.metric).label if average.metric else "each in its own metric"
        name = f"mean of {fmt.plural(len(average.tasks), 'task')}: {metric}"
        head = Cell(name, tone=Tone.CHOSEN)
        rows.append([head, *cells(average.arms, _against(average.comparisons))])
    note = (
        "In brackets the 95 % interval. That of an average is put together from the tasks' "
        "intervals, their rows taken as independent (MOVER, Zou and Donner 2008); it is about "
        "these tasks, not about others."
    )
    titles = ("Task", *(_ARMS.get(arm, arm) for arm in arms), "tuned minus prompting")
    return table("Each task in the metric that decides it", titles, rows, note)


def average_numbers(summary: RunSummary) -> list[KeyNumber]:
    """Return tuned minus prompting on average over all tasks, as a key number."""
    if not summary.averages:
        return []
    average = summary.averages[0]
    gain = _against(average.comparisons)
    if gain is None:
        return []
    label = f"Mean of {len(average.tasks)} tasks: tuned minus prompting"
    return [difference_number(label, gain, outcome(gain), subject="tuned is")]


def _against(comparisons: tuple[Comparison, ...]) -> Comparison | None:
    return next((c for c in comparisons if (c.a, c.b) == (PROMPTING, TUNED)), None)
