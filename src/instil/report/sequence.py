"""The report of `instil sequence`: the matrix of stages by tasks, and backward transfer."""

from __future__ import annotations

from collections.abc import Sequence

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
    Heading,
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
from instil.results import MEAN_SCORE
from instil.studyresults import SequenceArm, SequenceStudy
from instil.types import Comparison


def sequence_report(study: SequenceStudy) -> Report:
    """Return the report of a sequence; nothing in it is escaped yet."""
    seeds = fmt.seeds(study.seeds)
    return Report(
        title=study.name,
        subtitle=f"{study.model}: {', then '.join(study.tasks)}; {seeds}",
        verdict=sequence_verdict(study),
        key_numbers=(),
        sections=(
            Section(
                "matrix",
                "Every task after every stage",
                "Matrix",
                "Each stage starts from the model of the one before, merged into one. The same "
                "test rows of a task are asked after every stage, zero-shot, through its first "
                "template.",
                _matrix_blocks(study),
            ),
            Section(
                "transfer",
                "Backward transfer",
                "Transfer",
                "After the last stage minus after its own, a mean over all tasks but the last "
                "(Lopez-Paz and Ranzato 2017). Below zero: later tasks cost it that much.",
                (_transfer_table(study),),
            ),
            Section(
                "forgetting",
                "What was forgotten of other things",
                "Forgetting",
                "The guard after the last stage minus the untouched model, on the same rows.",
                (_guard_table(study),),
            ),
            Section("made", "How it was made", "How it was made", "", (_facts(study, seeds),)),
        ),
        footer=f"instil, format {study.format_version}.",
        brand="instil sequence",
    )


def stage_names(study: SequenceStudy) -> tuple[str, ...]:
    """Return what the lines of the matrix are called."""
    return ("untouched model", *(f"after {task}" for task in study.tasks))


def sequence_verdict(study: SequenceStudy) -> tuple[str, ...]:
    """Return what later tasks did to earlier ones, and what replay changed."""
    plain = study.arms[0]
    sentences = [_transfer_sentence(study, plain)]
    for arm in study.arms[1:]:
        if arm.backward_against is not None and arm.average_against is not None:
            backward, average = arm.backward_against, arm.average_against
            sentences.append(
                f"With a replay of {100 * study.replay:g}\u00a0%, backward transfer is "
                f"{fmt.change_with_interval(arm.backward)}: {_shown(backward, 'it is')} "
                f"({fmt.change_with_interval(backward)} against none); the average after the last "
                f"stage: {_shown(average, 'it is')} ({fmt.change_with_interval(average)})."
            )
    if study.overlap:
        counts = ", ".join(f"{task} {count}" for task, count in study.overlap.items())
        sentences.append(
            f"Training rows that repeat a row which another task is judged on: {counts}. What one "
            "task did to the other is partly that."
        )
    return tuple(sentences)


def _transfer_sentence(study: SequenceStudy, arm: SequenceArm) -> str:
    shown = outcomes(arm.by_task)
    lost = [c for c, o in zip(arm.by_task, shown, strict=True) if o is Outcome.WORSE]
    gained = [c for c, o in zip(arm.by_task, shown, strict=True) if o is Outcome.BETTER]
    level = [c for c, o in zip(arm.by_task, shown, strict=True) if o is Outcome.NOT_SHOWN]
    parts = [f"{c.b} lost {fmt.change_with_interval(c)}" for c in lost]
    parts += [f"{c.b} gained {fmt.change_with_interval(c)}" for c in gained]
    if level:
        parts.append(f"no change is shown for {', '.join(c.b for c in level)}{_could(level)}")
    word = {
        Outcome.WORSE: "later tasks cost earlier ones",
        Outcome.BETTER: "later tasks helped earlier ones",
        Outcome.NOT_SHOWN: "no effect of later tasks on earlier ones is shown",
    }[outcomes([arm.backward])[0]]
    return (
        f"Through {', then '.join(study.tasks)}: {word}, backward transfer "
        f"{fmt.change_with_interval(arm.backward)}; {'; '.join(parts)}."
    )


def _could(found: Sequence[Comparison]) -> str:
    known = [c for c in found if c.smallest_detectable]
    if not known:
        return ""
    most = max(known, key=lambda c: c.smallest_detectable)
    size = fmt.size_of_change(most.smallest_detectable, most.metric)
    return f" (the test rows could show {size})"


def _shown(found: Comparison, subject: str) -> str:
    return verdict_word(outcomes([found])[0], subject=subject)


