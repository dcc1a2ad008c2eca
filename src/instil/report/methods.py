"""The report of `instil methods`: score against forgetting, arm by arm."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from instil.compare.verdict import PROMPTING, Outcome, outcomes
from instil.report import format as fmt
from instil.report.format import NBSP, Unit
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
from instil.report.parts import TONES, axis_name, verdict_word
from instil.studyresults import MethodArm, MethodsStudy
from instil.types import Comparison

HALF_A_POINT = 0.005
"""What an arm may give up on the score and still count as keeping it."""
MOST = 0.5
"""The share of the reference arm's loss that is most of it."""


def methods_report(study: MethodsStudy) -> Report:
    """Return the report of a study of methods; nothing in it is escaped yet."""
    return Report(
        title=study.name,
        subtitle=f"{study.model}, {', '.join(study.tasks)}, "
        f"{fmt.plural(study.rows.get('test', 0), 'test row')}, {_seeds(study.seeds)}",
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


def methods_verdict(study: MethodsStudy) -> tuple[str, ...]:
    """Return what the study shows, in a few sentences."""
    return tuple(
        filter(
            None,
            (_scores_sentence(study), _forgot_sentence(study), *_recovery(study), _size(study)),
        )
    )


def trained_arms(study: MethodsStudy) -> list[MethodArm]:
    """Return the arms that were tuned, the reference arm among them."""
    return [arm for arm in study.arms if arm.trained]


def score_outcomes(study: MethodsStudy) -> dict[str, Outcome]:
    """Arm -> what its score against the reference arm's shows, corrected over all arms."""
    return _outcomes([(a.name, a.score_against) for a in study.arms])


def text_outcomes(study: MethodsStudy) -> dict[str, Outcome]:
    """Arm -> what its loss on general text against the reference arm's shows."""
    return _outcomes([(a.name, a.text_against) for a in study.arms])


def points_outcomes(study: MethodsStudy) -> dict[str, Outcome]:
    """Arm -> what its change on the guard tasks against the reference arm's shows."""
    return _outcomes([(a.name, a.points_against) for a in study.arms])


def _outcomes(found: Sequence[tuple[str, Comparison | None]]) -> dict[str, Outcome]:
    known = [(name, each) for name, each in found if each is not None]
    shown = outcomes([each for _, each in known])
    return {name: each for (name, _), each in zip(known, shown, strict=True)}


def _reference(study: MethodsStudy) -> MethodArm:
    return next(arm for arm in study.arms if arm.name == study.reference)


def _seeds(seeds: Sequence[int]) -> str:
    return f"{fmt.plural(len(seeds), 'seed')} ({', '.join(map(str, seeds))})"


# --- sentences ------------------------------------------------------------------------------------


def _scores_sentence(study: MethodsStudy) -> str:
    shown = score_outcomes(study)
    reference = _reference(study)
    parts = [
        f"On {', '.join(study.tasks)}, {reference.label} reached {fmt.interval(reference.score)}"
    ]
    level = []
    for arm in study.arms:
        if arm.score_against is None:
            continue
        if shown[arm.name] is Outcome.NOT_SHOWN:
            level.append(arm)
        else:
            parts.append(f"{arm.label} is {shown[arm.name]} than that by {_size_of(arm)}")
    if level:
        parts.append(
            f"no difference from it is shown for {_names(level)} (this study could show "
            f"{_detectable([a.score_against for a in level])})"
        )
    return f"{'; '.join(parts)}; corrected for {fmt.plural(len(shown), 'comparison')}."


def _size_of(arm: MethodArm) -> str:
    assert arm.score_against is not None
    found = arm.score_against
    return f"{fmt.change(found).lstrip('+' + fmt.MINUS)} ({fmt.change_interval(found)})"


def _names(arms: Sequence[MethodArm]) -> str:
    return ", ".join(arm.label for arm in arms)


def _detectable(found: Sequence[Comparison | None]) -> str:
    known = [each for each in found if each is not None and each.smallest_detectable]
    if not known:
        return "no more than its rows had in common"
    sizes = sorted(each.smallest_detectable for each in known)
    metric = known[0].metric
    low, high = (fmt.size_of_change(size, metric) for size in (sizes[0], sizes[-1]))
    return low if low == high else f"{low} to {high}"


def _forgot_sentence(study: MethodsStudy) -> str:
    arms = [arm for arm in trained_arms(study) if arm.text is not None]
    if not arms:
        return "Forgetting was not measured on general text."
    shown = _outcomes([(arm.name, arm.text) for arm in arms])
    lost = [arm for arm in arms if shown[arm.name] is Outcome.WORSE]
    kept = [arm for arm in arms if shown[arm.name] is not Outcome.WORSE]
    parts = [f"{arm.label} lost {_text(arm)}" for arm in lost]
    if kept:
        parts.append(f"no loss is shown for {_names(kept)}")
    return f"General text: {'; '.join(parts)}."


def _text(arm: MethodArm) -> str:
    assert arm.text is not None
    return f"{fmt.change(arm.text).lstrip('+')} per token ({fmt.change_interval(arm.text)})"


def _recovery(study: MethodsStudy) -> list[str]:
    """Say which arms give back most of what the reference arm lost on general text."""
    reference = _reference(study)
    others = [arm for arm in trained_arms(study) if arm.text_against is not None]
    if reference.text is None or not others:
        return []
    if outcomes([reference.text])[0] is not Outcome.WORSE:
        return [f"{reference.label} shows no loss on general text that others could give back."]
    shown = text_outcomes(study)
    found = [
        arm
        for arm in others
        if shown[arm.name] is Outcome.BETTER
        and _recovered(arm, reference) > MOST
        and arm.score_against is not None
        and arm.score_against.difference >= -HALF_A_POINT
    ]
    if not found:
        return [
            f"No arm is shown to give back most of what {reference.label} lost on general text at "
            "a score within half a point of it."
        ]
    return [_recovery_sentence(arm, reference) for arm in found]


def _recovered(arm: MethodArm, reference: MethodArm) -> float:
    assert arm.text_against is not None
    assert reference.text is not None
    return -arm.text_against.difference / reference.text.difference


def _recovery_sentence(arm: MethodArm, reference: MethodArm) -> str:
    assert arm.text_against is not None
    assert arm.score_against is not None
    share = f"{100 * _recovered(arm, reference):.0f}{NBSP}%"
    return (
        f"{arm.label} gives back {share} of what {reference.label} lost on general text "
        f"({fmt.change(arm.text_against)} per token, {fmt.change_interval(arm.text_against)}), at "
        f"{fmt.change(arm.score_against)} of score ({fmt.change_interval(arm.score_against)})."
    )


def _size(study: MethodsStudy) -> str:
    """Put another model, prompted, beside the tuned one, with what predictions take."""
    others = [arm for arm in study.arms if not arm.trained and arm.name != PROMPTING]
    reference = _reference(study)
    found = []
    for arm in others:
        word = score_outcomes(study)[arm.name]
        shown = {
            Outcome.BETTER: f"{arm.label} is better than {study.model} tuned ({reference.label})",
            Outcome.WORSE: f"{arm.label} is worse than {study.model} tuned ({reference.label})",
            Outcome.NOT_SHOWN: f"no difference is shown between {arm.label} and {study.model} "
            f"tuned ({reference.label})",
        }[word]
        found.append(
            f"{shown[:1].upper()}{shown[1:]}: {fmt.figure(arm.score.mean, study.metric)} against "
            f"{fmt.figure(reference.score.mean, study.metric)}; a thousand predictions take "
            f"{_thousand(arm)} against {_thousand(reference)}."
        )
    return " ".join(found)


def _thousand(arm: MethodArm) -> str:
    speed = arm.costs.predictions_per_second
    return fmt.seconds(1000 / speed) if speed else fmt.MISSING


# --- pictures and tables --------------------------------------------------------------------------


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
    forgot = f"{fmt.change(found)} ({fmt.change_interval(found)})" if found else "nothing changed"
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
    intro = f"On the same {rows}, {_seeds(study.seeds)}."
    if len(study.seeds) == 1:
        return f"{intro} One seed says nothing about what another would have given."
    return f"{intro} Intervals are over rows and seeds."


def _score_table(study: MethodsStudy) -> Table:
    reference = _reference(study)
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
    text = f"{fmt.change(found)} ({fmt.change_interval(found)})"
    return Cell(text, verdict_word(shown, subject=subject), TONES[shown])


def _forgetting_blocks(study: MethodsStudy) -> tuple[Block, ...]:
    arms = [arm for arm in trained_arms(study) if arm.text or arm.points]
    if not arms:
        return (Note("Not measured."),)
    reference = _reference(study)
    columns = (
        Column("Arm", Align.TEXT),
        Column("General text, nats a token"),
        Column(f"Minus {reference.label}"),
        Column("Guard tasks, points"),
        Column(f"Minus {reference.label}"),
    )
    text, points = text_outcomes(study), points_outcomes(study)
    own_text = _outcomes([(arm.name, arm.text) for arm in arms])
    own_points = _outcomes([(arm.name, arm.points) for arm in arms])
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
    word = {Outcome.WORSE: "a loss", Outcome.BETTER: "a gain"}.get(shown, "no change shown")
    return Cell(f"{fmt.change_figure(found)} ({fmt.change_interval(found)})", word, TONES[shown])


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
            Cell(_thousand(arm)),
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
