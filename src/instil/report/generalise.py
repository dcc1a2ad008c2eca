"""The report of `instil generalise`: tasks of a cluster that was never trained on, zero-shot."""

from __future__ import annotations

from instil import format as fmt
from instil.compare.verdict import Outcome, outcome, outcomes
from instil.report.page import (
    Axis,
    Block,
    Cell,
    Facts,
    Plot,
    Plots,
    Reference,
    Report,
    Section,
    Table,
    table,
)
from instil.report.parts import (
    CHANGES,
    axis_name,
    difference_cell,
    extent,
    marks_in_words,
    outcomes_by,
    row_mark,
    study_report,
    summary_cell,
    verdict_word,
)
from instil.studyresults import GeneraliseArm, GeneraliseStudy


def generalise_report(study: GeneraliseStudy) -> Report:
    """Return the report of folds over clusters; nothing in it is escaped yet."""
    clusters = dict.fromkeys(task.cluster for task in study.tasks)
    seeds = fmt.seeds(study.seeds)
    blocks: list[Block] = [Plots((_plot(study),))]
    blocks += [_tasks_table(study, arm) for arm in study.arms]
    facts = {"Base model": study.model, "Folds": ", ".join(clusters), "Seeds": seeds}
    for task in study.tasks:
        facts[task.task] = f"{fmt.count(task.rows)} test rows, through template {task.template}"
    for arm in study.arms:
        told = [f"{fmt.count(round(arm.examples))} examples an epoch", fmt.seconds(arm.seconds)]
        facts[f"Training, {arm.label}"] = ", ".join([*told, *arm.changes])
        facts[f"Rows taken out, {arm.label}"] = (
            f"{fmt.count(arm.removed)} that repeat a judged row of the cluster left out"
        )
    facts["All trainings together"] = fmt.seconds(study.seconds)
    return study_report(
        study,
        subtitle=f"{study.model}: {fmt.plural(len(clusters), 'cluster')}, each left out once; "
        f"{seeds}",
        verdict=generalise_verdict(study),
        sections=[
            Section(
                "average",
                "All tasks, each never seen",
                "Average",
                "A mean over the tasks, each by the model that was tuned on the other clusters. "
                "The intervals are about rows and seeds, for these tasks: another choice of tasks "
                "may give another mean.",
                (_average_table(study),),
            ),
            Section(
                "tasks",
                "Task by task",
                "Tasks",
                "The same test rows are asked of every model, zero-shot, through the first "
                "template of the task file, which no row has a part in choosing. No task of the "
                "same cluster was trained on.",
                tuple(blocks),
            ),
        ],
        made=[Facts("Study", facts)],
    )


def generalise_verdict(study: GeneraliseStudy) -> tuple[str, ...]:
    """Return what tuning on other clusters did to tasks never seen, losses as well as gains."""
    sentences = []
    against_first = outcomes_by({arm.name: arm.against_first for arm in study.arms})
    for arm, gain in zip(study.arms, outcomes([arm.gain for arm in study.arms]), strict=True):
        sentence = _arm_verdict(study, arm, gain)
        if arm.against_first is not None:
            shown = verdict_word(against_first[arm.name], subject="it is")
            against = fmt.change_with_interval(arm.against_first)
            sentence += f" Against {study.arms[0].label}: {shown} ({against})."
        sentences.append(sentence)
    for arm in study.arms:
        if arm.short_of is not None:
            shown = verdict_word(outcome(arm.short_of), subject="never having seen it is")
            against = fmt.change_with_interval(arm.short_of)
            sentences.append(
                f"Against tuning on each task alone ({arm.label}): {shown}: {against}."
            )
    if len(study.seeds) == 1:
        sentences.append("With one seed, the intervals are about test rows alone.")
    return tuple(sentences)


