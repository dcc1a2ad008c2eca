"""What the helpers of a run do, where it has been started on several processes (`train.ranks`)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, NoReturn

from instil.errors import TrainError
from instil.stages.context import RunContext, silent
from instil.stages.training import objective, training_model, training_plan

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
    from instil.train.ranks import is_first, jobs, joined

    with joined():
        if not is_first():
            for job in jobs():
                _help_train(job)
        yield is_first()


def _help_train(job: tuple[Any, ...]) -> None:
    """Take this process's share of a training; its models go when it is done.

    Args:
        job: The recipe, the base model, the encoded examples, the peak learning rate, where the
            training's state lies, and the run's id, as the first process has them.
    """
    from instil.train.fit import fit

    recipe, model, encoded, rate, checkpoint, run = job
    context = RunContext(recipe)
    context.model = model
    loaded, wanted = training_model(context), objective(context)
    plan = training_plan(recipe.train, encoded, rate=rate, checkpoint=checkpoint, run=run)

    def validate() -> NoReturn:
        raise AssertionError("a helper does not validate")

    # Whatever ends the training ends it in the first process too, which tells of it.
    with contextlib.suppress(KeyboardInterrupt, TrainError):
        fit(loaded, plan, validate=validate, on_step=silent, objective=wanted)
