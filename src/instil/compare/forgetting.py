"""The forgetting ledger: other tasks and general text, before and after, on the same rows.

Guard tasks are asked zero-shot through their first template. Each gives two figures: its own
metric, and nats per target token, which still moves where accuracy sits at chance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from statistics import fmean

import numpy as np

from instil.compare.kept import is_decided, margin_of
from instil.compare.pairing import compare
from instil.config.sections import Auto
from instil.data.build import render_example
from instil.data.registry import load_rows
from instil.data.split import seeded_key
from instil.encode.chat_format import ChatFormat
from instil.encode.mask import shorten
from instil.errors import DataError
from instil.evaluate.choices import OnDone
from instil.evaluate.metrics import summarise
from instil.evaluate.suite import answer, mark, target_loss, text_loss
from instil.model.load import LoadedModel
from instil.results.guard import GuardResult, Margins
from instil.results.names import TEXT
from instil.scoring.metrics import NATS, Scale, find_metric
from instil.stats.intervals import DIFFERENCE, SHARE
from instil.stats.sequential import anytime_interval, anytime_p
from instil.tasks.task import load_task
from instil.types import Example, Message, Prediction, Role, Row, Score, Task

GUARD = ("bbc_topic", "finance_entities", "trivia", "quartz", "bbc_headline")
"""Looked at unless the recipe names others; of five kinds."""
TEXT_FROM = "bbc_headline"
"""Its articles serve as general text."""
GUARD_TOKENS = 256
"""Longest prompt of a guard task; longer inputs are shortened, before and after alike."""
TEXT_TOKENS = 160
FEWEST = 2
"""Groups of rows without which nothing can be compared."""
BATCH, MOST_ROWS = 50, 500
"""With `forgetting.rows: auto`: rows of a task that are asked at once, and at most."""


@dataclass(frozen=True, slots=True)
class GuardTask:
    """A task to watch, with the rows to watch it on."""

    id: str
    """The task's id, or `general text`."""
    kind: str
    """The kind of task."""
    metric: str
    """Its own metric."""
    max_new_tokens: int
    """For generated answers."""
    examples: tuple[Example, ...]
    """Zero-shot, through the first template."""


@dataclass(frozen=True, slots=True)
class GuardScores:
    """What one model got on one guard task, kept between before and after."""

    task: str
    """The task's id."""
    metric: str
    """What was measured."""
    scores: tuple[Score, ...]
    """One an example."""
    predictions: tuple[Prediction, ...]
    """The answers, to look at."""

    @property
    def values(self) -> dict[str, float]:
        """Example id -> score, of those that could be scored."""
        return {s.example_id: s.value for s in self.scores if s.value is not None}


@dataclass(frozen=True, slots=True)
class GuardSides:
    """The guard's scores of both models, on the same rows."""

    before: tuple[GuardScores, ...]
    """The base model's."""
    after: tuple[GuardScores, ...]
    """The tuned model's."""


