"""From a run's figures to a report: what is said, in which order, in which words.

A report answers, top to bottom: was it worth it (verdict, key numbers, test), against which bar
(ladder), how it was learnt (curves), at what price (forgetting, wording, classes, mistakes, costs),
from what (data, templates, tokens), and how to make it again (the manifest).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from instil import format as fmt
from instil.compare.verdict import Outcome
from instil.report.page import (
    Block,
    Facts,
    Heading,
    KeyNumber,
    Mistakes,
    Note,
    Report,
    Section,
    Turns,
)
from instil.report.parts import difference_number
from instil.report.sections import arms
from instil.report.sections.advice import advice_blocks
from instil.report.sections.average import average_numbers, average_table
from instil.report.sections.calibration import calibration_blocks
from instil.report.sections.guard import guard_blocks, guard_outcomes, worst_guard
from instil.report.sections.keeping import keeping_blocks, replayed_guards
from instil.report.sections.ladder import ladder_blocks
from instil.report.sections.learning import learning_blocks
from instil.report.sections.mix import mix_table
from instil.report.sections.origin import data_blocks, manifest_facts, token_blocks
from instil.report.sections.phrasings import wording_blocks
from instil.report.sections.search import search_blocks
from instil.report.sections.stages import stage_blocks
from instil.results.names import PROMPTING, TUNED
from instil.results.run import RunSummary
from instil.results.tasks import TaskResult
from instil.types import Step

FEW_TASKS = 3
"""Tasks up to which each has a key number of its own beside the average."""
NUMBERED = {TUNED: "Tuned model", PROMPTING: "Best prompting"}
"""Arms of a single task that have key numbers of their own."""


SECTIONS = {
    "average": (
        "All tasks, and on average",
        "Average",
        "Each task counts the same in an average, however many rows it has.",
    ),
    "test": (
        "All arms on test",
        "Test",
        "The test rows were scored once, at the end, the same rows for every arm.",
    ),
    "ladder": (
        "The prompting ladder on validation",
        "Ladder",
        "What the base model does with prompting alone: every template, number of worked "
        "examples and scoring rule. The ringed dot sets the bar for tuning.",
    ),
    "advice": (
        "What was advised before the training",
        "Advice",
        "Each way was tried on validation, the tuned model after a part of its training.",
    ),
    "search": (
        "The prompt that was searched for",
        "Search",
        "Instructions, worked examples out of train and scoring rules beyond the ladder's, on the "
        "same validation rows.",
    ),
    "learning": (
        "Learning curves",
        "Learning",
        "Loss is cross-entropy over the completion's tokens alone.",
    ),
    "forgetting": (
        "What was forgotten",
        "Forgetting",
        "The same guard tasks before and after training, which had no part in it.",
    ),
    "wording": (
        "Robustness to wording",
        "Wording",
        "The same test rows, asked in different words.",
    ),
    "classes": (
        "Class by class",
        "Classes",
        "Precision: of the rows given this class, the share that belongs to it. Recall: of the "
        "rows that belong to it, the share that was found.",
    ),
    "probabilities": (
        "Probabilities",
        "Probabilities",
        "How far the probability of an answer can be trusted. Temperature and thresholds were "
        "found on validation.",
    ),
    "mistakes": (
        "Mistakes of the tuned model",
        "Mistakes",
        "Wrong answers on test; some may turn out to be wrong labels. Where answers are chosen the "
        "surest come first, by the margin: the score of the answer given minus that of the right "
        "one.",
    ),
    "costs": ("Costs", "Costs", ""),
    "data": (
        "The data",
        "Data",
        "Groups are never divided between parts. Of duplicates across parts, test keeps its copy "
        "first, then validation.",
    ),
    "mix": ("The mix", "Mix", "How much of each task an epoch held."),
    "templates": (
        "Templates, rendered",
        "Templates",
        "One row through every template, as the model reads it.",
    ),
    "tokens": (
        "Which tokens are trained on",
        "Tokens",
        "One training example, token by token, after the chat template.",
    ),
    "made": ("How it was made", "How it was made", "With this, the run can be made again."),
}
"""Section -> heading, heading in the list of contents, how to read it; in the report's order."""


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

    def of_each(blocks: Callable[[TaskResult], tuple[Block, ...]]) -> tuple[Block, ...]:
        """Return the blocks of every task, under the task's name where there are several."""
        all_blocks: list[Block] = []
        for task in summary.tasks:
            if len(summary.tasks) > 1:
                all_blocks.append(Heading(task.task))
            all_blocks.extend(blocks(task))
        return tuple(all_blocks)

    training = summary.training
    tasks = ", ".join(f"{task.task} ({task.kind})" for task in summary.tasks)
    weights = fmt.parameters(summary.model_parameters)
    opened = fmt.moment(summary.test_opened)
    opened += f" (look number {summary.looks})" if summary.looks > 1 else ""
    shown, seen = arms.arm_outcomes(summary.tasks), replayed_guards(summary)
    facts = {
        "Test opened": opened,
        "Seed": str(summary.seed),
        "Base model": summary.model,
        "Licence of the base model": summary.model_licence or fmt.MISSING,
    }
    no_mistake = Note("None: every test row was answered right.")
    blocks: dict[str, tuple[Block, ...]] = {
        "test": of_each(partial(arms.arm_blocks, shown=shown)),
        "ladder": of_each(ladder_blocks),
        "learning": learning_blocks(summary, steps),
        "forgetting": (
            *guard_blocks(summary.forgetting, margins=summary.margins, replayed=seen),
            *keeping_blocks(summary),
        ),
        "wording": of_each(wording_blocks),
        "classes": of_each(arms.class_blocks),
        "mistakes": of_each(lambda t: (Mistakes(t.mistakes) if t.mistakes else no_mistake,)),
        "costs": (*of_each(arms.cost_blocks), *stage_blocks(summary)),
        "data": of_each(data_blocks),
        "templates": (Turns(summary.turns) if summary.turns else Note("No example was kept."),),
        "tokens": token_blocks(summary.token_view),
        "made": (Facts("Run", facts), *manifest_facts(manifest)),
    }
    intros = {
        "costs": "Every arm but the classifier also needs the base model, "
        f"{fmt.size(summary.model_bytes)} on disk. Training peaked at "
        f"{fmt.size(training.peak_memory_bytes)} of memory."
    }
    if any(task.search for task in summary.tasks):
        blocks["search"] = of_each(search_blocks)
        intros["ladder"] = (
            "What the base model does with prompting alone: every template, number of worked "
            "examples and scoring rule. The ringed dot is the best of them, from which the search "
            "went on."
        )
    if any(task.probabilities for task in summary.tasks):
        blocks["probabilities"] = of_each(calibration_blocks)
    if summary.advice:
        blocks["advice"] = advice_blocks(summary)
    if summary.averages:
        blocks["average"] = (average_table(summary),)
    if len(summary.mix) > 1 or any(line.few_shot for line in summary.mix):
        blocks["mix"] = (mix_table(summary.mix),)
    if summary.looks > 1:
        looked = f"Look number {summary.looks} at the test rows"
        intros["test"] = f"{looked}, the same rows for every arm."
    if seen:
        intros["forgetting"] = (
            "The same rows before and after training, which had no part in it; other rows of "
            f"{', '.join(seen)} were replayed."
        )
    return Report(
        title=summary.name,
        subtitle=f"{summary.model}, {weights} weights, {training.method}, trained on {tasks}",
        verdict=summary.verdict,
        key_numbers=_key_numbers(summary, shown),
        sections=tuple(
            Section(name, title, short, intros.get(name, intro), blocks[name])
            for name, (title, short, intro) in SECTIONS.items()
            if name in blocks
        ),
        footer=f"instil, format {summary.format_version}. Test opened {opened}.",
    )


