"""Replay: what is trained on beside the tasks, so that the model keeps what it knew.

Either texts that the untouched model writes by itself, or rows of other tasks. They are added to
every epoch of the encoded training (`add_replay`), before anything is asked or trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from instil.config.recipe import Recipe
from instil.data.audit import read_text, repeats_of
from instil.data.build import drawn_templates, render_example
from instil.data.prepare import TaskData, identities
from instil.data.registry import load_rows
from instil.data.split import seeded_key
from instil.encode.plan import Replay, Replayed, replay_count
from instil.errors import DataError, Problem
from instil.stages.training import encoded_training
from instil.stages.untuned import Bench, choosing_guard, guard_names, load_base, reported_guard
from instil.tasks.task import load_task
from instil.types import REPLAY, Encoded, PerRow, Role, Row, Task, TooLong

if TYPE_CHECKING:
    from instil.encode.chat_format import ChatFormat
    from instil.encode.plan import TrainingData
    from instil.model.load import ModelFolder

OWN_TOKENS = 96
"""Longest text that the model writes."""
OWN_TEXTS = 2000
"""Texts that it writes at most; where more are wanted they come again."""
OWN_LINE = "replay: own"
"""Their line in the mix."""


@dataclass(frozen=True, slots=True)
class OwnText:
    """A text that the untouched model wrote, kept with the run."""

    ids: tuple[int, ...]
    """Its tokens, the beginning-of-text token first."""
    text: str
    """The same, for people."""


def add_replay(
    bench: Bench, folder: ModelFolder, data: Sequence[TaskData], encoded: TrainingData
) -> TrainingData:
    """Mix into the training what the recipe wants replayed.

    Args:
        bench: The run; own texts are kept in it.
        folder: The base model.
        data: The recipe's tasks, split.
        encoded: The training without replay.

    Raises:
        DataError: A task to replay has no row that the run does not judge by.
    """
    recipe = bench.recipe
    if recipe.keep.replay.share is None:
        return encoded
    needed = replay_needed(recipe, encoded)
    if recipe.keep.replay.of == "own":
        texts = own_texts(bench, folder, needed=min(needed, OWN_TEXTS))
        return _with_texts(recipe, folder, data, texts)
    with bench.stage("replay"):
        return _with_rows(recipe, folder, data, needed=needed)


def planned_replay(
    recipe: Recipe, folder: ModelFolder, data: Sequence[TaskData], encoded: TrainingData
) -> TrainingData:
    """Do as `add_replay` without the model: texts of its own are made up, as long as they can be.

    Raises:
        DataError: As `add_replay`.
    """
    if recipe.keep.replay.share is None:
        return encoded
    needed = replay_needed(recipe, encoded)
    if recipe.keep.replay.of != "own":
        return _with_rows(recipe, folder, data, needed=needed)
    made_up = OwnText((0,) * (1 + _own_tokens(recipe)), "")
    return _with_texts(recipe, folder, data, [made_up] * min(needed, OWN_TEXTS))


def replay_needed(recipe: Recipe, encoded: TrainingData) -> int:
    """Return how many examples are replayed over all epochs; 0 where nothing is."""
    share = recipe.keep.replay.share
    if share is None:
        return 0
    epoch = replay_count(sum(line.examples for line in encoded.mix), share=share)
    return epoch * math.ceil(encoded.epochs)


def _with_texts(
    recipe: Recipe, folder: ModelFolder, data: Sequence[TaskData], texts: Sequence[OwnText]
) -> TrainingData:
    return _replaying(recipe, folder, data, lambda chat: _own_stream(texts))


def _with_rows(
    recipe: Recipe, folder: ModelFolder, data: Sequence[TaskData], *, needed: int
) -> TrainingData:
    pools = replay_pools(recipe, folder, data, needed=needed)
    tasks = tuple(pool.task.id for pool in pools)
    return _replaying(recipe, folder, data, lambda chat: _task_stream(pools, recipe, chat), tasks)


def _replaying(
    recipe: Recipe,
    folder: ModelFolder,
    data: Sequence[TaskData],
    stream: Callable[[ChatFormat], Iterator[Replayed]],
    tasks: tuple[str, ...] = (),
) -> TrainingData:
    from instil.model.load import load_tokenizer

    chat, share = load_tokenizer(folder), recipe.keep.replay.share
    assert share is not None, "something is replayed"
    return encoded_training(recipe, data, chat, replay=Replay(share, stream(chat), tasks))


# --- what the model writes by itself -------------------------------------------------------------


def own_texts(bench: Bench, folder: ModelFolder, *, needed: int) -> tuple[OwnText, ...]:
    """Let the untouched model write texts; a resumed run takes those that it has."""
    return bench.run.kept(
        "replay-own", tuple[OwnText, ...], lambda: _write_texts(bench, folder, needed)
    )


def _write_texts(bench: Bench, folder: ModelFolder, needed: int) -> tuple[OwnText, ...]:
    from instil.evaluate.sample import sample_texts

    recipe, base = bench.recipe, load_base(bench.recipe, folder)
    with bench.stage("own texts", needed) as done:
        texts = sample_texts(
            base,
            needed,
            max_new_tokens=_own_tokens(recipe),
            seed=seeded_key(recipe.seed, "own texts") % 2**63,
            on_done=done,
        )
    return tuple(OwnText(ids, base.chat.tokenizer.decode(ids)) for ids in texts)


def _own_tokens(recipe: Recipe) -> int:
    return min(OWN_TOKENS, recipe.train.max_length - 1)


def _own_stream(texts: Sequence[OwnText]) -> Iterator[Replayed]:
    """Yield the texts over and over; every token but the first is trained on."""
    for n in count():
        ids, name = texts[n % len(texts)].ids, str(n % len(texts))
        mask = (False, *[True] * (len(ids) - 1))
        yield Replayed(OWN_LINE, name, Encoded(f"{REPLAY}own/{name}", ids, mask))


# --- rows of other tasks -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReplayPool:
    """A task's rows that may be replayed, in the order in which they are."""

    task: Task
    """The task."""
    rows: tuple[Row, ...]
    """None of them is judged by, nor of a group that is."""


