"""How the model was kept from forgetting: what was tried, how far it moved, how much is taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from instil import format as fmt
from instil.compare.forgetting_law import law_sentence
from instil.format import NBSP
from instil.report.page import Block, Note, table
from instil.report.parts import chosen_cell
from instil.results.keeping import ForgettingLaw, Means, Methods, Tried, TriedMethod
from instil.results.run import RunSummary
from instil.results.training import Gate
from instil.types import Estimate


def keeping_blocks(summary: RunSummary) -> tuple[Block, ...]:
    """Return what the forgetting section says beside the guard."""
    blocks: list[Block] = []
    methods, interpolation = summary.methods, summary.interpolation
    if methods is not None:
        note = (
            f"{_chosen_on(methods.guard_rows, methods.tried)} What was taken is what everything "
            "else on this page is measured with; test rows had no part in the choice."
        )
        rows = [
            (
                chosen_cell(
                    each.name, ["taken" * (n == methods.chosen)], chosen=n == methods.chosen
                ),
                *_measured(each),
                fmt.seconds(each.seconds),
            )
            for n, each in enumerate(methods.tried)
        ]
        blocks.append(Note(methods_lines(methods)[-1]))
        blocks.append(table("Methods that were tried", ("Method", *_MEASURED, "Time"), rows, note))
    blocks += map(Note, keeping_lines(summary))
    if summary.training.gate is not None:
        blocks.append(_gate_block(summary.training.gate, kept=summary.training.best_step))
    if interpolation is not None and interpolation.tried:
        note = (
            f"{_chosen_on(interpolation.guard_rows, interpolation.tried)} A cross-entropy that "
            "fell counts as 0: what was gained on one guard task does not make good what was lost "
            "on another. What was chosen is what everything else on this page is measured with; "
            "the learning curves are of the tuned model."
        )
        names = {0.0: "base model", 1.0: "tuned model"}
        steps = []
        for each in interpolation.tried:
            chosen = each.share == interpolation.chosen
            words = (names.get(each.share, ""), "chosen" * chosen)
            steps.append((chosen_cell(_share(each.share), words, chosen=chosen), *_measured(each)))
        caption = "How far to go: what was tried"
        blocks.append(table(caption, ("Share of the way", *_MEASURED), steps, note))
        if interpolation.law is not None:
            blocks.append(_law_block(interpolation.law))
    return tuple(blocks)


def _gate_block(gate: Gate, *, kept: int) -> Block:
    """Return what each checkpoint had forgotten."""
    rows = ", ".join(f"{task} {count}" for task, count in gate.rows.items())
    note = (
        f"On guard rows that are not reported on ({rows}), with 95 % intervals; a checkpoint is "
        "within the limits by its means, and on so few rows that is not shown. "
        "The guard says what the kept one lost on other rows."
    )
    steps = [
        (
            chosen_cell(fmt.count(each.step), ["kept" * is_kept], chosen=is_kept),
            fmt.percent(each.score),
            _signed_interval(each.nats, 4),
            _signed_interval(each.points, 1),
            "no" if each.beyond else "yes",
        )
        for each, is_kept in ((each, each.step == kept) for each in gate.checkpoints)
    ]
    head = ("Step", "Validation score", "Text, loss in nats", "Guard, change in points", "Within")
    return table("Checkpoints held against what may be forgotten", head, steps, note)


def gate_line(gate: Gate, *, kept: int) -> str:
    """Say which checkpoint was kept, and why."""
    limits = [
        f"{limit:g} {what}"
        for limit, what in (
            (gate.budget, "points of the guard"),
            (gate.at_most, "nats per token of general text"),
        )
        if limit is not None
    ]
    said, some = f"within a loss of {' and '.join(limits)}", gate.checkpoints
    within = sum(not each.beyond for each in some)
    if not within:
        return f"No checkpoint was {said}: step {kept}, which forgot the least, was kept."
    count = f"{within} of {fmt.plural(len(some), 'checkpoint')}"
    return f"{count} {said}: the best, step {kept}, was kept."


def _signed_interval(value: Estimate | None, places: int) -> str:
    if value is None:
        return fmt.MISSING
    mean, low, high = (fmt.signed(each, places) for each in (value.mean, value.low, value.high))
    return f"{mean} ({low} to {high})"


def _law_block(law: ForgettingLaw) -> Block:
    """Return the curve of loss on general text, beside the validation score."""
    note = (
        f"Curve: {fmt.signed(law.slope, 4)} s {fmt.signed(law.curvature, 4)} s², s the share of "
        f"the way, fitted to the shares up to {_share(law.fitted_to)}; at most "
        f"{fmt.fixed(law.misfit, 4)} nats per token off the means there, of "
        f"{fmt.plural(law.texts, 'text')} that are not reported. {law_sentence(law)} The band is "
        "where the mean over the reported texts lies in 95 % of runs; it rests on how these texts "
        "differ at the exported share, not on the curve."
    )
    rows = [
        (
            _share(each.weight),
            fmt.percent(each.score),
            fmt.signed(each.nats, 4),
            fmt.signed(law.slope * each.weight + law.curvature * each.weight**2, 4)
            if each.weight <= law.fitted_to
            else fmt.MISSING,
        )
        for each in law.points
    ]
    head = ("Share of the way", "Validation score", "Loss, nats per token", "By the curve")
    return table("Validation score against loss on general text", head, rows, note)


def methods_lines(methods: Methods | None) -> list[str]:
    """Return a line a way that `method: auto` tried, and the pick."""
    if methods is None:
        return []
    lines = []
    for way in methods.tried:
        parts = [f"validation {fmt.percent(way.score)}"]
        if way.points is not None:
            parts.append(f"guard {fmt.signed(way.points, 1)} points")
        if way.nats is not None:
            parts.append(f"{fmt.signed(way.nats, 3)} nats per token")
        lines.append(f"Tried {way.name}: {', '.join([*parts, fmt.seconds(way.seconds)])}.")
    return [*lines, f"Taken: {methods.tried[methods.chosen].name}; {methods.why}."]


def keeping_lines(summary: RunSummary) -> list[str]:
    """Return the sentences: by what means it was kept, how far it moved, how much is carried."""
    lines, means = [], summary.training.means or Means()
    if means.replay_share is not None:
        what = "texts that the base model wrote by itself"
        if means.replayed:
            what = f"rows of {', '.join(means.replayed)}, none of which is judged by"
        said = f"Replayed: {what}, {_share(means.replay_share)} of the examples"
        if means.replay_loss is not None:
            said += f"; {fmt.fixed(means.replay_loss, 3)} nats per token on average"
        lines.append(f"{said}.")
    lines += (term.sentence for term in means.terms)
    if (gate := summary.training.gate) is not None:
        lines.append(gate_line(gate, kept=summary.training.best_step))
    if (moved := summary.moved) is not None:
        where, far = "the new task's inputs", moved.overall
        if len(moved.tasks) > 1:
            each = (f"{task} {fmt.interval(on_task)}" for task, on_task in moved.tasks.items())
            where = f"the new tasks' inputs ({', '.join(each)})"
        mean, low, high = (fmt.fixed(value, 3) for value in (far.mean, far.low, far.high))
        lines.append(
            f"Moved {mean} nats per token ({low} to {high}) from the base model on {where}: "
            f"forward KL, on {fmt.plural(far.scored, 'validation example')}."
        )
    if (settled := summary.interpolation) is not None:
        share = f"{_share(settled.chosen)} of the way from the base model to the tuned one"
        if settled.chosen == 1 and settled.tried:
            share = "all of the tuning"
        lines.append(f"Exported: {share}; {settled.why}.")
    if (pruned := summary.pruning) is not None:
        lines.append(
            f"Exported: a whole model, with {_share(pruned.share)} of the weights that were "
            f"changed ({pruned.kept:,} of {pruned.changed:,}), those that moved far but not for "
            "their size; all others are the base model's."
        )
    return lines


def replayed_guards(summary: RunSummary) -> tuple[str, ...]:
    """Return the guard tasks of which other rows were trained on."""
    means = summary.training.means
    replayed = means.replayed if means else ()
    return tuple(dict.fromkeys(g.task for g in summary.forgetting if g.task in replayed))


def _share(share: float) -> str:
    return f"{100 * share:g}{NBSP}%"


# What is measured of a model that may be chosen.

_MEASURED = (
    "Validation score",
    "Validation loss",
    "Guard metrics, change in points",
    "Guard and text, rise in nats",
)


def _measured(tried: Tried | TriedMethod) -> tuple[str, ...]:
    """Return the cells of the columns `_MEASURED`."""
    return (
        fmt.percent(tried.score),
        fmt.fixed(tried.loss, 3),
        fmt.MISSING if tried.points is None else fmt.signed(tried.points, 1),
        fmt.MISSING if tried.nats is None else fmt.signed(tried.nats, 3),
    )


def _chosen_on(guard_rows: Mapping[str, int], tried: Iterable[Tried | TriedMethod]) -> str:
    """Say on which rows the choice was made, and by what."""
    unasked = any(each.nats is not None and each.points is None for each in tried)
    rest = (
        " Without a budget the choice looks at nats alone, and the guard's metrics were not asked "
        "for it."
    )
    rows = ", ".join(f"{task} {count}" for task, count in guard_rows.items())
    return (
        "Means, for choosing alone: on validation rows, and on guard rows that are not reported on "
        f"({rows or 'there were none'}).{rest if unasked else ''}"
    )
