"""From rows and templates to examples: what the model is shown and what it should say.

Terms. An *exemplar* is a training row shown in the prompt with its answer, as an earlier turn of
the conversation; *shots* is how many there are. A *content-free* example is the same prompt with
`N/A` in place of the text: what the model answers to it is its bias, which calibration takes out
(Zhao et al. 2021, Calibrate Before Use, section 5).

A worked example: row 17_3 (`I like it.`, positive) through the template `plain` with one exemplar::

    user       Is this positive or negative? It broke at once.
    assistant  negative
    user       Is this positive or negative? I like it.
    target     positive          (choices: negative, positive)

Every draw here depends on the seed and on names alone: not on the order of the rows, nor on the
machine.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from instil.data.readers.turns import (
    ROLES,
    Keys,
    read_calls,
    read_tools,
    read_turn,
    untrained,
)
from instil.data.split import seeded_key
from instil.errors import DataError, InstilError, Problem, TaskError
from instil.tasks.template import OverBudgetError, evaluate, expression_names, render
from instil.types import Example, Message, PerRow, Role, Row, Task, Template, TrainOn

CONTENT_FREE = "N/A"
SHORT_PERCENTILE = 60
SHOWN = 5  # problems that a message lists; the others are counted


def render_example(
    task: Task, template: Template, row: Row, *, exemplars: Sequence[Row] = ()
) -> Example:
    """Render a row through a template.

    Args:
        task: The row's task.
        template: One of its templates.
        row: What is asked about.
        exemplars: Training rows to show first, in this order, through the same template.

    Returns:
        The example. Its choices are rendered with the row's fields, in the template's order; its
        references begin with the target.

    Raises:
        DataError: The prompt or the target is empty, choices repeat, or the target is none of them.
        TaskError: The template fails on the row, or gives another choice than the row's label.
    """
    assert all(shown.id != row.id for shown in exemplars), "a row never answers itself"
    turn = _Turn(task, template, row)
    messages = [Message("system", turn.system)] if turn.system else []
    for shown in (_Turn(task, template, exemplar) for exemplar in exemplars):
        answer = Message("assistant", shown.said, tool_calls=shown.calls)
        messages += [*shown.history, shown.asked, answer]
    others = () if template.choices else _asked(task, template, row, name=task.references)
    return Example(
        id=f"{task.id}/{row.id}/{template.id}",
        task=task.id,
        template=template.id,
        row=row.id,
        group=row.group,
        messages=(*messages, *turn.history, turn.asked),
        target=turn.said,
        choices=turn.choices,
        references=tuple(dict.fromkeys([turn.target, *others])),
        checks=_asked(task, template, row, name=task.checks),
        shots=len(exemplars),
        text=longest_text(task, template, row.fields, turn.prompt),
        train_on=task.train_on if turn.history and not exemplars else TrainOn.LAST,
        tools=tools(task, template, row.fields, where=turn.where),
        target_calls=turn.calls,
    )


def longest_text(task: Task, template: Template, fields: Mapping[str, object], prompt: str) -> str:
    """Return the longest field that stands in a prompt, by which it can be shortened; empty: none.

    What is to be answered is never that, though it may stand there: among the choices, say.
    """
    judged = template.role is Role.ANSWER or task.choices
    answers = (task.target, task.references, task.calls) if judged else ()
    texts = (
        text.strip()
        for name, text in fields.items()
        if isinstance(text, str) and name not in answers
    )
    return max((text for text in texts if text in prompt), key=len, default="")


class _Turn:
    """One question with its answer, rendered and checked."""

    def __init__(self, task: Task, template: Template, row: Row) -> None:
        self.where = f"{row.place or f'row {row.id}'}: template {task.id}/{template.id}"
        self.history = history(task, template, row.fields, where=self.where)
        self.choices = tuple(render(c, row.fields, where=self.where) for c in template.choices)
        scope = template_scope(row.fields, self.choices)
        self.system = render(template.system, scope, where=self.where) if template.system else ""
        self.prompt = render(template.prompt, scope, where=self.where)
        self.target = render(template.target, scope, where=self.where)
        self.asked = prompt_turn(task, template, row.fields, self.prompt)
        value = _own(template, row.fields, task.calls)
        self.calls = read_calls(value, where=self.where) if value else ()
        spelt = Message("assistant", "", tool_calls=self.calls).shown
        if not self.target.endswith(spelt):
            self.calls, spelt = (), ""
        self.said = self.target.removesuffix(spelt).rstrip()
        problems = [
            Problem(f"the {name} renders to an empty text", where=self.where, fix=_LEAVE_OUT)
            for name, text in (("prompt", self.prompt), ("target", self.target))
            if not text
        ]
        if problems:
            raise DataError(*problems)
        if not self.choices:
            return
        allowed = ", ".join(self.choices)
        if len(set(self.choices)) < len(self.choices):
            what = "two choices are the same"
            raise DataError(what, where=self.where, found=allowed, fix=_LEAVE_OUT)
        if self.target not in self.choices:
            what = "the target is not among the choices"
            raise DataError(what, where=self.where, found=self.target, allowed=allowed)
        label = str(row.fields.get(task.target))
        if template.role is not Role.ANSWER or label not in task.choices:
            return
        expected = dict(zip(task.choices, self.choices, strict=False)).get(label)
        if self.target != expected:
            what = f"for the label {label!r} the target is {self.target!r}, not {expected!r}"
            fix = "give the template's choices in the order of the task's choices"
            raise TaskError(what, where=self.where, allowed=allowed, fix=fix)


_LEAVE_OUT = "correct the row, or leave it out with `where` in the task file"


def template_scope(fields: Mapping[str, object], choices: Sequence[str]) -> dict[str, object]:
    """Return what a template sees; its own choices come before a column of that name."""
    return {"choices": [], **fields, **({"choices": list(choices)} if choices else {})}


def history(
    task: Task, template: Template, fields: Mapping[str, object], *, where: str
) -> tuple[Message, ...]:
    """Return the turns before the prompt, for a task whose rows are conversations.

    A template from the answer back to the text, or one that asks something else, has none. Answers
    that are empty, or that nobody asked for, are read by the model and never trained on.

    Raises:
        DataError: The field is not a list of turns, each with a role and a text.
    """
    turns = _own(template, fields, task.history) or []
    if not isinstance(turns, list | tuple) or not all(map(_is_turn, turns)):
        raise DataError(
            f"{task.history!r} is not a list of turns",
            where=where,
            found=repr(turns)[:80],
            allowed="[{role: user, content: ...}, {role: assistant, content: ...}, ...]",
        )
    called: dict[str, str] = {}
    if turns and _is_open(turns[-1]):
        turns = turns[:-1]
    read = [read_turn(turn, keys=Keys(), where=where, called=called) for turn in turns]
    context = untrained(read)
    return tuple(
        replace(turn, content=turn.content.strip(), trained=number not in context)
        for number, turn in enumerate(read)
    )


def prompt_turn(
    task: Task, template: Template, fields: Mapping[str, object], prompt: str
) -> Message:
    """Return the turn that a prompt stands in: the user's or, where the history says so, a tool's.

    Args:
        task: Names the history.
        template: Of the prompt; only one that asks the task's own question has a history.
        fields: Of the row.
        prompt: The turn's text.
    """
    turns = _own(template, fields, task.history)
    if isinstance(turns, list | tuple) and turns and _is_open(turns[-1]):
        return Message("tool", prompt, name=str(turns[-1].get("name") or ""))
    return Message("user", prompt)


def tools(
    task: Task, template: Template, fields: Mapping[str, object], *, where: str
) -> tuple[str, ...]:
    """Return the functions that the model may call, each as JSON text, for the task's own question.

    Raises:
        DataError: The field is no list of JSON schemas.
    """
    return read_tools(_own(template, fields, task.tools), where=where)


def _own(template: Template, fields: Mapping[str, object], name: str) -> object:
    """A field that belongs to the task's own question; None for other templates, or no name."""
    return fields.get(name) if name and template.role is Role.ANSWER else None