def _key_numbers(
    summary: RunSummary, shown: Mapping[tuple[str, str], Outcome]
) -> tuple[KeyNumber, ...]:
    several = len(summary.tasks) > 1
    numbers = average_numbers(summary)
    for task in () if numbers and len(summary.tasks) > FEW_TASKS else summary.tasks:
        for name, title in () if several else NUMBERED.items():
            arm = task.arm(name)
            score = arm.summaries.get(task.metric) if arm else None
            if arm and score:
                what = f"{fmt.style(task.metric).label} on test" if name == TUNED else arm.label
                figure = fmt.figure(score.mean, score.metric)
                numbers.append(KeyNumber(title, figure, f"{fmt.ends(score)}, {what}"))
        gain = task.against(PROMPTING)
        if gain is not None:
            label = f"{task.task}: tuned minus prompting" if several else "Tuned minus prompting"
            outcome = shown[task.task, PROMPTING]
            numbers.append(difference_number(label, gain, outcome, subject="tuned is"))
    worst = worst_guard(summary.forgetting)
    if worst is not None:
        outcome = guard_outcomes(summary.forgetting)[summary.forgetting.index(worst)]
        label, of = "Lowest change on a guard task", f"{worst.task}: "
        numbers.append(
            difference_number(label, worst.comparison, outcome, subject="after is", of=of)
        )
    training = summary.training
    share = fmt.percent(training.trainable_share)
    weights = f"{fmt.parameters(training.trainable_parameters)} weights, {share} of the model"
    weights = "; ".join([weights, *map(fmt.without_adapter, training.left_out)])
    numbers.append(KeyNumber("Training", fmt.seconds(training.seconds), weights))
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
    return tuple(numbers)
