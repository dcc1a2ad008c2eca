"""`instil check`: everything that can be known before a run, and nothing trained.

Tests: `tests/test_chat_cases.py`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle, islice

from instil import format as fmt
from instil.config.recipe import Recipe, TaskUse, without_effect
from instil.data.build import render_example
from instil.data.findings import Finding, audit_rows
from instil.data.prepare import TaskData
from instil.encode.alike import label_findings
from instil.encode.chat_findings import chat_findings, cut_answers
from instil.results.names import TEXT
from instil.results.training import LeftOut, MixLine
from instil.scoring.metrics import Scale, find_metric
from instil.stages.context import RunContext, Say, prepare, silent
from instil.stages.durations import stage_seconds
from instil.stages.footprint import memory_line
from instil.stages.preflight import preflight, template_findings, without_adapter
from instil.stages.replaying import add_replay
from instil.stats.paired import planned_detectable, planned_rows
from instil.types import Encoded, Part, Piece

PREVIEWS = 3
FEW_ROWS = 100
FEW_GROUPS = 10
"""Of fewer groups an interval knows its own width badly."""


@dataclass(frozen=True, slots=True)
class TaskForecast:
    """What is known of a task before a run."""

    task: str
    """The task's id."""
    metric: str
    """The metric that decides."""
    rows: Mapping[str, int]
    """Part of the split -> rows."""
    groups: Mapping[str, int]
    """Part of the split -> groups, of which rows count together."""
    balance: Mapping[str, Mapping[str, int]]
    """Part -> label -> rows; empty for free text."""
    removed: Mapping[str, int]
    """Reason -> duplicates taken out."""
    skipped: Mapping[str, int]
    """Reason -> rows left out before the split."""
    lengths: tuple[int, int, int]
    """Tokens of an example of the first epoch, as in `MixLine`."""
    longest_asked: int
    """Tokens of the longest prompt of a validation or test row, through the first template."""
    previews: tuple[tuple[Piece, ...], ...]
    """A few training examples, token by token."""
    smallest_difference: float
    """What the test rows can show with 80 % power, in the metric's own unit (0 to 1); above it they
    can show nothing."""
    warnings: tuple[str, ...]
    """What a user should know or mend."""
    findings: tuple[Finding, ...] = ()
    """What looks wrong with the rows, the labels and the templates."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is known before a run."""

    tasks: tuple[TaskForecast, ...]
    """One a task."""
    stages: Mapping[str, float]
    """Stage -> estimated seconds, model and data at hand."""
    memory_bytes: int
    """Estimated peak memory."""
    memory: str
    """The same in words, beside what is free."""
    mix: tuple[MixLine, ...] = ()
    """What the first epoch of training holds, a line a task."""
    computed: str = ""
    """How rows go through the model."""
    left_out: tuple[LeftOut, ...] = ()
    """What carries no adapter though `all-linear` was asked for."""
    guard: tuple[str, ...] = ()
    """What the guard's rows can show, in sentences; empty: there is no guard task."""
    idle: tuple[str, ...] = ()
    """Settings of the recipe that do nothing."""

    @property
    def seconds(self) -> float:
        """Estimated duration of the whole run."""
        return sum(self.stages.values())


def check_recipe(recipe: Recipe, *, say: Say = silent) -> Forecast:
    """Look at everything a run would use; fetches what is not here yet, trains nothing.

    Raises:
        InstilError: Whatever would stop the run.
    """
    context = prepare(recipe, say=say)
    training = add_replay(context, preflight(context))
    terms = context.memory_terms
    lines = {line.task: line for line in training.mix}
    return Forecast(
        tuple(
            _forecast(context, use, d, lines[d.task.id])
            for use, d in zip(recipe.tasks, context.data, strict=True)
        ),
        stage_seconds(context, training),
        sum(terms.values()),
        memory_line(terms, device=recipe.device),
        training.mix,
        str(context.build),
        without_adapter(context),
        guard_forecast(context),
        without_effect(recipe),
    )


def guard_forecast(context: RunContext) -> tuple[str, ...]:
    """Say what the guard's rows can show, and how many a margin needs; empty without guard tasks.

    As for the test rows, a fifth of the answers is taken to turn from right to wrong or back.
    """
    from instil.compare.forgetting import BATCH

    sizes = [len(item.examples) for item in context.guard if item.id != TEXT]
    if not sizes:
        return ()
    wanted, tasks = context.recipe.forgetting, len(sizes)
    guessed = "80 % power, were a fifth of the answers to turn"
    rows = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
    if wanted.rows == "auto":
        lines = [
            f"guard: {fmt.plural(tasks, 'task')}, {BATCH} rows after {BATCH} until something is "
            f"shown, {rows} rows at most; the time above is for the most"
        ]
    else:
        each = [planned_detectable([1] * size) for size in sizes]
        shows = f"a loss of {100 * max(each):.1f} points"
        if max(each) >= 1:
            shows = "no loss: too few"
        elif tasks > 1:
            mean = math.hypot(*each) / tasks
            shows += f" of one task, {100 * mean:.1f} of the mean over {tasks}"
        lines = [f"guard: {rows} rows a task show {shows} ({guessed})"]
    if wanted.margin is not None:
        needed = planned_rows(wanted.margin / 100)
        shown = f"{fmt.count(needed)} rows of it"
        if tasks > 1:
            shown += f", and the mean with {fmt.count(math.ceil(needed / tasks))} of each"
        lines.append(
            f"guard: a task that loses nothing is shown to be kept within {wanted.margin:g} points "
            f"with {shown} ({guessed}; fewer where fewer turn)"
        )
    return tuple(lines)


