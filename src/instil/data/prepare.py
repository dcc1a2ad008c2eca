"""A task's rows, split and cleaned of duplicates: what every stage after it works on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from instil.data.audit import label_counts, read_text, remove_duplicates
from instil.data.registry import load_rows
from instil.data.split import part_rows, split_rows
from instil.errors import DataError, Problem, TaskError
from instil.tasks.task import find_template
from instil.types import Part, Removed, Role, Row, Split, Task, Template


@dataclass(frozen=True, slots=True)
class TaskData:
    """A task with its rows in three parts."""

    task: Task
    """The task."""
    split: Split
    """Who is where; saved with the run."""
    train: tuple[Row, ...]
    """Rows to learn from."""
    validation: tuple[Row, ...]
    """Rows to choose by."""
    test: tuple[Row, ...]
    """Rows to judge by, once."""
    templates: tuple[Template, ...]
    """The templates to train through."""
    notes: Mapping[str, int] = field(default_factory=dict)
    """What was read otherwise than written: what -> rows."""

    def part(self, part: Part) -> tuple[Row, ...]:
        """The rows of a part."""
        return {Part.TRAIN: self.train, Part.VALIDATION: self.validation, Part.TEST: self.test}[
            part
        ]

    @property
    def answering(self) -> tuple[Template, ...]:
        """The templates that ask the task's own question."""
        return tuple(t for t in self.templates if t.role is Role.ANSWER)

    @property
    def balance(self) -> dict[str, dict[str, int]]:
        """Part -> label -> rows; empty for free text."""
        if not self.task.choices:
            return {}
        return {str(part): label_counts(self.part(part), self.task) for part in Part}


def prepare(
    task: Task,
    *,
    train: int | None,
    validation: int,
    test: int,
    seed: int,
    near_duplicates: float,
    templates: str | Sequence[str] = "all",
) -> TaskData:
    """Load a task's rows, split them, and take duplicates out of train.

    Raises:
        DataError: The rows cannot be read, or are too few.
        TaskError: A template is not the task's, or none of them asks the task's own question.
    """
    chosen = pick_templates(task, templates)
    loaded = load_rows(task)
    split = split_rows(
        loaded.rows, task=task, train=train, validation=validation, test=test, seed=seed
    )
    split = remove_duplicates(
        split, loaded.rows, text=partial(read_text, task), threshold=near_duplicates
    )
    split = replace(with_skipped(split, loaded.skipped), bad_rows=loaded.bad)
    parts = {part: part_rows(split, loaded.rows, part) for part in Part}
    return TaskData(
        task,
        split,
        parts[Part.TRAIN],
        parts[Part.VALIDATION],
        parts[Part.TEST],
        chosen,
        dict(loaded.notes),
    )


def without_train(data: TaskData, removed: Sequence[Removed]) -> TaskData:
    """Take rows out of train; the split keeps why.

    Raises:
        DataError: None would be left.
    """
    gone = {entry.row for entry in removed}
    train = tuple(row for row in data.train if row.id not in gone)
    if data.train and not train:
        raise DataError(
            Problem(
                f"every training row of {data.task.id} repeats one of a guard task",
                where=f"task {data.task.id}",
                found=f"row {removed[0].row} and {removed[0].of}",
                fix="name other guard tasks: forgetting.tasks",
            )
        )
    ids = tuple(row.id for row in train)
    split = replace(data.split, train=ids, removed=(*data.split.removed, *removed))
    return replace(data, split=split, train=train)


def with_skipped(split: Split, skipped: Mapping[str, int]) -> Split:
    """Record the rows that were left out before the split."""
    return replace(split, skipped=dict(skipped))


def pick_templates(task: Task, names: str | Sequence[str]) -> tuple[Template, ...]:
    """Return the templates asked for; at least one must ask the task's own question.

    Raises:
        TaskError: An unknown template, or none of role answer.
    """
    if isinstance(names, str):
        chosen = task.templates
    else:
        chosen = tuple(find_template(task, name) for name in names)
    if not any(t.role is Role.ANSWER for t in chosen):
        raise TaskError(
            Problem(
                f"none of the chosen templates asks the question of {task.id}",
                where="templates",
                allowed=", ".join(t.id for t in task.templates if t.role is Role.ANSWER),
                fix="add one of these: the others only train",
            )
        )
    return chosen
