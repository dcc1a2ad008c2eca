"""How far tuning moved the model, and how much of it is handed over: sentences and a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from instil import format as fmt
from instil.format import NBSP
from instil.report.page import Align, Block, Cell, Column, Note, Table, Tone
from instil.results import Interpolation, Means, Moved, RunSummary, Tried, TriedMethod
from instil.types import Summary


def keeping_blocks(summary: RunSummary) -> tuple[Block, ...]:
    """Return what the forgetting section says beside the guard."""
    found: list[Block] = [Note(line) for line in keeping_lines(summary)]
    if summary.interpolation is not None and summary.interpolation.tried:
        found.append(_tried_table(summary.interpolation))
    return tuple(found)


def keeping_lines(summary: RunSummary) -> list[str]:
    """Return the sentences: by what means it was kept, how far it moved, how much is carried."""
    lines = [] if summary.training.means is None else list(_means_lines(summary.training.means))
    if summary.moved is not None:
        lines.append(_moved_line(summary.moved))
    if summary.interpolation is not None:
        lines.append(_interpolation_line(summary.interpolation))
    return lines


def replayed_guards(summary: RunSummary) -> tuple[str, ...]:
    """Return the guard tasks of which other rows were trained on."""
    means = summary.training.means
    replayed = means.replayed if means else ()
    return tuple(dict.fromkeys(g.task for g in summary.forgetting if g.task in replayed))


_PLACES = {
    "prompt": "where tokens of the prompts are predicted",
    "completion": "where the answers are predicted",
    "replay": "where what is replayed is predicted",
}


def _means_lines(means: Means) -> Iterator[str]:
    if means.replay_share is not None:
        what = "texts that the untouched model wrote by itself"
        if means.replayed:
            what = f"rows of {', '.join(means.replayed)}, none of which is judged by"
        loss = ""
        if means.replay_loss is not None:
            loss = f"; {fmt.fixed(means.replay_loss, 3)} nats per token on average"
        yield f"Replayed: {what}, {_share(means.replay_share)} of the examples{loss}."
    if means.kl is not None:
        mean = "" if means.mean_kl is None else f"; {fmt.fixed(means.mean_kl, 4)} nats on average"
        yield (
            f"Held to the untouched model {_PLACES[means.kl_on]}: forward KL with a weight of "
            f"{means.kl:g}{mean}."
        )
    if means.entropy_weighted:
        mean = (
            "" if means.mean_weight is None else f", {fmt.fixed(means.mean_weight, 3)} on average"
        )
        yield f"Each token's loss was weighted by how unsure the model was there{mean}."


def _moved_line(moved: Moved) -> str:
    where = "the new task's inputs"
    if len(moved.tasks) > 1:
        each = (f"{task} {fmt.interval(found)}" for task, found in moved.tasks.items())
        where = f"the new tasks' inputs ({', '.join(each)})"
    return (
        f"Moved {_nats(moved.overall)} from the untouched model on {where}: forward KL, on "
        f"{fmt.plural(moved.overall.scored, 'validation example')}."
    )


def _nats(found: Summary) -> str:
    low, high = fmt.fixed(found.low, 3), fmt.fixed(found.high, 3)
    return f"{fmt.fixed(found.mean, 3)} nats per token ({low} to {high})"


def _interpolation_line(found: Interpolation) -> str:
    if found.chosen == 1 and found.tried:
        share = "all of the tuning"
    else:
        share = f"{_share(found.chosen)} of the way from the untouched model to the tuned one"
    return f"Handed over: {share}; {found.why}."


def _share(share: float) -> str:
    return f"{100 * share:g}{NBSP}%"


def _tried_table(found: Interpolation) -> Table:
    columns = (Column("Share of the way", Align.TEXT), *MEASURED)
    note = (
        f"{chosen_on(found.guard_rows, found.tried)} A cross-entropy that fell counts as 0: what "
        "was gained on one guard task does not make good what was lost on another. What was chosen "
        "is what everything else on this page is measured with; the learning curves are of the "
        "tuned model."
    )
    lines = tuple(_tried_row(each, found.chosen) for each in found.tried)
    return Table("How far to go: what was tried", columns, lines, note)


def _tried_row(tried: Tried, chosen: float) -> tuple[Cell, ...]:
    name = {0.0: "untouched model", 1.0: "tuned model"}.get(tried.share, "")
    taken = tried.share == chosen
    detail = ", ".join(filter(None, (name, "chosen" if taken else "")))
    return (
        Cell(_share(tried.share), detail, Tone.CHOSEN if taken else Tone.PLAIN),
        *measured_cells(tried),
    )


# --- what is measured of a model that may be chosen ----------------------------------------------

MEASURED = (
    Column("Validation score"),
    Column("Validation loss"),
    Column("Guard metrics, change in points"),
    Column("Guard and text, rise in nats"),
)


def measured_cells(tried: Tried | TriedMethod) -> tuple[Cell, ...]:
    """Return the cells of the columns `MEASURED`."""
    return (
        Cell(fmt.percent(tried.score)),
        Cell(fmt.fixed(tried.loss, 3)),
        Cell(fmt.MISSING if tried.points is None else fmt.signed(tried.points, 1)),
        Cell(fmt.MISSING if tried.nats is None else fmt.signed(tried.nats, 3)),
    )


def chosen_on(guard_rows: Mapping[str, int], tried: Iterable[Tried | TriedMethod]) -> str:
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
