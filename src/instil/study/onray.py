"""Arms as tasks of a Ray cluster (https://docs.ray.io), one process each.

    ray start --head                      # on one machine; the others: ray start --address=HEAD
    instil methods reviews.recipe.yaml --on ray --resource num_gpus=1

A task whose process or machine dies is started anew by Ray, and its run goes on from its last
checkpoint. The study's folder has to be on a file system that all machines share, and instil
installed on each of them.

Tests: `tests/study/test_engines.py`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from instil.errors import RunError
from instil.study.engine import Main, Say, arguments_of, logged
from instil.study.folder import Job, StudyFolder

RETRIES = 3
"""Times that Ray starts a job anew whose process or machine was lost."""
RESOURCES = ("num_cpus", "num_gpus", "memory")
"""What a job may ask for: processors, GPUs, bytes."""


@dataclass(frozen=True, slots=True)
class Task:
    """A job that Ray runs."""

    result: Any
    """Ray's reference to its exit code."""
    say: Say
    """Shows one line."""

    def ended(self) -> int | None:
        """Return the exit code; None: it is under way."""
        import ray

        done, _ = ray.wait([self.result], timeout=0)
        if not done:
            return None
        try:
            return int(ray.get(self.result))
        except ray.exceptions.RayError as error:
            self.say(f"Ray: {type(error).__name__}")
            return 1

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in it, as Ctrl-C does."""
        import ray

        ray.cancel(self.result)

    def kill(self) -> None:
        """End its process."""
        import ray

        ray.cancel(self.result, force=True)


class OnRay:
    """A Ray cluster."""

    def __init__(self, main: Main, *, resources: Mapping[str, str]) -> None:
        """Connect to the cluster at RAY_ADDRESS, or to the one that runs on this machine.

        Args:
            main: Does a job.
            resources: What a job asks for, by Ray's names; by default one processor.

        Raises:
            RunError: Ray is not installed, there is no cluster, or it has no such resource.
        """
        try:
            import ray
        except ImportError as error:
            what, fix = "Ray is not installed", "pip install 'instil[ray]'"
            raise RunError(what, where="--on ray", fix=fix) from error
        try:
            wanted = {name: float(value) for name, value in resources.items()}
        except ValueError as error:
            fix = "--resource num_gpus=1"
            raise RunError("a resource is a number", where="--resource", fix=fix) from error
        if unknown := [name for name in wanted if name not in RESOURCES]:
            raise RunError(
                "Ray knows no such resource",
                where="--resource",
                found=", ".join(unknown),
                allowed=", ".join(RESOURCES),
            )
        if not ray.is_initialized():
            try:
                address = os.environ.get("RAY_ADDRESS", "auto")
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            except (ConnectionError, ValueError) as error:
                raise RunError(
                    "there is no Ray cluster",
                    where=os.environ.get("RAY_ADDRESS", "this machine"),
                    fix="ray start --head, or set RAY_ADDRESS to one that runs elsewhere",
                ) from error
        # Every job in a process of its own, so that its peak of memory is its own.
        self._remote = partial(ray.remote, max_calls=1, max_retries=RETRIES, **wanted)
        self._main = main
        shares = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
        there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        fits = [there.get(shares[n], 0) // count for n, count in wanted.items() if count]
        self._at_once = int(min(fits or [there.get("CPU", 1)]))
        if self._at_once < 1:
            raise RunError(
                "the Ray cluster has less than one job asks for",
                where="--resource",
                found=", ".join(f"{n} {there.get(shares[n], 0):g}" for n in wanted),
                allowed=", ".join(f"{n}={count:g}" for n, count in wanted.items()),
            )

    @property
    def at_once(self) -> int:
        """As many as there are resources for."""
        return self._at_once

    def start(self, folder: StudyFolder, job: Job, *, say: Say) -> Task:
        """Hand a job to Ray, which starts it where there is room."""
        log = folder.log(job.name).resolve()
        say(f"arm {job.name} handed to Ray: {log}")
        remote = self._remote(name=f"instil {job.name}")(logged)
        return Task(remote.remote(self._main, arguments_of(folder, job), str(log)), say)
