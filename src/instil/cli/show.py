"""Printing what a run found: the verdict, a table of the arms, and where the report lies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from instil.results import Arm, RunSummary, TaskResult
from instil.types import Comparison, Part

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def make_console(*, stderr: bool = False) -> Console:
    """Return a console that prints text as it stands: no highlighting, no guessed markup."""
    from instil.cli.terminal import VisibleConsole

    return VisibleConsole(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


def show_run(summary: RunSummary, *, folder: Path) -> None:
    """Print a finished run.

    Args:
        summary: What it found.
        folder: Its run directory.
    """
    from instil.report.sections.keeping import keeping_lines
    from instil.report.sections.methods_tried import methods_lines

    console = make_console()
    for task in summary.tasks:
        console.print(arms_table(task))
        for line in phrasing_lines(task):
            console.print(line)
    if summary.averages:
        console.print(average_table(summary))
    tried = methods_lines(summary.methods)
    for sentence in (*summary.verdict, *tried, *keeping_lines(summary)):
        console.print(sentence)
    console.print(f"\nreport: {folder / 'report.html'}\nmodel:  {folder / 'model'}")


def arms_table(task: TaskResult) -> Table:
    """Lay out the contenders of a task on its test rows, with 95 % intervals."""
    from rich.text import Text

    from instil import format as fmt

    metrics = list(dict.fromkeys(metric for arm in task.arms for metric in arm.summaries))[:2]
    rows = fmt.plural(task.rows.get(Part.TEST, 0), "test row")
    table = plain_table(title=f"{task.task}: {rows}, mean (95 % interval)")
    table.add_column("")
    for metric in metrics:
        table.add_column(fmt.style(metric).label, justify="right")
    table.add_column("tuned minus it", justify="right")
    for arm in task.arms:
        cells = [_cell(arm, metric) for metric in metrics]
        table.add_row(Text(arm.label), *cells, _difference(task, arm))
    return table


def phrasing_lines(task: TaskResult) -> list[str]:
    """Say how each arm does through phrasings that training used, and through held-out ones."""
    from instil.report.sections.phrasings import phrasing_sentence

    return [phrasing_sentence(task, found) for found in task.phrasings]


def average_table(summary: RunSummary) -> Table:
    """Lay out every task and the averages over them, an arm a column."""
    from rich.text import Text

    from instil import format as fmt
    from instil.report.sections.average import average_rows, average_titles

    table = plain_table(title="all tasks, mean (95 % interval)")
    for n, title in enumerate(average_titles(summary)):
        table.add_column(title, justify="right" if n else "left")
    for row in average_rows(summary):
        table.add_row(*(Text(cell.text or fmt.MISSING) for cell in row))
    return table


def comparisons_table(comparisons: Sequence[Comparison]) -> Table:
    """Lay out paired differences, a line each."""
    from rich.text import Text

    from instil import format as fmt
    from instil.compare.verdict import outcomes

    table = plain_table(title="second run minus first, paired by example (95 % interval)")
    table.add_column("")
    for heading in ("metric", "examples", "difference", "interval", "p", "shown"):
        side: Literal["left", "right"] = "left" if heading in ("metric", "shown") else "right"
        table.add_column(heading, justify=side, min_width=len(heading))
    for found, outcome in zip(comparisons, outcomes(comparisons), strict=True):
        table.add_row(
            Text(f"{found.b} - {found.a}"),
            Text(fmt.style(found.metric).label),
            fmt.count(found.n),
            fmt.change(found),
            fmt.change_interval(found),
            fmt.p_value(found.p_value),
            outcome.value,
        )
    return table


def plain_table(*, title: str = "") -> Table:
    """Return an empty table in the one style of the command line."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    heading = Text(title, style="bold") if title else None
    return Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)


def _cell(arm: Arm, metric: str) -> str:
    from instil import format as fmt

    summary = arm.summaries.get(metric)
    return fmt.interval(summary) if summary else fmt.MISSING


def _difference(task: TaskResult, arm: Arm) -> str:
    from instil import format as fmt
    from instil.report.sections.arms import against_tuned

    comparison = against_tuned(task, arm.name)
    if comparison is None:
        return ""
    return fmt.change_with_interval(comparison)
