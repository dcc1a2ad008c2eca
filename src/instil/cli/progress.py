"""Progress of long work, on stderr: bars on a terminal, now and then a line elsewhere.

Whoever reports it adds a task for a stage and may give it a `note`, which stands behind the bar::

    with make_progress() as progress:
        stage = progress.add_task("training", total=120, note="")
        progress.update(stage, advance=1, note="loss 0.41, 310 tokens/s")
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from instil.cli.show import make_console
from instil.data.sources.fetch import on_bytes

SECONDS_BETWEEN_LINES = 20.0


class NoteColumn(ProgressColumn):
    """Shows a task's `note`, where it has one."""

    def render(self, task: Task) -> Text:
        """Return the note as plain text."""
        return Text(str(task.fields.get("note", "")))


class LineProgress(Progress):
    """For output that is no terminal: a line when a stage begins, at intervals, and at its end."""

    def __init__(self) -> None:
        super().__init__(console=make_console(stderr=True), disable=True)
        self._printed: dict[TaskID, float] = {}
        self._finished: set[TaskID] = set()

    def add_task(self, description: str, *args: Any, **fields: Any) -> TaskID:
        """Begin a stage."""
        task_id = super().add_task(description, *args, **fields)
        self._print(task_id)
        return task_id

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Note progress, and print it when it is time."""
        super().update(task_id, **changes)
        self._print_when_due(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Note progress, and print it when it is time."""
        super().advance(task_id, advance)
        self._print_when_due(task_id)

    def _print_when_due(self, task_id: TaskID) -> None:
        task = self._tasks.get(task_id)
        if task is None or task_id in self._finished:
            return
        if task.finished:
            self._finished.add(task_id)
        due = time.monotonic() - self._printed.get(task_id, 0.0) >= SECONDS_BETWEEN_LINES
        if due or task.finished:
            self._print(task_id)

    def _print(self, task_id: TaskID) -> None:
        self._printed[task_id] = time.monotonic()
        task = self._tasks[task_id]
        done = f"{task.completed:g}/{task.total:g}" if task.total else ""
        note = str(task.fields.get("note", ""))
        self.console.print("  ".join(filter(None, [task.description, done, note])))


def make_progress() -> Progress:
    """Return what shows progress on stderr, fit for where that goes; downloads are shown too."""
    console = make_console(stderr=True)
    progress: Progress = LineProgress()
    if console.is_terminal:
        progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            NoteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
    on_bytes.set(partial(show_download, progress, {}))
    return progress


def show_download(
    progress: Progress, stages: dict[str, TaskID], name: str, done: int, total: int | None
) -> None:
    """Show how much of an archive has come, in megabytes.

    Args:
        progress: Where it is shown.
        stages: Name of an archive -> its bar; changed in place.
        name: The archive's.
        done: Bytes that have come.
        total: All its bytes, where known.
    """
    size = None if total is None else max(1, round(total / 1e6))
    if name not in stages:
        stages[name] = progress.add_task(f"downloading {name}", total=size, note="MB")
    whole = done == total
    progress.update(stages[name], completed=size if whole and size else int(done / 1e6))