def choose_guard(
    wanted: str | Sequence[str], *, clusters: Sequence[str], trained: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the guard tasks to watch, and those left out as relatives of what is trained.

    Args:
        wanted: `guard`, `none`, or task names; named ones are taken whatever their cluster.
        clusters: The clusters of the trained tasks.
        trained: Their ids.
    """
    if wanted == "none":
        return (), ()
    if not isinstance(wanted, str):
        return tuple(wanted), ()
    related = tuple(
        name for name in GUARD if name in trained or load_task(name).cluster in clusters
    )
    return tuple(name for name in GUARD if name not in related), related


def guard_rows(
    names: Sequence[str], *, rows: int, text: bool, seed: int, one_a_group: bool = False
) -> list[tuple[Task, Row]]:
    """Return the rows that a guard asks about or reads, each with its task.

    Some more than that, since rows that are too long for it are passed over.
    """
    tasks = [load_task(name) for name in names]
    most = rows + rows // 4
    asked = [(task, row) for task in tasks for row in _drawn(task, seed, one_a_group)[:most]]
    return [*asked, *_drawn_texts(seed, one_a_group)[:most]] if text else asked


def _drawn(task: Task, seed: int, one_a_group: bool) -> list[Row]:
    """The rows of a guard task, in the order in which they are asked."""
    drawn = sorted(load_rows(task).rows, key=lambda r: seeded_key(seed, "guard", task.id, r.id))
    return _first_of_groups(drawn) if one_a_group else drawn


def _drawn_texts(seed: int, one_a_group: bool) -> list[tuple[Task, Row]]:
    """The rows whose texts are general text, in the order in which they are read."""
    task = load_task(TEXT_FROM)
    drawn = sorted(load_rows(task).rows, key=lambda r: seeded_key(seed, "text", r.id))
    return [(task, row) for row in (_first_of_groups(drawn) if one_a_group else drawn)]


def _first_of_groups(rows: Sequence[Row]) -> list[Row]:
    firsts: dict[str, Row] = {}
    for row in rows:
        firsts.setdefault(row.group, row)
    return [*firsts.values()]


def guard_sources(guard: Sequence[GuardTask], names: Sequence[str]) -> list[tuple[Task, Row]]:
    """Return the rows that a guard was made of, general text's included, each with its task.

    Args:
        guard: As drawn by `load_guard`.
        names: The tasks that it was drawn from.
    """
    asked: dict[str, set[str]] = {}
    for item in guard:
        asked.setdefault(item.id, set()).update(e.row for e in item.examples)
    tasks = {task.id: task for task in map(load_task, names)}
    if TEXT in asked:
        tasks[TEXT] = load_task(TEXT_FROM)
    return [
        (tasks[name], row)
        for name, ids in asked.items()
        for row in load_rows(tasks[name]).rows
        if row.id in ids
    ]


def most_rows(rows: int | Auto) -> int:
    """Return how many rows of a guard task are asked at most."""
    return MOST_ROWS if rows == "auto" else rows


def choosing_rows(rows: int | Auto) -> int:
    """Return how many further rows of a guard task something is chosen on: half as many.

    >>> choosing_rows(100), choosing_rows(3), choosing_rows("auto")
    (50, 2, 50)
    """
    return BATCH if rows == "auto" else max(FEWEST, rows // 2)


def load_guard(
    names: Sequence[str],
    *,
    rows: int,
    text: bool,
    chat: ChatFormat,
    seed: int,
    apart_from: Sequence[GuardTask] = (),
    one_a_group: bool = False,
) -> tuple[GuardTask, ...]:
    """Draw and render the rows of every guard task; long inputs are shortened.

    Args:
        names: The tasks.
        rows: Rows of each.
        text: Whether general text is read too, as many pieces of it.
        chat: The model's chat format.
        seed: Of the draw.
        apart_from: Another guard, with no group of whose rows any row is shared. A task that has
            no two other groups is left out.
        one_a_group: Whether of each group one row alone is taken, so that rows are independent.

    Raises:
        DataError: A task has fewer than two groups of such rows.
    """
    text_task = load_task(TEXT_FROM).id if text else ""
    taken = frozenset(
        (text_task if e.task == TEXT else e.task, e.group)
        for item in apart_from
        for e in item.examples
    )
    guard = []
    for task in map(load_task, names):
        drawn = [r for r in _drawn(task, seed, one_a_group) if (task.id, r.group) not in taken]
        guard.append(_guard_task(task, drawn, rows, chat))
    if text:
        examples = [
            Example(
                id=f"text/{row.id}",
                task=TEXT,
                template="",
                row=row.id,
                group=row.group,
                messages=(Message("user", ""),),
                target=str(row.fields[task.text]),
            )
            for task, row in _drawn_texts(seed, one_a_group)
            if (task.id, row.group) not in taken
        ]
        guard.append(GuardTask(TEXT, "cross-entropy", NATS.name, 0, tuple(examples[:rows])))
    groups = {item.id: len({e.group for e in item.examples}) for item in guard}
    few = {name: count for name, count in groups.items() if count < FEWEST}
    if few and not apart_from:
        name, found = next(iter(few.items()))
        raise DataError(
            f"the guard task {name} has too few groups of rows to compare anything on",
            where="forgetting.tasks",
            found=f"{found}, of rows that can be shortened to {GUARD_TOKENS} tokens",
            allowed=f"{FEWEST} or more",
            fix="name another task, or another group column of this one",
        )
    return tuple(item for item in guard if item.id not in few)


def _guard_task(task: Task, drawn: Sequence[Row], rows: int, chat: ChatFormat) -> GuardTask:
    template = next(t for t in task.templates if t.role is Role.ANSWER)
    examples: list[Example] = []
    for row in drawn:
        example = render_example(task, template, row)
        asked = chat.target(example)
        room = GUARD_TOKENS - len(asked.completions[0])
        fitting = example if len(asked.prompt) <= room else shorten(example, chat, max_tokens=room)
        if fitting is not None:
            examples.append(fitting)
        if len(examples) == rows:
            break
    return GuardTask(task.id, task.kind, task.metric, task.max_new_tokens, tuple(examples))


def measure(
    loaded: LoadedModel,
    guard: Sequence[GuardTask],
    *,
    metrics: bool = True,
    on_done: OnDone = lambda _: None,
) -> tuple[GuardScores, ...]:
    """Score a model on every guard task: its metric, and nats per target token.

    Args:
        loaded: The model.
        guard: What to ask.
        metrics: False: nats alone, which take no generation and most often a fraction of the time.
        on_done: Called with the number of examples of each task that is done.
    """
    scores: list[GuardScores] = []
    for item in guard:
        marked = []
        if item.id == TEXT:
            marked.append(text_loss(loaded, item.examples, max_tokens=TEXT_TOKENS))
        else:
            if metrics:
                made = answer(loaded, item.examples, max_new_tokens=item.max_new_tokens)
                marked.append(mark(item.examples, made, metric=item.metric))
            marked.append(target_loss(loaded, item.examples))
        scores += [
            GuardScores(item.id, m.scores[0].metric, m.scores, m.predictions) for m in marked
        ]
        on_done(len(item.examples))
    return tuple(scores)


def measure_to_choose(
    loaded: LoadedModel, guard: Sequence[GuardTask], *, budget: float | None
) -> tuple[GuardScores, ...]:
    """Score what a choice among models looks at: without a budget that is nats alone."""
    return measure(loaded, guard, metrics=budget is not None)


def first_batch(guard: Sequence[GuardTask]) -> tuple[GuardTask, ...]:
    """Return the guard with the rows of each task that are asked first, where asking may end."""
    return tuple(replace(item, examples=item.examples[:BATCH]) for item in guard)


Ask = Callable[[Sequence[GuardTask]], tuple[GuardScores, ...]]


def ask_until_decided(
    guard: Sequence[GuardTask],
    before: Sequence[GuardScores],
    *,
    ask_base: Ask,
    ask_tuned: Ask,
    margins: Margins,
) -> GuardSides:
    """Ask both models about each task, batch by batch, until its own metric shows something.

    That is a gain, a loss, or where there is a margin a loss within it or beyond it; all at a level
    divided by the number of comparisons, so that what ended the asking is shown in the end as well.
    What is looked at after every batch are intervals that hold at any stopping time.

    Args:
        guard: All rows that may be asked, of each group one.
        before: The base model's scores of the first batch of each.
        ask_base: Called with rows that the base model has not been asked yet.
        ask_tuned: Called with rows that the tuned model has not been asked yet.
        margins: Losses up to which a task counts as kept.
    """
    sides = GuardSides((), ())
    for item in guard:
        old = tuple(scores for scores in before if scores.task == item.id)
        new = ask_tuned(first_batch([item]))
        for start in count(BATCH, BATCH):
            result = _paired(item, old[0], new[0], anytime=margins)
            margin = margin_of(result.comparison, task=item.id, margins=margins)
            decided = is_decided(result.comparison, margin=margin, tests=len(before))
            if decided or start >= len(item.examples):
                break
            more = [replace(item, examples=item.examples[start : start + BATCH])]
            old, new = _joined(old, ask_base(more)), _joined(new, ask_tuned(more))
        sides = GuardSides((*sides.before, *old), (*sides.after, *new))
    return sides


def _joined(a: Sequence[GuardScores], b: Sequence[GuardScores]) -> tuple[GuardScores, ...]:
    return tuple(
        GuardScores(x.task, x.metric, (*x.scores, *y.scores), (*x.predictions, *y.predictions))
        for x, y in zip(a, b, strict=True)
    )


def ledger(
    guard: Sequence[GuardTask],
    before: Sequence[GuardScores],
    after: Sequence[GuardScores],
    *,
    anytime: Margins | None = None,
) -> tuple[GuardResult, ...]:
    """Pair before and after: one line a task and metric.

    Args:
        guard: The tasks, with the rows that were asked, and perhaps more.
        before: The base model's scores.
        after: The tuned model's.
        anytime: The margins, where rows were asked until something was shown: intervals and
            p-values are then of the kind that holds at any stopping time.
    """
    by_id = {item.id: item for item in guard}
    return tuple(
        _paired(by_id[old.task], old, new, anytime=anytime)
        for old, new in zip(before, after, strict=True)
    )


def _paired(
    item: GuardTask, old: GuardScores, new: GuardScores, *, anytime: Margins | None
) -> GuardResult:
    assert (old.task, old.metric) == (new.task, new.metric), "the ledger's two sides must match"
    metric, pair = old.metric, (old.values, new.values)
    groups = {e.id: f"{e.task}/{e.group}" for e in item.examples}
    levels = [summarise(side.scores, groups=groups, metric=metric) for side in (old, new)]
    change = compare(*pair, a="before", b="after", metric=metric, groups=groups)
    if anytime is None:
        return GuardResult(item.id, item.kind, levels[0], levels[1], change)
    is_open = find_metric(metric).scale is Scale.OPEN
    for n, values in enumerate(pair):
        held = anytime_interval([*values.values()], span=None if is_open else SHARE)
        levels[n] = replace(levels[n], low=held.low, high=held.high)
    gaps = np.array([pair[1][key] - pair[0][key] for key in sorted(pair[0].keys() & pair[1])])
    span = None if is_open else DIFFERENCE
    margin = margin_of(change, task=item.id, margins=anytime)
    loss = None if margin is None else -margin if change.higher_is_better else margin
    held = anytime_interval(gaps, span=span)
    change = replace(
        change,
        low=held.low,
        high=held.high,
        # McNemar's test and the power are of a number of rows that was fixed before.
        p_value=None,
        smallest_detectable=0.0,
        df=None,
        anytime_p=anytime_p(gaps, mean=0.0, span=span),
        anytime_margin_p=None if loss is None else anytime_p(gaps, mean=loss, span=span),
    )
    return GuardResult(item.id, item.kind, levels[0], levels[1], change)


def guard_lines(
    guard: Sequence[GuardTask], before: Sequence[GuardScores], after: Sequence[GuardScores]
) -> list[dict[str, object]]:
    """One line an example and metric, for `scores/guard.jsonl`."""
    groups = {(item.id, e.id): e.group for item in guard for e in item.examples}
    return [
        {
            "task": old.task,
            "metric": old.metric,
            "example": was.example_id,
            "group": groups[old.task, was.example_id],
            "before": was.value,
            "after": became.value,
        }
        for old, new in zip(before, after, strict=True)
        for was, became in zip(old.scores, new.scores, strict=True)
    ]


def mean_changes(
    before: Sequence[GuardScores], after: Sequence[GuardScores]
) -> tuple[float | None, float | None]:
    """Return the guard's mean change in points of 100, and its mean loss in nats per token.

    Every task counts the same. Of the cross-entropies only rises count, a fall is 0: tuning also
    teaches to answer briefly, which makes the answers of other tasks likelier by a nat and more,
    and would hide what was lost on the rest. None for what was not measured.
    """
    points: list[float] = []
    nats: list[float] = []
    for old, new in zip(before, after, strict=True):
        was, became = old.values, new.values
        both = was.keys() & became.keys()
        if both:
            change = sum(became[key] - was[key] for key in sorted(both)) / len(both)
            if old.metric == NATS.name:
                nats.append(max(0.0, change))
            else:
                points.append(100 * change)
    return fmean(points) if points else None, fmean(nats) if nats else None