def _is_open(turn: Mapping[str, object]) -> bool:
    """Whether a turn of a tool waits for the prompt to fill it in."""
    return ROLES.get(str(turn.get("role"))) == "tool" and turn.get("content") is None


def _is_turn(turn: object) -> bool:
    if not isinstance(turn, Mapping) or not isinstance(turn.get("role"), str):
        return False
    return isinstance(turn.get("content"), str | list) or _is_open(turn) or "tool_calls" in turn


def _asked(task: Task, template: Template, row: Row, *, name: str) -> tuple[str, ...]:
    """Return the texts in a row's list that belongs to the task's own question; else none."""
    values = _own(template, row.fields, name) or []
    if isinstance(values, str) and values.lstrip().startswith("["):
        values = list_in_cell(values)
    listed = values if isinstance(values, list | tuple) else [values]
    nested = [value for value in listed if isinstance(value, list | tuple | Mapping)]
    if nested:
        raise DataError(
            f"{name!r} is not a list of texts",
            where=f"{row.place or f'row {row.id}'}: task {task.id}",
            found=repr(nested[0])[:80],
            fix="compute a list of texts from it, under `fields` in the task file",
        )
    return tuple(filter(None, (str(value).strip() for value in listed if value is not None)))


def list_in_cell(text: str) -> list[str] | str:
    """Return the texts of a list in a cell, as JSON, Python or NumPy write it; else the cell."""
    quoted = r"'[^']*'|\"[^\"]*\""
    if re.fullmatch(rf"\[\s*(?:{quoted})(?:\s+(?:{quoted}))+\s*\]", text.strip()):
        return [part[1:-1] for part in re.findall(quoted, text)]  # NumPy's, without commas
    for read in (json.loads, ast.literal_eval):
        try:
            values = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(values, list) and all(isinstance(value, str) for value in values):
            return values
    return text