def _arm_verdict(study: GeneraliseStudy, arm: GeneraliseArm, gain: Outcome) -> str:
    word = {
        Outcome.BETTER: "tuning helped on tasks never seen",
        Outcome.WORSE: "tuning did harm on tasks never seen",
        Outcome.NOT_SHOWN: "no effect on tasks never seen is shown",
    }[gain]
    pairs = list(zip(study.tasks, arm.against_base, outcomes(arm.against_base), strict=True))
    parts = [
        f"{task.task} {verb}: {fmt.change_with_interval(change)}"
        for kind, verb in ((Outcome.WORSE, "got worse"), (Outcome.BETTER, "got better"))
        for task, change, shown in pairs
        if shown is kind
    ]
    level = [task.task for task, _, shown in pairs if shown is Outcome.NOT_SHOWN]
    parts += [f"no difference is shown for {', '.join(level)}"] if level else []
    return (
        f"{arm.label}: {word}, {fmt.change_with_interval(arm.gain)} on average against the base "
        f"model; {'; '.join(parts)}."
    )


def _average_table(study: GeneraliseStudy) -> Table:
    dash = fmt.MISSING
    rows: list[tuple[Cell | str, ...]] = [
        ("base model", summary_cell(study.base), dash, dash, dash, dash)
    ]
    gains = outcomes([arm.gain for arm in study.arms])
    against_first = outcomes_by({arm.name: arm.against_first for arm in study.arms})
    for arm, gain in zip(study.arms, gains, strict=True):
        rows.append(
            (
                arm.label,
                summary_cell(arm.average),
                ", ".join(fmt.figure(each, study.metric) for each in arm.by_seed),
                difference_cell(arm.gain, gain, words=CHANGES),
                difference_cell(arm.short_of, words="it is"),
                difference_cell(arm.against_first, against_first.get(arm.name), words="it is"),
            )
        )
    if study.alone is not None:
        rows.append(("tuned on the task alone", summary_cell(study.alone), dash, dash, dash, dash))
    titles = (
        "Arm",
        axis_name(study.metric),
        "Seed by seed",
        "Minus the base model",
        "Minus tuned on the task alone",
        f"Minus {study.arms[0].label}",
    )
    note = "In brackets the 95 % interval; differences are paired, by row and by seed."
    return table("Over all tasks", titles, rows, note)


def _tasks_table(study: GeneraliseStudy, arm: GeneraliseArm) -> Table:
    shown = outcomes(arm.against_base)
    titles = ["Task", "Left out", "Metric", "Base model", "Never seen", "Minus the base model"]
    titles += ["Tuned on it alone", "Minus that"] if arm.against_alone else []
    short = outcomes(arm.against_alone) if arm.against_alone else ()
    rows = []
    for n, task in enumerate(study.tasks):
        row: list[Cell | str] = [
            task.task,
            task.cluster,
            fmt.style(task.metric).label,
            summary_cell(task.base),
            summary_cell(arm.scores[n]),
            difference_cell(arm.against_base[n], shown[n], words=CHANGES),
        ]
        if short:
            row.append(summary_cell(task.alone))
            row.append(difference_cell(arm.against_alone[n], short[n], words="it is"))
        rows.append(row)
    note = "The tasks of an arm are corrected together (Holm)."
    return table(f"Task by task, {arm.label}", titles, rows, note)


def _plot(study: GeneraliseStudy) -> Plot:
    marks = tuple(
        row_mark(
            task.task, arm.label, arm.against_base[n], ringed=shown[n] is not Outcome.NOT_SHOWN
        )
        for arm in study.arms
        for shown in (outcomes(arm.against_base),)
        for n, task in enumerate(study.tasks)
    )
    ends = [0.0, *(end for mark in marks for end in mark.x_ends or ())]
    return Plot(
        "Never seen minus base model, by task; ringed: shown",
        marks_in_words(marks),
        Axis("minus the base model, points", fmt.Unit.POINTS, extent(ends), labels="signed"),
        marks=marks,
        series=tuple(arm.label for arm in study.arms),
        rows=tuple(task.task for task in study.tasks),
        upright=Reference("base model", 0.0),
    )
