"""The contenders of one task as tables and plots: test, ladder, wording, classes, costs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from instil.report import format as fmt
from instil.report.format import Reading, Unit
from instil.report.page import (
    Align,
    Block,
    Cell,
    Column,
    Dot,
    DotPlot,
    Fold,
    Note,
    Plots,
    Table,
    Tone,
)
from instil.results import Arm, ClassRow, Rung, TaskResult
from instil.types import Comparison, Summary

TUNED = "tuned"
PROMPTING = "prompting"
TONES = {Reading.BETTER: Tone.GOOD, Reading.WORSE: Tone.BAD, Reading.UNCLEAR: Tone.MUTED}
_SCORINGS = ("raw", "normalised", "calibrated", "generated")
_ARMS = (TUNED, PROMPTING, "zero_shot", "tfidf")


def find_arm(task: TaskResult, name: str) -> Arm | None:
    """Return the arm of that name, if the task has one."""
    return next((arm for arm in task.arms if arm.name == name), None)


def against_tuned(task: TaskResult, arm: str) -> Comparison | None:
    """Return tuned minus `arm` in the deciding metric, turned round where it was kept otherwise."""
    for comparison in task.comparisons:
        if comparison.metric == task.metric and {comparison.a, comparison.b} == {TUNED, arm}:
            return comparison if comparison.b == TUNED else _turned(comparison)
    return None


def main_summary(arm: Arm, task: TaskResult) -> Summary | None:
    """Return the arm's summary in the deciding metric."""
    return arm.summaries.get(task.metric)


def test_blocks(task: TaskResult) -> tuple[Block, ...]:
    """Return the arms on test: plots with intervals, then the table."""
    if not task.arms:
        return (Note("No arm was scored on test."),)
    metrics = _shared_metrics(task.arms)
    plots = tuple(_arms_plot(task, metric) for metric in metrics[:2])
    return (Plots(plots), _arms_table(task, metrics))


def ladder_blocks(task: TaskResult) -> tuple[Block, ...]:
    """Return the prompting ladder: one plot a number of shots, and every rung in a table."""
    if not task.ladder:
        return (Note("No prompting ladder was climbed."),)
    best = next((rung for rung in task.ladder if rung.best), None)
    extent = spread(rung.summary for rung in task.ladder)
    shots = sorted({rung.shots for rung in task.ladder})
    plots = tuple(_ladder_plot(task, each, best=best, extent=extent) for each in shots)
    title = f"All {fmt.plural(len(task.ladder), 'rung')} as a table"
    return (Note(_bar(best)), Plots(plots), Fold(title, _ladder_table(task)))


def wording_blocks(task: TaskResult) -> tuple[Block, ...]:
    """Return how far each arm depends on the wording of the template."""
    if not task.templates:
        return (Note("Only one template was scored on test."),)
    rows = tuple(dict.fromkeys(score.template for score in task.templates))
    series = _ordered((score.arm for score in task.templates), _ARMS)
    dots = tuple(
        _dot(score.template, series=arm_name(task, score.arm), summary=score.summary)
        for score in task.templates
    )
    metric = task.templates[0].summary.metric
    plot = DotPlot(
        title=f"{_capital(metric)} on test by template",
        description=f"{len(rows)} templates, each scored on the test rows with "
        f"{' and '.join(arm_name(task, name) for name in series)}. The table gives the figures.",
        axis=axis_name(metric),
        unit=fmt.style(metric).unit,
        rows=rows,
        series=tuple(arm_name(task, name) for name in series),
        dots=dots,
        extent=spread(score.summary for score in task.templates),
    )
    return (Plots((plot,)), _wording_table(task, series))


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
        "Predictions a second",
    )
    rows = tuple(_cost_row(arm) for arm in task.arms)
    columns = (Column("Arm", Align.TEXT), *map(Column, titles))
    note = (
        "Time to make is choosing the prompt or training; peak memory is the process's up to "
        "then; to store is what is kept beside the base model."
    )
    return (Table("Costs of each arm", columns, rows, note),)


def arm_name(task: TaskResult, name: str) -> str:
    """Return an arm's label for people, or its name where no such arm was tested."""
    arm = find_arm(task, name)
    return arm.label if arm else name.replace("_", " ")


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


def verdict_word(comparison: Comparison, *, subject: str) -> str:
    """Say in words what a comparison's interval allows to be said of `subject`, its second arm."""
    found = fmt.reading(comparison)
    if found is Reading.UNCLEAR:
        return "no clear difference"
    return f"{subject} {found}".strip()


def _turned(comparison: Comparison) -> Comparison:
    return replace(
        comparison,
        a=comparison.b,
        b=comparison.a,
        difference=-comparison.difference,
        low=-comparison.high,
        high=-comparison.low,
        a_only=comparison.b_only,
        b_only=comparison.a_only,
    )


def _shared_metrics(arms: Sequence[Arm]) -> list[str]:
    return list(dict.fromkeys(metric for arm in arms for metric in arm.summaries))


def _capital(metric: str) -> str:
    label = fmt.style(metric).label
    return label[:1].upper() + label[1:]


def _ordered(names: Iterable[str], known: Sequence[str]) -> tuple[str, ...]:
    found = dict.fromkeys(names)
    return tuple([name for name in known if name in found] + [n for n in found if n not in known])


def _dot(row: str, *, series: str, summary: Summary, chosen: bool = False) -> Dot:
    text = f"{row}, {series}: {fmt.interval(summary)}"
    return Dot(row, series, summary.mean, summary.low, summary.high, text, chosen)


