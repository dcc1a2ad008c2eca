"""Which directory a run goes into."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass
from pathlib import Path

from instil.cli.options import place
from instil.config.recipe import Recipe, load_recipe, run_name
from instil.errors import InstilError, RecipeError
from instil.stages.directory import is_vacant
from instil.stages.runfiles import RECIPE, is_finished

_MACHINE = ("version of ", "computing ")
"""How differences begin that make a finished run no other one."""


@dataclass(frozen=True, slots=True)
class RunPlace:
    """A directory for a run, or that of the same run, done before."""

    folder: Path
    """The run directory."""
    finished: bool = False
    """Whether the run is there already, with the very same recipe."""
    begun: bool = False
    """Whether it is there, but was stopped before its end."""
    passed: str = ""
    """Why a finished run of the recipe was not taken, since what it was made from has changed; or
    that this could not be seen."""


def place_run(path: Path, recipe: Recipe, *, folder: Path | None, again: bool) -> RunPlace:
    """Find a place for the run of a recipe file.

    Args:
        path: The recipe's file, which names the run.
        recipe: What is to be run.
        folder: The run directory that is asked for; None: `runs/NAME-OF-THE-RECIPE`.
        again: Whether a run that is there already will do (see `place_again`).
    """
    folder = folder or place(f"{recipe.output}/{run_name(path)}")
    return place_again(recipe, folder=folder) if again else RunPlace(folder)


def sibling(folder: Path, number: int) -> Path:
    """Return `folder-NUMBER`; of the copy of an address, the copy of that one beside it."""
    from instil.stages.mirror import address_of, fetch

    address = address_of(folder)
    return fetch(f"{address}-{number}") if address else folder.with_name(f"{folder.name}-{number}")


def place_again(recipe: Recipe, *, folder: Path) -> RunPlace:
    """Find a place for a run that may have been done before.

    Args:
        recipe: What is to be run.
        folder: Where it would go if nothing were there.

    Returns:
        The first of `folder`, `folder-2`, `folder-3` ... that holds a run of the same recipe, and
        of rows, task and base model as they are today, as far as these are to be had; else the
        first in which no run has begun.
    """
    from instil.stages.context import changed_inputs

    passed = ""
    for number in itertools.count(1):
        place = folder if number == 1 else sibling(folder, number)
        if is_vacant(place):
            return RunPlace(place, passed=passed)
        with contextlib.suppress(RecipeError):  # of another version of instil, or not a run at all
            if (place / RECIPE).is_file() and load_recipe(place / RECIPE) == recipe:
                finished = is_finished(place)
                try:
                    changes = changed_inputs(recipe, place) if finished else []
                    # Versions and the device change on every machine; a finished run is finished.
                    differences = [c for c in changes if not c.what.startswith(_MACHINE)]
                except InstilError as error:
                    what = error.problems[0].what
                    passed = f"what {place} was made from could not be looked at: {what}"
                    differences = []
                if differences:
                    passed = f"not the run in {place}: {differences[0].what}"
                    continue
                return RunPlace(place, finished=finished, begun=not finished, passed=passed)
    raise AssertionError("counting does not end")
