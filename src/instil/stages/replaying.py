"""Replay: what is trained on beside the tasks, so that the model keeps what it knew.

Either texts that the base model writes by itself, or rows of other tasks. They are added to
every epoch of the encoded training (`add_replay`), before anything is asked or trained.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, cycle
from typing import TYPE_CHECKING

from instil.config.sections import Replay as ReplaySection
from instil.data.audit import read_text, repeats_of
from instil.data.build import drawn_templates, render_example
from instil.data.mix import Pool
from instil.data.prepare import identities
from instil.data.registry import load_rows
from instil.data.split import seeded_key
from instil.encode.plan import Replay, Replayed, replay_count
from instil.errors import DataError
from instil.stages.context import RunContext
from instil.stages.lineage import digests, lineage_of
from instil.stages.training import encoded_training
from instil.tasks.task import load_task
from instil.types import REPLAY, Encoded, PerRow, Role, TooLong

if TYPE_CHECKING:
    from instil.encode.plan import TrainingData

OWN_TOKENS = 96
"""Longest text that the model writes."""
OWN_TEXTS = 2000
"""Texts that it writes at most; where more are wanted they come again."""
OWN_LINE = "replay: own"
"""Their line in the mix."""


@dataclass(frozen=True, slots=True)
class OwnText:
    """A text that the base model wrote, kept with the run."""

    ids: tuple[int, ...]
    """Its tokens, the beginning-of-text token first."""
    text: str
    """The same, for people."""


def add_replay(context: RunContext, encoded: TrainingData) -> TrainingData:
    """Mix into the training what the recipe wants replayed; a check makes up the model's own texts.

    Args:
        context: The run; own texts are kept in it.
        encoded: The training without replay.

    Raises:
        DataError: A task to replay has no row that the run does not judge by.
    """
    wanted = context.recipe.keep.replay
    if wanted.share is None:
        return encoded
    needed = replay_needed(wanted, encoded)
    if wanted.of == "own":
        own = []
        for n, text in enumerate(own_texts(context, needed=min(needed, OWN_TEXTS))):
            mask = (False, *[True] * (len(text.ids) - 1))  # all but the first are trained on
            own.append(Replayed(OWN_LINE, str(n), Encoded(f"{REPLAY}own/{n}", text.ids, mask)))
        return encoded_training(context, replay=Replay(wanted.share, cycle(own)))
    with context.stage("replay"):
        pools = replay_pools(context, needed=needed)
        tasks = tuple(pool.task.id for pool in pools)
        stream = map(next, cycle([_task_stream(pool, context) for pool in pools]))
        return encoded_training(context, replay=Replay(wanted.share, stream, tasks))


def replay_needed(replay: ReplaySection, encoded: TrainingData) -> int:
    """Return how many examples are replayed over all epochs; 0 where nothing is."""
    if replay.share is None:
        return 0
    epoch = replay_count(sum(line.examples for line in encoded.mix), share=replay.share)
    return epoch * math.ceil(encoded.epochs)


# --- what the model writes by itself -------------------------------------------------------------


def own_texts(context: RunContext, *, needed: int) -> tuple[OwnText, ...]:
    """Let the base model write texts; a resumed run takes those that it has."""
    longest = min(OWN_TOKENS, context.recipe.train.max_length - 1)

    def write() -> tuple[OwnText, ...]:
        from instil.evaluate.sample import sample_texts

        base = context.load_base()
        with context.stage("own texts", needed) as done:
            texts = sample_texts(
                base,
                needed,
                max_new_tokens=longest,
                seed=seeded_key(context.recipe.seed, "own texts") % 2**63,
                on_done=done,
            )
        return tuple(OwnText(ids, base.chat.tokenizer.decode(ids)) for ids in texts)

    if context.directory is None:  # a check loads no model: as long as they can be
        return (OwnText((0,) * (1 + longest), ""),) * needed
    return context.run.kept("replay-own", tuple[OwnText, ...], write)


# --- rows of other tasks -------------------------------------------------------------------------


def replay_pools(context: RunContext, *, needed: int) -> tuple[Pool, ...]:
    """Draw rows of each task to replay: none that the run judges by, nor one that repeats such.

    Args:
        context: The run. What it judges or chooses by are the validation and test rows of its
            tasks, and all rows of the guard, general text included.
        needed: Examples over all tasks and epochs.

    Raises:
        DataError: A task has no such row.
    """
    from instil.compare.forgetting import guard_sources

    recipe, guard_names = context.recipe, context.guard_names[0]
    names = guard_names if recipe.keep.replay.of == "guard" else recipe.keep.replay.of
    if not names:
        raise DataError(
            "there is no guard task whose rows could be replayed",
            where="keep.replay.of",
            found="guard",
            fix="name the tasks to replay, or set forgetting.tasks",
        )
    judged = [(d.task, row) for d in context.data for row in (*d.validation, *d.test)]
    judged += guard_sources((*context.guard, *context.choosing_guard), guard_names)
    taken = {key for other, row in judged for key in identities(other, row)}
    texts = {f"{other.id}/{row.id}": read_text(other, row.fields) for other, row in judged}
    before = frozenset(lineage_of(recipe.model).judged)
    each, threshold = -(-needed // len(names)), recipe.split.near_duplicates
    pools = []
    for task in map(load_task, names):
        free = [row for row in load_rows(task).rows if not taken & set(identities(task, row))]
        if before:  # rows that have judged the base model stay unseen by what is made of it
            said = digests((task, row) for row in free)
            free = [row for row, digest in zip(free, said, strict=True) if digest not in before]
        free.sort(key=lambda row: seeded_key(recipe.seed, "replay", row.task, row.id))
        drawn = free[: each + each // 4 + 1]
        repeats = {r.row for r in repeats_of(drawn, texts, task=task, threshold=threshold)}
        rows = tuple(row for row in drawn if row.id not in repeats)[:each]
        if not rows:
            raise DataError(
                f"no row of {task.id} is left to replay: the run judges by all of them",
                where="keep.replay.of",
                fix="lower forgetting.rows, or name another task",
            )
        asking = tuple(t for t in task.templates if t.role is Role.ANSWER)
        pools.append(Pool(task, rows, asking))
    return tuple(pools)


def _task_stream(pool: Pool, context: RunContext) -> Iterator[Replayed]:
    """Yield a task's rows over and over, in templates drawn anew.

    Those that do not fit and cannot be shortened are passed over.

    Raises:
        DataError: None of them fits.
    """
    from instil.encode.mask import encode_turns

    task, seed, longest = pool.task, context.recipe.seed, context.recipe.train.max_length
    encode = partial(encode_turns, chat=context.chat, max_length=longest, too_long=TooLong.SHORTEN)
    for number in count():
        fitted = 0
        for row in pool.rows:
            (template,) = drawn_templates(
                row, pool.templates, per_row=PerRow.ONE, seed=seed, draw=number
            )
            for encoded in encode(render_example(task, template, row)):
                if encoded.ids:
                    fitted += 1
                    marked = replace(encoded, example_id=f"{REPLAY}{encoded.example_id}")
                    yield Replayed(f"replay: {task.id}", row.id, marked)
        if not fitted:
            raise DataError(
                f"no row of {task.id} fits into train.max_length",
                where="keep.replay.of",
                fix="raise train.max_length, or name another task",
            )
