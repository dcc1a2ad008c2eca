"""The report of `instil methods`: score against forgetting, arm by arm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from instil import format as fmt
from instil.compare.interpolation import TOLERANCE
from instil.compare.verdict import Outcome, outcome, shows_nothing
from instil.format import NBSP, Unit
from instil.report.page import (
    Axis,
    Block,
    Cell,
    Facts,
    Line,
    Mark,
    Note,
    Plot,
    Plots,
    Point,
    Report,
    Section,
    Table,
    table,
)
from instil.report.parts import (
    CHANGES,
    USE,
    axis_name,
    capital,
    chosen_cell,
    difference_cell,
    extent,
    marks_in_words,
    outcomes_by,
    score_axis,
    study_report,
    use_cells,
)
from instil.results.names import PROMPTING, TEXT
from instil.studyresults import MethodArm, MethodsStudy
from instil.types import Comparison

MOST = 0.5
"""The share of the reference arm's loss that is most of it."""


def methods_report(study: MethodsStudy) -> Report:
    """Return the report of a study of methods; nothing in it is escaped yet."""
    rows = fmt.plural(study.rows.get("test", 0), "test row")
    seeds = fmt.seeds(study.seeds)
    plots = [plot for plot in (_pareto(study, "text"), _pareto(study, "points")) if plot]
    varies = "Intervals are over rows and seeds."
    if len(study.seeds) == 1:
        varies = "One seed says nothing about what another would have given."
    facts = {
        "Base model": study.model,
        "Rows": ", ".join(f"{part} {fmt.count(n)}" for part, n in study.rows.items()),
        "Seeds": ", ".join(map(str, study.seeds)),
        "All runs together": fmt.seconds(study.seconds),
    }
    changes = {arm.label: "; ".join(arm.changes) or "-" for arm in study.arms}
    costs = [
        (
            arm.label,
            fmt.parameters(arm.costs.trainable_parameters),
            *use_cells(arm.costs),
            fmt.tokens(arm.costs.tokens_per_prediction),
            _thousand(arm),
        )
        for arm in study.arms
    ]
    titles = ("Arm", "Trained weights", *USE, "Tokens a prediction", "A thousand predictions")
    return study_report(
        study,
        subtitle=f"{study.model}, {', '.join(study.tasks)}, {rows}, {seeds}",
        verdict=methods_verdict(study),
        sections=[
            Section(
                "pareto",
                "Score against forgetting",
                "Pareto",
                "Up is a higher score on test, left is less forgotten. The dashed line joins the "
                "arms that no other beats on both, by their means alone.",
                (
                    Plots(tuple(plots))
                    if plots
                    else Note("Forgetting was not measured: forgetting.tasks is none."),
                ),
            ),
            Section(
                "arms",
                "All arms",
                "Arms",
                f"On the same {rows}, {seeds}. {varies}",
                (_score_table(study),),
            ),
            Section(
                "forgetting",
                "What was forgotten",
                "Forgetting",
                "The same guard rows before and after, in every arm and with every seed.",
                (_forgetting_block(study),),
            ),
            Section(
                "costs",
                "Costs",
                "Costs",
                "Time to make is training (or choosing the prompt); a thousand predictions take "
                "what was measured on the test rows. What the base model said was asked once "
                "for all arms.",
                (table("What each arm costs; means over seeds", titles, costs),),
            ),
        ],
        made=[Facts("Study", facts), Facts("What each arm changes in the recipe", changes)],
    )


def _pareto(study: MethodsStudy, which: Literal["text", "points"]) -> Plot | None:
    """Return score against loss; None where there are not two arms with both."""
    sign = -1 if which == "points" else 1
    marks = []
    for arm in study.arms:
        change = arm.text if which == "text" else arm.points
        if arm.trained and change is None:
            return None
        # Prompting changes nothing, so that it has no interval along x.
        low, high = sorted((sign * change.low, sign * change.high)) if change else (0.0, 0.0)
        forgot = fmt.change_with_interval(change) if change else "nothing changed"
        marks.append(
            Mark(
                arm.label,
                sign * change.difference if change else 0.0,
                arm.score.mean,
                f"{arm.label}: {fmt.interval(arm.score)}, {forgot}",
                x_ends=(low, high) if change else None,
                y_ends=(arm.score.low, arm.score.high),
            )
        )
    if len(marks) < 2:
        return None
    title, measured, unit = {
        "text": ("Score and general text", "rise on general text, nats a token", Unit.NATS),
        "points": ("Score and guard tasks", "lost on the guard tasks, points", Unit.POINTS),
    }[which]
    ends = (end for mark in marks for end in (mark.x, *(mark.x_ends or ())))
    return Plot(
        title,
        marks_in_words(marks),
        Axis(measured, unit, extent(ends)),
        score_axis(study.metric, (arm.score for arm in study.arms)),
        marks=tuple(marks),
        series=tuple(arm.label for arm in study.arms),
        lines=(Line(front(marks)),),
        height=230,
    )


