"""Where the arms of a study run: what `execute` needs to know of it.

`local` (processes of this machine), `onray` and `onslurm` are the engines; each starts jobs and
says how they ended. What a job does is the same on all of them: it fills its run directory, which
every machine has to see under the same path, and goes on where an earlier try of it was stopped.

Tests: `tests/study/test_engines.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Protocol

from instil.config.recipe import Device
from instil.study.folder import Job, StudyFolder

Say = Callable[[str], None]
Main = Callable[[Sequence[str]], int]
"""Does the job that its arguments name (`arguments_of`), and returns the exit code."""


class Started(Protocol):
    """A job that was started."""

    def ended(self) -> int | None:
        """Return the exit code; None: it is under way."""

    def interrupt(self) -> None:
        """Let it stop in order, so that it can be resumed."""

    def kill(self) -> None:
        """End it."""


class Engine(Protocol):
    """Starts jobs."""

    @property
    def at_once(self) -> int:
        """Jobs that run at the same time, about; at least 1."""

    def start(self, folder: StudyFolder, job: Job, *, say: Say) -> Started | None:
        """Start a job whose recipe is laid out; None: there is no room for it now."""


MakeEngine = Callable[[StudyFolder, Device], Engine]
"""Makes an engine for the arms of a study on a kind of device."""


def arguments_of(folder: StudyFolder, job: Job) -> list[str]:
    """Return the arguments of `python -m instil.cli.arm` that do a job."""
    arguments = [str(folder.path.resolve()), job.name, str(job.work)]
    return [*arguments, "merge"] if job.merge else arguments


def logged(main: Main, arguments: Sequence[str], log: str) -> int:
    """Do a job in this process; what it prints goes to the end of its log."""
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with (
        Path(log).open("a", encoding="utf-8") as out,
        redirect_stdout(out),
        redirect_stderr(out),
    ):
        return main(arguments)
