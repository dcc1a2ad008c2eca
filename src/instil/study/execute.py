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
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from instil.config.recipe import Device
from instil.errors import RunError
from instil.format import seconds
from instil.signals import ENDING, interrupt, on_signals
from instil.study.folder import Job, StudyFolder

Say = Callable[[str], None]
Chain = Sequence[Job]
"""Jobs that need one another, in order."""
_pause = time.sleep
_POLL_SECONDS, _GRACE_SECONDS, _STOP_SECONDS = 0.2, 20.0, 60.0


def devices(device: Device) -> tuple[str, ...]:
    """Return the GPUs to spread arms over, as CUDA_VISIBLE_DEVICES names them; none: the CPU."""
    import torch

    if device is Device.CPU or not torch.cuda.is_available():
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
    left = [deque(job for job in chain if not folder.finished(job)) for chain in chains]
    waiting = deque(chain for chain in left if chain)
    slots: dict[str, _Running | None] = dict.fromkeys(gpus or ("",))
    lost: list[str] = []
    with on_signals(interrupt, *ENDING):  # SIGTERM and SIGHUP end it as Ctrl-C does
        try:
            while waiting or any(slots.values()):
                for slot, running in slots.items():
                    if running is not None and running.process.poll() is not None:
                        name, log = running.job.name, folder.log(running.job.name)
                        if running.process.returncode == 0:
                            took = seconds(time.perf_counter() - running.began)
                            say(f"arm {name} done in {took}")
                            if running.chain:
                                waiting.appendleft(running.chain)
                        else:  # the jobs after it are lost too
                            see = f"; see {log}" if log.exists() else ""
                            say(f"arm {name} did not finish{see}")
                            lost += [name, *(later.name for later in running.chain)]
                        slots[slot] = running = None
                    if running is None and waiting:
                        chain, logged = waiting.popleft(), len(slots) > 1
                        slots[slot] = _start(folder, chain, gpu=slot, logged=logged, say=say)
                _pause(_POLL_SECONDS)
        finally:
            # Every job stops as Ctrl-C lets it, so that it can be gone on with; none is left
            # behind. Ctrl-C on a terminal reaches them by itself, a signal sent to this process
            # alone does not.
            under_way = [running for running in slots.values() if running is not None]
            for each in _still(under_way, within=_GRACE_SECONDS):
                each.process.send_signal(signal.SIGINT)
            for each in _still(under_way, within=_STOP_SECONDS):
                each.process.kill()
                each.process.wait()
    if lost:
        raise RunError(
            f"{len(lost)} of the arms did not finish",
            where=str(folder.path),
            found=", ".join(lost),
            fix="mend what the messages above say; the same command goes on with what is missing",
        )


@dataclass(slots=True)
class _Running:
    """A job under way, and what follows it."""

    job: Job
    process: subprocess.Popen[bytes]
    chain: deque[Job]
    began: float = field(default_factory=time.perf_counter)


def command_of(folder: StudyFolder, job: Job) -> list[str]:
    """Return the command line that does a job; its recipe lies in the study's folder."""
    command = [sys.executable, "-m", "instil.cli.arm", str(folder.path), job.name, job.work]
    return [*command, "merge"] if job.merge else command


def _start(folder: StudyFolder, chain: deque[Job], *, gpu: str, logged: bool, say: Say) -> _Running:
    job = chain.popleft()
    folder.lay_out(job)
    command, environment = command_of(folder, job), dict(os.environ)
    told = f"arm {job.name}"
    if gpu:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
        told += f" on GPU {gpu}"
    if not logged:
        say(told)
        return _Running(job, subprocess.Popen(command, env=environment), chain)
    log = folder.log(job.name)
    say(f"{told}: {log}")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    return _Running(job, process, chain)


def _still(running: Sequence[_Running], *, within: float) -> list[_Running]:
    """Return the jobs that are still under way after so many seconds."""
    deadline = time.monotonic() + within
    for each in running:
        with suppress(subprocess.TimeoutExpired):
            each.process.wait(timeout=max(0.0, deadline - time.monotonic()))
    return [each for each in running if each.process.poll() is None]
