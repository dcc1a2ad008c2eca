"""Printing what a run found: the verdict, a table of the arms, and where the report lies.

Tests: `tests/cli/test_main.py`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from instil.results.run import RunSummary
from instil.results.tasks import TaskResult
from instil.types import Comparison, Part

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_PIPE = 240
"""Characters in a line of a file or a pipe."""


def make_console(*, stderr: bool = False) -> Console:
    """Return a console that prints text as it stands: no highlighting, no guessed markup.

    Into a file or a pipe its tables are as wide as they need, up to `_PIPE` characters.
    """
    from instil.cli.terminal import VisibleConsole

    stream = sys.stderr if stderr else sys.stdout
    known = stream.isatty() or "COLUMNS" in os.environ
    return VisibleConsole(
        stderr=stderr,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
        width=None if known else _PIPE,
    )


def show_run(summary: RunSummary, *, folder: Path) -> None:
    """Print a finished run.

    Args:
        summary: What it found.
        folder: Its run directory.
    """
    from instil.report.sections.keeping import keeping_lines, methods_lines
    from instil.report.sections.phrasings import phrasing_sentence

    console = make_console()
    for task in summary.tasks:
        console.print(arms_table(task))
        for phrasings in task.phrasings:
            console.print(phrasing_sentence(task, phrasings))
    if summary.averages:
        console.print(average_table(summary))
    tried = methods_lines(summary.methods)
    for sentence in (*summary.verdict, *tried, *keeping_lines(summary)):
        console.print(sentence)
    console.print(f"\nreport: {folder / 'report.html'}\nmodel:  {folder / 'model'}")


def arms_table(task: TaskResult) -> Table:
    """Lay out the contenders of a task on its test rows, with 95 % intervals."""
    from instil import format as fmt

    metrics = list(dict.fromkeys(metric for arm in task.arms for metric in arm.summaries))[:2]
    rows = []
    for arm in task.arms:
        means = (arm.summaries.get(metric) for metric in metrics)
        figures = [fmt.interval(mean) if mean else fmt.MISSING for mean in means]
        against = task.against(arm.name)
        rows.append([arm.label, *figures, fmt.change_with_interval(against) if against else ""])
    count = fmt.plural(task.rows.get(Part.TEST, 0), "test row")
    return filled_table(
        f"{task.task}: {count}, mean (95 % interval)",
        ["", *(fmt.style(metric).label for metric in metrics), "tuned minus it"],
        rows,
    )


def average_table(summary: RunSummary) -> Table:
    """Lay out every task and the averages over them, an arm a column."""
    from instil.report.sections import average

    table = average.average_table(summary)
    rows = ([cell.text for cell in row] for row in table.rows)
    return filled_table("all tasks, mean (95 % interval)", table.titles, rows, words=["Task"])


def comparisons_table(comparisons: Sequence[Comparison]) -> Table:
    """Lay out paired differences, a line each."""
    from instil.report.parts import COMPARED, compared_texts

    texts = zip(comparisons, compared_texts(comparisons), strict=True)
    rows = [(f"{pair.b} - {pair.a}", *row) for pair, row in texts]
    title = "second run minus first, paired by example (95 % interval)"
    return filled_table(title, ("", *COMPARED), rows, words=("", "metric", "shown"))


def filled_table(
    title: str,
    titles: Iterable[str],
    rows: Iterable[Sequence[str]],
    *,
    words: Sequence[str] = ("",),
) -> Table:
    """Return a table in the one style of the command line.

    Args:
        title: Above it.
        titles: Of the columns.
        rows: One text a column.
        words: Titles of the columns of text, which stand to the left.
    """
    from rich.text import Text

    table = plain_table(title=title)
    for heading in titles:
        side: Literal["left", "right"] = "left" if heading in words else "right"
        # Names have no blank to be broken at: they go on in the next line, and are not cut.
        table.add_column(Text(heading), justify=side, min_width=len(heading), overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def plain_table(*, title: str = "") -> Table:
    """Return an empty table in the one style of the command line."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    heading = Text(title, style="bold") if title else None
    return Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
