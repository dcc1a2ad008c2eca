"""The contenders of one task as tables and plots: test, classes, costs.

Tests: `tests/report/test_build.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from instil import format as fmt
from instil.compare.verdict import Outcome, shows_nothing
from instil.report.page import Block, Cell, Note, Plot, Plots, Table, table
from instil.report.parts import (
    USE,
    capital,
    chosen_cell,
    difference_cell,
    marks_in_words,
    outcomes_by,
    row_mark,
    score_axis,
    summary_cell,
    use_cells,
)
from instil.results.names import PROMPTING, TUNED
from instil.results.tasks import Arm, TaskResult


def arm_outcomes(tasks: Sequence[TaskResult]) -> dict[tuple[str, str], Outcome]:
    """Return what tuned against each arm shows: (task, arm) -> outcome.

    The comparisons with one arm over all tasks are corrected together, as in the verdict.
    """
    shown: dict[tuple[str, str], Outcome] = {}
    for name in dict.fromkeys(arm.name for task in tasks for arm in task.arms):
        shown |= outcomes_by({(task.task, name): task.against(name) for task in tasks})
    return shown


def arm_blocks(task: TaskResult, *, shown: Mapping[tuple[str, str], Outcome]) -> tuple[Block, ...]:
    """Return the arms on test: plots with intervals, then the table.

    Args:
        task: The task.
        shown: What tuned against each arm shows, from `arm_outcomes`.
    """
    if not task.arms:
        return (Note("No arm was scored on test."),)
    metrics = list(dict.fromkeys(metric for arm in task.arms for metric in arm.summaries))
    plots = []
    for metric in metrics[:2]:
        scored = [arm for arm in task.arms if metric in arm.summaries]
        marks = tuple(
            row_mark(arm.label, arm.name, arm.summaries[metric], name=arm.label) for arm in scored
        )
        plots.append(
            Plot(
                f"{capital(fmt.style(metric).label)} on test",
                marks_in_words(marks),
                score_axis(metric, (arm.summaries[metric] for arm in scored)),
                rows=tuple(mark.row for mark in marks),
                series=tuple(dict.fromkeys(mark.series for mark in marks)),
                marks=marks,
            )
        )
    return (Plots(tuple(plots)), _arms_table(task, metrics, shown=shown))


def _arms_table(
    task: TaskResult, metrics: Sequence[str], *, shown: Mapping[tuple[str, str], Outcome]
) -> Table:
    generated = any(arm.stopped_share is not None for arm in task.arms)
    # Right and wrong answers that were counted: only then is there a p-value.
    counted = any(pair.p_value is not None for pair in task.comparisons)
    unit = fmt.difference_unit(task.metric)
    titles = ["Arm", *(capital(fmt.style(metric).label) for metric in metrics)]
    titles.append(f"Tuned minus this arm, {unit}" if unit else "Tuned minus this arm")
    titles += ["McNemar p"] * counted + ["Stopped by itself"] * generated
    titles += ["Tokens a prediction", *USE, "Milliseconds an answer"]
    rows: list[list[Cell | str]] = []
    for arm in task.arms:
        pair = task.against(arm.name)
        difference = Cell(fmt.MISSING if arm.name == TUNED else "not compared")
        p = Cell(fmt.MISSING)
        if pair is not None:
            outcome = shown[task.task, arm.name]
            difference = difference_cell(pair, outcome, words="tuned is", has_unit=False)
            alone = f"{pair.b_only} : {pair.a_only}" if pair.b_only + pair.a_only else ""
            p = Cell(fmt.p_value(pair.p_value), alone)
        share = arm.stopped_share
        rows.append(
            [
                chosen_cell(arm.label, [arm.template], chosen=arm.name == TUNED),
                *(summary_cell(arm.summaries.get(metric)) for metric in metrics),
                difference,
                *([p] * counted),
                *([fmt.MISSING if share is None else fmt.percent(share)] * generated),
                _tokens(arm),
                *use_cells(arm.costs),
                fmt.milliseconds(arm.costs.milliseconds),
            ]
        )
    count = fmt.plural(task.rows.get("test", 0), "test row")
    groups = task.groups.get("test", 0)
    where = f"{count} ({fmt.plural(groups, 'group')})" if groups else count
    note = "In brackets the 95 % interval. Differences are paired, row by row."
    if counted:
        note += (
            " The interval takes groups as a whole, p row by row; under p: rows that the tuned "
            "model alone had right, and rows that the other arm alone had right."
        )
    gain = task.against(PROMPTING)
    if gain and shows_nothing(gain):
        note += " This test set is of too few groups to show any difference."
    elif gain and gain.smallest_detectable:
        size = fmt.size_of_change(gain.smallest_detectable, gain.metric)
        note += f" This test set shows a difference of {size} with 80 % power."
    return table(f"All arms on the same {where}", titles, rows, note)


def _tokens(arm: Arm) -> str:
    return fmt.tokens(arm.costs.tokens_per_prediction) if arm.template else fmt.MISSING


def class_blocks(task: TaskResult) -> tuple[Block, ...]:
    """Return precision, recall and F1 of every class for the tuned model, F1 for the others."""
    tuned = task.arm(TUNED)
    if tuned is None or not tuned.per_class:
        return (Note("The answers are free text: there are no classes."),)
    others = [arm for arm in task.arms if arm.name != TUNED and arm.per_class]
    titles = ["Class", "Test rows", "Precision", "Recall", "F1"]
    titles += [f"F1, {arm.label}" for arm in others]
    f1 = [{row.label: fmt.percent(row.f1) for row in arm.per_class} for arm in others]
    rows = [
        (
            row.label,
            fmt.count(row.n),
            *map(fmt.percent, (row.precision, row.recall, row.f1)),
            *(each.get(row.label, fmt.MISSING) for each in f1),
        )
        for row in tuned.per_class
    ]
    return (table("Classes on test; the first figures are the tuned model's", titles, rows),)


def cost_blocks(task: TaskResult) -> tuple[Block, ...]:
    """Return what each arm costs to make, to keep and to use."""
    rows = []
    for arm in task.arms:
        costs = arm.costs
        share = f"{fmt.percent(costs.trainable_share)} of the model"
        trained = fmt.parameters(costs.trainable_parameters)
        weights = Cell(trained, share if costs.trainable_share else "")
        speed = fmt.milliseconds(costs.milliseconds)
        rows.append((arm.label, weights, *use_cells(arm.costs), _tokens(arm), speed))
    note = (
        "Time to make is choosing the prompt or training; peak memory is the process's up to "
        "then; to store is what is kept beside the base model, where that is needed. Milliseconds "
        "an answer are those of all test rows at once, on this machine."
    )
    titles = ("Arm", "Trained weights", *USE, "Tokens a prediction", "Milliseconds an answer")
    return (table("Costs of each arm", titles, rows, note),)
