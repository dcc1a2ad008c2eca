"""How far probabilities can be believed, and what answering only when sure comes to."""

from __future__ import annotations

from instil import format as fmt
from instil.format import Unit
from instil.report.charts import BELIEVED
from instil.report.page import Axis, Block, Cell, Line, Mark, Note, Plot, Plots, Point, table
from instil.results import TUNED, Answering, Calibration, Certainty, TaskResult
from instil.types import Estimate


def certainty_blocks(task: TaskResult) -> tuple[Block, ...]:
    """Return the sentence, the reliability plot and both tables; nothing without choices."""
    known = task.certainty
    if known is None:
        return (Note("This task has no choices, so no probabilities."),)
    rows = [
        (_name(task, each), _estimate(each.error, percent=True), _estimate(each.brier))
        for each in known.arms
    ]
    answers = [_answering(each) for each in known.answering]
    return (
        Note(temperature_sentence(known)),
        Plots((_plot(known.arms[0]),)),
        table(
            "What the probabilities are worth",
            ("Arm", "Calibration error (95 % interval)", "Brier score (95 % interval)"),
            rows,
            "Calibration error: how far, on average, the probability of an answer is from the "
            "share that is right, over ten bins of equally many rows; above 0 even for a perfect "
            "model, the more so with few rows. Brier score: the squared distance of all "
            "probabilities from the truth, 0 to 2. Arms whose scores are no probabilities are "
            "left out.",
        ),
        table(
            "Answering only when sure",
            ("Errors wanted, at most", "Rows answered on test", "Errors among them", "Shown"),
            answers,
            f"The threshold is taken on {fmt.plural(known.rows, 'validation row')}; with 95 % "
            "confidence errors stay below what is shown there, on rows of the same kind. The "
            "checkpoint was chosen on these rows as well, which flatters them a little. "
            "`instil predict RUN --rows FILE --max-error 0.05` answers by it.",
        ),
    )


def temperature_sentence(known: Certainty) -> str:
    """Return by how much the tuned model is too sure."""
    heat = known.temperature
    way = "surer than it is right" if heat > 1 else "less sure than it is right"
    how = f"is {way}" if abs(heat - 1) >= 0.05 else "is about as sure as it is right"
    return (
        f"By its {fmt.plural(known.rows, 'validation row')} the tuned model {how}: its "
        f"log-probabilities are divided by {fmt.fixed(heat, 2)} wherever probabilities are told. "
        "No answer changes by it."
    )


def _name(task: TaskResult, each: Calibration) -> str:
    label = task.label(each.arm)
    if each.arm != TUNED:
        return label
    return f"{label}, as it is" if each.temperature == 1 else f"{label}, with its temperature"


def _estimate(each: Estimate, *, percent: bool = False) -> Cell:
    scale, digits = (100, 1) if percent else (1, 3)
    mean, low, high = (fmt.fixed(scale * v, digits) for v in (each.mean, each.low, each.high))
    return Cell(f"{mean}{fmt.NBSP}%" if percent else mean, f"{low} to {high}")


def _answering(each: Answering) -> tuple[str, ...]:
    wanted = fmt.percent(each.most)
    if each.coverage is None or each.bound is None:
        return (wanted, "none", fmt.MISSING, "no threshold is shown to keep to it")
    errors = fmt.MISSING if each.errors is None else fmt.percent(each.errors)
    return (wanted, fmt.percent(each.coverage), errors, f"at most {fmt.percent(each.bound)}")


def _plot(each: Calibration) -> Plot:
    points = [(b.sure, b.right, b.rows) for b in each.bins]
    told = "; ".join(
        f"{fmt.percent(right)} right of {rows} at {fmt.percent(sure)}"
        for sure, right, rows in points
    )
    low = min(min(sure, right) for sure, right, _ in points)
    return Plot(
        "Certainty and share of right answers, tuned, with its temperature",
        f"{told}. On the dashed line they would be equal.",
        Axis("probability of the answer, %", Unit.PERCENT, is_line=True),
        Axis("right answers, %", Unit.PERCENT),
        marks=tuple(
            Mark("", sure, right, text=fmt.plural(rows, "row")) for sure, right, rows in points
        ),
        series=("",),
        lines=(
            Line((Point(low, low), Point(1.0, 1.0))),
            Line(tuple(Point(sure, right) for sure, right, _ in points), BELIEVED),
        ),
    )
