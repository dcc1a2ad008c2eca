"""From a run's figures to a report: what is said, in which order, in which words.

A report answers, top to bottom: was it worth it (verdict, key numbers, test), against which bar
(ladder), how it was learnt (curves), at what price (forgetting, wording, classes, mistakes, costs),
from what (data, templates, tokens), and how to make it again (the manifest).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from instil import format as fmt
from instil.report.page import (
    Block,
    Facts,
    Heading,
    KeyNumber,
    Mistakes,
    Note,
    Plots,
    Report,
    Section,
    Turns,
)
from instil.report.parts import difference_number
from instil.report.sections import arms
from instil.report.sections.average import average_numbers, average_table
from instil.report.sections.curves import curve_plots
from instil.report.sections.guard import guard_blocks, guard_outcomes, worst_guard
from instil.report.sections.keeping import keeping_blocks, replayed_guards
from instil.report.sections.ladder import ladder_blocks
from instil.report.sections.learning import alarm_text
from instil.report.sections.mix import mix_table
from instil.report.sections.origin import data_blocks, manifest_facts, token_blocks
from instil.report.sections.phrasings import wording_blocks
from instil.report.sections.stages import stage_blocks
from instil.report.sections.sweep import sweep_blocks
from instil.results import PROMPTING, TUNED, RunSummary, TaskResult
from instil.types import Step

FEW_TASKS = 3
"""Tasks up to which each has a key number of its own beside the average."""


def build_report(
    summary: RunSummary, *, steps: Sequence[Step], manifest: Mapping[str, object]
) -> Report:
    """Return the report of a run.

    Args:
        summary: Every figure, as kept in `summary.json`.
        steps: The optimizer steps of `steps.jsonl`, in order; may be empty.
        manifest: The contents of `manifest.json`; shown as it is, whatever its keys.

    Returns:
        The page as data; nothing in it is escaped yet.
    """
    training = summary.training
    tasks = ", ".join(f"{task.task} ({task.kind})" for task in summary.tasks)
    weights = fmt.parameters(summary.model_parameters)
    opened = fmt.moment(summary.test_opened)
    opened += f" (look number {summary.looks})" if summary.looks > 1 else ""
    return Report(
        title=summary.name,
        subtitle=f"{summary.model}, {weights} weights, {training.method}, trained on {tasks}",
        verdict=summary.verdict,
        key_numbers=_key_numbers(summary),
        sections=(
            *_result_sections(summary, steps),
            *_price_sections(summary),
            *_origin_sections(summary, manifest, opened),
        ),
        footer=f"instil, format {summary.format_version}. Test opened {opened}.",
    )


def _result_sections(summary: RunSummary, steps: Sequence[Step]) -> list[Section]:
    sections = []
    if summary.averages:
        intro = "Each task counts the same in an average, however many rows it has."
        average = average_table(summary)
        sections.append(
            Section("average", "All tasks, and on average", "Average", intro, (average,))
        )
    looked = "The test rows were scored once, at the end"
    if summary.looks > 1:
        looked = f"Look number {summary.looks} at the test rows"
    shown = arms.arm_outcomes(summary.tasks)
    sections.append(
        Section(
            "test",
            "All arms on test",
            "Test",
            f"{looked}, the same rows for every arm.",
            _each_task(summary, partial(arms.arm_blocks, shown=shown)),
        )
    )
    sections.append(
        Section(
            "ladder",
            "The prompting ladder on validation",
            "Ladder",
            "What the base model does with prompting alone: every template, number of "
            "worked examples and scoring rule. The ringed dot sets the bar for tuning.",
            _each_task(summary, ladder_blocks),
        )
    )
    intro = "Loss is cross-entropy over the completion's tokens alone."
    blocks = _learning_blocks(summary, steps)
    sections.append(Section("learning", "Learning curves", "Learning", intro, blocks))
    seen = replayed_guards(summary)
    intro = "The same guard tasks before and after training, which had no part in it."
    if seen:
        intro = (
            "The same rows before and after training, which had no part in it; other rows of "
            f"{', '.join(seen)} were replayed."
        )
    blocks = (*guard_blocks(summary.forgetting, replayed=seen), *keeping_blocks(summary))
    sections.append(Section("forgetting", "What was forgotten", "Forgetting", intro, blocks))
    return sections


def _price_sections(summary: RunSummary) -> list[Section]:
    return [
        Section(
            "wording",
            "Robustness to wording",
            "Wording",
            "The same test rows, asked in different words.",
            _each_task(summary, wording_blocks),
        ),
        Section(
            "classes",
            "Class by class",
            "Classes",
            "Precision: of the rows given this class, the share that belongs to it. Recall: "
            "of the rows that belong to it, the share that was found.",
            _each_task(summary, arms.class_blocks),
        ),
        Section(
            "mistakes",
            "Mistakes of the tuned model",
            "Mistakes",
            "Wrong answers on test, the surest first; some may turn out to be wrong labels. "
            "Margin: the score of the answer given minus that of the right one.",
            _each_task(summary, _mistake_blocks),
        ),
        Section(
            "costs",
            "Costs",
            "Costs",
            f"Every arm but the classifier also needs the base model, "
            f"{fmt.size(summary.model_bytes)} on disk. Training peaked at "
            f"{fmt.size(summary.training.peak_memory_bytes)} of memory.",
            (*_each_task(summary, arms.cost_blocks), *stage_blocks(summary)),
        ),
    ]


def _origin_sections(
    summary: RunSummary, manifest: Mapping[str, object], opened: str
) -> list[Section]:
    sections = [
        Section(
            "data",
            "The data",
            "Data",
            "Groups are never divided between parts. Of duplicates across parts, test keeps "
            "its copy first, then validation.",
            _each_task(summary, data_blocks),
        )
    ]
    if len(summary.mix) > 1 or any(line.few_shot for line in summary.mix):
        intro = "How much of each task an epoch held."
        sections.append(Section("mix", "The mix", "Mix", intro, (mix_table(summary.mix),)))
    facts = {
        "Test opened": opened,
        "Seed": str(summary.seed),
        "Base model": summary.model,
        "Licence of the base model": summary.model_licence or fmt.MISSING,
    }
    made = "How it was made"
    return [
        *sections,
        Section(
            "templates",
            "Templates, rendered",
            "Templates",
            "One row through every template, as the model reads it.",
            (Turns(summary.turns) if summary.turns else Note("No example was kept."),),
        ),
        Section(
            "tokens",
            "Which tokens are trained on",
            "Tokens",
            "One training example, token by token, after the chat template.",
            token_blocks(summary.token_view),
        ),
        Section(
            "made",
            made,
            made,
            "With this, the run can be made again.",
            (Facts("Run", facts), *manifest_facts(manifest)),
        ),
    ]


def _each_task(
    summary: RunSummary, blocks: Callable[[TaskResult], tuple[Block, ...]]
) -> tuple[Block, ...]:
    """Return the blocks of every task, under the task's name where there are several."""
    found: list[Block] = []
    for task in summary.tasks:
        if len(summary.tasks) > 1:
            found.append(Heading(task.task))
        found.extend(blocks(task))
    return tuple(found)


