"""Printing what a run found: the verdict, a table of the arms, and where the report lies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from instil.results import RunSummary, TaskResult
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
    from instil.report.sections.phrasings import phrasing_sentence

    console = make_console()
    for task in summary.tasks:
        console.print(arms_table(task))
        for found in task.phrasings:
            console.print(phrasing_sentence(task, found))
    if summary.averages:
        console.print(average_table(summary))
    tried = methods_lines(summary.methods)
    for sentence in (*summary.verdict, *tried, *keeping_lines(summary)):
        console.print(sentence)
    console.print(f"\nreport: {folder / 'report.html'}\nmodel:  {folder / 'model'}")


def arms_table(task: TaskResult) -> Table:
    """Lay out the contenders of a task on its test rows, with 95 % intervals."""
    from instil import format as fmt
    from instil.report.sections.arms import against_tuned

    metrics = list(dict.fromkeys(metric for arm in task.arms for metric in arm.summaries))[:2]
    rows = []
    for arm in task.arms:
        found = [arm.summaries.get(metric) for metric in metrics]
        cells = [fmt.interval(summary) if summary else fmt.MISSING for summary in found]
        comparison = against_tuned(task, arm.name)
        difference = fmt.change_with_interval(comparison) if comparison else ""
        rows.append((arm.label, *cells, difference))
    labels = [fmt.style(metric).label for metric in metrics]
    asked = fmt.plural(task.rows.get(Part.TEST, 0), "test row")
    title = f"{task.task}: {asked}, mean (95 % interval)"
    return make_table(("", *labels, "tuned minus it"), rows, title=title)


def average_table(summary: RunSummary) -> Table:
    """Lay out every task and the averages over them, an arm a column."""
    from instil import format as fmt
    from instil.report.sections.average import average_rows, average_titles

    rows = [[cell.text or fmt.MISSING for cell in row] for row in average_rows(summary)]
    return make_table(average_titles(summary), rows, title="all tasks, mean (95 % interval)")


def comparisons_table(comparisons: Sequence[Comparison]) -> Table:
    """Lay out paired differences, a line each."""
    from instil import format as fmt
    from instil.compare.verdict import outcomes

    rows = [
        (
            f"{found.b} - {found.a}",
            fmt.style(found.metric).label,
            fmt.count(found.n),
            fmt.change(found),
            fmt.change_interval(found),
            fmt.p_value(found.p_value),
            outcome.value,
        )
        for found, outcome in zip(comparisons, outcomes(comparisons), strict=True)
    ]
    headings = ("", "metric", "examples", "difference", "interval", "p", "shown")
    title = "second run minus first, paired by example (95 % interval)"
    table = make_table(headings, rows, title=title, left=2)
    table.columns[-1].justify = "left"
    for column in table.columns[1:]:
        column.min_width = len(str(column.header))
    return table


def make_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    title: str = "",
    left: int = 1,
    fold: bool = False,
) -> Table:
    """Lay out a table in the one style of the command line.

    Args:
        headings: Of its columns.
        rows: Their cells.
        title: Above it.
        left: How many columns hold words; figures stand to the right.
        fold: Whether what is too long for its column goes on in the next line.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    heading = Text(title, style="bold") if title else None
    table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for n, name in enumerate(headings):
        table.add_column(
            name, justify="left" if n < left else "right", overflow="fold" if fold else "ellipsis"
        )
    for row in rows:
        table.add_row(*map(Text, row))
    return table
