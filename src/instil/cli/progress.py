"""Progress of long work, on stderr: bars on a terminal, now and then a line elsewhere.

Whoever reports it adds a task for a stage and may give it a `note`, which stands behind the bar::

    with make_progress() as progress:
        stage = progress.add_task("training", total=120, note="")
        progress.update(stage, advance=1, note="loss 0.41, 310 tokens/s")
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from functools import partial
from pathlib import Path
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

from instil import format as fmt
from instil.cli.show import make_console
from instil.data.sources.fetch import on_bytes
from instil.files import write_whole

SECONDS_BETWEEN_LINES = 20.0
WATCHED = "INSTIL_PROGRESS"
"""The environment variable that names the file for whoever watches."""


class NoteColumn(ProgressColumn):
    """Shows a task's `note`, where it has one."""

    def render(self, task: Task) -> Text:
        """Return the note as plain text."""
        return Text(str(task.fields.get("note", "")))


class LineProgress(Progress):
    """For output that is no terminal: a line when a stage begins, at intervals, and at its end.

    Where the environment variable `INSTIL_PROGRESS` names a file, the stage under way is kept there
    as JSON, for whoever watches.
    """

    def __init__(self) -> None:
        super().__init__(console=make_console(stderr=True), disable=True)
        self._printed: dict[TaskID, float] = {}
        self._finished: set[TaskID] = set()
        self._watched, self._told = os.environ.get(WATCHED, ""), 0.0

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
        self._tell(task)
        if task.finished:
            self._finished.add(task_id)
        due = time.monotonic() - self._printed.get(task_id, 0.0) >= SECONDS_BETWEEN_LINES
        if due or task.finished:
            self._print(task_id)

    def _print(self, task_id: TaskID) -> None:
        again = task_id in self._printed
        self._printed[task_id] = time.monotonic()
        task = self._tasks[task_id]
        self._tell(task, now=True)
        done = f"{task.completed:g}/{task.total:g}" if task.total else ""
        if again and not done:  # how long it has taken tells more than the same words again
            done = fmt.seconds(task.elapsed or 0.0)
        note = str(task.fields.get("note", ""))
        self.console.print("  ".join(filter(None, [task.description, done, note])))

    def _tell(self, task: Task, *, now: bool = False) -> None:
        """Keep the stage under way where it is watched, twice a second at most."""
        if not self._watched or (not now and time.monotonic() - self._told < 0.5):
            return
        self._told = time.monotonic()
        stage = {
            "stage": task.description,
            "done": task.completed,
            "total": task.total,
            "note": str(task.fields.get("note", "")),
            "seconds": task.elapsed,
            "seconds_left": task.time_remaining,
        }
        with contextlib.suppress(OSError):  # a watcher's folder that is gone stops no run
            write_whole(Path(self._watched), json.dumps(stage).encode())


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
