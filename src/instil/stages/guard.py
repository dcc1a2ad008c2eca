"""The forgetting guard: other tasks and general text, on the same rows before and after training.

Its rows are drawn by `RunContext.guard`; here they are asked, and the two sides paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from instil.config.recipe import Recipe
from instil.results.guard import GuardResult, Margins
from instil.stages.context import RunContext
from instil.stages.origins import guard_origins
from instil.stages.runfiles import SUMMED_UP

if TYPE_CHECKING:
    from instil.compare.forgetting import GuardScores, GuardSides, GuardTask

GUARD_SCORES = "scores/guard.jsonl"


def guard_before(context: RunContext) -> tuple[GuardScores, ...]:
    """Score the base model on the guard's rows; with `forgetting.rows: auto` on the first ones."""
    from instil.compare.forgetting import GuardScores, first_batch, measure

    told = dict(zip(("watched", "left_out_as_related"), context.guard_names, strict=True))
    context.run.note(
        guard={what: [Path(name).name for name in each] for what, each in told.items()}
    )
    guard, kind = context.guard, tuple[GuardScores, ...]
    asked = first_batch(guard) if _is_adaptive(context) else guard

    def ask() -> tuple[GuardScores, ...]:
        with context.stage("guard before", _size(asked)) as done:
            return measure(context.load_base(), asked, on_done=done)

    def once() -> tuple[GuardScores, ...]:
        return context.of_base("guard", kind, ask, inputs=asked) if asked else ()

    return context.run.kept("guard-before", kind, once, inputs=guard_origins(guard))


def guard_after(context: RunContext, before: tuple[GuardScores, ...]) -> GuardSides:
    """Score the tuned model on the guard's rows.

    With `forgetting.rows: auto` both models are asked about further rows, until it is decided what
    was lost.
    """
    from instil.compare.forgetting import GuardScores, GuardSides, measure

    guard, inputs = context.guard, guard_origins(context.guard)
    if _is_adaptive(context):
        both = partial(_until_decided, context, before)
        return context.run.kept("guard-after", GuardSides, both, inputs=inputs)

    def ask() -> tuple[GuardScores, ...]:
        if not guard:
            return ()
        with context.stage("guard after", _size(guard)) as done:
            return measure(context.load_tuned(), guard, on_done=done)

    after = context.run.kept("guard-after", tuple[GuardScores, ...], ask, inputs=inputs)
    return GuardSides(before, after)


def _until_decided(context: RunContext, before: tuple[GuardScores, ...]) -> GuardSides:
    from instil.compare.forgetting import GuardSides, ask_until_decided, measure

    if not context.guard:
        return GuardSides((), ())
    base, tuned = context.load_base(), context.load_tuned()
    with context.stage("guard after", _size(context.guard)) as done:
        return ask_until_decided(
            context.guard,
            before,
            ask_base=partial(measure, base),
            ask_tuned=partial(measure, tuned, on_done=done),
            margins=margins_of(context.recipe),
        )


def margins_of(recipe: Recipe) -> Margins:
    """Return the losses up to which the recipe counts a guard task as kept."""
    return Margins(points=recipe.forgetting.margin, text=recipe.forgetting.text_margin)


def _is_adaptive(context: RunContext) -> bool:
    return context.recipe.forgetting.rows == "auto"


def _size(guard: Sequence[GuardTask]) -> int:
    return sum(len(item.examples) for item in guard)


def compare_guard(context: RunContext, sides: GuardSides) -> tuple[GuardResult, ...]:
    """Pair the guard's scores before and after training; `scores/guard.jsonl` has every row."""
    from instil.compare.forgetting import guard_lines, ledger

    # A run that was finished and is resumed writes these and the summary anew.
    context.run.forget(SUMMED_UP)
    guard, before, after = context.guard, sides.before, sides.after
    context.run.write_scores("guard", guard_lines(guard, before, after))
    return ledger(
        guard, before, after, anytime=margins_of(context.recipe) if _is_adaptive(context) else None
    )
