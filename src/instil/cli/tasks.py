"""`instil tasks`: the task library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from instil.types import Task


def tasks(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A library task, or a task file, to show in full; or `test`.", show_default=False
        ),
    ] = None,
    file: Annotated[
        str | None,
        typer.Argument(
            help="After `test`: the task whose templates are tried on all of its rows.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """List the library's tasks, show one with its templates, or test one on all its rows."""
    from instil.cli.show import make_console
    from instil.tasks.task import library, load_task

    if name == "test":
        from instil.cli.tasks_test import test_task

        if file is None:
            raise typer.BadParameter("name a task file after `test`", param_hint="FILE")
        raise typer.Exit(test_task(file))
    if file is not None:
        raise typer.BadParameter("one name at a time, or `test FILE`", param_hint="FILE")
    console = make_console()
    if name is not None:
        show_task(console, load_task(name))
        return
    show_library(console, [load_task(each) for each in library()])


def show_library(console: Console, tasks: list[Task]) -> None:
    """Print a line a task."""
    from rich.text import Text

    from instil.cli.show import plain_table

    table = plain_table()
    for heading in ("task", "kind", "templates", "what"):
        table.add_column(heading, no_wrap=heading != "what")
    for task in tasks:
        texts = (task.id, task.kind, str(len(task.templates)), task.description)
        table.add_row(*(Text(text) for text in texts))
    console.print(table)
    console.print("`instil tasks NAME` shows a task's templates.")


def show_task(console: Console, task: Task) -> None:
    """Print a task with the wording of its templates."""
    from rich.text import Text

    console.print(Text(task.id, style="bold"))
    facts = {
        "what": task.description,
        "kind": task.kind,
        "answers": ", ".join(task.choices) or "free text",
        "metric": task.metric,
        "rows from": task.source.uri,
        "licence": task.licence,
    }
    for fact, text in facts.items():
        console.print(f"  {fact:<10}{text}")
    for template in task.templates:
        console.print(Text(f"\n{template.id} ({template.role})", style="bold"))
        for line in [*template.prompt.splitlines(), f"-> {template.target}"]:
            console.print(f"  {line}")
