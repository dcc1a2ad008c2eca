"""The contenders of one task as tables and plots: test, wording, classes, costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from instil import format as fmt
from instil.compare.cheapest import milliseconds
from instil.compare.verdict import PROBE, PROMPTING, TFIDF, TUNED, ZERO_SHOT, Outcome, outcomes
from instil.report.page import (
    Align,
    Block,
    Cell,
    Column,
    DotPlot,
    Note,
    Plots,
    Table,
    Tone,
)
from instil.report.parts import (
    TONES,
    axis_name,
    capital,
    dot,
    ordered,
    spread,
    summary_cell,
    verdict_word,
)
from instil.report.sections.phrasings import phrasing_blocks
from instil.results import Arm, ClassRow, TaskResult
from instil.types import Comparison, Summary

_ARMS = (TUNED, PROMPTING, ZERO_SHOT, TFIDF, PROBE)


def find_arm(task: TaskResult, name: str) -> Arm | None:
    """Return the arm of that name, if the task has one."""
    return next((arm for arm in task.arms if arm.name == name), None)


def against_tuned(task: TaskResult, arm: str) -> Comparison | None:
    """Return tuned minus `arm` in the deciding metric."""
    wanted = (arm, TUNED, task.metric)
    found = (each for each in task.comparisons if (each.a, each.b, each.metric) == wanted)
    return next(found, None)


def arm_outcomes(tasks: Sequence[TaskResult]) -> dict[tuple[str, str], Outcome]:
    """Return what tuned against each arm shows: (task, arm) -> outcome.

    The comparisons with one arm over all tasks are corrected together, as in the verdict.
    """
    names = dict.fromkeys(arm.name for task in tasks for arm in task.arms)
    shown: dict[tuple[str, str], Outcome] = {}
    for name in names:
        found = [(task.task, against_tuned(task, name)) for task in tasks]
        pairs = [(task, comparison) for task, comparison in found if comparison is not None]
        results = outcomes([comparison for _, comparison in pairs])
        shown |= {(task, name): each for (task, _), each in zip(pairs, results, strict=True)}
    return shown


def main_summary(arm: Arm, task: TaskResult) -> Summary | None:
    """Return the arm's summary in the deciding metric."""
    return arm.summaries.get(task.metric)


def arm_blocks(task: TaskResult, *, shown: Mapping[tuple[str, str], Outcome]) -> tuple[Block, ...]:
    """Return the arms on test: plots with intervals, then the table.

    Args:
        task: The task.
        shown: What tuned against each arm shows, from `arm_outcomes`.
    """
    if not task.arms:
        return (Note("No arm was scored on test."),)
    metrics = _shared_metrics(task.arms)
    plots = tuple(_arm_plot(task, metric) for metric in metrics[:2])
    return (Plots(plots), _arms_table(task, metrics, shown=shown))


def wording_blocks(task: TaskResult) -> tuple[Block, ...]:
    """Return how far each arm depends on the wording of the template."""
    if not task.templates:
        return (Note("Only one template was scored on test."),)
    rows = tuple(dict.fromkeys(score.template for score in task.templates))
    series = ordered((score.arm for score in task.templates), _ARMS)
    dots = tuple(
        dot(score.template, series=arm_name(task, score.arm), summary=score.summary)
        for score in task.templates
    )
    metric = task.templates[0].summary.metric
    plot = DotPlot(
        title=f"{capital(metric)} on test by template",
        description=f"{len(rows)} templates, each scored on the test rows with "
        f"{' and '.join(arm_name(task, name) for name in series)}. The table gives the figures.",
        axis=axis_name(metric),
        unit=fmt.style(metric).unit,
        rows=rows,
        series=tuple(arm_name(task, name) for name in series),
        dots=dots,
        extent=spread(score.summary for score in task.templates),
    )
    return (Plots((plot,)), _wording_table(task, series), *phrasing_blocks(task))