def front(marks: Sequence[Mark]) -> tuple[Point, ...]:
    """Return the points that no other has both above and left of itself, from left to right.

    >>> a, b, c = (Mark("", x, y) for x, y in ((0.0, 0.5), (0.1, 0.9), (0.2, 0.8)))
    >>> [point.x for point in front([a, b, c])]
    [0.0, 0.1]
    """
    points: list[Point] = []
    for mark in sorted(marks, key=lambda m: (m.x, -m.y)):
        if not points or mark.y > points[-1].y:
            points.append(Point(mark.x, mark.y))
    return tuple(points)


def _score_table(study: MethodsStudy) -> Table:
    shown = outcomes_by({arm.name: arm.score_against for arm in study.arms})
    rows = []
    for arm in study.arms:
        against = arm.score_against
        could = fmt.MISSING
        if against and shows_nothing(against):
            could = "nothing: too few rows or seeds"
        elif against and against.smallest_detectable:
            could = fmt.size_of_change(against.smallest_detectable, against.metric)
        is_reference = arm.name == study.reference
        rows.append(
            (
                chosen_cell(arm.label, ["; ".join(arm.changes)[:120]], chosen=is_reference),
                fmt.interval(arm.score),
                ", ".join(fmt.figure(each, study.metric) for each in arm.by_seed),
                difference_cell(against, shown.get(arm.name), words="it is"),
                could,
            )
        )
    note = (
        "In brackets the 95 % interval; differences are paired, by row and by seed. A difference "
        "is named only where its interval excludes zero, after Holm's correction over all arms."
    )
    minus = f"Minus {_reference(study).label}"
    titles = ("Arm", axis_name(study.metric), "Seed by seed", minus, "Could show")
    return table("Score on test", titles, rows, note)


def _forgetting_block(study: MethodsStudy) -> Block:
    arms = [arm for arm in study.arms if arm.trained and (arm.text or arm.points)]
    if not arms:
        return Note("Not measured.")
    text = outcomes_by({arm.name: arm.text for arm in arms})
    points = outcomes_by({arm.name: arm.points for arm in arms})
    text_against = outcomes_by({arm.name: arm.text_against for arm in arms})
    points_against = outcomes_by({arm.name: arm.points_against for arm in arms})

    def change(of_arm: Comparison | None, shown: Outcome | None) -> Cell:
        return difference_cell(of_arm, shown, words=CHANGES, has_unit=False)

    rows = []
    for arm in arms:
        picked = (f"{name}: {100 * share:.0f}{NBSP}%" for name, share in arm.picked.items())
        rows.append(
            (
                Cell(arm.label, ", ".join(picked)),
                change(arm.text, text.get(arm.name)),
                difference_cell(arm.text_against, text_against.get(arm.name), words="it is"),
                change(arm.points, points.get(arm.name)),
                difference_cell(arm.points_against, points_against.get(arm.name), words="it is"),
            )
        )
    note = (
        f"Guard tasks: the mean over {', '.join(g for g in study.guard if g != TEXT)}, "
        "each in its own metric. In brackets the 95 % interval, paired by row and by seed; each "
        "column is corrected over its arms (Holm)."
    )
    minus = f"Minus {_reference(study).label}"
    titles = ("Arm", "General text, nats a token", minus, "Guard tasks, points", minus)
    return table("After minus before", titles, rows, note)


def _thousand(arm: MethodArm) -> str:
    """Return how long a thousand predictions take."""
    speed = arm.costs.predictions_per_second
    return fmt.seconds(1000 / speed) if speed else fmt.MISSING


def _reference(study: MethodsStudy) -> MethodArm:
    """Return the arm that the others are compared with."""
    return next(arm for arm in study.arms if arm.name == study.reference)


# The verdict.


