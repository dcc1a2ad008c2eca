r"""From a row's fields to text: rendering, expressions, and the checks of a template.

A *template* is Jinja2 text (`Is this good? {{ text }}`); an *expression* is what stands between
such braces (`rating | float > 0`) and gives a value of any type. Both see every column and derived
field of the row by name, `row["Any Column"]` for names that Jinja cannot spell, and a template
sees `choices`::

    >>> render("Is this good?\n{{ text }} ", {"text": "I like it."}, where="demo")
    'Is this good?\nI like it.'
    >>> evaluate("rating | float > 0", {"rating": "-1.5"}, where="demo")
    False

What they may use of Jinja2 is told in `sandbox`.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

from jinja2 import TemplateSyntaxError, Undefined, UndefinedError
from jinja2.exceptions import SecurityError

from instil.errors import Problem, TaskError, nearest
from instil.tasks import sandbox
from instil.tasks.budget import BudgetError
from instil.tasks.formats import FORMATS
from instil.types import Role, Task, Template

T = TypeVar("T")

FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""A name that Jinja can spell."""
_RESERVED = frozenset({"choices", "row", "range", "zip", "loop", "self", "true", "false", "none"})


class OverBudgetError(TaskError):
    """A template does more than it may: the next rows are not tried, each would take as long."""


class Flaw(NamedTuple):
    """A problem and the part of the template that has it, for whoever knows the file's lines."""

    part: str
    """prompt, target, system or choices."""
    problem: Problem
    """Without its place."""


def render(source: str, fields: Mapping[str, object], *, where: str) -> str:
    """Render a template with a row's fields; the result has no whitespace at its ends.

    Raises:
        TaskError: a syntax error, an unknown or empty field, or a way out of the sandbox.
    """
    return _run(lambda: sandbox.rendered(source, _scope(fields)).strip(), source, fields, where)


def evaluate(expression: str, fields: Mapping[str, object], *, where: str) -> object:
    """Compute an expression over a row's fields; lazy results come as lists.

    Raises:
        TaskError: a syntax error, an unknown field, or a way out of the sandbox.
    """
    if expression in fields and spelt(expression) == expression:
        return fields[expression]  # the name of a field: nothing to compute

    def value() -> object:
        result: object = sandbox.computed(expression, _scope(fields))
        for item in result if isinstance(result, list | tuple) else (result,):
            if isinstance(item, Undefined):
                str(item)  # which raises, and says what is missing
        return result

    return _run(value, "{{ " + expression + " }}", fields, where)


def names(source: str) -> frozenset[str]:
    """Name the fields that a template uses.

    >>> sorted(names('{{ a }} {% if b %}{{ row["Long Name"] }}{% endif %}'))
    ['Long Name', 'a', 'b']
    """
    return _run(lambda: sandbox.variables(source), source, {}, "")


def expression_names(expression: str) -> frozenset[str]:
    """Name the fields that an expression uses."""
    return _run(lambda: sandbox.expression_variables(expression), expression, {}, "")


def columns_of(task: Task) -> frozenset[str] | None:
    """Name the task's columns, or None where only the file itself can tell."""
    known = FORMATS.get(task.source.format)
    columns = task.source.columns or (known.columns if known else ())
    return frozenset(columns) if columns else None


def flaws(template: Template, task: Task) -> list[Flaw]:
    """Return all that can be said against a template before any row is read, part by part."""
    parts = [("prompt", template.prompt), ("target", template.target), ("system", template.system)]
    parts += [("choices", choice) for choice in template.choices]
    broken = [flaw for part, source in parts for flaw in _part_flaws(part, source, task)]
    if broken:
        return broken  # the checks below need parts that can be parsed
    return [*_prompt_flaws(template, task), *_choice_flaws(template, task)]


def alike(templates: Sequence[Template]) -> list[tuple[Template, Template]]:
    """Return pairs of templates that differ in nothing that a model sees, but for whitespace."""
    first: dict[tuple[object, ...], Template] = {}
    pairs = []
    for template in templates:
        texts = (template.system, template.prompt, template.target)
        key = (*(" ".join(text.split()) for text in texts), template.choices)
        if key in first:
            pairs.append((first[key], template))
        first.setdefault(key, template)
    return pairs


def _scope(fields: Mapping[str, object]) -> dict[str, object]:
    return {"row": fields, **fields}


def _run(action: Callable[[], T], source: str, fields: Mapping[str, object], where: str) -> T:
    try:
        return action()
    # An expression meets whatever a row holds: any exception at all is the file's or the row's.
    except Exception as error:
        kind = OverBudgetError if isinstance(error, BudgetError) else TaskError
        raise kind(*_problems(error, source, fields, where)) from error


