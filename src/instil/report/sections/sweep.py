"""The learning rate: the sentence that says how it was chosen, its curve and its table."""

from __future__ import annotations

from instil import format as fmt
from instil.compare.rates import FLOOR
from instil.report.page import (
    Align,
    Block,
    Cell,
    Column,
    Note,
    Plots,
    RatePlot,
    RatePoint,
    Table,
    Tone,
)
from instil.results import Sweep, TriedRate


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
    note = Note(sweep_sentence(found))
    if not found.tried:
        return (note,)
    plot = _plot(found)
    return (note, *((Plots((plot,)),) if plot else ()), _table(found))


def _plot(found: Sweep) -> RatePlot | None:
    points = tuple(
        RatePoint(each.rate, each.loss, rate_text(each.rate), whole=each.behind is not None)
        for each in found.tried
        if each.loss is not None
    )
    if len(points) < 2:
        return None
    told = ", ".join(_told(point) for point in points)
    return RatePlot(
        title="Validation loss of short tries, by learning rate",
        description=f"Nats per token: {told}. Chosen: {rate_text(found.chosen)}.",
        axis="nats per token",
        points=points,
        chosen=found.chosen,
        chosen_name=f"chosen: {rate_text(found.chosen)}",
    )


def _told(point: RatePoint) -> str:
    where = "" if point.whole else " where it was stopped, at its middle"
    return f"{fmt.fixed(point.loss, 3)} with {point.name}{where}"


def _table(found: Sweep) -> Table:
    columns = (
        Column("Learning rate", Align.TEXT),
        Column("Steps"),
        Column("Validation loss"),
        Column("Above the lowest (95 % interval)"),
    )
    times = f"{fmt.fixed(found.stretch, 1)} times"
    note = (
        "Tries on the first batches, each with a schedule of its own length, from the same "
        "weights, which were put back. A try is shorter than the training, and ran at "
        f"{times} the rate that it stands for; see docs/learning-rate.md. Differences are paired "
        "by validation row; open points of the plot are tries that were stopped at their middle. "
        f"The lowest loss is taken, sure or not; of rates within {FLOOR:g} nats of it, the nearest "
        "to the rule's."
    )
    rows = tuple(_row(each, found) for each in found.tried)
    return Table("Learning rates that were tried", columns, rows, note)


def _row(each: TriedRate, found: Sweep) -> tuple[Cell, ...]:
    taken = each.rate == found.chosen
    words = ("the rule's" if each.rate == found.rule else "", "chosen" if taken else "")
    head = Cell(
        rate_text(each.rate), ", ".join(filter(None, words)), Tone.CHOSEN if taken else Tone.PLAIN
    )
    loss = Cell("diverged") if each.loss is None else Cell(fmt.fixed(each.loss, 3))
    return (head, Cell(fmt.count(each.steps)), loss, _behind(each))


def _behind(each: TriedRate) -> Cell:
    if each.behind is None:
        return Cell(fmt.MISSING, "" if each.loss is None else "stopped, clearly behind")
    if each.behind == 0:
        return Cell("lowest")
    if each.low is None or each.high is None:
        return Cell(fmt.signed(each.behind, 3))
    ends = f"{fmt.signed(each.low, 3)} to {fmt.signed(each.high, 3)}"
    return Cell(fmt.signed(each.behind, 3), ends)
