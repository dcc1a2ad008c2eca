"""Which training rows a prompt shows: the same for every row asked, or those nearest to it.

A *draw* is a rule that picks rows from train. Three pick the same rows whatever is asked:
`random`, `balanced` (`data.build.pick_exemplars`: the classes take turns) and `hard` (rows that
the base model answers wrong). The others pick the rows nearest to the one asked, by the cosine
between TF-IDF vectors (`words`) or between the base model's hidden states (`states`: Liu et al.
2022, "What makes good in-context examples for GPT-3?", arXiv:2101.06804); `..._balanced` take the
nearest of each class in turn. The nearest stands last, next to the question.

A worked example: for the row `The battery broke`, `words` with two shots shows `A good battery`,
then `The battery died`.

Rows are drawn from `pool_rows`: train up to the 60th percentile of length, since worked examples
are paid for in every prediction. Neither validation nor test rows are ever drawn.

Tests: `tests/compare/test_demonstrations.py`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Any

import numpy as np

from instil.data.build import pick_exemplars, render_example, short_rows
from instil.data.prepare import TaskData
from instil.data.split import seeded_key
from instil.evaluate.baseline import vectorizer
from instil.evaluate.choices import OnDone, common_prefix
from instil.evaluate.probe import prompt_features, prompts_of
from instil.model.load import LoadedModel
from instil.results.prompts import Demonstrations
from instil.types import Row, Task, Template

RANDOM, BALANCED, HARD = "random", "balanced", "hard"
WORDS, STATES = "words", "states"
WORDS_BALANCED, STATES_BALANCED = "words_balanced", "states_balanced"
BY_WORDS, BY_STATES = (WORDS, WORDS_BALANCED), (STATES, STATES_BALANCED)
PER_ROW = frozenset((*BY_WORDS, *BY_STATES))
"""Draws that depend on the row asked."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """How near training rows are to rows asked."""

    pool: tuple[Row, ...]
    """Training rows, by id."""
    similar: Mapping[str, Any]
    """Id of a row asked -> (pool,) float, the higher the nearer."""


def pool_rows(data: TaskData, *, most: int, seed: int) -> tuple[Row, ...]:
    """Return the training rows to show, at most so many; the seed draws them."""
    rows = sorted(
        short_rows(data.task, data.train), key=lambda row: seeded_key(seed, "pool", row.id)
    )
    return tuple(rows[:most])


def word_neighbours(task: Task, pool: Sequence[Row], rows: Sequence[Row]) -> Neighbours:
    """Compare rows by the cosine between their TF-IDF vectors, fitted on the pool alone."""
    pool = sorted(pool, key=lambda row: row.id)
    terms = vectorizer()
    shown = terms.fit_transform([str(row.fields[task.text]) for row in pool])
    asked = terms.transform([str(row.fields[task.text]) for row in rows])
    table = (asked @ shown.T).toarray()  # both have length 1
    return Neighbours(tuple(pool), {row.id: line for row, line in zip(rows, table, strict=True)})


def state_neighbours(
    loaded: LoadedModel,
    task: Task,
    template: Template,
    pool: Sequence[Row],
    rows: Sequence[Row],
    *,
    on_done: OnDone = lambda _: None,
) -> Neighbours:
    """Compare rows by the cosine between the base model's mean hidden states (`evaluate.probe`).

    States are standardised on the pool: else a few large directions decide.

    Args:
        loaded: The base model.
        task: The task.
        template: Through which the model reads a row.
        pool: Training rows.
        rows: Rows asked.
        on_done: Called with the number of prompts read.
    """
    pool = sorted(pool, key=lambda row: row.id)
    shown, asked = (
        prompts_of(loaded, [render_example(task, template, row) for row in part])
        for part in (pool, rows)
    )
    skip = common_prefix(shown)
    own, theirs = (
        prompt_features(loaded, prompts, skip=skip, on_done=on_done).astype(np.float64)
        for prompts in (shown, asked)
    )
    mean, spread = own.mean(0), np.maximum(own.std(0), 1e-6)
    own, theirs = (
        each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), 1e-9)
        for each in ((own - mean) / spread, (theirs - mean) / spread)
    )
    # Rounded, so that the last bits of a sum order no rows.
    table = np.round(theirs @ own.T, 6)
    return Neighbours(tuple(pool), {row.id: line for row, line in zip(rows, table, strict=True)})


def neighbours_of(
    loaded: LoadedModel, data: TaskData, shown: Demonstrations | None, rows: Sequence[Row]
) -> Neighbours | None:
    """Return how near the pool of worked examples is to rows; None where that decides nothing."""
    if shown is None or shown.draw not in PER_ROW:
        return None
    known = {row.id: row for row in data.train}
    pool = [known[each] for each in shown.pool]
    if shown.draw in BY_WORDS:
        return word_neighbours(data.task, pool, rows)
    return state_neighbours(loaded, data.task, data.answering[0], pool, rows)


def nearest(
    task: Task, neighbours: Neighbours, row: Row, *, shots: int, balanced: bool
) -> tuple[Row, ...]:
    """Return the nearest rows of the pool, the nearest last; ties go to the smaller id.

    The row itself and its group are left out, for a row of train.

    Args:
        task: Says which field holds the label.
        neighbours: The pool, and how near it is.
        row: The row asked.
        shots: How many.
        balanced: Whether classes take turns, in the order of their nearest row.
    """
    pool = neighbours.pool
    order = np.argsort(-neighbours.similar[row.id], kind="stable")
    able = (pool[n] for n in order if pool[n].id != row.id and pool[n].group != row.group)
    if balanced and task.choices:
        queues: dict[str, list[Row]] = {}
        for each in able:
            queues.setdefault(str(each.fields[task.target]), []).append(each)
        able = (each for turn in zip_longest(*queues.values()) for each in turn if each)
    return tuple(reversed(list(islice(able, shots))))


def drawn(
    data: TaskData, pool: Sequence[Row], draw: str, *, shots: int, seed: int
) -> tuple[Row, ...]:
    """Draw rows that are shown whatever is asked, each of another group while there are such.

    Args:
        data: The task; `balanced` takes its rows of all train, as the ladder does.
        pool: Training rows to draw from.
        draw: random, balanced or hard.
        shots: How many.
        seed: Another seed draws other rows.
    """
    if draw == BALANCED:
        return pick_exemplars(data.task, data.train, shots=shots, seed=seed)
    rows = sorted(pool, key=lambda row: seeded_key(seed, draw, row.id))
    first = {row.group: row.id for row in reversed(rows)}  # of each group, the first in order
    return tuple(sorted(rows, key=lambda row: first[row.group] != row.id)[:shots])


def ordered(rows: Sequence[Row], order: int) -> tuple[Row, ...]:
    """Put rows in order: 0 as they are, 1 the other way round, n a shuffle by n."""
    if order < 2:
        return tuple(rows[::-1] if order else rows)
    return tuple(random.Random(order).sample(list(rows), len(rows)))


def chosen(
    data: TaskData,
    demonstrations: Demonstrations,
    rows: Sequence[Row],
    *,
    neighbours: Neighbours | None = None,
) -> Mapping[str, tuple[Row, ...]]:
    """Return id of a row asked -> the rows that its prompt shows, in order.

    Args:
        data: The task and its split.
        demonstrations: What was found to be shown.
        rows: Rows asked.
        neighbours: For a draw per row: of these rows.
    """
    if demonstrations.draw not in PER_ROW:
        known = {row.id: row for row in data.train}
        same = ordered([known[each] for each in demonstrations.rows], demonstrations.order)
        return {row.id: same for row in rows}
    assert neighbours is not None, "the nearest are looked for in a pool"
    balanced = demonstrations.draw in (WORDS_BALANCED, STATES_BALANCED)
    return {
        row.id: ordered(
            nearest(data.task, neighbours, row, shots=demonstrations.shots, balanced=balanced),
            demonstrations.order,
        )
        for row in rows
    }
