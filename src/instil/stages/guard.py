"""The forgetting guard: other tasks and general text, on the same rows before and after training.

Its rows are drawn by `RunContext.guard`; here they are asked, and the two sides paired.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from instil.results import GuardResult
from instil.stages.context import RunContext
from instil.stages.directory import SUMMED_UP
from instil.stages.origins import guard_origins

if TYPE_CHECKING:
    from instil.compare.forgetting import GuardScores
    from instil.model.load import LoadedModel

GUARD_SCORES = "scores/guard.jsonl"


def guard_before(context: RunContext) -> tuple[GuardScores, ...]:
    """Score the base model on the guard's rows."""
    from instil.compare.forgetting import GuardScores

    told = dict(zip(("watched", "left_out_as_related"), context.guard_names, strict=True))
    context.run.note(
        guard={what: [Path(name).name for name in each] for what, each in told.items()}
    )
    guard, kind = context.guard, tuple[GuardScores, ...]

    def ask() -> tuple[GuardScores, ...]:
        return _measure(context, context.load_base(), "guard before")

    def once() -> tuple[GuardScores, ...]:
        return context.of_base("guard", kind, ask, inputs=guard) if guard else ()

    return context.run.kept("guard-before", kind, once, inputs=guard_origins(guard))


def guard_after(context: RunContext) -> tuple[GuardScores, ...]:
    """Score the tuned model on the guard's rows."""
    from instil.compare.forgetting import GuardScores

    def ask() -> tuple[GuardScores, ...]:
        if not context.guard:
            return ()
        return _measure(context, context.load_tuned(), "guard after")

    inputs = guard_origins(context.guard)
    return context.run.kept("guard-after", tuple[GuardScores, ...], ask, inputs=inputs)


def _measure(context: RunContext, loaded: LoadedModel, name: str) -> tuple[GuardScores, ...]:
    from instil.compare.forgetting import measure

    with context.stage(name, sum(len(item.examples) for item in context.guard)) as done:
        return measure(loaded, context.guard, on_done=done)


def compare_guard(
    context: RunContext, before: tuple[GuardScores, ...], after: tuple[GuardScores, ...]
) -> tuple[GuardResult, ...]:
    """Pair the guard's scores before and after training; `scores/guard.jsonl` has every row."""
    from instil.compare.forgetting import guard_lines, ledger

    # A run that was finished and is gone on with writes these and the summary anew.
    context.run.forget(SUMMED_UP)
    context.run.write_scores("guard", guard_lines(context.guard, before, after))
    return ledger(context.guard, before, after)
