"""Checkpoints within what may be forgotten: `forgetting.gate_checkpoints`.

At each look at validation the model is asked guard rows that are not reported as well: general text
where the recipe says `at_most`, the guard tasks where it sets a budget. `train.fit` keeps the best
checkpoint among those that are within the limits by their means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from instil.errors import RecipeError
from instil.results.names import TEXT
from instil.results.training import Gate, Lost
from instil.stages.context import RunContext
from instil.types import Estimate, Example

if TYPE_CHECKING:
    from instil.compare.forgetting import GuardScores, GuardTask
    from instil.model.load import LoadedModel
    from instil.train.fit import Validation

MIN_TEXTS = 4
"""General texts, of a group each, that a curve of forgetting is fitted to at least."""


def gated(
    context: RunContext, loaded: LoadedModel, validate: Callable[[], Validation]
) -> Callable[[], Validation]:
    """Return what looks at validation, and at what was forgotten where checkpoints are gated.

    The base model is asked first, and what it got is kept for a run that is resumed.

    Args:
        context: The run.
        loaded: The model that is trained.
        validate: Looks at validation alone.

    Raises:
        RecipeError: There are no guard rows to measure a limit on.
    """
    from instil.compare.forgetting import GuardScores, ledger, measure
    from instil.compare.verdict import mean_change

    wanted = context.recipe.forgetting
    if not wanted.gate_checkpoints:
        return validate
    guard = gate_rows(context)

    def ask(model: LoadedModel) -> tuple[GuardScores, ...]:
        return measure(model, guard, metrics=wanted.budget is not None)

    before = context.run.kept(
        "gate-before", tuple[GuardScores, ...], lambda: ask(context.load_base())
    )

    def look() -> Validation:
        lines = ledger(guard, before, ask(loaded))
        text = next((line.comparison for line in lines if line.task == TEXT), None)
        mean = mean_change(lines)
        nats = Estimate(text.difference, text.low, text.high) if text else None
        points = None
        if mean is not None:
            points = Estimate(100 * mean.difference, 100 * mean.low, 100 * mean.high)
        lost = lost_of(nats, points, budget=wanted.budget, at_most=wanted.at_most)
        return replace(validate(), lost=lost)

    return look


def texts_to_read(context: RunContext) -> Sequence[Example]:
    """Return the general texts that a loss is predicted with; none of them is reported.

    Raises:
        RecipeError: They are too few.
    """
    texts = next((item.examples for item in context.choosing_guard if item.id == TEXT), ())
    groups = {example.group for example in texts}
    if len(groups) < MIN_TEXTS:
        raise RecipeError(
            "too little general text is left to predict a loss with",
            where="forgetting.at_most",
            found=f"{len(groups)} texts beside the reported ones",
            allowed=f"{MIN_TEXTS} or more",
            fix="set another number of `forgetting.rows`: half as many are chosen on",
        )
    return texts


def gate_rows(context: RunContext) -> tuple[GuardTask, ...]:
    """Return the guard rows that checkpoints are measured on; none of them is reported.

    Raises:
        RecipeError: A limit has none.
    """
    wanted = context.recipe.forgetting
    texts = [item for item in context.choosing_guard if item.id == TEXT]
    tasks = [item for item in context.choosing_guard if item.id != TEXT]
    guard: list[GuardTask] = []
    for limit, name, some in (
        (wanted.budget, "budget", tasks),
        (wanted.at_most, "at_most", texts),
    ):
        if limit is not None:
            if not some:
                raise RecipeError(
                    "no guard rows are left to hold checkpoints against this limit",
                    where=f"forgetting.{name}",
                    found=f"{limit:g}, with `gate_checkpoints: true`",
                    allowed="a limit with rows beside the reported ones",
                    fix="fewer `forgetting.rows`, other `forgetting.tasks`, or no gate",
                )
            guard += some
    return tuple(guard)


def lost_of(
    nats: Estimate | None,
    points: Estimate | None,
    *,
    budget: float | None,
    at_most: float | None,
) -> Lost:
    """Hold what was forgotten against the limits, by its means.

    >>> lost_of(Estimate(0.03, 0.01, 0.05), None, budget=None, at_most=0.02).beyond
    0.5
    """
    beyond = [0.0]
    if nats is not None and at_most is not None:
        beyond.append((nats.mean - at_most) / at_most)
    if points is not None and budget is not None:
        beyond.append((-points.mean - budget) / (budget or 1.0))
    return Lost(round(max(beyond), 9), nats, points)


def gate_of(context: RunContext, checkpoints: Sequence[Lost]) -> Gate | None:
    """Sum up what the gate saw; None: there was none."""
    wanted = context.recipe.forgetting
    if not wanted.gate_checkpoints:
        return None
    rows = {item.id: len(item.examples) for item in gate_rows(context)}
    return Gate(wanted.budget, wanted.at_most, tuple(checkpoints), rows)
