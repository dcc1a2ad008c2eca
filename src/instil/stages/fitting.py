"""Validation and test rows that are longer than the model's context, under `train.too_long`.

Training examples meet the policy when they are encoded. The rows that are only asked meet it here,
before the ladder: `drop` leaves them out, `shorten` cuts their longest field until the longest
prompt of the run fits, and both are counted in the split; `error` leaves it to `preflight`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from instil.config.recipe import Recipe
from instil.data.build import pick_exemplars, render_example
from instil.data.prepare import TaskData
from instil.errors import DataError, Problem
from instil.types import Part, Row, Template, TooLong

if TYPE_CHECKING:
    from instil.encode.chat_format import ChatFormat

DROPPED = "longer than the model's context: dropped from {part}"
SHORTENED = "longer than the model's context: shortened in {part}, not left out"


def fit_context(
    recipe: Recipe, data: Sequence[TaskData], *, chat: ChatFormat, longest: int
) -> tuple[TaskData, ...]:
    """Apply the length policy to validation and test rows; what became of them is counted.

    Args:
        recipe: Its policy, worked examples and seed.
        data: The tasks, split.
        chat: The model's chat format.
        longest: Tokens that the model takes; 0: nothing says, and all rows stay.

    Raises:
        DataError: No row of a part is left.
    """
    if not longest or recipe.train.too_long is TooLong.ERROR:
        return tuple(data)
    return tuple(_fit(recipe, d, chat, longest) for d in data)


def _fit(recipe: Recipe, data: TaskData, chat: ChatFormat, longest: int) -> TaskData:
    def fits(shown: Sequence[Row]) -> dict[str, Row | None]:
        """Return each row, shortened until it fits every template; None where nothing helps."""
        found: dict[str, Row | None] = {}
        for row in (*data.validation, *data.test):
            fitted: Row | None = row
            for template in (*data.answering, *data.held_out):
                if fitted is not None:
                    fitted = _fit_template(data, template, fitted, shown, chat, longest)
            found[row.id] = fitted
        return found

    shots = max(recipe.baselines.shots)
    shown = pick_exemplars(data.task, data.train, shots=shots, seed=recipe.seed) if shots else ()
    found = fits(shown)
    if shown and None in found.values():
        found = fits(())  # the worked examples alone take the room: preflight says so
    drop = recipe.train.too_long is TooLong.DROP
    counts: Counter[str] = Counter()
    parts: dict[Part, tuple[Row, ...]] = {}
    for part in (Part.VALIDATION, Part.TEST):
        rows: list[Row] = []
        for row in data.part(part):
            fitted = found[row.id]
            if fitted is None or (drop and fitted is not row):
                counts[DROPPED.format(part=part)] += 1
                continue
            rows.append(fitted)
            counts[SHORTENED.format(part=part)] += fitted is not row
        parts[part] = tuple(rows)
        if not rows:
            raise DataError(
                Problem(
                    f"every {part} row of {data.task.id} is longer than the model's context",
                    where=f"task {data.task.id}",
                    fix="set train.too_long: shorten, or take a model with a longer context",
                )
            )
    split = replace(
        data.split,
        skipped={**data.split.skipped, **+counts},
        validation=tuple(row.id for row in parts[Part.VALIDATION]),
        test=tuple(row.id for row in parts[Part.TEST]),
    )
    return replace(data, split=split, validation=parts[Part.VALIDATION], test=parts[Part.TEST])


def _fit_template(
    data: TaskData,
    template: Template,
    row: Row,
    shown: Sequence[Row],
    chat: ChatFormat,
    longest: int,
) -> Row | None:
    """Return the row, shortened if need be; None where no shortening helps."""
    from instil.encode.mask import shorten

    example = render_example(data.task, template, row, exemplars=shown)
    prompt, answer = chat.answer_room(example, max_new_tokens=data.task.max_new_tokens)
    if prompt + answer <= longest:
        return row
    shorter = shorten(example, chat, max_tokens=longest - answer)
    if shorter is None:
        return None
    fields = {
        name: shorter.text if isinstance(value, str) and value.strip() == example.text else value
        for name, value in row.fields.items()
    }
    if lost := len(example.messages) - len(shorter.messages):  # the oldest turns went
        turns = fields[data.task.history]
        assert isinstance(turns, list | tuple), "`render_example` has looked"
        fields[data.task.history] = list(turns[lost:])
    return replace(row, fields=fields)
