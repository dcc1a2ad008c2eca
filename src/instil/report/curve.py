"""The report of `instil curve`: score by training rows, and whether more would pay."""

from __future__ import annotations

from instil import format as fmt
from instil.compare.verdict import Outcome, outcomes
from instil.format import Unit
from instil.report.page import (
    Align,
    Axis,
    Block,
    Cell,
    Column,
    Fact,
    Facts,
    KeyNumber,
    Mark,
    Plots,
    Point,
    PointPlot,
    Reference,
    Report,
    Section,
    Table,
)
from instil.report.parts import TONES, axis_name, verdict_word
from instil.studyresults import CurvePoint, CurveStudy
from instil.types import Comparison


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
    return Report(
        title=study.name,
        subtitle=f"{study.model}, {study.method}, {', '.join(study.tasks)}, {rows}, {seeds}",
        verdict=curve_verdict(study),
        key_numbers=_key_numbers(study),
        sections=(
            Section(
                "curve",
                "Score by training rows",
                "Curve",
                f"All runs are judged on the same {rows}. {varies}",
                (*_plot(study), _table(study)),
            ),
            Section("made", "How it was made", "How it was made", "", (_facts(study, seeds),)),
        ),
        footer=f"instil, format {study.format_version}.",
        brand="instil curve",
    )


def curve_verdict(study: CurveStudy) -> tuple[str, ...]:
    """Return what the curve shows, and whether more rows would pay."""
    return (_against_prompting(study), _more(study))


def point_outcomes(study: CurveStudy) -> tuple[Outcome, ...]:
    """Return what each size against prompting shows, corrected over all sizes."""
    return outcomes([_compared(point) for point in study.points])


def _compared(point: CurvePoint) -> Comparison:
    assert point.against_prompting is not None, "every run asks the untouched model"
    return point.against_prompting


def _against_prompting(study: CurveStudy) -> str:
    shown = point_outcomes(study)
    level = fmt.figure(study.prompting.mean, study.metric)
    last = study.points[-1]
    figures = f"{fmt.figure(last.score.mean, study.metric)} with {fmt.count(last.asked)} rows"
    better = [p for p, o in zip(study.points, shown, strict=True) if o is Outcome.BETTER]
    if not better:
        return (
            f"No size is shown to be better than prompting ({level}; tuned {figures}), corrected "
            f"for {fmt.plural(len(shown), 'comparison')}."
        )
    first = better[0]
    found = _compared(first)
    from_there = all(
        o is Outcome.BETTER
        for p, o in zip(study.points, shown, strict=True)
        if p.asked >= first.asked
    )
    where = "from" if from_there else "with"
    rest = " on" if from_there and first is not last else ""
    return (
        f"Tuning is better than prompting ({level}) {where} {fmt.count(first.asked)} rows{rest}: "
        f"{fmt.change(found)} there ({fmt.change_interval(found)}), {figures}; corrected for "
        f"{fmt.plural(len(shown), 'comparison')}."
    )


def _more(study: CurveStudy) -> str:
    found = study.last_step
    if found is None:
        return "Would more rows pay? One size cannot tell: give two or more."
    small, large = study.points[-2], study.points[-1]
    sizes = f"from {fmt.count(small.asked)} to {fmt.count(large.asked)} rows"
    change = fmt.change_with_interval(found)
    word = outcomes([found])[0]
    if word is Outcome.BETTER:
        return (
            f"Would more rows pay? The last step did: {sizes} the score got better by {change}; "
            "the curve was still rising."
        )
    if word is Outcome.WORSE:
        return f"Would more rows pay? The last step did not: {sizes} it got worse, {change}."
    size = fmt.size_of_change(found.smallest_detectable, found.metric)
    could = f", which could show {size}" if found.smallest_detectable else ""
    return (
        f"Would more rows pay? No difference shown: {sizes} the score changed by {change}, on "
        f"{fmt.plural(found.n, 'test row')}{could}."
    )


def _key_numbers(study: CurveStudy) -> tuple[KeyNumber, ...]:
    last = study.points[-1]
    numbers = [
        KeyNumber(
            f"With {fmt.count(last.asked)} rows",
            fmt.figure(last.score.mean, study.metric),
            fmt.interval(last.score).partition("(")[2].rstrip(")"),
        ),
        KeyNumber("Best prompting", fmt.figure(study.prompting.mean, study.metric)),
    ]
    if study.last_step is not None:
        found = study.last_step
        shown = outcomes([found])[0]
        detail = f"{fmt.change_interval(found)}, {verdict_word(shown, subject='more rows is')}"
        numbers.append(KeyNumber("The last step", fmt.change(found), detail, TONES[shown]))
    return tuple(numbers)


def _plot(study: CurveStudy) -> tuple[Block, ...]:
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
    plot = PointPlot(
        title="Score on test by training rows",
        description=". ".join(mark.text for mark in marks)
        + f". Prompting: {fmt.interval(study.prompting)}.",
        x=Axis("rows to train on", Unit.PLAIN, ticks=tuple(float(p.asked) for p in study.points)),
        y=Axis(axis_name(study.metric), fmt.style(study.metric).unit),
        marks=marks,
        series=("tuned",),
        lines=(tuple(Point(mark.x, mark.y) for mark in marks),),
        reference=Reference(
            "prompting", study.prompting.mean, (study.prompting.low, study.prompting.high)
        ),
    )
    return (Plots((plot,)),)


def _table(study: CurveStudy) -> Table:
    text = any(point.text for point in study.points)
    columns = (
        Column("Rows", Align.TEXT),
        Column(axis_name(study.metric)),
        Column("Seed by seed"),
        Column("Minus prompting"),
        *([Column("General text, nats a token")] * text),
        Column("Training"),
    )
    rows = tuple(
        (
            Cell(fmt.count(point.asked), _trained(point, study)),
            Cell(fmt.interval(point.score)),
            Cell(", ".join(fmt.figure(each, study.metric) for each in point.by_seed)),
            Cell(
                fmt.change_with_interval(_compared(point)),
                verdict_word(shown, subject="tuned is"),
                TONES[shown],
            ),
            *([_text_cell(point.text)] * text),
            Cell(fmt.seconds(point.seconds)),
        )
        for point, shown in zip(study.points, point_outcomes(study), strict=True)
    )
    prompting = Cell("prompting"), Cell(fmt.interval(study.prompting))
    empty = tuple(Cell(fmt.MISSING) for _ in columns[2:])
    note = (
        "In brackets the 95 % interval; differences are paired, by row and by seed. Against "
        "prompting corrected over all sizes (Holm). The number of epochs is the same for every "
        "size, so small ones take fewer steps."
    )
    return Table("Score on test", columns, (*rows, (*prompting, *empty)), note)


def _trained(point: CurvePoint, study: CurveStudy) -> str:
    """Say how many rows were really trained on, where some were taken out as duplicates."""
    asked = point.asked * len(study.tasks)
    if point.rows == asked:
        return ""
    return f"{fmt.tokens(point.rows)} trained on: duplicates taken out"


def _text_cell(found: Comparison | None) -> Cell:
    if found is None:
        return Cell(fmt.MISSING)
    return Cell(fmt.figures_with_interval(found))


def _facts(study: CurveStudy, seeds: str) -> Facts:
    return Facts(
        "Study",
        (
            Fact("Base model", study.model),
            Fact("Method", study.method),
            Fact("Seeds", seeds),
            Fact("All runs together", fmt.seconds(study.seconds)),
        ),
    )
