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
from instil.results.training import Sweep


def sweep_sentence(sweep: Sweep) -> str:
    """Return how the learning rate was chosen, and what that took."""
    sentence = f"Learning rate {rate_text(sweep.chosen)}: {sweep.why}."
    if not sweep.tried:
        return sentence
    return (
        f"{sentence} Tried: {', '.join(rate_text(trial.rate) for trial in sweep.tried)}, each for "
        f"{fmt.count(sweep.steps)} of {fmt.plural(sweep.of_steps, 'step')} at most, judged on "
        f"{fmt.plural(sweep.rows, 'validation row')}; {fmt.seconds(sweep.seconds)} in all."
    )


def rate_text(value: float) -> str:
    """Return a learning rate with two digits.

    >>> rate_text(0.0005), rate_text(0.0015), rate_text(5e-4 / 3)
    ('5e-4', '1.5e-3', '1.7e-4')
    """
    digits, _, exponent = f"{value:.1e}".partition("e")
    return f"{digits.removesuffix('.0')}e{int(exponent)}"


def sweep_blocks(sweep: Sweep | None) -> tuple[Block, ...]:
    """Return the sentence, and where rates were tried their curve and table."""
    if sweep is None:
        return ()
    sentence = Note(sweep_sentence(sweep))
    if not sweep.tried:
        return (sentence,)
    plot = _plot(sweep)
    rows = []
    for trial in sweep.tried:
        words = ("the rule's" * (trial.rate == sweep.rule), "chosen" * (trial.rate == sweep.chosen))
        head = chosen_cell(rate_text(trial.rate), words, chosen=trial.rate == sweep.chosen)
        loss = "diverged" if trial.loss is None else fmt.fixed(trial.loss, 3)
        ends = ""
        if trial.low is not None and trial.high is not None:
            ends = f"{fmt.signed(trial.low, 3)} to {fmt.signed(trial.high, 3)}"
        if trial.behind is None:
            stopped = "" if trial.loss is None else "stopped, clearly behind"
            behind = Cell(fmt.MISSING, stopped)
        elif trial.behind == 0:
            behind = Cell("lowest")
        else:
            behind = Cell(fmt.signed(trial.behind, 3), ends)
        rows.append((head, fmt.count(trial.steps), loss, behind))
    note = (
        "Tries on the first batches, each with a schedule of its own length, from the same "
        "weights, which were put back. A try is shorter than the training, and ran at "
        f"{fmt.fixed(sweep.stretch, 1)} times the rate that it stands for; see "
        "docs/learning-rate.md. Differences are paired by validation row; open points of the plot "
        "are tries that were stopped at their middle. The lowest loss is taken, sure or not; of "
        f"rates within {FLOOR:g} nats of it, the nearest to the rule's."
    )
    titles = ("Learning rate", "Steps", "Validation loss", "Above the lowest (95 % interval)")
    drawn = table("Learning rates that were tried", titles, rows, note)
    return (sentence, *((Plots((plot,)),) if plot else ()), drawn)


def _plot(sweep: Sweep) -> Plot | None:
    marks = tuple(
        Mark("", trial.rate, trial.loss, hollow=trial.behind is None)
        for trial in sweep.tried
        if trial.loss is not None
    )
    if len(marks) < 2:
        return None
    names = {mark.x: rate_text(mark.x) for mark in marks}
    stopped = {True: " where it was stopped, at its middle", False: ""}
    told = ", ".join(f"{fmt.fixed(m.y, 3)} with {names[m.x]}{stopped[m.hollow]}" for m in marks)
    chosen = rate_text(sweep.chosen)
    ends = (marks[0].x / 1.3, marks[-1].x * 1.3)
    return Plot(
        "Validation loss of short tries, by learning rate",
        f"Nats per token: {told}. Chosen: {chosen}.",
        Axis("learning rate", extent=ends, ticks=names, is_line=True),
        Axis("nats per token"),
        marks=marks,
        series=("",),
        lines=(Line(tuple(Point(m.x, m.y) for m in marks if not m.hollow), TRIES),),
        upright=Reference(f"chosen: {chosen}", sweep.chosen),
    )
