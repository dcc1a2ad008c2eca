"""From a run's figures to a report: what is said, in which order, in which words.

A report answers, top to bottom: was it worth it (verdict, key numbers, test), against which bar
(ladder), how it was learnt (curves), at what price (forgetting, wording, classes, mistakes, costs),
from what (data, templates, tokens), and how to make it again (the manifest).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from instil import format as fmt
from instil.compare.verdict import PROMPTING, TUNED, Outcome
from instil.report.page import (
    Block,
    Fact,
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
from instil.report.parts import TONES, verdict_word
from instil.report.sections import arms
from instil.report.sections.average import average_blocks, average_numbers
from instil.report.sections.curves import curve_plots
from instil.report.sections.guard import guard_blocks, guard_outcomes, worst_guard
from instil.report.sections.keeping import keeping_blocks, replayed_guards
from instil.report.sections.ladder import ladder_blocks
from instil.report.sections.learning import alarm_blocks
from instil.report.sections.methods_tried import methods_blocks
from instil.report.sections.mix import mix_blocks
from instil.report.sections.origin import data_blocks, manifest_facts, token_blocks
from instil.report.sections.stages import stage_blocks
from instil.report.sections.sweep import sweep_blocks
from instil.results import RunSummary, TaskResult, TrainingSummary
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
    return Report(
        title=summary.name,
        subtitle=_subtitle(summary),
        verdict=summary.verdict,
        key_numbers=_key_numbers(summary),
        sections=(
            *_result_sections(summary, steps),
            *_price_sections(summary),
            *_origin_sections(summary, manifest),
        ),
        footer=f"instil, format {summary.format_version}. Test opened {_opened(summary)}.",
    )


def _result_sections(summary: RunSummary, steps: Sequence[Step]) -> tuple[Section, ...]:
    seen = replayed_guards(summary)
    return (
        *_average_sections(summary),
        _each_task(
            summary,
            "test",
            title="All arms on test",
            short="Test",
            intro=_test_intro(summary.looks),
            blocks=partial(arms.arm_blocks, shown=arms.arm_outcomes(summary.tasks)),
        ),
        _each_task(
            summary,
            "ladder",
            title="The prompting ladder on validation",
            short="Ladder",
            intro="What the untouched model does with prompting alone: every template, number of "
            "worked examples and scoring rule. The ringed dot sets the bar for tuning.",
            blocks=ladder_blocks,
        ),
        Section(
            "learning",
            "Learning curves",
            "Learning",
            "Loss is cross-entropy over the completion's tokens alone.",
            (
                *alarm_blocks(summary.training.alarms),
                *_curve_blocks(summary, steps),
                _training_facts(summary.training),
                *sweep_blocks(summary.sweep),
            ),
        ),
        Section(
            "forgetting",
            "What was forgotten",
            "Forgetting",
            _guard_intro(seen),
            (
                *guard_blocks(summary.forgetting, replayed=seen),
                *methods_blocks(summary.methods),
                *keeping_blocks(summary),
            ),
        ),
    )


def _guard_intro(seen: Sequence[str]) -> str:
    if not seen:
        return "The same guard tasks before and after training, which had no part in it."
    rows = "The same rows before and after training, which had no part in it"
    return f"{rows}; other rows of {', '.join(seen)} were replayed."


def _test_intro(looks: int) -> str:
    same = "the same rows for every arm."
    if looks == 1:
        return f"The test rows were scored once, at the end, {same}"
    return f"Look number {looks} at the test rows, {same}"


def _average_sections(summary: RunSummary) -> tuple[Section, ...]:
    if not summary.averages:
        return ()
    intro = "Each task counts the same in an average, however many rows it has."
    blocks = average_blocks(summary)
    return (Section("average", "All tasks, and on average", "Average", intro, blocks),)


def _mix_sections(summary: RunSummary) -> tuple[Section, ...]:
    if len(summary.mix) < 2 and not any(line.few_shot for line in summary.mix):
        return ()
    intro = "How much of each task an epoch held."
    return (Section("mix", "The mix", "Mix", intro, mix_blocks(summary.mix)),)


def _price_sections(summary: RunSummary) -> tuple[Section, ...]:
    return (
        _each_task(
            summary,
            "wording",
            title="Robustness to wording",
            short="Wording",
            intro="The same test rows, asked in different words.",
            blocks=arms.wording_blocks,
        ),
        _each_task(
            summary,
            "classes",
            title="Class by class",
            short="Classes",
            intro="Precision: of the rows given this class, the share that belongs to it. Recall: "
            "of the rows that belong to it, the share that was found.",
            blocks=arms.class_blocks,
        ),
        _each_task(
            summary,
            "mistakes",
            title="Mistakes of the tuned model",
            short="Mistakes",
            intro="Wrong answers on test, the surest first; some may turn out to be wrong labels. "
            "Margin: the score of the answer given minus that of the right one.",
            blocks=_mistake_blocks,
        ),
        _cost_section(summary),
    )


def _origin_sections(summary: RunSummary, manifest: Mapping[str, object]) -> tuple[Section, ...]:
    return (
        _each_task(
            summary,
            "data",
            title="The data",
            short="Data",
            intro="Groups are never divided between parts. Of duplicates across parts, test keeps "
            "its copy first, then validation.",
            blocks=data_blocks,
        ),
        *_mix_sections(summary),
        Section(
            "templates",
            "Templates, rendered",
            "Templates",
            "One row through every template, as the model reads it.",
            (Turns(summary.turns),) if summary.turns else (Note("No example was kept."),),
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
            "How it was made",
            "How it was made",
            "With this, the run can be made again.",
            (_run_facts(summary), *manifest_facts(manifest)),
        ),
    )


def _each_task(
    summary: RunSummary,
    section: str,
    *,
    title: str,
    short: str,
    intro: str,
    blocks: Callable[[TaskResult], tuple[Block, ...]],
) -> Section:
    found: list[Block] = []
    for task in summary.tasks:
        if len(summary.tasks) > 1:
            found.append(Heading(task.task))
        found.extend(blocks(task))
    return Section(section, title, short, intro, tuple(found))


def _subtitle(summary: RunSummary) -> str:
    tasks = ", ".join(f"{task.task} ({task.kind})" for task in summary.tasks)
    weights = fmt.parameters(summary.model_parameters)
    return f"{summary.model}, {weights} weights, {summary.training.method}, trained on {tasks}"


def _key_numbers(summary: RunSummary) -> tuple[KeyNumber, ...]:
    several = len(summary.tasks) > 1
    shown = arms.arm_outcomes(summary.tasks)
    numbers = average_numbers(summary)
    own = () if numbers and len(summary.tasks) > FEW_TASKS else summary.tasks
    for task in own:
        if not several:
            numbers += _arm_numbers(task)
        outcome = shown.get((task.task, PROMPTING))
        numbers += _difference_number(task, outcome, several=several)
    return (*numbers, *_forgetting_numbers(summary), *_cost_numbers(summary))


def _arm_numbers(task: TaskResult) -> list[KeyNumber]:
    numbers = []
    for name, label in ((TUNED, "Tuned model"), (PROMPTING, "Best prompting")):
        arm = arms.find_arm(task, name)
        found = arms.main_summary(arm, task) if arm else None
        if arm and found:
            low_high = fmt.interval(found).partition("(")[2].rstrip(")")
            of_what = f"{fmt.style(task.metric).label} on test"
            detail = f"{low_high}, {of_what if name == TUNED else arm.label}"
            numbers.append(KeyNumber(label, fmt.figure(found.mean, found.metric), detail))
    return numbers


def _difference_number(
    task: TaskResult, outcome: Outcome | None, *, several: bool
) -> list[KeyNumber]:
    found = arms.against_tuned(task, PROMPTING)
    if found is None or outcome is None:
        return []
    detail = f"{fmt.change_interval(found)}, {verdict_word(outcome, subject='tuned is')}"
    label = f"{task.task}: tuned minus prompting" if several else "Tuned minus prompting"
    return [KeyNumber(label, fmt.change(found), detail, TONES[outcome])]


def _forgetting_numbers(summary: RunSummary) -> list[KeyNumber]:
    worst = worst_guard(summary.forgetting)
    if worst is None:
        return []
    outcome = guard_outcomes(summary.forgetting)[summary.forgetting.index(worst)]
    word = verdict_word(outcome, subject="after is")
    detail = f"{worst.task}: {fmt.change_interval(worst.comparison)}, {word}"
    label, change = "Lowest change on a guard task", fmt.change(worst.comparison)
    return [KeyNumber(label, change, detail, TONES[outcome])]


def _cost_numbers(summary: RunSummary) -> list[KeyNumber]:
    training = summary.training
    share = fmt.percent(training.trainable_share)
    weights = f"{fmt.parameters(training.trainable_parameters)} weights, {share} of the model"
    weights = "; ".join([weights, *map(fmt.without_adapter, training.left_out)])
    numbers = [KeyNumber("Training", fmt.seconds(training.seconds), weights)]
    tuned, prompting = (
        arms.find_arm(summary.tasks[0], name) if summary.tasks else None
        for name in (TUNED, PROMPTING)
    )
    if tuned:
        stored = fmt.size(tuned.costs.bytes_on_disk)
        beside = f"the base model takes {fmt.size(summary.model_bytes)}"
        numbers.append(KeyNumber("To store", stored, beside))
    if tuned and prompting and len(summary.tasks) == 1:
        each = fmt.tokens(tuned.costs.tokens_per_prediction)
        detail = f"best prompting {fmt.tokens(prompting.costs.tokens_per_prediction)}"
        numbers.append(KeyNumber("Tokens a prediction", each, detail))
    return numbers


def _curve_blocks(summary: RunSummary, steps: Sequence[Step]) -> tuple[Block, ...]:
    metric = summary.tasks[0].metric if len(summary.tasks) == 1 else ""
    plots, note = curve_plots(steps, best_step=summary.training.best_step, metric=metric)
    if not plots:
        return (Note("No steps were recorded."),)
    return (Plots(plots), Note(note)) if note else (Plots(plots),)


def _training_facts(training: TrainingSummary) -> Facts:
    ending = "validation ended it" if training.stopped_early else "to the end"
    fates = ", ".join(f"{name} {fmt.count(number)}" for name, number in training.fates.items())
    facts = (
        Fact("Method", f"{training.method}, {training.number_format}"),
        Fact("Steps", f"{fmt.count(training.steps)}, {ending}; kept: {training.best_step}"),
        Fact("Epochs", fmt.fixed(training.epochs, 2)),
        Fact("Peak learning rate", f"{training.learning_rate:.3g}"),
        Fact("Tokens a second", fmt.count(training.tokens_per_second)),
        Fact("Tokens trained on", fmt.count(training.supervised_tokens)),
        Fact("Examples", fates or fmt.MISSING),
    )
    return Facts("", facts)


def _mistake_blocks(task: TaskResult) -> tuple[Block, ...]:
    if not task.mistakes:
        return (Note("None: every test row was answered right."),)
    return (Mistakes(task.mistakes),)


def _cost_section(summary: RunSummary) -> Section:
    section = _each_task(
        summary,
        "costs",
        title="Costs",
        short="Costs",
        intro=f"Every arm but the classifier also needs the base model, "
        f"{fmt.size(summary.model_bytes)} on disk. Training peaked at "
        f"{fmt.size(summary.training.peak_memory_bytes)} of memory.",
        blocks=arms.cost_blocks,
    )
    blocks = (*section.blocks, *stage_blocks(summary))
    return Section(section.id, section.title, section.short, section.intro, blocks)


def _run_facts(summary: RunSummary) -> Facts:
    facts = (
        Fact("Test opened", _opened(summary)),
        Fact("Seed", str(summary.seed)),
        Fact("Base model", summary.model),
        Fact("Licence of the base model", summary.model_licence or fmt.MISSING),
    )
    return Facts("Run", facts)


def _opened(summary: RunSummary) -> str:
    again = f" (look number {summary.looks})" if summary.looks > 1 else ""
    return f"{fmt.moment(summary.test_opened)}{again}"
