"""Every error that a user can cause, and how it reads.

The tree::

    InstilError
      RecipeError   the recipe's YAML
      TaskError     a task file or one of its templates
      DataError     rows, files, archives, splits
      ModelError    a model folder, a tokenizer, an adapter
      TrainError    training itself
      OutOfMemoryError  what was asked for does not fit into memory
      RunError      a run directory
        RefusedError  one that is in use, or not whole; nothing in it was touched

An error carries one or more `Problem`s, so that a user reads all mistakes at once::

    >>> print(RecipeError(Problem("unknown key 'lerning_rate'", where="recipe.yaml:4",
    ...                           nearest="learning_rate", fix="rename the key")))
    recipe.yaml:4: unknown key 'lerning_rate'
      did you mean: learning_rate
      to fix: rename the key

An error of one problem takes its parts itself: `DataError("there are no rows", where="a.csv")`.
`raise` one of these for a user's mistake; `assert` is for our own.

Tests: `tests/config/test_yamlfile.py`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from instil.sanitize import LONGEST_QUOTED, shortened, visible

_LONGEST_SENTENCE = 600  # it may quote values itself
_LONGEST_LIST = 2000
_MOST_COMPARED = 2000  # names: comparing is slow


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake, told so that it can be mended.

    What it quotes is cut at some 200 characters and its control characters are written out, so
    that no value from outside reaches a terminal or fills a screen.
    """

    what: str
    """What is wrong, in one sentence."""
    where: str = ""
    """The place: `file:line`, `file row 12`, a recipe field."""
    found: str = ""
    """The value that was found."""
    allowed: str = ""
    """What would have been allowed."""
    nearest: str = ""
    """The allowed value nearest to what was found."""
    fix: str = ""
    """The next thing to do, something to paste where possible."""

    def __str__(self) -> str:
        what = shortened(self.what, most=_LONGEST_SENTENCE)
        lines = [f"{shortened(self.where)}: {what}" if self.where else what]
        details = (
            ("found", shortened(self.found)),
            ("allowed", shortened(self.allowed, most=_LONGEST_LIST)),
            ("did you mean", shortened(self.nearest)),
            ("to fix", shortened(self.fix, most=_LONGEST_SENTENCE)),
        )
        lines += [f"  {name}: {text}" for name, text in details if text]
        return visible("\n".join(lines))


class InstilError(Exception):
    """A user's mistake; the command line prints it and exits with `exit_code`."""

    exit_code = 2

    def __init__(
        self,
        *problems: Problem | str,
        where: str = "",
        found: str = "",
        allowed: str = "",
        nearest: str = "",
        fix: str = "",
    ) -> None:
        """Keep the problems; a bare text becomes a `Problem` with the details given here."""
        self.problems = tuple(
            Problem(p, where, found, allowed, nearest, fix) if isinstance(p, str) else p
            for p in problems
        )
        super().__init__("\n".join(str(p) for p in self.problems))

    def __reduce__(self) -> tuple[type[InstilError], tuple[Problem, ...]]:
        """Pickle it with its problems, for another process."""
        return type(self), self.problems


class RecipeError(InstilError):
    """The recipe cannot be used as it stands."""


class TaskError(InstilError):
    """A task file, or one of its templates, cannot be used."""


class DataError(InstilError):
    """Rows, files or archives cannot be used."""


class ModelError(InstilError):
    """A model, tokenizer or adapter cannot be used."""


class TrainError(InstilError):
    """Training cannot start or go on."""


class DivergedError(TrainError):
    """The gradient is no longer a finite number: most often the learning rate is too high."""


class OutOfMemoryError(InstilError):
    """What was asked for does not fit into memory."""


class RunError(InstilError):
    """A run directory cannot be written or read."""


class RefusedError(RunError):
    """A run directory is in use, or is not what was written: nothing in it was touched."""


def nearest(value: str, allowed: Iterable[str]) -> str:
    """Return the allowed name most like `value`, or an empty text when none is near.

    >>> nearest("lerning_rate", ["learning_rate", "num_train_epochs"])
    'learning_rate'
    """
    names = {name.lower(): name for name in islice(allowed, _MOST_COMPARED)}
    if len(value) > LONGEST_QUOTED:
        return ""
    near = difflib.get_close_matches(value.lower(), names, n=1, cutoff=0.6)
    return names[near[0]] if near else ""