def class_blocks(task: TaskResult) -> tuple[Block, ...]:
    """Return precision, recall and F1 of every class for the tuned model, F1 for the others."""
    tuned = find_arm(task, TUNED)
    if tuned is None or not tuned.per_class:
        return (Note("The answers are free text: there are no classes."),)
    others = [arm for arm in task.arms if arm.name != TUNED and arm.per_class]
    titles = ["Precision", "Recall", "F1"] + [f"F1, {arm.label}" for arm in others]
    columns = (Column("Class", Align.TEXT), Column("Test rows"), *map(Column, titles))
    found = [{row.label: row for row in arm.per_class} for arm in others]
    rows = tuple(_class_row(row, found) for row in tuned.per_class)
    return (Table("Classes on test; the first figures are the tuned model's", columns, rows),)


def cost_blocks(task: TaskResult) -> tuple[Block, ...]:
    """Return what each arm costs to make, to keep and to use."""
    titles = (
        "Trained weights",
        "Time to make",
        "Peak memory",
        "To store",
        "Tokens a prediction",
        "Milliseconds an answer",
    )
    rows = tuple(_cost_row(arm) for arm in task.arms)
    columns = (Column("Arm", Align.TEXT), *map(Column, titles))
    note = (
        "Time to make is choosing the prompt or training; peak memory is the process's up to "
        "then; to store is what is kept beside the base model, where that is needed. Milliseconds "
        "an answer are those of all test rows at once, on this machine."
    )
    return (Table("Costs of each arm", columns, rows, note),)


def arm_name(task: TaskResult, name: str) -> str:
    """Return an arm's label for people, or its name where no such arm was tested."""
    arm = find_arm(task, name)
    return arm.label if arm else name.replace("_", " ")


def _shared_metrics(arms: Sequence[Arm]) -> list[str]:
    return list(dict.fromkeys(metric for arm in arms for metric in arm.summaries))


def _arm_plot(task: TaskResult, metric: str) -> DotPlot:
    arms = [arm for arm in task.arms if metric in arm.summaries]
    dots = tuple(
        replace(
            dot(arm.label, series=arm.name, summary=arm.summaries[metric]),
            text=f"{arm.label}: {fmt.interval(arm.summaries[metric])}",
        )
        for arm in arms
    )
    return DotPlot(
        title=f"{capital(metric)} on test",
        description=". ".join(dot.text for dot in dots) + ".",
        axis=axis_name(metric),
        unit=fmt.style(metric).unit,
        rows=tuple(arm.label for arm in arms),
        series=tuple(dict.fromkeys(arm.name for arm in arms)),
        dots=dots,
        extent=spread(arm.summaries[metric] for arm in arms),
    )


def _arms_table(
    task: TaskResult, metrics: Sequence[str], *, shown: Mapping[tuple[str, str], Outcome]
) -> Table:
    generated = any(arm.stopped_share is not None for arm in task.arms)
    titles = [capital(metric) for metric in metrics] + [_difference_title(task)]
    titles += ["McNemar p"] * _counted(task)
    titles += ["Stopped by itself"] * generated
    titles += [
        "Tokens a prediction",
        "Time to make",
        "Peak memory",
        "To store",
        "Milliseconds an answer",
    ]
    columns = (Column("Arm", Align.TEXT), *map(Column, titles))
    rows = tuple(
        (
            Cell(arm.label, arm.template, Tone.CHOSEN if arm.name == TUNED else Tone.PLAIN),
            *(summary_cell(arm.summaries.get(metric)) for metric in metrics),
            *_comparison_cells(task, arm, shown=shown),
            *_use_cells(arm, generated=generated),
        )
        for arm in task.arms
    )
    return Table(f"All arms on the same {_test_rows(task)}", columns, rows, _detectable_note(task))


def _counted(task: TaskResult) -> bool:
    """Say whether any comparison counts right and wrong answers, and so has a p-value."""
    return any(found.p_value is not None for found in task.comparisons)


def _difference_title(task: TaskResult) -> str:
    unit = fmt.difference_unit(task.metric)
    return f"Tuned minus this arm, {unit}" if unit else "Tuned minus this arm"


def _use_cells(arm: Arm, *, generated: bool) -> list[Cell]:
    share, costs = arm.stopped_share, arm.costs
    stopped = [Cell(fmt.MISSING if share is None else fmt.percent(share))] if generated else []
    return [
        *stopped,
        Cell(fmt.tokens(costs.tokens_per_prediction) if arm.template else fmt.MISSING),
        Cell(fmt.seconds(costs.seconds)),
        Cell(fmt.size(costs.peak_memory_bytes)),
        _store_cell(arm),
        Cell(milliseconds(costs.milliseconds)),
    ]


