"""The report of `instil sequence`: the matrix of stages by tasks, and backward transfer."""

from __future__ import annotations

from instil import format as fmt
from instil.compare.verdict import Outcome, outcome, outcomes, shows_nothing
from instil.format import NBSP
from instil.report.page import (
    Axis,
    Block,
    Cell,
    Facts,
    Heading,
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
    chosen_cell,
    difference_cell,
    extent,
    marks_in_words,
    score_axis,
    study_report,
    verdict_word,
)
from instil.results.names import MEAN_SCORE
from instil.studyresults import SequenceArm, SequenceStudy


def sequence_report(study: SequenceStudy) -> Report:
    """Return the report of a sequence; nothing in it is escaped yet."""
    seeds = fmt.seeds(study.seeds)
    matrices: list[Block] = []
    for arm in study.arms:
        matrices += [Heading(arm.label)] if len(study.arms) > 1 else []
        matrices += [Plots((_plot(study, arm),)), _matrix(study, arm)]
    facts = {"Base model": study.model}
    for task, parts in study.rows.items():
        facts[task] = ", ".join(f"{part} {fmt.count(n)}" for part, n in parts.items())
    facts["Seeds"] = seeds
    facts |= {f"Training, {arm.label}": fmt.seconds(arm.seconds) for arm in study.arms}
    facts["All stages together"] = fmt.seconds(study.seconds)
    guard: Block = Note(
        "Not measured: no guard task is unrelated to all tasks, or forgetting is off."
    )
    if any(arm.text is not None or arm.points is not None for arm in study.arms):
        changes = [
            (arm.label, *(difference_cell(c, words=_PLAIN) for c in (arm.text, arm.points)))
            for arm in study.arms
        ]
        titles = ("Arm", "General text, nats a token", "Guard tasks, points")
        guard = table("After the last stage minus the base model", titles, changes)
    return study_report(
        study,
        subtitle=f"{study.model}: {', then '.join(study.tasks)}; {seeds}",
        verdict=sequence_verdict(study),
        sections=[
            Section(
                "matrix",
                "Every task after every stage",
                "Matrix",
                "Each stage starts from the model of the one before, merged into one. The same "
                "test rows of a task are asked after every stage, zero-shot, through its first "
                "template.",
                tuple(matrices),
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
                "The guard after the last stage minus the base model, on the same rows.",
                (guard,),
            ),
        ],
        made=[Facts("Study", facts)],
    )


def stage_names(study: SequenceStudy) -> tuple[str, ...]:
    """Return what the lines of the matrix are called."""
    return ("base model", *(f"after {task}" for task in study.tasks))


def sequence_verdict(study: SequenceStudy) -> tuple[str, ...]:
    """Return what later tasks did to earlier ones, and what replay changed."""
    plain = study.arms[0]
    shown = list(zip(plain.by_task, outcomes(plain.by_task), strict=True))
    parts = [
        f"{change.b} {verb}: {fmt.change_with_interval(change)}"
        for kind, verb in ((Outcome.WORSE, "got worse"), (Outcome.BETTER, "got better"))
        for change, each in shown
        if each is kind
    ]
    if level := [change for change, each in shown if each is Outcome.NOT_SHOWN]:
        most = max(level, key=lambda change: change.smallest_detectable)
        size = fmt.size_of_change(most.smallest_detectable, most.metric)
        could = f" (the test rows could show {size})" if most.smallest_detectable else ""
        if shows_nothing(most):
            could = " (of too few rows or seeds to show any)"
        parts.append(f"no change is shown for {', '.join(change.b for change in level)}{could}")
    word = {
        Outcome.WORSE: "later tasks cost earlier ones",
        Outcome.BETTER: "later tasks helped earlier ones",
        Outcome.NOT_SHOWN: "no effect of later tasks on earlier ones is shown",
    }[outcome(plain.backward)]
    sentences = [
        f"Through {', then '.join(study.tasks)}: {word}, backward transfer "
        f"{fmt.change_with_interval(plain.backward)}; {'; '.join(parts)}."
    ]
    for arm in study.arms[1:]:
        backward, average = arm.backward_against, arm.average_against
        if backward is not None and average is not None:
            words = [verdict_word(outcome(each), subject="it is") for each in (backward, average)]
            sentences.append(
                f"With a replay of {100 * study.replay:g}{NBSP}%, backward transfer is "
                f"{fmt.change_with_interval(arm.backward)}: {words[0]} "
                f"({fmt.change_with_interval(backward)} against none); the average after the last "
                f"stage: {words[1]} ({fmt.change_with_interval(average)})."
            )
    if study.overlap:
        counts = ", ".join(f"{task} {count}" for task, count in study.overlap.items())
        sentences.append(
            f"Training rows that repeat a row which another task is judged on: {counts}. What one "
            "task did to the other is partly that."
        )
    return tuple(sentences)


def _plot(study: SequenceStudy, arm: SequenceArm) -> Plot:
    marks = tuple(
        Mark(
            task,
            stage,
            score.mean,
            f"{task}, {name}: {fmt.interval(score)}",
            y_ends=(score.low, score.high),
        )
        for stage, (name, line) in enumerate(zip(stage_names(study), arm.matrix, strict=True))
        for task, score in zip(study.tasks, line, strict=True)
    )
    metric = study.metrics[0] if len(set(study.metrics)) == 1 else MEAN_SCORE
    return Plot(
        f"Score on test by stage, {arm.label}",
        marks_in_words(marks),
        Axis("stages done", extent=extent(mark.x for mark in marks)),
        score_axis(metric, (score for line in arm.matrix for score in line)),
        marks=marks,
        series=study.tasks,
        lines=tuple(
            Line(tuple(Point(mark.x, mark.y) for mark in marks if mark.series == task))
            for task in study.tasks
        ),
        height=230,
    )


def _matrix(study: SequenceStudy, arm: SequenceArm) -> Table:
    metrics = zip(study.tasks, study.metrics, strict=True)
    titles = ["", *(f"{task}, {fmt.style(metric).label}" for task, metric in metrics)]
    rows: list[list[Cell | str]] = []
    for stage, (name, line) in enumerate(zip(stage_names(study), arm.matrix, strict=True)):
        own = [stage == n + 1 for n in range(len(line))]
        cells = zip(line, own, strict=True)
        rows.append(
            [
                name,
                *(chosen_cell(fmt.interval(c), ["its own stage" * o], chosen=o) for c, o in cells),
            ]
        )
    average = fmt.interval(arm.average)
    note = f"In brackets the 95 % interval. After the last stage: {average} on average."
    return table("Stages by tasks", titles, rows, note)


def _transfer_table(study: SequenceStudy) -> Table:
    rows = [
        (
            arm.label,
            difference_cell(arm.backward, words=_PLAIN),
            ", ".join(fmt.signed(100 * each, 1) for each in arm.backward_by_seed),
            *(
                difference_cell(change, shown, words=CHANGES)
                for change, shown in zip(arm.by_task, outcomes(arm.by_task), strict=True)
            ),
            difference_cell(arm.backward_against, words=_PLAIN),
            fmt.interval(arm.average),
            difference_cell(arm.average_against, words=_PLAIN),
        )
        for arm in study.arms
    ]
    note = (
        "In brackets the 95 % interval; differences are paired, by row and by seed. The tasks of "
        "an arm are corrected together (Holm)."
    )
    titles = ["Arm", "Backward transfer", "Seed by seed, points", *study.tasks[:-1]]
    titles += ["Minus none", "Average after the last stage", "Minus none"]
    return table("After the last stage minus after its own", titles, rows, note)


_PLAIN = {each: each.value for each in Outcome}
