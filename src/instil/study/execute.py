"""Running the arms of a study on an engine: in the order of their chains, until none is left."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from instil.errors import RunError
from instil.format import seconds
from instil.signals import ENDING, interrupt, on_signals
from instil.study.engine import Engine, Say, Started
from instil.study.folder import Job, StudyFolder

Chain = Sequence[Job]
"""Jobs that need one another, in order."""
_pause = time.sleep
_POLL_SECONDS, _GRACE_SECONDS, _STOP_SECONDS = 0.2, 20.0, 60.0


def run_apart(folder: StudyFolder, chains: Iterable[Chain], *, engine: Engine, say: Say) -> None:
    """Do all jobs on an engine.

    A job that fails ends its chain; the others go on.

    Raises:
        InstilError: Some did not finish: what they said stands above, or in their logs.
        KeyboardInterrupt: Stopped; every job has been let stop in order.
    """
    left = [deque(job for job in chain if not folder.finished(job)) for chain in chains]
    waiting = deque(chain for chain in left if chain)
    under_way: list[_Running] = []
    lost: list[str] = []
    with on_signals(interrupt, *ENDING):  # SIGTERM and SIGHUP end it as Ctrl-C does
        try:
            while waiting or under_way:
                for running in [*under_way]:
                    code = running.started.ended()
                    if code is None:
                        continue
                    under_way.remove(running)
                    name, log = running.job.name, folder.log(running.job.name)
                    if code == 0:
                        say(f"arm {name} done in {seconds(time.perf_counter() - running.began)}")
                        if running.chain:
                            waiting.appendleft(running.chain)
                    else:  # the jobs after it are lost too
                        see = f"; see {log}" if log.exists() else ""
                        say(f"arm {name} did not finish{see}")
                        lost += [name, *(later.name for later in running.chain)]
                while waiting:
                    chain = waiting[0]
                    folder.lay_out(chain[0])
                    started = engine.start(folder, chain[0], say=say)
                    if started is None:
                        break
                    waiting.popleft()
                    under_way.append(_Running(chain.popleft(), started, chain))
                _pause(_POLL_SECONDS)
        finally:
            # Every job stops as Ctrl-C lets it, so that it can be resumed; none is left
            # behind. Ctrl-C on a terminal reaches them by itself, a signal sent to this process
            # alone does not.
            for each in _still(under_way, within=_GRACE_SECONDS):
                each.started.interrupt()
            for each in _still(under_way, within=_STOP_SECONDS):
                each.started.kill()
    if lost:
        raise RunError(
            f"{len(lost)} of the arms did not finish",
            where=str(folder.path),
            found=", ".join(lost),
            fix="mend what the messages above say; the same command does what is missing",
        )


@dataclass(slots=True)
class _Running:
    """A job under way, and what follows it."""

    job: Job
    started: Started
    chain: deque[Job]
    began: float = field(default_factory=time.perf_counter)


def _still(running: Sequence[_Running], *, within: float) -> list[_Running]:
    """Return the jobs that are still under way after so many seconds."""
    deadline = time.monotonic() + within
    while (left := [each for each in running if each.started.ended() is None]) and (
        time.monotonic() < deadline
    ):
        time.sleep(min(_POLL_SECONDS, within))
    return left
