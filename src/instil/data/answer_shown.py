"""Whether a prompt shows the answer, in whatever way: it is rendered again with another answer.

The row's answer is replaced, and all derived fields that follow from it are computed anew. A
*marked* answer is a text, or a number, that occurs nowhere else: a prompt that holds it shows the
answer. A label is also replaced by another of the task's choices: a prompt that is then another one
depends on the label, as one with `{% if label == "good" %}` in it does.

So does a column from which the label is computed, and nothing else: `stars`, for a mood that is
`"good" if stars | float > 3 else "bad"`. Where the label is what stands in the column, but for its
spelling, that is the answer; else the prompt may still ask for what can be computed from it.

Only the task's own question is looked at. What a task of free text asks about (`text`) may be made
from the answer: a text without its capitals, or with a gap in it.

Tests: `tests/data/test_audit.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum

from instil.data.build import template_scope
from instil.errors import TaskError
from instil.tasks.sandbox import tidied
from instil.tasks.template import OverBudgetError, evaluate, expression_names, names, render
from instil.types import Role, Row, Task, Template

_MARK = "Qzanswer one qz. Qzanswer two qz. Qzanswer three qz."
_NUMBER = 73194625
_DRAWS = re.compile(r"\|\s*choice\b")
"""A draw that depends on all of the row's fields, the label too."""


class Shown(StrEnum):
    """How a prompt shows the answer."""

    NOT = ""
    WHOLE = "whole"
    """It holds the answer itself."""
    CHANGES = "changes"
    """It is another prompt for another label."""
    SOURCE = "source"
    """It holds the column from which the label is computed."""


def shown_answer(task: Task, template: Template, row: Row, *, choices: tuple[str, ...]) -> Shown:
    """Return how a row's prompt shows its answer.

    Args:
        task: Names the answer.
        template: What the prompt was rendered through.
        row: What is asked about.
        choices: The template's, rendered with the row's fields.
    """
    if not can_show(task, template):
        return Shown.NOT
    marked = {name: _marked(row.fields.get(name)) for name in _answers(task)}
    if _holds_mark(_rendered(task, template, row, marked, choices=choices) or ""):
        return Shown.WHOLE
    label = row.fields.get(task.target)
    if source := _source(task):
        value = row.fields.get(source)
        shown = _rendered(task, template, row, {source: _marked(value)}, choices=choices)
        if _holds_mark(shown or ""):
            alike = tidied(value).casefold() == tidied(label).casefold()
            return Shown.WHOLE if alike else Shown.SOURCE
    sources = (template.system, template.prompt, *_derived(task).values())
    if label not in task.choices or any(map(_DRAWS.search, sources)):
        return Shown.NOT
    other = task.choices[task.choices.index(str(label)) - 1]
    first, second = (
        _rendered(task, template, row, marked | {task.target: answer}, choices=choices)
        for answer in (label, other)
    )
    return Shown.CHANGES if None not in (first, second) and first != second else Shown.NOT


def can_show(task: Task, template: Template) -> bool:
    """Whether anything that the prompt is rendered from follows from the answer."""
    used = names(template.prompt) | names(template.system)
    telling = {*_answers(task), _source(task), *_derived(task), "row"}
    return template.role is Role.ANSWER and bool(used & telling)


def _answers(task: Task) -> list[str]:
    """The fields that hold the answer, in one form or another."""
    return [name for name in (task.target, task.references, task.calls) if name]


def _source(task: Task) -> str:
    """The one column from which the label is computed, if the text is not; else an empty text."""
    columns = _columns(task, task.target) - {task.target}
    if len(columns) != 1 or columns & {"row", *_columns(task, task.text)}:
        return ""
    return next(iter(columns))


def _columns(task: Task, name: str) -> set[str]:
    """The columns that a field is computed from; a column that is no derived field is its own."""
    needed = {name}
    for field, expression in reversed(list(task.fields.items())):
        if field in needed:
            needed = (needed - {field}) | expression_names(expression)
    return needed


def _derived(task: Task) -> dict[str, str]:
    """The derived fields that follow from the answer, in their order: name -> expression."""
    derived, touched = dict[str, str](), {*_answers(task), _source(task), "row"}
    for name, expression in task.fields.items():
        given = name in _answers(task) or (name == task.text and not task.choices)
        if not given and touched & expression_names(expression):
            derived[name] = expression
            touched.add(name)
    return derived


def _rendered(
    task: Task,
    template: Template,
    row: Row,
    answer: Mapping[str, object],
    *,
    choices: tuple[str, ...],
) -> str | None:
    """Render system text and prompt with another answer; None where that cannot be done."""
    fields = {**row.fields, **answer}
    try:
        for name, expression in _derived(task).items():
            fields[name] = evaluate(expression, fields, where=name)
        scope = template_scope(fields, choices)
        return "\n".join(render(s, scope, where="") for s in (template.system, template.prompt))
    except OverBudgetError:
        raise
    except TaskError:  # an expression that takes no other text than the task's labels
        return None


def _marked(value: object) -> object:
    match value:
        case None | bool():
            return value
        case int():
            return _NUMBER
        case float():
            return _NUMBER + 0.5
        case list() | tuple():
            return [_marked(item) for item in value]
        case Mapping():
            return {key: _marked(item) for key, item in value.items()}
    return _MARK


def _holds_mark(text: str) -> bool:
    return _MARK.casefold() in " ".join(text.casefold().split()) or str(_NUMBER) in text
