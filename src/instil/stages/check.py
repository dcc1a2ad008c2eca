"""`instil check`: everything that can be known before a run, and nothing trained.

Tests: `tests/test_chat_cases.py`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle

from instil import format as fmt
from instil.config.recipe import Recipe
from instil.data.build import render_example
from instil.data.findings import Finding, audit_rows
from instil.data.prepare import TaskData
from instil.encode.alike import label_findings
from instil.encode.chat_findings import chat_findings
from instil.results import TEXT, LeftOut, MixLine
from instil.stages.context import RunContext, Say, prepare, silent
from instil.stages.durations import stage_seconds
from instil.stages.footprint import memory_line
from instil.stages.preflight import preflight, template_findings, without_adapter
from instil.stages.replaying import add_replay
from instil.stats.paired import planned_detectable
from instil.types import Part, Piece

PREVIEWS = 3
FEW_ROWS = 100


@dataclass(frozen=True, slots=True)
class TaskForecast:
    """What is known of a task before a run."""

    task: str
    """The task's id."""
    metric: str
    """The metric that decides."""
    rows: Mapping[str, int]
    """Part of the split -> rows."""
    balance: Mapping[str, Mapping[str, int]]
    """Part -> label -> rows; empty for free text."""
    removed: Mapping[str, int]
    """Reason -> duplicates taken out."""
    skipped: Mapping[str, int]
    """Reason -> rows left out before the split."""
    lengths: tuple[int, int, int]
    """Tokens of a training example: median, 95th percentile, longest; 0 where none is left."""
    previews: tuple[tuple[Piece, ...], ...]
    """A few training examples, token by token."""
    smallest_difference: float
    """What the test rows can show with 80 % power, in the metric's own unit (0 to 1)."""
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
    return Forecast(
        tuple(_forecast(context, d, training.fates) for d in context.data),
        stage_seconds(context, training),
        sum(terms.values()),
        memory_line(terms, device=recipe.device),
        training.mix,
        str(context.build),
        without_adapter(context),
        guard_forecast(context),
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
        if tasks > 1:
            mean = math.hypot(*each) / tasks
            shows += f" of one task, {100 * mean:.1f} of the mean over {tasks}"
        lines = [f"guard: {rows} rows a task show {shows} ({guessed})"]
    if wanted.margin is not None:
        needed = math.ceil((planned_detectable([1]) / (wanted.margin / 100)) ** 2)
        shown = f"{fmt.count(needed)} rows of it"
        if tasks > 1:
            shown += f", and the mean with {fmt.count(math.ceil(needed / tasks))} of each"
        lines.append(
            f"guard: a task that loses nothing is shown to be kept within {wanted.margin:g} points "
            f"with {shown} ({guessed}; fewer where fewer turn)"
        )
    return tuple(lines)


def _forecast(context: RunContext, data: TaskData, fates: Mapping[str, int]) -> TaskForecast:
    from instil.encode.mask import encode_all, token_view

    chat, train = context.chat, context.recipe.train
    templates = cycle(data.templates)
    examples = [render_example(data.task, next(templates), row) for row in data.train]
    encoded = encode_all(examples, chat, max_length=train.max_length, too_long=train.too_long)
    lengths = sorted(len(e.ids) for e in encoded if e.ids) or [0]  # `train.too_long: drop`
    shown = [e for e in encoded if e.ids][:PREVIEWS]
    groups = Counter(row.group for row in data.test)
    warnings = [
        f"{fates[fate]} training examples are {fate}: longer than train.max_length"
        for fate in ("truncated", "dropped")
        if fates.get(fate)
    ]
    if len(data.test) < FEW_ROWS:
        warnings.append(f"{len(data.test)} test rows show large differences alone")
    notes = {what: f"{what}: {count} rows" for what, count in data.notes.items()}
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
        balance=data.balance,
        removed=Counter(removed.why for removed in data.split.removed),
        skipped=data.split.skipped,
        lengths=(lengths[len(lengths) // 2], lengths[int(0.95 * len(lengths))], lengths[-1]),
        previews=tuple(token_view(e, chat) for e in shown),
        smallest_difference=planned_detectable(list(groups.values())),
        warnings=(*warnings, *notes.values()),
        findings=(
            *audit_rows(data),
            *label_findings(data.task, chat),
            *chat_findings(data, chat),
            *template_findings(data, (*data.templates, *data.held_out)),
        ),
    )
