"""Whether probabilities mean what they say, and what can be answered with few mistakes."""

from __future__ import annotations

from instil import format as fmt
from instil.format import Unit
from instil.report.charts import RISK
from instil.report.page import Axis, Block, Cell, Line, Mark, Note, Plot, Plots, Point, Table, table
from instil.report.parts import extent
from instil.results.names import TUNED
from instil.results.probabilities import Calibration, Probabilities, Promise
from instil.results.tasks import TaskResult
from instil.types import Estimate


def calibration_blocks(task: TaskResult) -> tuple[Block, ...]:
    """Return calibration, its plots, and the thresholds of a task."""
    found = task.probabilities
    if found is None:
        why = "Free text has no probabilities of choices." if not task.balance else "Not measured."
        return (Note(why),)
    return (
        Plots((_reliability(task, found), _risk(found))),
        _calibrations(task, found),
        _promises(found),
    )


def temperature_sentence(found: Probabilities) -> str:
    """Say what the temperature is and what it does to the Brier score on test."""
    change = found.brier_change
    shown = "better" if change.high < 0 else "worse" if change.low > 0 else "no difference shown"
    ends = " to ".join(fmt.signed(end, 3) for end in (change.low, change.high))
    rows = fmt.plural(found.rows, "validation row")
    return (
        f"A temperature of {found.temperature:.2f}, fitted on {rows}, changes the tuned model's "
        f"Brier score on test by {fmt.signed(change.mean, 3)} ({ends}; {shown}) and no answer."
    )


def _name(task: TaskResult, calibration: Calibration) -> str:
    heated = calibration.temperature != 1.0
    label = task.label(calibration.arm)
    return f"{label}, temperature {calibration.temperature:.2f}" if heated else label


def _calibrations(task: TaskResult, found: Probabilities) -> Table:
    rows = [
        (
            _name(task, each),
            fmt.percent(each.sure),
            fmt.percent(each.right),
            Cell(_percentages(each.error), _leaning(each)),
            fmt.percent(each.floor),
            f"{fmt.fixed(each.brier.mean, 3)} ({fmt.fixed(each.brier.low, 3)}{fmt.EN_DASH}"
            f"{fmt.fixed(each.brier.high, 3)})",
        )
        for each in found.calibrations
    ]
    titles = (
        "Arm",
        "Mean probability",
        "Right",
        "Calibration error",
        "If calibrated",
        "Brier score",
    )
    bins = len(found.calibrations[0].bins)
    note = (
        "Of the answers given on test. Calibration error: mean distance between probability and "
        f"share right over {fmt.plural(bins, 'bin')} with as many rows each; if calibrated: what "
        "calibrated probabilities would show on the same rows by chance. Brier score: squared "
        "distance of all choices' probabilities from the truth, 0 to 2. Both are best at 0. "
        f"{temperature_sentence(found)}"
    )
    return table("Do the probabilities mean what they say?", titles, rows, note)


def _leaning(each: Calibration) -> str:
    """Say in words what the error shows."""
    if not each.error.low:
        return "no error shown"
    return "too sure" if each.sure > each.right else "not sure enough"


def _promises(found: Probabilities) -> Table:
    rows = [
        (
            fmt.percent(each.max_error),
            _threshold(each),
            fmt.MISSING if each.bound is None else fmt.percent(each.bound),
            fmt.MISSING if each.answered is None else _percentages(each.answered),
            fmt.MISSING if each.wrong is None else _percentages(each.wrong),
        )
        for each in found.promises
    ]
    titles = ("Wanted error", "Answered from", "Bound", "Answered on test", "Wrong of these")
    grouped = (
        f" Rows of a group are alike: {found.design:.1f} rows count as one, and the promise is "
        "approximate."
        if found.design > 1
        else ""
    )
    note = (
        "instil predict --max-error answers only rows whose probability is at least this. Bound: "
        f"with 95 % confidence no more is wrong, by {fmt.plural(found.rows, 'validation row')}; "
        f"the test rows had no part in it.{grouped}"
    )
    return table("Answer only when sure", titles, rows, note)


def _threshold(promise: Promise) -> Cell:
    if promise.at_least is not None:
        return Cell(f"{fmt.fixed(100 * promise.at_least, 2)}{fmt.NBSP}%")
    if promise.needed is None:
        return Cell("none", "however many rows: too many are wrong")
    return Cell("none", f"about {fmt.count(promise.needed)} validation rows needed")


def _percentages(estimate: Estimate) -> str:
    low, high = (fmt.fixed(100 * end, 1) for end in (estimate.low, estimate.high))
    return f"{fmt.percent(estimate.mean)} ({low}{fmt.EN_DASH}{high})"


def _reliability(task: TaskResult, found: Probabilities) -> Plot:
    shown = {_name(task, each): each for each in found.calibrations if each.arm == TUNED}
    marks = tuple(
        Mark(
            name,
            each.probability,
            each.right.mean,
            f"{name}: probability {fmt.percent(each.probability)}, right "
            f"{_percentages(each.right)}, {fmt.plural(each.rows, 'row')}",
            y_ends=(each.right.low, each.right.high),
        )
        for name, calibration in shown.items()
        for each in calibration.bins
    )
    across = extent([*(mark.x for mark in marks), 1.0], within=(0.0, 1.0))
    up = extent([*(end for mark in marks for end in mark.y_ends or ()), *across], within=(0.0, 1.0))
    calibrated = Line((Point(across[0], across[0]), Point(across[1], across[1])))
    return Plot(
        "Probability and share right, tuned model",
        "Each mark is a bin of test answers with its share right; on the dashed line "
        "probabilities mean what they say, below it they are too sure. The table has figures.",
        Axis("probability of the answer, %", Unit.PERCENT, across),
        Axis("right, %", Unit.PERCENT, up),
        marks=marks,
        series=tuple(shown),
        lines=(calibrated,),
    )


def _risk(found: Probabilities) -> Plot:
    points = tuple(Point(each.answered, each.wrong) for each in found.curve)
    most = max(point.y for point in points)
    last = fmt.percent(points[-1].y)
    return Plot(
        "Wrong of the surest answers, tuned model",
        f"The share wrong among the surest answers on test, by the share answered; of all {last}.",
        Axis("answered, %", Unit.PERCENT, (0.0, 1.0)),
        Axis("wrong of these, %", Unit.PERCENT, (0.0, max(0.02, 1.1 * most))),
        lines=(Line(points, RISK),),
    )
