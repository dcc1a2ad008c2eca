"""Commands of instil as processes of their own, which outlive the page and its server.

::

    .instil/jobs/20261126-154500-run-1/
      job.json        the command and its process
      output.txt      what it prints
      progress.json   the stage under way, as `cli.progress` tells it
      code            its exit code, once it has ended

A job is a process in a session of its own: closing the page or killing the server stops none.

Tests: `tests/web/test_jobs.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from instil.files import write_whole

JOBS = Path(".instil", "jobs")
"""Where they are kept, within the folder of the page."""
_OUTPUT, _CODE, _PROGRESS, _FACTS = "output.txt", "code", "progress.json", "job.json"
_SHOWN = 20_000
"""Bytes at the end of an output that are shown."""


@dataclass(frozen=True, slots=True)
class Job:
    """A command that was begun."""

    place: Path
    """Where its files are kept."""
    command: tuple[str, ...]
    """What follows `instil`."""
    pid: int
    """Of its process."""
    started: float
    """When the system says that the process began: another one may get its number later."""
    begun: str
    """When it was begun, local time."""

    @property
    def id(self) -> str:
        """What no other job of the folder is called."""
        return self.place.name

    @property
    def line(self) -> str:
        """The command, to be pasted into a shell."""
        return command_line(self.command)

    @property
    def code(self) -> int | None:
        """The exit code; None: it has not ended, or was killed."""
        try:
            return int((self.place / _CODE).read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    @property
    def running(self) -> bool:
        """Whether its process is at work."""
        if self.code is not None:
            return False
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 1
            return bool(same and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.Error:
            return False

    @property
    def state(self) -> str:
        """How it stands, in words."""
        if self.running:
            return "running"
        code = self.code
        words = {
            0: "done",
            1: "failed: a mistake of instil's own",
            2: "refused",
            3: "done: more forgotten than the budget allows",
            4: "does not answer as the run's model",
            130: "stopped",
            None: "killed",
        }
        return words.get(code, f"ended with code {code}")

    @property
    def output(self) -> str:
        """The end of what it has printed."""
        try:
            with (self.place / _OUTPUT).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _SHOWN))
                return file.read().decode("utf-8", errors="replace")
        except OSError:
            return ""

    @property
    def progress(self) -> dict[str, Any]:
        """The stage under way; empty where none has begun."""
        try:
            return dict(json.loads((self.place / _PROGRESS).read_bytes()))
        except (OSError, ValueError, TypeError):
            return {}

    def stop(self, *, wait: float = 0) -> None:
        """Stop it as Ctrl-C does; nothing where it has ended.

        Args:
            wait: Seconds that its end is waited for.
        """
        until = time.monotonic() + wait
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGINT)
        while self.running and time.monotonic() < until:
            time.sleep(0.05)


def command_line(command: Sequence[str]) -> str:
    """Return a command of instil as it is pasted into a shell.

    >>> command_line(["run", "my recipe.yaml"])
    "instil run 'my recipe.yaml'"
    """
    return shlex.join(["instil", *command])


def begin(folder: Path, command: Sequence[str], *, env: Mapping[str, str] | None = None) -> Job:
    """Start a command in the folder of the page.

    Args:
        folder: Where it runs, and where its files are kept.
        command: What follows `instil`.
        env: Environment variables beside the server's own; a job's files do not hold them.
    """
    stamp = f"{datetime.now():%Y%m%d-%H%M%S}-{command[0]}"
    for number in range(1, 1000):
        place = folder / JOBS / f"{stamp}-{number}"
        with contextlib.suppress(FileExistsError):
            place.mkdir(parents=True)
            break
    process = _start(place, command, cwd=folder, env=env or {})
    started = psutil.Process(process.pid).create_time()
    job = Job(place, tuple(command), process.pid, started, f"{datetime.now():%Y-%m-%d %H:%M:%S}")
    facts = {name: value for name, value in asdict(job).items() if name != "place"}
    write_whole(place / _FACTS, json.dumps(facts).encode())
    threading.Thread(target=process.wait, daemon=True).start()  # so that it stays no zombie
    return job


def _start(
    place: Path, command: Sequence[str], *, cwd: Path, env: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    from instil.cli.progress import WATCHED

    # The command ends by writing its code, also where nobody waits for it any more.
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from instil.web.jobs import run_here\nrun_here(Path(sys.argv[1]), sys.argv[2:])\n"
    )
    with (place / _OUTPUT).open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-c", program, str(place.absolute()), *command],
            cwd=cwd,
            env={**os.environ, **env, WATCHED: str(place.absolute() / _PROGRESS)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def run_here(place: Path, command: Sequence[str]) -> None:
    """Run a command in this process, and keep its exit code."""
    from instil.cli.main import app

    code: int | str | None = 1
    try:
        app(list(command), prog_name="instil")
    except SystemExit as end:
        code = end.code
        raise
    finally:
        number = code if isinstance(code, int) else int(code is not None)
        write_whole(place / _CODE, str(number).encode())


def jobs(folder: Path) -> list[Job]:
    """Return the jobs of a folder, the newest first."""
    places = sorted((folder / JOBS).glob("*/"), key=lambda place: place.name, reverse=True)
    return [job for place in places if (job := _load(place))]


def find(folder: Path, id: str) -> Job | None:
    """Return the job of that id."""
    return next((job for job in jobs(folder) if job.id == id), None)


def _load(place: Path) -> Job | None:
    try:
        facts = json.loads((place / _FACTS).read_bytes())
        facts["command"] = tuple(map(str, facts["command"]))
        return Job(place, **facts)
    except (OSError, ValueError, TypeError, KeyError):
        return None  # it is being begun