def drawn_templates(
    row: Row, templates: Sequence[Template], *, per_row: str, seed: int, draw: int
) -> Sequence[Template]:
    """Return the templates that a row goes through in one pass over the rows, number `draw`."""
    if PerRow(per_row) is PerRow.ALL:
        return templates
    return [templates[seeded_key(seed, draw, row.id) % len(templates)]]


class Asked(NamedTuple):
    """What is to be rendered: a row through a template, after worked examples."""

    task: Task
    """The row's task."""
    template: Template
    """One of its templates."""
    row: Row
    """What is asked about."""
    exemplars: tuple[Row, ...] = ()
    """Training rows to show first."""


def render_all(items: Iterable[Asked]) -> Iterator[Example]:
    """Render everything, in order, one at a time: nothing is held but what is asked for.

    Raises:
        DataError, TaskError: As `render_example`; at the end, when the first few rows at fault are
            told at once.
    """
    faults = Faults()
    yield from rendered(items, faults)
    faults.require_none()


def rendered(items: Iterable[Asked], faults: Faults) -> Iterator[Example]:
    """Render everything, in order, one at a time; what cannot be rendered is noted in `faults`.

    Raises:
        OverBudgetError: A template does more than it may.
    """
    for task, template, row, exemplars in items:
        try:
            yield render_example(task, template, row, exemplars=exemplars)
        except OverBudgetError:
            raise
        except (DataError, TaskError) as error:
            faults.add(template.id, error)


class Faults:
    """Examples that could not be rendered: each problem once, with the first row that has it."""

    def __init__(self) -> None:
        self._kind: type[InstilError] | None = None  # of the first one
        self._counts: Counter[tuple[str, Problem]] = Counter()
        self._places: dict[tuple[str, Problem], str] = {}

    def __bool__(self) -> bool:
        """Whether there are any."""
        return self._kind is not None

    def add(self, template: str, error: InstilError) -> None:
        """Note what is wrong with one example."""
        self._kind = self._kind or type(error)
        for problem in error.problems:
            fault = (template, replace(problem, where=""))
            self._counts[fault] += 1
            self._places.setdefault(fault, problem.where)

    def update(self, other: Faults) -> None:
        """Note what was noted elsewhere, after what is noted here."""
        self._kind = self._kind or other._kind
        self._counts.update(other._counts)
        self._places = {**other._places, **self._places}

    def require_none(self) -> None:
        """Tell the first few rows at fault, if there are any.

        Raises:
            DataError, TaskError: Of the class of the first one.
        """
        if self._kind is None:
            return
        faults = list(self._counts)[:SHOWN]
        told = [replace(fault[1], where=self._places[fault]) for fault in faults]
        more = self._counts.total() - len(told)
        rest = [Problem(f"and {more} more examples that cannot be rendered")] if more > 0 else []
        raise self._kind(*told, *rest)


