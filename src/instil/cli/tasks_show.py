"""`instil tasks show NAME`: a task's templates, rendered with rows of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from instil.types import Task

LOOKED_AT = 20_000
"""Rows that are read (at most) for some to be drawn: the first few may all have one label."""


def show_rendered(console: Console, task: Task, *, rows: int) -> None:
    """Print a task and `rows` rows through each template, other rows for each.

    Where the rows cannot be read, the reason is told and the templates are shown as written.

    Raises:
        InstilError: A template fails on a row.
    """
    from rich.text import Text

    from instil.cli.tasks import show_facts, show_task
    from instil.data.build import render_example
    from instil.data.registry import load_rows
    from instil.data.split import seeded_key
    from instil.errors import DataError
    from instil.sanitize import visible

    try:
        with console.status(f"reading rows of {task.id}"):
            known = load_rows(task, limit=LOOKED_AT).rows
    except DataError as error:
        show_task(console, task)
        console.print(f"\nThe rows cannot be read here, so that none is rendered:\n{error}")
        return
    order = sorted(known, key=lambda row: seeded_key(0, "show", row.task, row.id))
    drawn = order[: rows * len(task.templates)]
    show_facts(console, task)
    for number, template in enumerate(task.templates):
        console.print(Text(f"\n{template.id} ({template.role})", style="bold"))
        for turn in range(rows):
            row = drawn[(number * rows + turn) % len(drawn)]
            example = render_example(task, template, row)
            for message in example.messages:
                for line_number, line in enumerate(message.shown.splitlines() or [""]):
                    speaker = "" if line_number else f"{message.role}:"
                    console.print(Text(f"  {speaker:<11}{visible(line)}"))
            for line_number, line in enumerate(example.answer.shown.splitlines()):
                arrow = "" if line_number else "->"
                console.print(Text(f"  {arrow:<11}{visible(line)}", style="green"))
            others = [choice for choice in example.choices if choice != example.target]
            others += example.references[1:]
            if others:
                head = "or" if example.choices else "also"
                console.print(Text(f"  {head:<11}{visible(', '.join(others))}"))
            if example.checks:
                console.print(Text(f"  {'checks':<11}{visible('; '.join(example.checks))}"))
            console.print()
