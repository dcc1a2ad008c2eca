"""Validation and test rows that are longer than the model's context, under `train.too_long`.

Training examples meet the policy when they are encoded. The rows that are only asked meet it here,
before the ladder: `drop` leaves them out, `shorten` cuts their longest field until they fit every
template, and both are counted in the split; `error` leaves it to `preflight`. Worked examples take
nothing from a row: one that does not fit behind them is asked without.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from instil.data.build import pick_exemplars, render_example
from instil.data.prepare import TaskData
from instil.errors import DataError
from instil.types import Part, Row, TooLong

if TYPE_CHECKING:
    from instil.encode.chat_format import ChatFormat

DROPPED = "longer than the model's context: dropped from {part}"
ENOUGH = 5
"""Rows in order of length that fit one after another, for all shorter ones to fit."""
ALONE = "asked without the worked examples of a {count}-shot prompt, which would not fit"
SHORTENED = "longer than the model's context: shortened in {part}, not left out"


def fit_context(
    data: Sequence[TaskData],
    *,
    chat: ChatFormat,
    longest: int,
    too_long: TooLong,
    shots: Sequence[int],
    seed: int,
) -> tuple[TaskData, ...]:
    """Apply the length policy to validation and test rows; what became of them is counted.

    Args:
        data: The tasks, split.
        chat: The model's chat format.
        longest: Tokens that the model takes; 0: nothing says, and all rows stay.
        too_long: The policy.
        shots: Numbers of worked examples that prompts have.
        seed: Draws them.

    Raises:
        DataError: No row of a part is left.
    """
    if not longest or too_long is TooLong.ERROR:
        return tuple(data)
    fitted = []
    for d in data:
        rows = fitted_rows(d, chat, longest)
        kept = _replaced(d, rows, drop=too_long is TooLong.DROP)
        crowded = {}
        for count in sorted({*shots} - {0}):
            shown = pick_exemplars(d.task, d.train, shots=count, seed=seed)
            crowded[count] = crowded_rows(kept, shown, chat, longest)
        crowded = {count: ids for count, ids in crowded.items() if ids}
        notes = {ALONE.format(count=count): len(ids) for count, ids in crowded.items()}
        fitted.append(replace(kept, crowded=crowded, notes={**kept.notes, **notes}))
    return tuple(fitted)


def crowded_rows(
    data: TaskData, shown: Sequence[Row], chat: ChatFormat, longest: int
) -> frozenset[str]:
    """Return the rows that do not fit behind worked examples, through any template."""
    crowded: set[str] = set()
    for template in (*data.answering, *data.held_out):
        examples = (
            render_example(data.task, template, row) for row in (*data.validation, *data.test)
        )
        # The longest first: behind the same examples the others fit as soon as a few do.
        sizes = {e.row: len(chat.prompt(e.messages, tools=e.tools)) for e in examples}
        rows = sorted((*data.validation, *data.test), key=lambda row: -sizes[row.id])
        fitting = 0
        for row in rows:
            example = render_example(data.task, template, row, exemplars=shown)
            room = chat.answer_room(example, max_new_tokens=data.task.max_new_tokens)
            fitting = fitting + 1 if sum(room) <= longest else 0
            if not fitting:
                crowded.add(row.id)
            if fitting == ENOUGH:
                break
    return frozenset(crowded)


def fitted_rows(data: TaskData, chat: ChatFormat, longest: int) -> dict[str, Row | None]:
    """Return each row, shortened until it fits every template; None where nothing helps."""
    from instil.encode.mask import shorten

    fitted: dict[str, Row | None] = {}
    for row in (*data.validation, *data.test):
        fitted[row.id] = row
        for template in (*data.answering, *data.held_out):
            example = render_example(data.task, template, row)
            prompt, answer = chat.answer_room(example, max_new_tokens=data.task.max_new_tokens)
            if prompt + answer <= longest:
                continue
            shorter = shorten(example, chat, max_tokens=longest - answer)
            if shorter is None:
                fitted[row.id] = None
                break
            fields = {
                name: shorter.text
                if isinstance(value, str)
                and value.strip() == example.text
                and name != data.task.target
                else value
                for name, value in row.fields.items()
            }
            if lost := len(example.messages) - len(shorter.messages):  # the oldest turns went
                turns = fields[data.task.history]
                assert isinstance(turns, list | tuple), "`render_example` has looked"
                # The system message stays, where it is the history's own.
                head = int(example.messages[0].role == "system" and not template.system)
                fields[data.task.history] = [*turns[:head], *turns[head + lost :]]
            fitted[row.id] = row = replace(row, fields=fields)
    return fitted


def _replaced(data: TaskData, fitted: Mapping[str, Row | None], *, drop: bool) -> TaskData:
    """Put the fitted rows in place of the rows asked; what was dropped or shortened is counted."""
    counts: Counter[str] = Counter()
    parts: dict[Part, tuple[Row, ...]] = {}
    for part in (Part.VALIDATION, Part.TEST):
        rows: list[Row] = []
        for row in data.part(part):
            shorter = fitted[row.id]
            if shorter is None or (drop and shorter is not row):
                counts[DROPPED.format(part=part)] += 1
                continue
            rows.append(shorter)
            counts[SHORTENED.format(part=part)] += shorter is not row
        parts[part] = tuple(rows)
        if not rows:
            raise DataError(
                f"every {part} row of {data.task.id} is longer than the model's context",
                where=f"task {data.task.id}",
                fix="set train.too_long: shorten, or take a model with a longer context",
            )
    return data.judged_by(parts, counts=+counts)
