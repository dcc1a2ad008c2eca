"""`instil tasks test FILE`: every row through every template, and what is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from instil.data.findings import Finding
    from instil.types import Task

FAILED = 2


def test_task(ref: str) -> int:
    """Check a task's templates on all its rows, print what was found, and return the exit code.

    Args:
        ref: A task file, or a library task.

    Raises:
        InstilError: The task cannot be loaded, or its rows cannot be read.
    """
    from instil import format as fmt
    from instil.cli.show import make_console
    from instil.data.findings import Level
    from instil.data.registry import load_rows
    from instil.data.templatecheck import check_templates
    from instil.tasks.task import load_task

    task = load_task(ref)
    loaded = load_rows(task)
    console = make_console()
    with console.status(f"{len(loaded.rows):,} rows through {len(task.templates)} templates"):
        found = check_templates(task, loaded.rows)
    console.print(
        f"{task.id}: {fmt.plural(len(loaded.rows), 'row')} through "
        f"{fmt.plural(len(task.templates), 'template')}"
    )
    for reason, count in loaded.skipped.items():
        console.print(f"  left out by the task: {fmt.plural(count, 'row')} ({reason})")
    for finding in found:
        _show(finding)
    errors = sum(finding.level is Level.ERROR for finding in found)
    warnings = len(found) - errors
    console.print(f"{fmt.plural(errors, 'error')}, {fmt.plural(warnings, 'warning')}")
    _show_sources(task)
    return FAILED if errors else 0


def _show(finding: Finding) -> None:
    from rich.text import Text

    from instil.cli.show import make_console
    from instil.sanitize import visible

    console = make_console()
    style = {"error": "bold red", "warning": "yellow"}[finding.level.value]
    head = f"{finding.level}: template {finding.template!r}: {finding.what}"
    console.print(Text(visible(head), style=style))
    details = (
        ("rows", f"{finding.count:,} of {finding.of:,}"),
        ("for one" if len(finding.examples) == 1 else "such as", ", ".join(finding.examples)),
        ("found", finding.found),
        ("allowed", finding.allowed),
        ("to fix", finding.fix),
    )
    for name, text in details:
        if text:
            console.print(f"  {name}: {visible(text)}")


def _show_sources(task: Task) -> None:
    """Say which templates come from elsewhere, under whose licence."""
    from instil.cli.show import make_console

    foreign: dict[tuple[str, str], int] = {}
    for template in task.templates:
        if template.origin != "instil":
            key = (template.origin, template.licence)
            foreign[key] = foreign.get(key, 0) + 1
    for (origin, licence), count in foreign.items():
        make_console().print(f"{count} templates from {origin} (licence: {licence})")
