"""A task's rows, split and cleaned of duplicates: what every stage after it works on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from instil.data.audit import label_counts, normalise, read_text, remove_duplicates
from instil.data.readers.shapes import UNTRAINED
from instil.data.registry import load_rows
from instil.data.split import part_rows, seeded_key, split_rows
from instil.errors import DataError, Problem, TaskError, nearest
from instil.tasks.task import find_template
from instil.types import Part, Removed, Role, Row, Split, Task, Template

AUTO = "auto"
"""Training goes through as many templates as its rows do for."""
ROWS_A_WORDING = 1000
"""Training rows for each template that asks the task's own question (docs/defaults.md)."""
JUDGED_ELSEWHERE = "judged in another task"
"""Why a row is taken out of train that another task validates or tests on."""


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
    held_out: tuple[Template, ...] = ()
    """Phrasings of the task's own question that training never uses; tested on alone."""
    few_rows: bool = False
    """Whether they are held out because the rows are few, and not because they are asked to be."""
    weight: float | None = None
    """Its share of the mix, relative to the other tasks'; None: by its size."""

    crowded: Mapping[int, frozenset[str]] = field(default_factory=dict)
    """Number of worked examples -> the rows that do not fit behind them, and are asked without."""

    def part(self, part: Part) -> tuple[Row, ...]:
        """The rows of a part."""
        rows: tuple[Row, ...] = getattr(self, part)
        return rows

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows of all parts."""
        return tuple(row for part in Part for row in self.part(part))

    @property
    def answering(self) -> tuple[Template, ...]:
        """The templates to train through that ask the task's own question."""
        return tuple(t for t in self.templates if t.role is Role.ANSWER)

    def judged_by(
        self, parts: Mapping[Part, tuple[Row, ...]], *, counts: Mapping[str, int]
    ) -> TaskData:
        """Return the same with other validation and test rows; the split keeps who, and why.

        Args:
            parts: The rows of these two parts.
            counts: What became of the others -> their number.
        """
        validation, test = parts[Part.VALIDATION], parts[Part.TEST]
        split = replace(
            self.split,
            skipped={**self.split.skipped, **counts},
            validation=tuple(row.id for row in validation),
            test=tuple(row.id for row in test),
        )
        return replace(self, split=split, validation=validation, test=test)

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
    train_seed: int | None = None,
    near_duplicates: float,
    templates: str | Sequence[str] = "all",
    held_out: float | Sequence[str] | None = None,
    weight: float | None = None,
) -> TaskData:
    """Load a task's rows, split them, and take duplicates out of train.

    Raises:
        DataError: The rows cannot be read, or are too few.
        TaskError: A template is not the task's, or none of them asks the task's own question.
    """
    auto = templates == AUTO and held_out is None
    chosen, unseen = hold_out(task, pick_templates(task, templates), held_out, seed=seed)
    loaded = load_rows(task)
    split = split_rows(
        loaded.rows,
        task=task,
        train=train,
        validation=validation,
        test=test,
        seed=seed,
        train_seed=train_seed,
    )
    split = remove_duplicates(split, loaded.rows, task=task, threshold=near_duplicates)
    untrained = {what: count for what, count in loaded.notes.items() if what in UNTRAINED}
    notes = {what: count for what, count in loaded.notes.items() if what not in UNTRAINED}
    split = replace(split, skipped={**loaded.skipped, **untrained}, bad_rows=loaded.bad)
    parts = {part: part_rows(split, loaded.rows, part) for part in Part}
    if auto:
        chosen, unseen = few_wordings(task, rows=len(parts[Part.TRAIN]))
    return TaskData(
        task,
        split,
        parts[Part.TRAIN],
        parts[Part.VALIDATION],
        parts[Part.TEST],
        chosen,
        notes,
        unseen,
        few_rows=auto and bool(unseen),
        weight=weight,
    )


def without_train(data: TaskData, removed: Sequence[Removed], *, fix: str) -> TaskData:
    """Take rows out of train; the split keeps why.

    Args:
        data: Whose training rows.
        removed: Those to take out, and why; none: nothing changes.
        fix: What a user can do if none is left.

    Raises:
        DataError: None would be left.
    """
    if not removed:
        return data
    gone = {entry.row for entry in removed}
    train = tuple(row for row in data.train if row.id not in gone)
    if not train:
        reasons = ", ".join(dict.fromkeys(entry.why for entry in removed))
        raise DataError(
            f"no training row of {data.task.id} would be left: {reasons}",
            where=f"task {data.task.id}",
            found=f"row {removed[0].row} and {removed[0].of}",
            fix=fix,
        )
    ids = tuple(row.id for row in train)
    split = replace(data.split, train=ids, removed=(*data.split.removed, *removed))
    return replace(data, split=split, train=train)


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
            f"none of the chosen templates asks the question of {task.id}",
            where="templates",
            allowed=", ".join(t.id for t in task.templates if t.role is Role.ANSWER),
            fix="add one of these: the others only train",
        )
    return chosen


