"""`instil tasks`: the task library.

Tests: `tests/cli/test_commands.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from instil.types import SourceSpec, Task


def tasks(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A library task, or a task file, to show in full; or `show`, or `test`.",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        str | None,
        typer.Argument(
            help="After `show`: the task whose templates are rendered with some rows of it; after "
            "`test`: the one whose templates are tried on all its rows.",
            show_default=False,
        ),
    ] = None,
    rows: Annotated[
        int, typer.Option("--rows", min=1, max=20, help="With `show`: rows for each template.")
    ] = 2,
) -> None:
    """List the library's tasks, show one, render rows through it, or test it on all its rows."""
    from instil.cli.show import make_console
    from instil.tasks.task import hub_library, library, load_task

    console = make_console()
    if name in ("show", "test"):
        if file is None:
            raise typer.BadParameter(f"name a task after `{name}`", param_hint="FILE")
        if name == "test":
            from instil.cli.tasks_test import test_task

            raise typer.Exit(test_task(file))
        from instil.cli.tasks_show import show_rendered

        show_rendered(console, load_task(file), rows=rows)
        return
    if file is not None:
        what = "one name at a time, or `show NAME`, or `test FILE`"
        raise typer.BadParameter(what, param_hint="FILE")
    if name is not None:
        show_task(console, load_task(name))
        return
    show_library(console, library(), title="from packages, or made by instil")
    show_library(console, hub_library(), title="data sets of the hub, by their documented columns")
    console.print("`instil tasks show NAME` renders a task's templates with rows of it.")


def show_library(console: Console, names: Sequence[str], *, title: str) -> None:
    """Print a line a task."""
    from rich.text import Text

    from instil import format as fmt
    from instil.cli.show import plain_table
    from instil.tasks.task import load_task

    table = plain_table(title=title)
    for heading in ("task", "kind", "rows", "licence", "source"):
        side = "right" if heading == "rows" else "left"
        table.add_column(heading, no_wrap=heading in ("task", "rows"), justify=side)  # type: ignore[arg-type]
    for name in names:
        task = load_task(name)
        texts = (name, task.kind, fmt.count(task.rows), task.licence, origin(task.source))
        table.add_row(*(Text(text, overflow="fold") for text in texts))
    console.print(table)


def origin(source: SourceSpec) -> str:
    """Name the package or data set of a library task's rows, without version and path."""
    scheme, _, rest = source.uri.partition(":")
    if scheme == "made":
        return "made from a seed"
    if scheme == "hub":
        return rest.partition("?")[0]
    name = re.match(r"@?[^@=]+", rest)
    return f"{scheme}: {name[0] if name else rest}"


def show_task(console: Console, task: Task) -> None:
    """Print a task with the wording of its templates."""
    from rich.text import Text

    show_facts(console, task)
    for template in task.templates:
        console.print(Text(f"\n{template.id} ({template.role})", style="bold"))
        for line in [*template.prompt.splitlines(), f"-> {template.target}"]:
            console.print(f"  {line}")


def show_facts(console: Console, task: Task) -> None:
    """Print what is known about a task beside its templates."""
    from rich.text import Text

    console.print(Text(task.id, style="bold"))
    facts = {
        "what": task.description,
        "kind": f"{task.kind} (cluster {task.cluster})",
        "answers": ", ".join(task.choices) or "free text",
        "metric": task.metric,
        "rows": f"{task.rows:,}" if task.rows else "not counted",
        "rows from": task.source.uri,
        "licence": task.licence,
    }
    for fact, text in facts.items():
        console.print(f"  {fact:<10}{text}")