def replayed_tasks(recipe: Recipe, data: Sequence[TaskData]) -> tuple[str, ...]:
    """Return the tasks to replay, as the recipe or the guard names them; none with own texts."""
    wanted = recipe.keep.replay
    if wanted.share is None or wanted.of == "own":
        return ()
    return guard_names(recipe, data)[0] if wanted.of == "guard" else tuple(wanted.of)


def replay_pools(
    recipe: Recipe, folder: ModelFolder, data: Sequence[TaskData], *, needed: int
) -> tuple[ReplayPool, ...]:
    """Draw rows of each task to replay: none that the run judges by, nor one that repeats such.

    Args:
        recipe: Says which tasks, and the seed.
        folder: The base model, whose tokenizer says which rows fit the guard.
        data: The trained tasks, whose validation and test rows are judged by.
        needed: Examples over all tasks and epochs.

    Raises:
        DataError: A task has no such row.
    """
    names = replayed_tasks(recipe, data)
    if not names:
        raise DataError(_no_guard())
    judged = _judged(recipe, folder, data)
    each = -(-needed // len(names))
    return tuple(_pool(recipe, load_task(name), judged, needed=each) for name in names)


def _judged(
    recipe: Recipe, folder: ModelFolder, data: Sequence[TaskData]
) -> list[tuple[Task, Row]]:
    """Return every row that the run judges or chooses by, the guard's and general text included."""
    from instil.compare.forgetting import guard_sources

    reported = reported_guard(recipe, folder, data)
    guard = (*reported, *choosing_guard(recipe, folder, data, reported))
    names, _ = guard_names(recipe, data)
    own = [(d.task, row) for d in data for row in (*d.validation, *d.test)]
    return own + guard_sources(guard, names)


def _pool(
    recipe: Recipe, task: Task, judged: Sequence[tuple[Task, Row]], *, needed: int
) -> ReplayPool:
    taken = {key for other, row in judged for key in identities(other, row)}
    free = [row for row in load_rows(task).rows if not taken & set(identities(task, row))]
    free.sort(key=lambda row: seeded_key(recipe.seed, "replay", task.id, row.id))
    texts = {f"{other.id}/{row.id}": read_text(other, row.fields) for other, row in judged}
    threshold = recipe.split.near_duplicates
    drawn = free[: needed + needed // 4 + 1]
    repeats = {r.row for r in repeats_of(drawn, texts, task=task, threshold=threshold)}
    rows = tuple(row for row in drawn if row.id not in repeats)[:needed]
    if not rows:
        raise DataError(_nothing_left(task))
    return ReplayPool(task, rows)


def _task_stream(
    pools: Sequence[ReplayPool], recipe: Recipe, chat: ChatFormat
) -> Iterator[Replayed]:
    """Yield the tasks in turn, each through its rows over and over, in templates drawn anew.

    Rows that do not fit and cannot be shortened are passed over.

    Raises:
        DataError: None of a task's rows fits.
    """
    turns = [_rows_of(pool, recipe, chat) for pool in pools]
    while True:
        for turn in turns:
            yield next(turn)


def _rows_of(pool: ReplayPool, recipe: Recipe, chat: ChatFormat) -> Iterator[Replayed]:
    from instil.encode.mask import encode_turns

    task = pool.task
    asking = [t for t in task.templates if t.role is Role.ANSWER]
    for number in count():
        fitted = 0
        for row in pool.rows:
            (template,) = drawn_templates(
                row, asking, per_row=PerRow.ONE, seed=recipe.seed, draw=number
            )
            example = render_example(task, template, row)
            length = recipe.train.max_length
            for made in encode_turns(example, chat, max_length=length, too_long=TooLong.SHORTEN):
                if made.ids:
                    fitted += 1
                    name = f"{REPLAY}{made.example_id}"
                    again = Encoded(name, made.ids, made.mask, made.fate, made.why)
                    yield Replayed(f"replay: {task.id}", row.id, again)
        if not fitted:
            raise DataError(
                Problem(
                    f"no row of {task.id} fits into train.max_length",
                    where="keep.replay.of",
                    fix="raise train.max_length, or name another task",
                )
            )


def _nothing_left(task: Task) -> Problem:
    return Problem(
        f"no row of {task.id} is left to replay: the run judges by all of them",
        where="keep.replay.of",
        fix="lower forgetting.rows, or name another task",
    )


def _no_guard() -> Problem:
    return Problem(
        "there is no guard task whose rows could be replayed",
        where="keep.replay.of",
        found="guard",
        fix="name the tasks to replay, or set forgetting.tasks",
    )
