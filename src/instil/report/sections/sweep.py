"""The learning rate: the sentence that says how it was chosen, its curve and its table."""

from __future__ import annotations

from instil import format as fmt
from instil.compare.rates import FLOOR
from instil.report.charts import TRIES
from instil.report.page import (
    Axis,
    Block,
    Cell,
    Line,
    Mark,
    Note,
    Plot,
    Plots,
    Point,
    Reference,
    table,
)
from instil.report.parts import chosen_cell
from instil.results import Sweep


def sweep_sentence(found: Sweep) -> str:
    """Return how the learning rate was chosen, and what that took."""
    sentence = f"Learning rate {rate_text(found.chosen)}: {found.why}."
    if not found.tried:
        return sentence
    return (
        f"{sentence} Tried: {', '.join(rate_text(each.rate) for each in found.tried)}, each for "
        f"{fmt.count(found.steps)} of {fmt.plural(found.of_steps, 'step')} at most, judged on "
        f"{fmt.plural(found.rows, 'validation row')}; {fmt.seconds(found.seconds)} in all."
    )


def rate_text(value: float) -> str:
    """Return a learning rate with two digits.

    >>> rate_text(0.0005), rate_text(0.0015), rate_text(5e-4 / 3)
    ('5e-4', '1.5e-3', '1.7e-4')
    """
    digits, _, exponent = f"{value:.1e}".partition("e")
    return f"{digits.removesuffix('.0')}e{int(exponent)}"


def sweep_blocks(found: Sweep | None) -> tuple[Block, ...]:
    """Return the sentence, and where rates were tried their curve and table."""
    if found is None:
        return ()
    sentence = Note(sweep_sentence(found))
    if not found.tried:
        return (sentence,)
    plot = _plot(found)
    rows = []
    for each in found.tried:
        words = ("the rule's" * (each.rate == found.rule), "chosen" * (each.rate == found.chosen))
        head = chosen_cell(rate_text(each.rate), words, chosen=each.rate == found.chosen)
        loss = "diverged" if each.loss is None else fmt.fixed(each.loss, 3)
        ends = ""
        if each.low is not None and each.high is not None:
            ends = f"{fmt.signed(each.low, 3)} to {fmt.signed(each.high, 3)}"
        if each.behind is None:
            stopped = "" if each.loss is None else "stopped, clearly behind"
            behind = Cell(fmt.MISSING, stopped)
        elif each.behind == 0:
            behind = Cell("lowest")
        else:
            behind = Cell(fmt.signed(each.behind, 3), ends)
        rows.append((head, fmt.count(each.steps), loss, behind))
    note = (
        "Tries on the first batches, each with a schedule of its own length, from the same "
        "weights, which were put back. A try is shorter than the training, and ran at "
        f"{fmt.fixed(found.stretch, 1)} times the rate that it stands for; see "
        "docs/learning-rate.md. Differences are paired by validation row; open points of the plot "
        "are tries that were stopped at their middle. The lowest loss is taken, sure or not; of "
        f"rates within {FLOOR:g} nats of it, the nearest to the rule's."
    )
    titles = ("Learning rate", "Steps", "Validation loss", "Above the lowest (95 % interval)")
    drawn = table("Learning rates that were tried", titles, rows, note)
    return (sentence, *((Plots((plot,)),) if plot else ()), drawn)


def _plot(found: Sweep) -> Plot | None:
    marks = tuple(
        Mark("", each.rate, each.loss, hollow=each.behind is None)
        for each in found.tried
        if each.loss is not None
    )
    if len(marks) < 2:
        return None
    names = {mark.x: rate_text(mark.x) for mark in marks}
    stopped = {True: " where it was stopped, at its middle", False: ""}
    told = ", ".join(f"{fmt.fixed(m.y, 3)} with {names[m.x]}{stopped[m.hollow]}" for m in marks)
    chosen = rate_text(found.chosen)
    ends = (marks[0].x / 1.3, marks[-1].x * 1.3)
    return Plot(
        "Validation loss of short tries, by learning rate",
        f"Nats per token: {told}. Chosen: {chosen}.",
        Axis("learning rate", extent=ends, ticks=names, is_line=True),
        Axis("nats per token"),
        marks=marks,
        series=("",),
        lines=(Line(tuple(Point(m.x, m.y) for m in marks if not m.hollow), TRIES),),
        upright=Reference(f"chosen: {chosen}", found.chosen),
    )
