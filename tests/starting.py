"""What the tests of `instil init` share."""

from __future__ import annotations

from instil.config.recipe import load_recipe
from instil.data.build import render_example
from instil.data.registry import load_rows
from instil.data.split import split_rows
from instil.init.starter import Starter
from instil.tasks.task import load_task
from instil.types import Row, Split, Task


def unedited(starter: Starter) -> tuple[Task, tuple[Row, ...], Split]:
    """Take the two files through loading, splitting and rendering, as a run does."""
    recipe = load_recipe(starter.recipe_file)
    (use,) = recipe.tasks
    task = load_task(use.use)
    rows = load_rows(task).rows
    split = split_rows(
        rows, task=task, train=use.train, validation=recipe.validation, test=recipe.test, seed=0
    )
    for template in task.templates:
        for row in rows[:40]:  # each label is among them, wherever rows are dealt by turns
            example = render_example(task, template, row)
            assert example.target
            assert not example.choices or example.target in example.choices
    return task, rows, split
