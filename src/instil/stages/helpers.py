"""What the helpers of a run do, where it has been started on several processes (`train.ranks`)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

from instil.errors import TrainError
from instil.stages.context import RunContext, silent
from instil.stages.training import Job, objective, training_model, training_plan

if TYPE_CHECKING:
    from instil.train.dealt_base import Held

PROCESSES = "WORLD_SIZE"
"""Set by torchrun and `accelerate launch`: how many processes they have started."""


@contextlib.contextmanager
def several_processes() -> Iterator[bool]:
    """Join the processes that were started beside this one, if any; yields whether it is the first.

    A helper has done all there is to do when the block begins: it has taken its share of each
    training, written nothing and said nothing.
    """
    if os.environ.get(PROCESSES, "1") == "1":
        yield True
        return
    from instil.train.dealt_base import Held
    from instil.train.ranks import LetGoError, is_first, jobs, joined

    with joined():
        if not is_first():
            held = Held()
            with contextlib.suppress(LetGoError):
                for job in jobs():
                    if isinstance(job, Job):
                        _help_train(job, held)
                    else:
                        held.serve(job)
        yield is_first()


def _help_train(job: Job, held: Held) -> None:
    """Take this process's share of a training; its models go when it is done.

    Args:
        job: The training.
        held: What this process holds of base models that are dealt out.
    """
    from instil.train.fit import fit

    context = RunContext(job.recipe)
    context.model = job.model
    base = None if job.base is None else held.bases[job.base]
    loaded, wanted = training_model(context, base), objective(context)
    plan = training_plan(
        job.recipe.train,
        job.encoded,
        rate=job.rate,
        checkpoint=job.checkpoint,
        seed=job.recipe.seed,
        run=job.run,
    )

    def validate() -> NoReturn:
        raise AssertionError("a helper does not validate")

    # Whatever ends the training ends it in the first process too, which tells of it.
    with contextlib.suppress(KeyboardInterrupt, TrainError):
        fit(
            loaded,
            plan,
            validate=validate,
            on_step=silent,
            objective=wanted,
            serve=held.serve,
        )