def _comparison_cells(
    task: TaskResult, arm: Arm, *, shown: Mapping[tuple[str, str], Outcome]
) -> list[Cell]:
    found = against_tuned(task, arm.name)
    if found is None:
        text = fmt.MISSING if arm.name == TUNED else "not compared"
        return [Cell(text), Cell(fmt.MISSING)][: 1 + _counted(task)]
    outcome = shown[task.task, arm.name]
    change = fmt.figures_with_interval(found)
    pairs = f"{found.b_only} : {found.a_only}" if found.b_only + found.a_only else ""
    difference = Cell(change, verdict_word(outcome, subject="tuned is"), TONES[outcome])
    return [difference, Cell(fmt.p_value(found.p_value), pairs)][: 1 + _counted(task)]


def _test_rows(task: TaskResult) -> str:
    rows = fmt.plural(task.rows.get("test", 0), "test row")
    groups = task.groups.get("test", 0)
    return f"{rows} ({fmt.plural(groups, 'group')})" if groups else rows


def _detectable_note(task: TaskResult) -> str:
    note = "In brackets the 95 % interval. Differences are paired, row by row."
    if _counted(task):
        note += (
            " The interval takes groups as a whole, p row by row; under p: rows that the tuned "
            "model alone had right, and rows that the other arm alone had right."
        )
    found = against_tuned(task, PROMPTING)
    if found is None or not found.smallest_detectable:
        return note
    size = fmt.size_of_change(found.smallest_detectable, found.metric)
    return f"{note} This test set shows a difference of {size} with 80 % power."


def _wording_table(task: TaskResult, series: Sequence[str]) -> Table:
    columns = (
        Column("Arm", Align.TEXT),
        Column("Templates"),
        Column("Mean over templates"),
        Column("Highest"),
        Column("Lowest"),
        Column("Spread"),
    )
    rows = tuple(_wording_row(task, name) for name in series)
    return Table("How far the wording matters", columns, rows, "Spread: highest minus lowest.")


def _wording_row(task: TaskResult, name: str) -> tuple[Cell, ...]:
    scores = sorted(
        (score for score in task.templates if score.arm == name),
        key=lambda score: score.summary.mean,
    )
    metric = scores[0].summary.metric
    low, high = scores[0], scores[-1]
    mean = sum(score.summary.mean for score in scores) / len(scores)
    spread_text = fmt.size_of_change(high.summary.mean - low.summary.mean, metric)
    return (
        Cell(arm_name(task, name)),
        Cell(str(len(scores))),
        Cell(fmt.figure(mean, metric)),
        Cell(fmt.figure(high.summary.mean, metric), high.template),
        Cell(fmt.figure(low.summary.mean, metric), low.template),
        Cell(spread_text),
    )


def _class_row(row: ClassRow, others: Sequence[dict[str, ClassRow]]) -> tuple[Cell, ...]:
    cells = [Cell(row.label), Cell(fmt.count(row.n))]
    cells += [Cell(fmt.percent(value)) for value in (row.precision, row.recall, row.f1)]
    found = [rows.get(row.label) for rows in others]
    cells += [Cell(fmt.percent(each.f1) if each else fmt.MISSING) for each in found]
    return tuple(cells)


def _cost_row(arm: Arm) -> tuple[Cell, ...]:
    costs = arm.costs
    share = f"{fmt.percent(costs.trainable_share)} of the model" if costs.trainable_share else ""
    return (
        Cell(arm.label),
        Cell(fmt.parameters(costs.trainable_parameters), share),
        Cell(fmt.seconds(costs.seconds)),
        Cell(fmt.size(costs.peak_memory_bytes)),
        _store_cell(arm),
        Cell(fmt.tokens(costs.tokens_per_prediction) if arm.template else fmt.MISSING),
        Cell(milliseconds(costs.milliseconds)),
    )


def _store_cell(arm: Arm) -> Cell:
    alone = "" if arm.costs.needs_model else "no language model"
    return Cell(fmt.size(arm.costs.bytes_on_disk), alone)
