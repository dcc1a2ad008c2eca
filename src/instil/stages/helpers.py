"""What the helpers of a run do, where it has been started on several processes (`train.ranks`)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from instil.config.recipe import Recipe
from instil.errors import TrainError
from instil.stages.context import RunContext, silent
from instil.stages.training import adapted, objective, training_plan

if TYPE_CHECKING:
    from instil.encode.plan import TrainingData
    from instil.model.load import ModelFolder

PROCESSES = "WORLD_SIZE"
"""Set by torchrun and `accelerate launch`: how many processes they have started."""


@contextlib.contextmanager
def several_processes() -> Iterator[bool]:
    """Join the processes that were started beside this one, if any; yields whether it is the first.

    A helper has done all there is to do when the block begins.
    """
    if os.environ.get(PROCESSES, "1") == "1":
        yield True
        return
    from instil.train.ranks import is_first, jobs, joined

    with joined():
        if not is_first():
            for job in jobs():
                help_train(*job)
        yield is_first()


def help_train(
    recipe: Recipe,
    folder: ModelFolder,
    encoded: TrainingData,
    rate: float,
    checkpoint: Path,
    run: str,
) -> None:
    """Take this process's share of a training; nothing is written, nothing said.

    Args:
        recipe: Of the run.
        folder: The base model, where the first process found it.
        encoded: The examples, as the first process has encoded them.
        rate: The peak learning rate that it has found.
        checkpoint: Where the training's state lies, if it goes on from one.
        run: The run's id.
    """
    from instil.train.fit import fit

    context = RunContext(recipe)
    context.model = folder
    loaded, wanted = adapted(context), objective(context)
    plan = training_plan(recipe.train, encoded, rate=rate, checkpoint=checkpoint, run=run)
    # Whatever ends the training ends it in the first process too, which tells of it.
    with contextlib.suppress(KeyboardInterrupt, TrainError):
        fit(loaded, plan, validate=_never, on_step=silent, objective=wanted)


def _never() -> NoReturn:
    raise AssertionError("a helper does not validate")
