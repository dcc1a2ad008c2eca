"""How the training went: curves, facts, and the alarm in words.

The alarm says what a look at validation showed, the likely causes, and what to try.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from instil import format as fmt
from instil.report.page import Block, Facts, Note, Plots
from instil.report.sections.curves import curve_plots
from instil.report.sections.sweep import sweep_blocks
from instil.results.run import RunSummary
from instil.results.training import Alarm, Cause
from instil.sanitize import shortened, visible
from instil.types import Step, TaskLook


def learning_blocks(summary: RunSummary, steps: Sequence[Step]) -> tuple[Block, ...]:
    """Return the alarms, the curves, and how many steps, epochs and tokens there were."""
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
        "Peak learning rate": fmt.learning_rate(training.learning_rate),
        "Tokens a second": fmt.count(training.tokens_per_second),
        "Tokens trained on": fmt.count(training.supervised_tokens),
        "Examples": fates or fmt.MISSING,
    }
    return (*blocks, Facts("", facts), *sweep_blocks(summary.sweep))


def alarm_text(alarm: Alarm) -> str:
    """Return what is shown when the alarm sounds, and in the report."""
    look = alarm.look
    what = f"nothing is shown to be learnt. {_not_better(look)}"
    if alarm.one_answer:
        what = f"all {look.rows} validation rows get the same answer, {_quoted(look.answer)}"
    known = [cause for cause in alarm.causes if cause.known]
    others = [cause for cause in alarm.causes if not cause.known]
    sentences = [_when(look, alarm.step, alarm.of_steps, what), _listed("Likely causes", known)]
    if alarm.classifier and alarm.classifier.low > 0:
        points = fmt.fixed(100 * alarm.classifier.mean, 1)
        sentences.append(
            "The labels can be learnt: TF-IDF with logistic regression, trained on the same rows, "
            f"is {points} points above always the same answer."
        )
    sentences.append(_listed("Other causes" if known else "Likely causes", others))
    if alarm.over is not None:
        sentences.append(f"Later, after {alarm.over} steps, something was shown to be learnt.")
    return " ".join(filter(None, sentences))


def notice_text(look: TaskLook, *, step: int, of_steps: int, causes: Sequence[Cause]) -> str:
    """Return what is said at an early look, where something is wrong whatever the model does."""
    what = f"nothing is shown to be learnt yet; training goes on. {_not_better(look)}"
    return f"{_when(look, step, of_steps, what)} {_listed('To look at', causes)}".rstrip()


def _when(look: TaskLook, step: int, of_steps: int, what: str) -> str:
    return f"{look.task}: after {step} of {fmt.plural(of_steps, 'step')} {what}."


def _not_better(look: TaskLook) -> str:
    """Return how a task with choices is answered, against always the same answer."""
    if look.right is None or look.constant is None:
        return f"{fmt.plural(look.answers, 'different answer')} to {look.rows} validation rows"
    always = f"always answering {_quoted(look.always)}" if look.always else "guessing"
    text = (
        f"{fmt.percent(look.right)} of {fmt.plural(look.rows, 'validation row')} are answered "
        f"right, {fmt.percent(look.constant)} by {always}"
    )
    if look.apart is None:
        return text
    ends = f"{fmt.fixed(look.apart.low, 2)} to {fmt.fixed(look.apart.high, 2)}"
    return (
        f"{text}; the classes are told apart in {fmt.fixed(look.apart.mean, 2)} of the pairs "
        f"({ends}; 0.50 by chance)"
    )


def _listed(head: str, causes: Sequence[Cause]) -> str:
    tried = "; ".join(f"{cause.what} (try: {cause.fix})" for cause in causes)
    return f"{head}: {tried}." if tried else ""


def _quoted(answer: str) -> str:
    return f"“{visible(shortened(answer, most=60))}”"
