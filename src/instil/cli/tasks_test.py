"""`instil tasks test FILE`: every row through every template, and what is wrong with them."""

from __future__ import annotations

from collections import Counter

FAILED = 2


def test_task(ref: str) -> int:
    """Check a task's templates on all its rows, print what was found, and return the exit code.

    Args:
        ref: A task file, or a library task.

    Raises:
        InstilError: The task cannot be loaded, or its rows cannot be read.
    """
    from rich.text import Text

    from instil import format as fmt
    from instil.cli.show import make_console
    from instil.data.findings import Level
    from instil.data.registry import load_rows
    from instil.data.templatecheck import check_templates
    from instil.sanitize import visible
    from instil.tasks.task import load_task

    task = load_task(ref)
    loaded = load_rows(task)
    console = make_console()
    with console.status(f"{len(loaded.rows):,} rows through {len(task.templates)} templates"):
        findings = check_templates(task, loaded.rows)
    console.print(
        f"{task.id}: {fmt.plural(len(loaded.rows), 'row')} through "
        f"{fmt.plural(len(task.templates), 'template')}"
    )
    for reason, count in loaded.skipped.items():
        console.print(f"  left out by the task: {fmt.plural(count, 'row')} ({reason})")
    for finding in findings:
        style = {Level.ERROR: "bold red", Level.WARNING: "yellow"}[finding.level]
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
    errors = sum(finding.level is Level.ERROR for finding in findings)
    warnings = len(findings) - errors
    console.print(f"{fmt.plural(errors, 'error')}, {fmt.plural(warnings, 'warning')}")
    # Templates that come from elsewhere, and under whose licence.
    origins = Counter((t.origin, t.licence) for t in task.templates if t.origin != "instil")
    for (origin, licence), count in origins.items():
        console.print(f"{count} templates from {origin} (licence: {licence})")
    return FAILED if errors else 0