def few_wordings(task: Task, *, rows: int) -> tuple[tuple[Template, ...], tuple[Template, ...]]:
    """Return the templates that so many rows do for, and the others that ask the task's question.

    Each wording of a task with choices has label words of its own, and must be learned by itself:
    few rows do for one, and not for six. While they are too few for all, the first ones of the task
    are trained on, and no auxiliary and inverted ones. Free text is the same in every wording, and
    goes through all templates.

    Args:
        task: Its templates stand in the order in which they are taken.
        rows: To train on.
    """
    asking = [t for t in task.templates if t.role is Role.ANSWER]
    enough = max(1, rows // ROWS_A_WORDING)
    if enough >= len(asking) or not task.choices:
        return task.templates, ()
    return tuple(asking[:enough]), tuple(asking[enough:])


def hold_out(
    task: Task,
    templates: Sequence[Template],
    wanted: float | Sequence[str] | None,
    *,
    seed: int,
) -> tuple[tuple[Template, ...], tuple[Template, ...]]:
    """Part templates into those to train through and those kept for the test.

    Only templates that ask the task's own question are held out, since only they are tested, and at
    least one of them stays.

    Args:
        task: The templates' task.
        templates: As chosen for training.
        wanted: A share of the asking templates (rounded, at least one), or their ids, or None.
        seed: Draws them, where a share is wanted.

    Raises:
        TaskError: An id that is not among them, or none would be left to train through.
    """
    asking = [t.id for t in templates if t.role is Role.ANSWER]
    if wanted is None:
        return tuple(templates), ()
    if isinstance(wanted, float | int):
        order = sorted(asking, key=lambda name: seeded_key(seed, task.id, "held out", name))
        names = set(order[: max(1, min(len(asking) - 1, round(wanted * len(asking))))])
    else:
        names = set(wanted)
        problems = [
            Problem(
                f"{name!r} cannot be held out: it is no template of {task.id} that is judged",
                where="held_out_templates",
                allowed=", ".join(asking),
                nearest=nearest(name, asking),
            )
            for name in wanted
            if name not in asking
        ]
        if problems:
            raise TaskError(*problems)
    if names >= set(asking):
        raise TaskError(
            f"no template of {task.id} would be left to train through",
            where="held_out_templates",
            found=", ".join(asking),
            fix="add a template that asks the task's question, or hold out fewer",
        )
    return (
        tuple(t for t in templates if t.id not in names),
        tuple(t for t in templates if t.id in names),
    )


def keep_apart(data: Sequence[TaskData]) -> tuple[TaskData, ...]:
    """Take rows out of train that another task validates or tests on.

    Two tasks may ask about the same texts (the topic of an article, its headline): a row that one
    of them is judged on must not be learned from by way of the other. Rows are the same where they
    come from one place of one source, are of one group of it, or have the same text.

    Raises:
        DataError: Nothing would be left of a task's training rows.
    """
    judged: dict[str, dict[tuple[str, ...], str]] = {}
    for task_data in data:
        keys = judged.setdefault(task_data.task.id, {})
        for row in (*task_data.validation, *task_data.test):
            keys.update(dict.fromkeys(identities(task_data.task, row), row.id))
    kept = []
    for task_data in data:
        removed = []
        for row in task_data.train:
            others = (
                f"{task}/{keys[key]}"
                for task, keys in judged.items()
                if task != task_data.task.id
                for key in identities(task_data.task, row)
                if key in keys
            )
            if other := next(others, ""):
                removed.append(Removed(row.id, Part.TRAIN, JUDGED_ELSEWHERE, other, 1.0))
        fix = "lower `validation` and `test`, or train on one of the two tasks"
        kept.append(without_train(task_data, removed, fix=fix))
    return tuple(kept)


def identities(task: Task, row: Row) -> Iterator[tuple[str, ...]]:
    """Yield what a row is the same by as one of another task: its place, its group, its text."""
    if row.place:
        yield "place", task.source.uri, row.place
    if task.group:
        yield "group", task.source.uri, row.group
    yield "text", normalise(read_text(task, row.fields))
