"""The report of `instil curve`: score by training rows, and whether more would pay."""

from __future__ import annotations

from instil import format as fmt
from instil.compare.verdict import Outcome, outcome, outcomes, shows_nothing
from instil.report.page import (
    Axis,
    Cell,
    Facts,
    KeyNumber,
    Line,
    Mark,
    Plot,
    Plots,
    Point,
    Reference,
    Report,
    Section,
    Table,
    table,
)
from instil.report.parts import (
    axis_name,
    difference_cell,
    difference_number,
    marks_in_words,
    score_axis,
    study_report,
)
from instil.studyresults import CurveStudy


def curve_report(study: CurveStudy) -> Report:
    """Return the report of a learning curve; nothing in it is escaped yet."""
    seeds = fmt.seeds(study.seeds)
    rows = fmt.plural(study.test_rows, "test row")
    varies = (
        "One seed says nothing about what another would have given: the intervals are over test "
        "rows alone."
        if len(study.seeds) == 1
        else "The intervals are over test rows and seeds; each seed draws its own training rows."
    )
    last = study.points[-1]
    numbers = [
        KeyNumber(
            f"With {fmt.count(last.asked)} rows",
            fmt.figure(last.score.mean, study.metric),
            fmt.ends(last.score),
        ),
        KeyNumber("Best prompting", fmt.figure(study.prompting.mean, study.metric)),
    ]
    if (step := study.last_step) is not None:
        shown = outcome(step)
        numbers.append(difference_number("The last step", step, shown, subject="more rows is"))
    facts = {
        "Base model": study.model,
        "Method": study.method,
        "Seeds": seeds,
        "All runs together": fmt.seconds(study.seconds),
    }
    intro = f"All runs are judged on the same {rows}. {varies}"
    blocks = (Plots((_plot(study),)), _table(study))
    return study_report(
        study,
        subtitle=f"{study.model}, {study.method}, {', '.join(study.tasks)}, {rows}, {seeds}",
        verdict=curve_verdict(study),
        key_numbers=numbers,
        sections=[Section("curve", "Score by training rows", "Curve", intro, blocks)],
        made=[Facts("Study", facts)],
    )


def curve_verdict(study: CurveStudy) -> tuple[str, ...]:
    """Return what the curve shows, and whether more rows would pay."""
    shown = dict(zip(study.points, _outcomes(study), strict=True))
    level, last = fmt.figure(study.prompting.mean, study.metric), study.points[-1]
    figures = f"{fmt.figure(last.score.mean, study.metric)} with {fmt.count(last.asked)} rows"
    corrected = f"corrected for {fmt.plural(len(shown), 'comparison')}"
    bar = f"No size is shown to be better than prompting ({level}; tuned {figures}), {corrected}."
    first = next((point for point in study.points if shown[point] is Outcome.BETTER), None)
    if first is not None:
        larger = [point for point in study.points if point.asked >= first.asked]
        from_there = all(shown[point] is Outcome.BETTER for point in larger)
        where = "from" if from_there else "with"
        rest = " on" if from_there and first is not last else ""
        bar = (
            f"Tuning is better than prompting ({level}) {where} {fmt.count(first.asked)} "
            f"rows{rest}: {fmt.change(first.against_prompting)} there "
            f"({fmt.change_interval(first.against_prompting)}), {figures}; {corrected}."
        )
    step = study.last_step
    if step is None:
        return (bar, "Would more rows pay? One size cannot tell: give two or more.")
    small, large = study.points[-2:]
    sizes = f"from {fmt.count(small.asked)} to {fmt.count(large.asked)} rows"
    change = fmt.change_with_interval(step)
    size = fmt.size_of_change(step.smallest_detectable, step.metric)
    could = f", which could show {size}" if step.smallest_detectable else ""
    could = ", and too few rows or seeds to show any" if shows_nothing(step) else could
    more = {
        Outcome.BETTER: f"The last step did: {sizes} the score got better by {change}; the curve "
        "was still rising.",
        Outcome.WORSE: f"The last step did not: {sizes} it got worse, {change}.",
        Outcome.NOT_SHOWN: f"No difference shown: {sizes} the score changed by {change}, on "
        f"{fmt.plural(step.n, 'test row')}{could}.",
    }[outcome(step)]
    return (bar, f"Would more rows pay? {more}")


def _outcomes(study: CurveStudy) -> tuple[Outcome, ...]:
    """Return what each size against prompting shows, corrected over all sizes."""
    return outcomes([point.against_prompting for point in study.points])


def _plot(study: CurveStudy) -> Plot:
    marks = tuple(
        Mark(
            "tuned",
            point.asked,
            point.score.mean,
            f"{fmt.count(point.asked)} rows: {fmt.interval(point.score)}",
            y_ends=(point.score.low, point.score.high),
        )
        for point in study.points
    )
    level = study.prompting
    return Plot(
        "Score on test by training rows",
        f"{marks_in_words(marks)} Prompting: {fmt.interval(level)}.",
        Axis(
            "rows to train on",
            extent=(marks[0].x / 1.12, marks[-1].x * 1.12),
            ticks={mark.x: fmt.count(mark.x) for mark in marks},
        ),
        score_axis(study.metric, [level, *(point.score for point in study.points)]),
        marks=marks,
        series=("tuned",),
        lines=(Line(tuple(Point(mark.x, mark.y) for mark in marks)),),
        level=Reference("prompting", level.mean, (level.low, level.high)),
        height=230,
    )


def _table(study: CurveStudy) -> Table:
    text = any(point.text for point in study.points)
    rows: list[list[Cell | str]] = []
    for point, shown in zip(study.points, _outcomes(study), strict=True):
        trained = f"{fmt.tokens(point.rows)} trained on: duplicates taken out"
        change = fmt.figures_with_interval(point.text) if point.text else fmt.MISSING
        rows.append(
            [
                Cell(
                    fmt.count(point.asked),
                    "" if point.rows == point.asked * len(study.tasks) else trained,
                ),
                fmt.interval(point.score),
                ", ".join(fmt.figure(each, study.metric) for each in point.by_seed),
                difference_cell(point.against_prompting, shown, words="tuned is"),
                *([change] * text),
                fmt.seconds(point.seconds),
            ]
        )
    rows.append(["prompting", fmt.interval(study.prompting), *([fmt.MISSING] * (3 + text))])
    note = (
        "In brackets the 95 % interval; differences are paired, by row and by seed. Against "
        "prompting corrected over all sizes (Holm). A fixed number of epochs gives small sizes "
        "fewer steps; with num_train_epochs: auto they go through their rows more often."
    )
    titles = ["Rows", axis_name(study.metric), "Seed by seed", "Minus prompting"]
    titles += ["General text, nats a token"] * text + ["Training"]
    return table("Score on test", titles, rows, note)
