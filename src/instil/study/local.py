"""Arms in processes of this machine, one a GPU; without one, one after another.

A process of its own gives every arm an honest peak of memory (a process never gives back what an
earlier arm took) and its own GPU, by CUDA_VISIBLE_DEVICES. On a CPU, and with one GPU, arms run one
after another, with their progress on the terminal.

Tests: `tests/study/test_execute.py`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from instil.config.recipe import Device
from instil.study.engine import Say, arguments_of
from instil.study.folder import Job, StudyFolder


def devices(device: Device) -> tuple[str, ...]:
    """Return the GPUs to spread arms over, as CUDA_VISIBLE_DEVICES names them; none: the CPU."""
    import torch

    if device is Device.CPU or not torch.cuda.is_available():
        return ()
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    known = [name.strip() for name in named.split(",") if name.strip()]
    return tuple(known or (str(n) for n in range(torch.cuda.device_count())))


@dataclass(slots=True)
class Process:
    """A job in a process."""

    process: subprocess.Popen[bytes]
    """The process."""
    code: int | None = None
    """Its exit code, once that has been asked for: until then its GPU is not given to another."""

    def ended(self) -> int | None:
        """Return the exit code; None: it is under way."""
        self.code = self.process.poll()
        return self.code

    def interrupt(self) -> None:
        """Stop it as Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


class Local:
    """Processes of this machine."""

    def __init__(self, gpus: Sequence[str]) -> None:
        """Args: GPUs, as CUDA_VISIBLE_DEVICES names them; none: the CPU."""
        self._running: dict[str, Process | None] = dict.fromkeys(gpus or ("",))

    @property
    def at_once(self) -> int:
        """A job a GPU."""
        return len(self._running)

    def start(self, folder: StudyFolder, job: Job, *, say: Say) -> Process | None:
        """Start a job where a GPU is free."""
        free = (g for g, r in self._running.items() if r is None or r.code is not None)
        gpu = next(free, None)
        if gpu is None:
            return None
        command, environment = command_of(folder, job), dict(os.environ)
        told = f"arm {job.name}"
        if gpu:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
            told += f" on GPU {gpu}"
        if self.at_once == 1:
            say(told)
            started = Process(subprocess.Popen(command, env=environment))
        else:
            log = folder.log(job.name)
            say(f"{told}: {log}")
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as out:
                process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
            started = Process(process)
        self._running[gpu] = started
        return started


def here(_: StudyFolder, device: Device) -> Local:
    """Return the processes of this machine, one a GPU that it has."""
    return Local(devices(device))


def command_of(folder: StudyFolder, job: Job) -> list[str]:
    """Return the command line that does a job; its recipe lies in the study's folder."""
    return [sys.executable, "-m", "instil.cli.arm", *arguments_of(folder, job)]
