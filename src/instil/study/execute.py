"""Running the arms: each in a process of its own, several at once where there are devices.

A process of its own gives every arm an honest peak of memory (a process never gives back what an
earlier arm took) and its own GPU, by CUDA_VISIBLE_DEVICES. On a CPU, and with one GPU, arms run one
after another, with their progress on the terminal.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from instil.config.recipe import Device, Recipe
from instil.signals import ENDING, interrupt, on_signals
from instil.study.folder import Job, StudyFolder, failed

Say = Callable[[str], None]
Chain = Sequence[Job]
"""Jobs that need one another, in order."""
_pause = time.sleep
_POLL_SECONDS, _GRACE_SECONDS, _STOP_SECONDS = 0.2, 20.0, 60.0


def devices(recipe: Recipe) -> tuple[str, ...]:
    """Return the GPUs to spread arms over, as CUDA_VISIBLE_DEVICES names them; none: the CPU."""
    import torch

    if recipe.device is Device.CPU or not torch.cuda.is_available():
        return ()
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    known = [name.strip() for name in named.split(",") if name.strip()]
    return tuple(known or (str(n) for n in range(torch.cuda.device_count())))


def run_apart(
    folder: StudyFolder, chains: Iterable[Chain], *, gpus: Sequence[str], say: Say
) -> None:
    """Do all jobs in processes of their own, one a GPU; without one, one after another.

    A job that fails ends its chain; the others go on.

    Raises:
        InstilError: Some did not finish: what they said stands above, or in their logs.
        KeyboardInterrupt: Stopped; every job has been let stop in order.
    """
    left = ([job for job in chain if not folder.finished(job)] for chain in chains)
    waiting = deque(deque(jobs) for jobs in left if jobs)
    slots: dict[str, _Running | None] = dict.fromkeys(gpus or ("",))
    lost: list[str] = []
    with _ending_in_order(slots):
        while waiting or any(slots.values()):
            for slot, running in slots.items():
                if running is not None and running.process.poll() is not None:
                    lost += _ended(folder, running, waiting, say=say)
                    slots[slot] = running = None
                if running is None and waiting:
                    slots[slot] = _start(folder, waiting.popleft(), gpu=slot, say=say, of=slots)
            _pause(_POLL_SECONDS)
    if lost:
        raise failed(lost, where=folder.path)


@dataclass(slots=True)
class _Running:
    """A job under way, and what follows it."""

    job: Job
    process: subprocess.Popen[bytes]
    rest: deque[Job]
    began: float = field(default_factory=time.perf_counter)


def command_of(folder: StudyFolder, job: Job) -> list[str]:
    """Return the command line that does a job; its recipe lies in the study's folder."""
    command = [sys.executable, "-m", "instil.cli.arm", str(folder.path), job.name, job.work]
    return [*command, "merge"] if job.merge else command


def _start(
    folder: StudyFolder, chain: deque[Job], *, gpu: str, say: Say, of: dict[str, _Running | None]
) -> _Running:
    job = chain.popleft()
    folder.lay_out([job])
    command = command_of(folder, job)
    environment = {**os.environ, **({"CUDA_VISIBLE_DEVICES": gpu} if gpu else {})}
    on = f" on GPU {gpu}" if gpu else ""
    if len(of) < 2:
        say(f"arm {job.name}{on}")
        return _Running(job, subprocess.Popen(command, env=environment), chain)
    log = folder.log(job.name)
    say(f"arm {job.name}{on}: {log}")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    return _Running(job, process, chain)


def _ended(
    folder: StudyFolder, running: _Running, waiting: deque[deque[Job]], *, say: Say
) -> list[str]:
    """Put what follows a finished job in line; return the jobs that are lost by a failed one."""
    from instil.format import seconds

    took, job = seconds(time.perf_counter() - running.began), running.job
    if running.process.returncode == 0:
        say(f"arm {job.name} done in {took}")
        if running.rest:
            waiting.appendleft(running.rest)
        return []
    where = f"; see {folder.log(job.name)}" if folder.log(job.name).exists() else ""
    say(f"arm {job.name} did not finish{where}")
    return [job.name, *(later.name for later in running.rest)]


@contextmanager
def _ending_in_order(slots: Mapping[str, _Running | None]) -> Iterator[None]:
    """Leave no arm behind, whatever ends the study; on SIGTERM and SIGHUP as on Ctrl-C."""
    with on_signals(interrupt, *ENDING):
        try:
            yield
        finally:
            _stop([running for running in slots.values() if running is not None])


def _stop(running: Sequence[_Running]) -> None:
    """Let every job stop as Ctrl-C does, so that it can be gone on with."""
    # Ctrl-C on a terminal reaches them by itself, a signal sent to this process alone does not.
    for each in _still(running, within=_GRACE_SECONDS):
        each.process.send_signal(signal.SIGINT)
    for each in _still(running, within=_STOP_SECONDS):
        each.process.kill()
        each.process.wait()


def _still(running: Sequence[_Running], *, within: float) -> list[_Running]:
    """Return the jobs that are still under way after so many seconds."""
    deadline = time.monotonic() + within
    for each in running:
        with suppress(subprocess.TimeoutExpired):
            each.process.wait(timeout=max(0.0, deadline - time.monotonic()))
    return [each for each in running if each.process.poll() is None]