def _learning_blocks(summary: RunSummary, steps: Sequence[Step]) -> tuple[Block, ...]:
    training = summary.training
    metric = summary.tasks[0].metric if len(summary.tasks) == 1 else ""
    plots = curve_plots(steps, best_step=training.best_step, metric=metric)
    blocks: list[Block] = [Note(alarm_text(alarm)) for alarm in training.alarms]
    blocks.append(Plots(plots) if plots else Note("No steps were recorded."))
    lost = sum(not math.isfinite(step.loss) for step in steps)
    if plots and lost:
        is_are = "is" if lost == 1 else "are"
        blocks.append(Note(f"{fmt.plural(lost, 'step')} without a finite loss {is_are} not drawn."))
    ending = "validation ended it" if training.stopped_early else "to the end"
    fates = ", ".join(f"{name} {fmt.count(number)}" for name, number in training.fates.items())
    facts = {
        "Method": f"{training.method}, {training.number_format}",
        "Steps": f"{fmt.count(training.steps)}, {ending}; kept: {training.best_step}",
        "Epochs": fmt.fixed(training.epochs, 2),
        "Peak learning rate": f"{training.learning_rate:.3g}",
        "Tokens a second": fmt.count(training.tokens_per_second),
        "Tokens trained on": fmt.count(training.supervised_tokens),
        "Examples": fates or fmt.MISSING,
    }
    return (*blocks, Facts("", facts), *sweep_blocks(summary.sweep))


def _mistake_blocks(task: TaskResult) -> tuple[Block, ...]:
    none = Note("None: every test row was answered right.")
    return (Mistakes(task.mistakes) if task.mistakes else none,)


def _key_numbers(summary: RunSummary) -> tuple[KeyNumber, ...]:
    several = len(summary.tasks) > 1
    shown = arms.arm_outcomes(summary.tasks)
    numbers = average_numbers(summary)
    for task in () if numbers and len(summary.tasks) > FEW_TASKS else summary.tasks:
        if not several:
            numbers += _arm_numbers(task)
        found = task.against(PROMPTING)
        if found is not None:
            label = f"{task.task}: tuned minus prompting" if several else "Tuned minus prompting"
            outcome = shown[task.task, PROMPTING]
            numbers.append(difference_number(label, found, outcome, subject="tuned is"))
    worst = worst_guard(summary.forgetting)
    if worst is not None:
        outcome = guard_outcomes(summary.forgetting)[summary.forgetting.index(worst)]
        label, of = "Lowest change on a guard task", f"{worst.task}: "
        numbers.append(
            difference_number(label, worst.comparison, outcome, subject="after is", of=of)
        )
    return (*numbers, *_cost_numbers(summary))


def _arm_numbers(task: TaskResult) -> list[KeyNumber]:
    numbers = []
    for name, label in ((TUNED, "Tuned model"), (PROMPTING, "Best prompting")):
        arm = task.arm(name)
        found = arm.summaries.get(task.metric) if arm else None
        if arm and found:
            what = f"{fmt.style(task.metric).label} on test" if name == TUNED else arm.label
            detail = f"{fmt.ends(found)}, {what}"
            numbers.append(KeyNumber(label, fmt.figure(found.mean, found.metric), detail))
    return numbers


def _cost_numbers(summary: RunSummary) -> list[KeyNumber]:
    training = summary.training
    share = fmt.percent(training.trainable_share)
    weights = f"{fmt.parameters(training.trainable_parameters)} weights, {share} of the model"
    weights = "; ".join([weights, *map(fmt.without_adapter, training.left_out)])
    numbers = [KeyNumber("Training", fmt.seconds(training.seconds), weights)]
    first = summary.tasks[0] if summary.tasks else None
    tuned, prompting = (first.arm(name) if first else None for name in (TUNED, PROMPTING))
    if tuned:
        stored = fmt.size(tuned.costs.bytes_on_disk)
        beside = f"the base model takes {fmt.size(summary.model_bytes)}"
        numbers.append(KeyNumber("To store", stored, beside))
    if tuned and prompting and len(summary.tasks) == 1:
        each = fmt.tokens(tuned.costs.tokens_per_prediction)
        detail = f"best prompting {fmt.tokens(prompting.costs.tokens_per_prediction)}"
        numbers.append(KeyNumber("Tokens a prediction", each, detail))
    return numbers