def _arms_plot(task: TaskResult, metric: str) -> DotPlot:
    arms = [arm for arm in task.arms if metric in arm.summaries]
    dots = tuple(
        replace(
            _dot(arm.label, series=arm.name, summary=arm.summaries[metric]),
            text=f"{arm.label}: {fmt.interval(arm.summaries[metric])}",
        )
        for arm in arms
    )
    return DotPlot(
        title=f"{_capital(metric)} on test",
        description=". ".join(dot.text for dot in dots) + ".",
        axis=axis_name(metric),
        unit=fmt.style(metric).unit,
        rows=tuple(arm.label for arm in arms),
        series=tuple(dict.fromkeys(arm.name for arm in arms)),
        dots=dots,
        extent=spread(arm.summaries[metric] for arm in arms),
    )


def _arms_table(task: TaskResult, metrics: Sequence[str]) -> Table:
    generated = any(arm.stopped_share is not None for arm in task.arms)
    titles = [_capital(metric) for metric in metrics] + ["Tuned minus this arm", "McNemar p"]
    titles += ["Stopped by itself"] * generated
    titles += ["Tokens a prediction", "Time to make", "Peak memory", "To store"]
    columns = (Column("Arm", Align.TEXT), *map(Column, titles))
    rows = tuple(_arm_row(task, arm, metrics=metrics, generated=generated) for arm in task.arms)
    return Table(f"All arms on the same {_test_rows(task)}", columns, rows, _detectable_note(task))


def _arm_row(
    task: TaskResult, arm: Arm, *, metrics: Sequence[str], generated: bool
) -> tuple[Cell, ...]:
    cells = [Cell(arm.label, arm.template, Tone.CHOSEN if arm.name == TUNED else Tone.PLAIN)]
    cells += [_summary_cell(arm.summaries.get(metric)) for metric in metrics]
    cells += _comparison_cells(task, arm)
    if generated:
        share = arm.stopped_share
        cells.append(Cell(fmt.MISSING if share is None else fmt.percent(share)))
    costs = arm.costs
    cells += [
        Cell(fmt.tokens(costs.tokens_per_prediction) if arm.template else fmt.MISSING),
        Cell(fmt.seconds(costs.seconds)),
        Cell(fmt.size(costs.peak_memory_bytes)),
        Cell(fmt.size(costs.bytes_on_disk)),
    ]
    return tuple(cells)


def _summary_cell(summary: Summary | None) -> Cell:
    if summary is None:
        return Cell(fmt.MISSING)
    unscored = f"{fmt.count(summary.unscored)} unscored" if summary.unscored else ""
    return Cell(fmt.interval(summary), unscored)


def _comparison_cells(task: TaskResult, arm: Arm) -> list[Cell]:
    if arm.name == TUNED:
        return [Cell(fmt.MISSING), Cell(fmt.MISSING)]
    found = against_tuned(task, arm.name)
    if found is None:
        return [Cell("not compared"), Cell(fmt.MISSING)]
    word = verdict_word(found, subject="tuned is")
    change = f"{fmt.change(found)} ({fmt.change_interval(found)})"
    pairs = f"{found.b_only} : {found.a_only}" if found.b_only + found.a_only else ""
    return [Cell(change, word, TONES[fmt.reading(found)]), Cell(fmt.p_value(found.p_value), pairs)]


def _test_rows(task: TaskResult) -> str:
    rows = fmt.plural(task.rows.get("test", 0), "test row")
    groups = task.groups.get("test", 0)
    return f"{rows} ({fmt.plural(groups, 'group')})" if groups else rows


def _detectable_note(task: TaskResult) -> str:
    note = (
        "In brackets the 95 % interval. Differences are paired, row by row; under p stand the rows "
        "that the tuned model alone had right, and those that the other arm alone had right."
    )
    found = against_tuned(task, PROMPTING)
    if found is None or not found.smallest_detectable:
        return note
    size = fmt.size_of_change(found.smallest_detectable, found.metric)
    return f"{note} This test set shows a difference of {size} with 80 % power."


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
    top = max(rungs, key=lambda rung: rung.summary.mean)
    return DotPlot(
        title=f"{shots}-shot",
        description=f"{len(rungs)} rungs; the highest is {fmt.interval(top.summary)} with "
        f"{_rung_name(top)}. The table below the plots gives every figure.",
        axis=axis_name(metric),
        unit=fmt.style(metric).unit,
        rows=tuple(dict.fromkeys(rung.template for rung in task.ladder)),
        series=_ordered((rung.scoring for rung in task.ladder), _SCORINGS),
        dots=tuple(
            _dot(rung.template, series=rung.scoring, summary=rung.summary, chosen=rung.best)
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
        Column(_capital(metric)),
        Column("Tokens a prompt"),
        Column("of them examples"),
    )
    sign = 1 if task.ladder[0].summary.higher_is_better else -1
    rungs = sorted(task.ladder, key=lambda rung: -sign * rung.summary.mean)
    rows = tuple(_rung_row(rung) for rung in rungs)
    n = task.ladder[0].summary.scored
    return Table(f"Every rung on {fmt.plural(n, 'validation row')}", columns, rows)


def _rung_row(rung: Rung) -> tuple[Cell, ...]:
    tone = Tone.CHOSEN if rung.best else Tone.PLAIN
    return (
        Cell(rung.template, "the bar" if rung.best else "", tone),
        Cell(str(rung.shots)),
        Cell(rung.scoring),
        _summary_cell(rung.summary),
        Cell(fmt.tokens(rung.prompt_tokens)),
        Cell(fmt.tokens(rung.exemplar_tokens)),
    )


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
        Cell(fmt.size(costs.bytes_on_disk)),
        Cell(fmt.tokens(costs.tokens_per_prediction) if arm.template else fmt.MISSING),
        Cell(fmt.rate(costs.predictions_per_second)),
    )
