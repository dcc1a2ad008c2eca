"""Arms as jobs of Slurm, by submitit (https://github.com/facebookincubator/submitit).

    instil methods reviews.recipe.yaml --on slurm --resource gpus_per_node=1

`--resource` takes submitit's names: slurm_partition=gpu, timeout_min=120, mem_gb=64 and so on.
A job that is preempted or runs out of its time is queued again, and its run goes on from its last
checkpoint. The study's folder has to be on a file system that all machines share. Without Slurm,
`--on submitit` runs the same jobs on this machine, to try it.

Tests: `tests/study/test_engines.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from instil.errors import RunError
from instil.study.engine import Main, Say, arguments_of, logged
from instil.study.folder import Job, StudyFolder

MINUTES = 24 * 60
"""That a job may take, unless `timeout_min` says otherwise."""


@dataclass(frozen=True, slots=True)
class Arm:
    """What a job of Slurm calls; submitit writes it to a file and reads it there."""

    main: Main
    """Does the job."""
    arguments: Sequence[str]
    """Its arguments."""
    log: str
    """Where what it prints goes."""

    def __call__(self) -> int:
        """Do the job, and return its exit code."""
        return logged(self.main, self.arguments, self.log)

    def checkpoint(self) -> Any:
        """Return what is queued where the job is preempted: the same, which goes on."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@dataclass(frozen=True, slots=True)
class Queued:
    """A job of Slurm."""

    job: Any
    """submitit's handle."""
    say: Say
    """Shows one line."""

    def ended(self) -> int | None:
        """Return the exit code; None: it is waiting or under way."""
        if not self.job.done():
            return None
        failed = self.job.exception()
        if failed is not None:
            self.say(f"submitit: {type(failed).__name__}; see {self.job.paths.stderr}")
            return 1
        return int(self.job.result())

    def interrupt(self) -> None:
        """Cancel it; the run stops as by SIGTERM, in order."""
        self.job.cancel(check=False)

    def kill(self) -> None:
        """Cancel it."""
        self.job.cancel(check=False)


class OnSlurm:
    """Slurm, or submitit's own processes on this machine."""

    def __init__(
        self, main: Main, *, folder: StudyFolder, resources: Mapping[str, str], cluster: str
    ) -> None:
        """Args: what does a job, the study's folder, submitit's parameters, `slurm` or `local`.

        Raises:
            RunError: submitit is not installed, there is no Slurm, or a parameter is unknown.
        """
        asked = f"--on {'slurm' if cluster == 'slurm' else 'submitit'}"
        try:
            import submitit
        except ImportError as error:
            what, fix = "submitit is not installed", "pip install 'instil[slurm]'"
            raise RunError(what, where=asked, fix=fix) from error
        try:
            executor = submitit.AutoExecutor(
                folder=folder.path.resolve() / "logs" / "submitit", cluster=cluster
            )
            wanted = {name: _number(value) for name, value in resources.items()}
            executor.update_parameters(**{"timeout_min": MINUTES, "name": "instil", **wanted})
        except (RuntimeError, NameError, TypeError, AssertionError, ValueError) as error:
            raise RunError(
                "submitit cannot start jobs so",
                where=asked,
                found=str(error).splitlines()[0][:200],
                fix="on a machine with Slurm, --resource NAME=VALUE by submitit's names",
            ) from error
        self._executor, self._main = executor, main

    @property
    def at_once(self) -> int:
        """Not known: the queue decides."""
        return 1

    def start(self, folder: StudyFolder, job: Job, *, say: Say) -> Queued:
        """Put a job into the queue."""
        log = folder.log(job.name).resolve()
        queued = self._executor.submit(Arm(self._main, arguments_of(folder, job), str(log)))
        say(f"arm {job.name} queued as {queued.job_id}: {log}")
        return Queued(queued, say)


def _number(value: str) -> int | str:
    return int(value) if value.isdigit() else value