def _matrix_blocks(study: SequenceStudy) -> tuple[Block, ...]:
    found: list[Block] = []
    for arm in study.arms:
        if len(study.arms) > 1:
            found.append(Heading(arm.label))
        found += [Plots((_plot(study, arm),)), _matrix(study, arm)]
    return tuple(found)


def _plot(study: SequenceStudy, arm: SequenceArm) -> PointPlot:
    names = stage_names(study)
    marks = [
        Mark(
            task,
            stage,
            line[n].mean,
            f"{task}, {names[stage]}: {fmt.interval(line[n])}",
            y_ends=(line[n].low, line[n].high),
        )
        for stage, line in enumerate(arm.matrix)
        for n, task in enumerate(study.tasks)
    ]
    lines = tuple(
        tuple(Point(stage, line[n].mean) for stage, line in enumerate(arm.matrix))
        for n in range(len(study.tasks))
    )
    metric = study.metrics[0] if len(set(study.metrics)) == 1 else MEAN_SCORE
    return PointPlot(
        title=f"Score on test by stage, {arm.label}",
        description=". ".join(mark.text for mark in marks) + ".",
        x=Axis("stages done", Unit.PLAIN),
        y=Axis(axis_name(metric), fmt.style(metric).unit),
        marks=tuple(marks),
        series=study.tasks,
        lines=lines,
    )


def _matrix(study: SequenceStudy, arm: SequenceArm) -> Table:
    titles = [f"{t}, {fmt.style(m).label}" for t, m in zip(study.tasks, study.metrics, strict=True)]
    rows = tuple(
        (
            Cell(name),
            *(
                Cell(
                    fmt.interval(cell),
                    "its own stage" if stage == n + 1 else "",
                    Tone.CHOSEN if stage == n + 1 else Tone.PLAIN,
                )
                for n, cell in enumerate(line)
            ),
        )
        for stage, (name, line) in enumerate(zip(stage_names(study), arm.matrix, strict=True))
    )
    average = fmt.interval(arm.average)
    note = f"In brackets the 95 % interval. After the last stage: {average} on average."
    return Table("Stages by tasks", (Column("", Align.TEXT), *map(Column, titles)), rows, note)


def _transfer_table(study: SequenceStudy) -> Table:
    columns = (
        Column("Arm", Align.TEXT),
        Column("Backward transfer"),
        Column("Seed by seed, points"),
        *(Column(task) for task in study.tasks[:-1]),
        Column("Minus none"),
        Column("Average after the last stage"),
        Column("Minus none"),
    )
    rows = tuple(
        (
            Cell(arm.label),
            _cell(arm.backward),
            Cell(", ".join(fmt.signed(100 * each, 1) for each in arm.backward_by_seed)),
            *(_corrected(arm)),
            _cell(arm.backward_against),
            Cell(fmt.interval(arm.average)),
            _cell(arm.average_against),
        )
        for arm in study.arms
    )
    note = (
        "In brackets the 95 % interval; differences are paired, by row and by seed. The tasks of "
        "an arm are corrected together (Holm)."
    )
    return Table("After the last stage minus after its own", columns, rows, note)


def _corrected(arm: SequenceArm) -> list[Cell]:
    return [
        Cell(fmt.change_with_interval(found), CHANGES[shown], TONES[shown])
        for found, shown in zip(arm.by_task, outcomes(arm.by_task), strict=True)
    ]


def _cell(found: Comparison | None) -> Cell:
    if found is None:
        return Cell(fmt.MISSING)
    shown = outcomes([found])[0]
    return Cell(fmt.change_with_interval(found), shown.value, TONES[shown])


def _guard_table(study: SequenceStudy) -> Block:
    if all(arm.text is None and arm.points is None for arm in study.arms):
        return Note("Not measured: no guard task is unrelated to all tasks, or forgetting is off.")
    columns = (
        Column("Arm", Align.TEXT),
        Column("General text, nats a token"),
        Column("Guard tasks, points"),
    )
    rows = tuple((Cell(arm.label), _cell(arm.text), _cell(arm.points)) for arm in study.arms)
    return Table("After the last stage minus the untouched model", columns, rows)


def _facts(study: SequenceStudy, seeds: str) -> Facts:
    rows = tuple(
        Fact(task, ", ".join(f"{part} {fmt.count(n)}" for part, n in parts.items()))
        for task, parts in study.rows.items()
    )
    training = tuple(Fact(f"Training, {arm.label}", fmt.seconds(arm.seconds)) for arm in study.arms)
    return Facts(
        "Study",
        (
            Fact("Base model", study.model),
            *rows,
            Fact("Seeds", seeds),
            *training,
            Fact("All stages together", fmt.seconds(study.seconds)),
        ),
    )
