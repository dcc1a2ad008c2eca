"""The report of `instil methods`: score against forgetting, arm by arm."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from instil import format as fmt
from instil.compare.verdict import Outcome
from instil.format import NBSP, Unit
from instil.report.methods_verdict import (
    methods_verdict,
    points_outcomes,
    reference_arm,
    score_outcomes,
    shown_of,
    text_outcomes,
    thousand,
    trained_arms,
)
from instil.report.page import (
    Align,
    Axis,
    Block,
    Cell,
    Column,
    Fact,
    Facts,
    Mark,
    Note,
    Plots,
    Point,
    PointPlot,
    Report,
    Section,
    Table,
    Tone,
)
from instil.report.parts import CHANGES, TONES, axis_name, verdict_word
from instil.studyresults import MethodArm, MethodsStudy
from instil.types import Comparison


def methods_report(study: MethodsStudy) -> Report:
    """Return the report of a study of methods; nothing in it is escaped yet."""
    return Report(
        title=study.name,
        subtitle=f"{study.model}, {', '.join(study.tasks)}, "
        f"{fmt.plural(study.rows.get('test', 0), 'test row')}, {fmt.seeds(study.seeds)}",
        verdict=methods_verdict(study),
        key_numbers=(),
        sections=(
            Section(
                "pareto",
                "Score against forgetting",
                "Pareto",
                "Up is a higher score on test, left is less forgotten. The dashed line joins the "
                "arms that no other beats on both, by their means alone.",
                _pareto_blocks(study),
            ),
            Section("arms", "All arms", "Arms", _arms_intro(study), (_score_table(study),)),
            Section(
                "forgetting",
                "What was forgotten",
                "Forgetting",
                "The same guard rows before and after, in every arm and with every seed.",
                _forgetting_blocks(study),
            ),
            Section("costs", "Costs", "Costs", _COSTS, (_cost_table(study),)),
            Section("made", "How it was made", "How it was made", "", _made_blocks(study)),
        ),
        footer=f"instil, format {study.format_version}.",
        brand="instil methods",
    )


_COSTS = (
    "Time to make is training (or choosing the prompt); a thousand predictions take what was "
    "measured on the test rows. What the untouched model said was asked once for all arms."
)


def _pareto_blocks(study: MethodsStudy) -> tuple[Block, ...]:
    plots = [plot for plot in (_pareto(study, "text"), _pareto(study, "points")) if plot]
    if not plots:
        return (Note("Forgetting was not measured: forgetting.tasks is none."),)
    return (Plots(tuple(plots)),)


def _pareto(study: MethodsStudy, which: str) -> PointPlot | None:
    marks = []
    for arm in study.arms:
        found: Comparison | None = getattr(arm, which)
        if arm.trained and found is None:
            return None
        marks.append(_mark(arm, found, loss=which == "points"))
    if len(marks) < 2:
        return None
    text = which == "text"
    unit = Unit.NATS if text else Unit.POINTS
    title = "rise on general text, nats a token" if text else "lost on the guard tasks, points"
    return PointPlot(
        title="Score and general text" if text else "Score and guard tasks",
        description=". ".join(mark.text for mark in marks) + ".",
        x=Axis(title, unit),
        y=Axis(axis_name(study.metric), fmt.style(study.metric).unit),
        marks=tuple(marks),
        series=tuple(arm.label for arm in study.arms),
        lines=(front(marks),),
    )


def _mark(arm: MethodArm, found: Comparison | None, *, loss: bool) -> Mark:
    """Return an arm's point; prompting changes nothing, so that it has no interval along x."""
    sign = -1 if loss else 1
    x = sign * found.difference if found else 0.0
    ends = sorted((sign * found.low, sign * found.high)) if found else None
    forgot = fmt.change_with_interval(found) if found else "nothing changed"
    return Mark(
        arm.label,
        x,
        arm.score.mean,
        f"{arm.label}: {fmt.interval(arm.score)}, {forgot}",
        x_ends=(ends[0], ends[1]) if ends else None,
        y_ends=(arm.score.low, arm.score.high),
    )


def front(marks: Sequence[Mark]) -> tuple[Point, ...]:
    """Return the points that no other has both above and left of itself, from left to right.

    >>> a, b, c = (Mark("", x, y, "") for x, y in ((0.0, 0.5), (0.1, 0.9), (0.2, 0.8)))
    >>> [point.step for point in front([a, b, c])]
    [0.0, 0.1]
    """
    found: list[Point] = []
    for mark in sorted(marks, key=lambda m: (m.x, -m.y)):
        if not found or mark.y > found[-1].value:
            found.append(Point(mark.x, mark.y))
    assert all(a.value < b.value for a, b in pairwise(found))
    return tuple(found)


