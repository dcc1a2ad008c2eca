"""What the helpers of a run do, where it has been started on several processes (`train.ranks`)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from instil.errors import TrainError
from instil.fitting import fit_context
from instil.preflight import preflight
from instil.recipe import Recipe
from instil.stages import prepare_all
from instil.training import adapted, training_plan

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
            for recipe, checkpoint in jobs():
                help_train(recipe, checkpoint=checkpoint)
        yield is_first()


def help_train(recipe: Recipe, *, checkpoint: Path) -> None:
    """Take this process's share of a training; nothing is written, nothing said.

    Rows and model are prepared as the first process does: it has fetched all of them.
    """
    from instil.model.load import resolve_model
    from instil.train.fit import fit

    folder = resolve_model(recipe.model)
    data = fit_context(recipe, folder, prepare_all(recipe))
    encoded = preflight(recipe, folder, data)
    loaded = adapted(recipe, folder)
    plan = training_plan(recipe, loaded, encoded, checkpoint=checkpoint)
    # Whatever ends the training ends it in the first process too, which tells of it.
    with contextlib.suppress(KeyboardInterrupt, TrainError):
        fit(loaded, plan, validate=_never, on_step=lambda step: None)


def _never() -> NoReturn:
    raise AssertionError("a helper does not validate")
