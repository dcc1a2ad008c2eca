"""What the runs of a study must share, so that they differ in what is compared alone.

Some things a run settles from its own tasks: how many templates of a task it trains through, and
whether the model is to think. Runs of a study may have more or fewer tasks; here that is settled
once, and written into their recipes.

Tests: `tests/study/test_alike.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter

from instil.config.recipe import Recipe, TaskUse
from instil.data.prepare import AUTO, TaskData
from instil.errors import Problem
from instil.types import Thinking

ROWS = ("model", "test", "split.seed")
"""Keys by which other rows would be asked, or another model."""
PROMPTS = ("system", "thinking", "chat_template", "validation", "dtype", "device")
"""Keys by which the same would be asked in another way, or be chosen or computed otherwise."""


def differing(recipes: Sequence[Recipe], keys: Sequence[str]) -> dict[str, list[str]]:
    """Return the keys in which recipes differ, each with its values."""
    values = {key: [str(attrgetter(key)(recipe)) for recipe in recipes] for key in keys}
    return {key: [*dict.fromkeys(found)] for key, found in values.items() if len(set(found)) > 1}


def arm_mistakes(
    arm: Recipe, recipe: Recipe, *, name: str, same: Sequence[str] = ROWS
) -> Iterator[Problem]:
    """Find what an arm changes so that its scores could not be compared with the recipe's.

    Args:
        arm: The arm's recipe.
        recipe: What it was made of.
        name: The arm's.
        same: The keys that it may not change.
    """
    for key in differing([arm, recipe], same):
        yield Problem(
            f"the arm {name} changes {key}, and would be asked other rows or in another way",
            where=f"--arm {name}",
            fix=f"change {key} for all arms: --set {key}=...",
        )
    if arm.seed != recipe.seed:
        yield Problem(
            f"the arm {name} changes seed, which all arms share",
            where=f"--arm {name}",
            fix="give --seeds",
        )


def think_alike(recipes: Sequence[Recipe], data: Sequence[TaskData]) -> list[Recipe]:
    """Let all think where one of the tasks has thoughts, as a run of all tasks would.

    Args:
        recipes: With some of the tasks each.
        data: All tasks.
    """
    from instil.encode.chat_turns import has_thoughts

    if not any(has_thoughts(row, d.task) for d in data for row in d.train):
        return [*recipes]  # each finds the same by itself
    on = {"thinking": Thinking.ON}
    return [r.model_copy(update=on) if r.thinking is Thinking.AUTO else r for r in recipes]


def written_out(use: TaskUse, data: TaskData) -> TaskUse:
    """Name the templates of `templates: auto`, which are others in a run of several tasks.

    Args:
        use: Of a run that has this task alone.
        data: What that run makes of it.
    """
    if use.templates != AUTO or use.held_out_templates is not None:
        return use
    return use.model_copy(update={"templates": tuple(t.id for t in data.templates)})