def _arms_intro(study: MethodsStudy) -> str:
    rows = fmt.plural(study.rows.get("test", 0), "test row")
    intro = f"On the same {rows}, {fmt.seeds(study.seeds)}."
    if len(study.seeds) == 1:
        return f"{intro} One seed says nothing about what another would have given."
    return f"{intro} Intervals are over rows and seeds."


def _score_table(study: MethodsStudy) -> Table:
    reference = reference_arm(study)
    shown = score_outcomes(study)
    columns = (
        Column("Arm", Align.TEXT),
        Column(axis_name(study.metric)),
        Column("Seed by seed"),
        Column(f"Minus {reference.label}"),
        Column("Could show"),
    )
    rows = []
    for arm in study.arms:
        found = arm.score_against
        chosen = Tone.CHOSEN if arm.name == study.reference else Tone.PLAIN
        rows.append(
            (
                Cell(arm.label, "; ".join(arm.changes)[:120], chosen),
                Cell(fmt.interval(arm.score)),
                Cell(", ".join(fmt.figure(each, study.metric) for each in arm.by_seed)),
                _against_cell(found, shown.get(arm.name), subject="it is"),
                Cell(
                    fmt.size_of_change(found.smallest_detectable, found.metric)
                    if found and found.smallest_detectable
                    else fmt.MISSING
                ),
            )
        )
    note = (
        "In brackets the 95 % interval; differences are paired, by row and by seed. A difference "
        "is named only where its interval excludes zero, after Holm's correction over all arms."
    )
    return Table("Score on test", columns, tuple(rows), note)


def _against_cell(found: Comparison | None, shown: Outcome | None, *, subject: str) -> Cell:
    if found is None or shown is None:
        return Cell(fmt.MISSING)
    text = fmt.change_with_interval(found)
    return Cell(text, verdict_word(shown, subject=subject), TONES[shown])


def _forgetting_blocks(study: MethodsStudy) -> tuple[Block, ...]:
    arms = [arm for arm in trained_arms(study) if arm.text or arm.points]
    if not arms:
        return (Note("Not measured."),)
    reference = reference_arm(study)
    columns = (
        Column("Arm", Align.TEXT),
        Column("General text, nats a token"),
        Column(f"Minus {reference.label}"),
        Column("Guard tasks, points"),
        Column(f"Minus {reference.label}"),
    )
    text, points = text_outcomes(study), points_outcomes(study)
    own_text = shown_of([(arm.name, arm.text) for arm in arms])
    own_points = shown_of([(arm.name, arm.points) for arm in arms])
    rows = tuple(
        (
            Cell(arm.label, _picked(arm)),
            _change_cell(arm.text, own_text.get(arm.name)),
            _against_cell(arm.text_against, text.get(arm.name), subject="it is"),
            _change_cell(arm.points, own_points.get(arm.name)),
            _against_cell(arm.points_against, points.get(arm.name), subject="it is"),
        )
        for arm in arms
    )
    note = (
        f"Guard tasks: the mean over {', '.join(g for g in study.guard if g != 'general text')}, "
        "each in its own metric. In brackets the 95 % interval, paired by row and by seed; each "
        "column is corrected over its arms (Holm)."
    )
    return (Table("After minus before", columns, rows, note),)


def _picked(arm: MethodArm) -> str:
    return ", ".join(f"{name}: {100 * share:.0f}{NBSP}%" for name, share in arm.picked.items())


def _change_cell(found: Comparison | None, shown: Outcome | None) -> Cell:
    if found is None or shown is None:
        return Cell(fmt.MISSING)
    return Cell(fmt.figures_with_interval(found), CHANGES[shown], TONES[shown])


def _cost_table(study: MethodsStudy) -> Table:
    titles = (
        "Trained weights",
        "Time to make",
        "Peak memory",
        "To store",
        "Tokens a prediction",
        "A thousand predictions",
    )
    rows = tuple(
        (
            Cell(arm.label),
            Cell(fmt.parameters(arm.costs.trainable_parameters)),
            Cell(fmt.seconds(arm.costs.seconds)),
            Cell(fmt.size(arm.costs.peak_memory_bytes)),
            Cell(fmt.size(arm.costs.bytes_on_disk)),
            Cell(fmt.tokens(arm.costs.tokens_per_prediction)),
            Cell(thousand(arm)),
        )
        for arm in study.arms
    )
    columns = (Column("Arm", Align.TEXT), *map(Column, titles))
    return Table("What each arm costs; means over seeds", columns, rows)


def _made_blocks(study: MethodsStudy) -> tuple[Block, ...]:
    facts = (
        Fact("Base model", study.model),
        Fact("Rows", ", ".join(f"{part} {fmt.count(n)}" for part, n in study.rows.items())),
        Fact("Seeds", ", ".join(map(str, study.seeds))),
        Fact("All runs together", fmt.seconds(study.seconds)),
    )
    arms = tuple(Fact(arm.label, "; ".join(arm.changes) or "-") for arm in study.arms)
    return (Facts("Study", facts), Facts("What each arm changes in the recipe", arms))