def _problems(
    error: Exception, source: str, fields: Mapping[str, object], where: str
) -> list[Problem]:
    match error:
        case TemplateSyntaxError():
            lines = source.splitlines() or [""]
            line = _short(lines[min(error.lineno, len(lines)) - 1])
            what = (error.message or "syntax error").rstrip(".")
            if unknown := re.fullmatch(r"No filter named '(.*)'", what):
                near, allowed = nearest(unknown[1], sandbox.FILTERS), ", ".join(sandbox.FILTERS)
                return [Problem(what, where=where, found=line, allowed=allowed, nearest=near)]
            what = f"template syntax, line {error.lineno}: {what}"
            return [Problem(what, where=where, found=line)]
        case SecurityError():
            what = f"a template may not do this: {error}"
            fix = "use the fields, the filters and plain comparisons alone"
            return [Problem(what, where=where, found=_short(source), fix=fix)]
        case sandbox.NoTextError():
            used, value = sorted(sandbox.variables(source)), error.value
            name = next((name for name in used if fields.get(name) is value), "")
            what = f"the field {name!r}" if name else "an expression"
            texts = isinstance(value, list | tuple) and all(isinstance(e, str) for e in value)
            name = name or "it"
            joined = f'{{{{ {name} | join(", ") }}}}, or ' if texts else ""
            problem = Problem(
                f"{what} is a {error.kind}, and a prompt would have it as Python writes it",
                where=where,
                found=_short(error.written),
                fix=f"write {joined}{{{{ {name} | tojson }}}}, or name the text in it",
            )
            return [problem]
        case UndefinedError():
            missing = sorted(sandbox.variables(source) - fields.keys() - {"row", "choices"})
            if missing:
                return [_missing(name, fields, where) for name in missing]
    what = f"cannot be computed: {error}" if str(error) else f"cannot be computed: {error!r}"
    return [Problem(what, where=where, found=_short(source))]


def _missing(name: str, fields: Collection[str], where: str) -> Problem:
    problem = unknown_field(name, fields, where)
    if problem.nearest:
        return problem
    return replace(problem, fix=f"if only some rows have it: ({name} | default(none))")


def unknown_field(name: str, fields: Collection[str], where: str = "") -> Problem:
    """Return the problem of a name that is none of the fields."""
    return Problem(
        f"unknown field {name!r}",
        where=where,
        allowed=", ".join(sorted(fields)),
        nearest=nearest(name, fields),
    )


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 100 else line[:97] + "..."


def _part_flaws(part: str, source: str, task: Task) -> Iterator[Flaw]:
    if not source.strip() and part != "system":
        yield Flaw(part, Problem(f"empty {part}", fix="write the text, with {{ field }} in it"))
        return
    try:
        sandbox.compiled(source)
        used = names(source)
    except Exception as error:
        yield from (Flaw(part, problem) for problem in _problems(error, source, {}, ""))
        return
    if "row" in used:
        fix = 'name a column: {{ row["Some Column"] }}'
        yield Flaw(part, Problem("the whole row at once would show the answer", fix=fix))
    columns = columns_of(task)
    if columns is not None:
        known = columns | task.fields.keys() | (set() if part == "choices" else {"choices"})
        for name in sorted(used - known - {"row"}):
            yield Flaw(part, unknown_field(name, known))


def _prompt_flaws(template: Template, task: Task) -> Iterator[Flaw]:
    used = names(template.prompt)
    if not used - {"choices"}:
        what = "the prompt uses no field, so that it is the same for every row"
        yield Flaw("prompt", Problem(what, fix=f"use {{{{ {task.text} }}}} or another field"))
    if template.role is Role.INVERTED:
        return
    asked = re.fullmatch(r"\s*\{\{\s*(\w+)\s*\}\}\s*", template.target)
    secret = {task.target, asked[1] if asked else task.target}
    for name in sorted(used & secret):
        what = f"the prompt shows {name!r}, which is the answer"
        fix = "take it out of the prompt, or give the template `role: inverted`"
        yield Flaw("prompt", Problem(what, found=_short(template.prompt), fix=fix))


def _choice_flaws(template: Template, task: Task) -> Iterator[Flaw]:
    choices = template.choices
    if len(set(choices)) < len(choices) or len(choices) == 1:
        what = "choices must be two or more, each different"
        yield Flaw("choices", Problem(what, found=", ".join(choices)))
    if template.role is not Role.ANSWER:
        return
    if len(choices) != len(task.choices):
        what = f"{len(choices)} choices for a task with {len(task.choices)}"
        fix = "list one wording for each of the task's choices, in the task's order"
        allowed = ", ".join(task.choices) or "none: the task asks for free text"
        problem = Problem(what, found=", ".join(choices), allowed=allowed, fix=fix)
        yield Flaw("choices", problem)
        return
    if any(map(names, choices)) or not names(template.target) <= {task.target, "choices"}:
        return  # the target cannot be rendered from the label alone
    for label, choice in zip(task.choices, choices, strict=True):
        fields: dict[str, object] = {task.target: label, "choices": list(template.choices)}
        try:
            target = render(template.target, fields, where="")
        except TaskError as error:
            yield from (Flaw("target", problem) for problem in error.problems)
            return
        if target != choice:
            what = f"for {label!r} the target is {target!r}, but its choice is {choice!r}"
            yield Flaw("target", Problem(what, fix="give the choices in the task's order"))


def spelt(name: str) -> str:
    """Return a column as an expression names it.

    >>> spelt("stars"), spelt("Review Text"), spelt("class")
    ('stars', 'row["Review Text"]', 'row["class"]')
    """
    plain = FIELD.fullmatch(name) and not keyword.iskeyword(name) and name not in _RESERVED
    return name if plain else f"row[{quoted(name)}]"


def quoted(text: str) -> str:
    """Return a text as a literal of Jinja2."""
    return json.dumps(text, ensure_ascii=False)