def methods_verdict(study: MethodsStudy) -> tuple[str, ...]:
    """Return what the study shows, in a few sentences."""
    forgot = "Forgetting was not measured on general text."
    if arms := {arm.name: arm for arm in study.arms if arm.trained and arm.text is not None}:
        shown = outcomes_by({name: arm.text for name, arm in arms.items()})
        parts = [
            f"{arm.label} lost {fmt.change(arm.text).lstrip('+')} per token "
            f"({fmt.change_interval(arm.text)})"
            for name, arm in arms.items()
            if arm.text and shown[name] is Outcome.WORSE
        ]
        if kept := [arm for name, arm in arms.items() if shown[name] is not Outcome.WORSE]:
            parts.append(f"no loss is shown for {_names(kept)}")
        forgot = f"General text: {'; '.join(parts)}."
    # Other models, prompted, beside the tuned one, with what predictions take.
    shown = outcomes_by({arm.name: arm.score_against for arm in study.arms})
    reference, beside = _reference(study), []
    tuned = f"{study.model} tuned ({reference.label})"
    for arm in study.arms:
        if arm.trained or arm.name == PROMPTING:
            continue
        what = f"{arm.label} is {shown[arm.name]} than {tuned}"
        if shown[arm.name] is Outcome.NOT_SHOWN:
            what = f"no difference is shown between {arm.label} and {tuned}"
        beside.append(
            f"{capital(what)}: {fmt.figure(arm.score.mean, study.metric)} against "
            f"{fmt.figure(reference.score.mean, study.metric)}; a thousand predictions take "
            f"{_thousand(arm)} against {_thousand(reference)}."
        )
    others = [" ".join(beside)] if beside else []
    return (_scores_sentence(study), forgot, *_recovery(study), *others)


def _names(arms: Sequence[MethodArm]) -> str:
    return ", ".join(arm.label for arm in arms)


def _scores_sentence(study: MethodsStudy) -> str:
    shown = outcomes_by({arm.name: arm.score_against for arm in study.arms})
    reference = _reference(study)
    parts = [
        f"On {', '.join(study.tasks)}, {reference.label} reached {fmt.interval(reference.score)}"
    ]
    level = []
    for arm in study.arms:
        against = arm.score_against
        if against is None:
            continue
        if shown[arm.name] is Outcome.NOT_SHOWN:
            level.append((arm, against))
        else:
            size = fmt.change(against).lstrip("+" + fmt.MINUS)
            parts.append(
                f"{arm.label} is {shown[arm.name]} than that by {size} "
                f"({fmt.change_interval(against)})"
            )
    if level:
        could = "no more than its rows had in common"
        few = [each for _, each in level if shows_nothing(each)]
        known = [each for _, each in level if each.smallest_detectable and each not in few]
        if sizes := sorted(each.smallest_detectable for each in known):
            low, high = (fmt.size_of_change(size, study.metric) for size in (sizes[0], sizes[-1]))
            could = low if low == high else f"{low} to {high}"
        if few:
            could = f"{could}, and for some nothing" if known else "none: too few rows or seeds"
        names = _names([arm for arm, _ in level])
        parts.append(f"no difference from it is shown for {names} (this study could show {could})")
    return f"{'; '.join(parts)}; corrected for {fmt.plural(len(shown), 'comparison')}."


def _recovery(study: MethodsStudy) -> list[str]:
    """Say which arms give back most of what the reference arm lost on general text."""
    reference = _reference(study)
    others = [arm for arm in study.arms if arm.trained and arm.text_against is not None]
    if reference.text is None or not others:
        return []
    if outcome(reference.text) is not Outcome.WORSE:
        return [f"{reference.label} shows no loss on general text that others could give back."]
    shown = outcomes_by({arm.name: arm.text_against for arm in others})
    sentences = []
    for arm in others:
        text, score = arm.text_against, arm.score_against
        if text is None or score is None or shown[arm.name] is not Outcome.BETTER:
            continue
        share = -text.difference / reference.text.difference
        if share <= MOST or score.difference < -TOLERANCE:
            continue
        part = f"{100 * share:.0f}{NBSP}% of" if share <= 1 else "more than"
        sentences.append(
            f"{arm.label} gives back {part} what {reference.label} lost on general text "
            f"({fmt.change(text)} per token, {fmt.change_interval(text)}), at "
            f"{fmt.change(score)} of score ({fmt.change_interval(score)})."
        )
    none = (
        f"No arm is shown to give back most of what {reference.label} lost on general text at "
        "a score within half a point of it."
    )
    return sentences or [none]