def _forecast(context: RunContext, use: TaskUse, data: TaskData, line: MixLine) -> TaskForecast:
    from instil.encode.mask import token_view

    recipe = context.recipe
    groups = {part: Counter(row.group for row in data.part(part)) for part in Part}
    asked = fmt.plural(line.examples + line.dropped, "training example")
    warnings = [
        f"{fmt.count(number)} of {asked} {fate}: longer than train.max_length, which is "
        f"{recipe.train.max_length}"
        for fate, number in (("shortened", line.shortened), ("dropped", line.dropped))
        if number
    ]
    wanted = {Part.TRAIN: use.train, Part.VALIDATION: recipe.validation, Part.TEST: recipe.test}
    warnings += _too_few(data, groups, wanted)
    notes = {what: f"{what}: {fmt.plural(count, 'row')}" for what, count in data.notes.items()}
    # Many labels that are read alike (6.0 as 6) share one line.
    labels = [what for what in notes if what.startswith("label ")]
    if len(labels) > 2:
        total = sum(data.notes[what] for what in labels)
        alike = f"and {len(labels) - 1} other labels likewise: {total} rows"
        notes = {what: line for what, line in notes.items() if what not in labels}
        notes[labels[0]] = f"{labels[0]}, {alike}"
    return TaskForecast(
        task=data.task.id,
        metric=data.task.metric,
        rows={str(part): len(data.part(part)) for part in Part},
        groups={str(part): len(groups[part]) for part in Part},
        balance=data.balance,
        removed=Counter(removed.why for removed in data.split.removed),
        skipped=data.split.skipped,
        lengths=line.lengths,
        longest_asked=max(
            len(context.chat.prompt(e.messages, tools=e.tools))
            for row in (*data.validation, *data.test)
            for e in [render_example(data.task, data.answering[0], row)]
        ),
        previews=tuple(token_view(e, context.chat) for e in _shown(context, data)),
        smallest_difference=planned_detectable(
            list(groups[Part.TEST].values()),
            disagreement=0.2 if find_metric(data.task.metric).scale is Scale.BINARY else 0.02,
        ),
        warnings=(*warnings, *notes.values()),
        findings=(
            *audit_rows(data),
            *label_findings(data.task, context.chat),
            *chat_findings(data, context.chat),
            *cut_answers(data, context.chat),
            *template_findings(data, (*data.templates, *data.held_out)),
        ),
    )


def _too_few(
    data: TaskData, groups: Mapping[Part, Collection[str]], wanted: Mapping[Part, int | None]
) -> list[str]:
    """Say which part has fewer rows than `wanted`, and which too few rows or groups."""
    few = [
        f"{len(data.part(part))} of the {number} {part} rows asked for are there: repeats are "
        "taken out and not replaced, or there are no more; ask for some more where there are"
        for part, number in wanted.items()
        if number and len(data.part(part)) < number
    ]
    if len(data.test) < FEW_ROWS:
        few.append(f"{len(data.test)} test rows show large differences alone")
    return few + [
        f"the {len(data.part(part))} {part} rows are of {fmt.plural(len(groups[part]), 'group')}: "
        f"too few to tell what holds for others; more {part} rows bring more"
        for part in (Part.VALIDATION, Part.TEST)
        if len(groups[part]) < min(FEW_GROUPS, len(data.part(part)))
    ]


def _shown(context: RunContext, data: TaskData) -> Iterator[Encoded]:
    """Return the first training examples that the length policy leaves.

    Through the first template of each role, then through the others.
    """
    from instil.encode.mask import encode_turns

    train, firsts = context.recipe.train, {t.role: t for t in reversed(data.templates)}
    others = [t for t in data.templates if firsts[t.role] is not t]
    templates = cycle([*sorted(firsts.values(), key=data.templates.index), *others])
    encoded = (
        item
        for row in data.train
        for item in encode_turns(
            render_example(data.task, next(templates), row),
            context.chat,
            max_length=train.max_length,
            too_long=train.too_long,
        )
    )
    return islice((item for item in encoded if item.ids), PREVIEWS)