def short_rows(task: Task, rows: Sequence[Row]) -> list[Row]:
    """Return the rows up to the 60th percentile of length, in their order: what to show first."""
    limit = _short_limit([_length(task, row) for row in rows])
    return [row for row in rows if _length(task, row) <= limit]


def pick_exemplars(
    task: Task, train_rows: Sequence[Row], *, shots: int, seed: int
) -> tuple[Row, ...]:
    """Choose the rows to show in a prompt, from train alone.

    The classes take turns, so that all are shown equally often, or once more; rows up to the 60th
    percentile of length come first, since exemplars are paid for in every prediction, and rows of
    groups not shown yet before others.

    Args:
        task: Says which fields hold the text and the label.
        train_rows: To choose from, in any order.
        shots: How many.
        seed: Another seed chooses other rows, in another order.

    Raises:
        DataError: There are fewer rows than shots.
    """
    if shots > len(train_rows):
        raise DataError(
            "too few training rows for the worked examples of the prompt",
            where=f"task {task.id}",
            found=f"{len(train_rows)} rows for {shots} shots",
            fix=f"shots: [0, {len(train_rows)}]",
        )
    lengths = {row.id: _length(task, row) for row in train_rows}
    limit = _short_limit(lengths.values())
    classes: dict[str, list[Row]] = {}
    for row in train_rows:
        classes.setdefault(str(row.fields[task.target]) if task.choices else "", []).append(row)
    labels = sorted(classes, key=lambda label: (seeded_key(seed, task.id, "class", label), label))

    def order(row: Row) -> tuple[int, int]:
        too_long = max(0, lengths[row.id] - limit)
        return too_long, seeded_key(seed, task.id, "exemplar", row.id)

    queues = [sorted(classes[label], key=order) for label in labels]
    picked: list[Row] = []
    while len(picked) < shots:
        for queue in queues:
            if queue and len(picked) < shots:
                shown = {row.group for row in picked}
                fresh = next((row for row in queue if row.group not in shown), queue[0])
                queue.remove(fresh)
                picked.append(fresh)
    return tuple(sorted(picked, key=lambda row: seeded_key(seed, task.id, "order", row.id)))


def _short_limit(lengths: Iterable[int]) -> int:
    ranked = sorted(lengths)
    return ranked[max(0, -(-len(ranked) * SHORT_PERCENTILE // 100) - 1)] if ranked else 0


def _length(task: Task, row: Row) -> int:
    """Characters that the row adds to a prompt; a label's own length says nothing."""
    answer = "" if task.choices else str(row.fields[task.target])
    return len(str(row.fields[task.text])) + len(answer)


def content_free(
    task: Task, template: Template, row: Row, *, exemplars: Sequence[Row] = ()
) -> Example:
    """Render the row's prompt with `N/A` in place of its text, as calibration needs it.

    Derived fields that are computed from the text are computed from `N/A`. Target, choices and
    exemplars are those of `render_example`, and so is the id.

    Raises:
        DataError, TaskError: As `render_example`.
    """
    example = render_example(task, template, row, exemplars=exemplars)
    where = f"task {task.id}: content-free prompt of template {template.id}"
    emptied = {**row.fields, task.text: CONTENT_FREE}
    touched = {task.text}
    for name, expression in task.fields.items():
        if name in touched | {task.target} or not touched & expression_names(expression):
            continue
        touched.add(name)
        try:
            emptied[name] = evaluate(expression, emptied, where=name)
        except TaskError:  # an expression that needs a real text, its third word say
            emptied[name] = CONTENT_FREE
    scope = template_scope(emptied, example.choices)
    prompt = render(template.prompt, scope, where=where)
    *before, last = example.messages
    return replace(example, messages=(*before, replace(last, content=prompt)))
