"""Templates against rows: what cannot be seen in a template alone.

`check_templates` renders every row through every template and gathers what is wrong, with counts,
places and what to do:

- *errors* stop a run: a row that a template cannot render (an unknown field, an empty prompt or
  answer, a target outside the choices), an answer that stands as a field of the prompt, or
  that the prompt shows in another way (`answer_shown`);
- *warnings* are for people to judge: an answer that stands word for word in most prompts (as it
  should in extractive questions), two templates that render alike, prompts that do not depend on
  the row, one template that gives the same answer to every row.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from instil.data.answer_shown import Shown, shown_answer
from instil.data.build import render_example
from instil.data.findings import Finding, Level
from instil.errors import DataError, Problem, TaskError
from instil.scoring.text import UNSPACED
from instil.tasks.template import OverBudgetError
from instil.types import Example, Role, Row, Task, Template

PLACES = 3  # rows that a finding names
KINDS = 5  # errors of one template that are told apart
MOST = 0.9  # share of rows from which an answer in the prompt is reported
SHORTEST = 4  # characters of an answer that is looked for in a prompt


@dataclass(slots=True)
class _Seen:
    """What is kept of one template over all rows."""

    rows: int = 0
    rendered: int = 0
    targets: set[str] = field(default_factory=set)
    prompts: set[int] = field(default_factory=set)
    digests: list[int] = field(default_factory=list)
    leaks: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """How the answer is shown -> the places of the rows."""
    faults: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    """(what is wrong, what to do) -> the places of the rows."""
    first: dict[tuple[str, str], Problem] = field(default_factory=dict)
    """The first problem of each kind of fault."""


def check_templates(task: Task, rows: Iterable[Row]) -> tuple[Finding, ...]:
    """Render all rows through all templates, and return what is wrong: errors first.

    Args:
        task: Its templates are checked.
        rows: All its rows, or a sample.
    """
    seen = {template.id: _Seen() for template in task.templates}
    for row in rows:
        for template in task.templates:
            _try(task, template, row, seen[template.id])
    findings = [f for t in task.templates for f in _findings(task, t, seen[t.id])]
    first: dict[tuple[int, ...], str] = {}
    for name, each in seen.items():  # templates that ask and answer every row in the same words
        other = first.setdefault(tuple(each.digests), name) if each.rendered else name
        if other != name:
            what = f"it renders every row as the template {other!r} does"
            findings.append(_warning(name, each, what, fix="leave one of the two out"))
    return tuple(sorted(findings, key=lambda finding: finding.level is Level.WARNING))


def _try(task: Task, template: Template, row: Row, seen: _Seen) -> None:
    seen.rows += 1
    place = row.place or f"row {row.id}"
    try:
        example = render_example(task, template, row)
    except OverBudgetError:
        raise
    except (DataError, TaskError) as error:
        seen.digests.append(0)
        for problem in error.problems:
            kind = (problem.what, problem.fix)
            seen.first.setdefault(kind, problem)
            seen.faults[kind].append(place)
        return
    seen.rendered += 1
    seen.digests.append(hash((example.messages, example.answer)))
    seen.prompts.add(hash(example.messages))
    if len(seen.targets) < 2:
        seen.targets.add(example.answer.shown)
    shown = shown_answer(task, template, row, choices=example.choices)
    if leak := shown.value or _leak(task, example, row):
        seen.leaks[leak].append(place)


def _leak(task: Task, example: Example, row: Row) -> str:
    """Return how an answer stands in its prompt: as a whole field, as a choice alone, as text."""
    target, prompt = example.target, example.messages[-1].content
    if example.choices:  # as words of their own: `no`, but not in `know`
        named = [c for c in example.choices if re.search(_word(c), prompt, re.IGNORECASE)]
        return "choice" if named == [target] else ""
    if len(target) < SHORTEST or target.casefold() not in prompt.casefold():
        return ""
    others = (v for name, v in row.fields.items() if name not in (task.target, task.references))
    whole = any(isinstance(value, str) and value.strip() == target for value in others)
    return "field" if whole else "text"


def _word(choice: str) -> str:
    """Return the pattern of a choice as a word of its own; in scripts without blanks anywhere."""
    glued = len(choice) > 1 and UNSPACED.match(choice) and UNSPACED.match(choice[-1])
    return re.escape(choice) if glued else rf"(?<!\w){re.escape(choice)}(?!\w)"


def _findings(task: Task, template: Template, seen: _Seen) -> Iterator[Finding]:
    kinds = sorted(seen.faults, key=lambda kind: -len(seen.faults[kind]))
    for kind in kinds[:KINDS]:
        problem, places = seen.first[kind], seen.faults[kind]
        yield Finding(
            problem.what,
            len(places),
            tuple(places[:PLACES]),
            problem.fix,
            level=Level.ERROR,
            template=template.id,
            of=seen.rows,
            found=problem.found,
            allowed=problem.allowed,
        )
    if rest := kinds[KINDS:]:
        what, count = f"and {len(rest)} more kinds of error", sum(len(seen.faults[k]) for k in rest)
        yield Finding(what, count, level=Level.ERROR, template=template.id, of=seen.rows)
    for leak, places in seen.leaks.items():
        most = len(places) >= MOST * max(1, seen.rendered)
        if most or leak in (Shown.WHOLE, Shown.CHANGES):
            what, fix = _LEAKS[leak]
            sure = leak == Shown.WHOLE or (most and leak not in ("text", Shown.SOURCE))
            level = Level.ERROR if sure else Level.WARNING
            shown = tuple(places[:PLACES])
            yield Finding(
                what, len(places), shown, fix, level=level, template=template.id, of=seen.rendered
            )
    if seen.rendered > 1 and len(seen.prompts) == 1 and template.role is not Role.INVERTED:
        fix = f"use {{{{ {task.text} }}}} or another field in it"
        yield _warning(template.id, seen, "the prompt is the same for every row", fix=fix)
    if seen.rendered > 1 and len(seen.targets) == 1:
        fix = "look at the template's `target`, or at the rows"
        yield _warning(template.id, seen, "the answer is the same for every row", fix=fix)


def _warning(template: str, seen: _Seen, what: str, *, fix: str) -> Finding:
    return Finding(what, seen.rendered, fix=fix, template=template, of=seen.rows)


_LEAKS = {
    Shown.WHOLE: (
        "the prompt shows the answer",
        "take the answer, and fields that are computed from it, out of the prompt",
    ),
    Shown.CHANGES: (
        "the prompt is another one for another label",
        "take the label, and fields that are computed from it, out of the prompt",
    ),
    Shown.SOURCE: (
        "the prompt shows the column from which the label is computed",
        "if the label is to be told without it, take it out of the prompt",
    ),
    "field": (
        "the answer stands in the prompt, as the whole of another field",
        "take that field out of the prompt",
    ),
    "choice": (
        "the prompt holds the right choice and none of the others",
        "take the word out of the prompt, or list all choices in it",
    ),
    "text": (
        "the answer stands word for word in the prompt",
        "if it is not to be copied from there (as in extractive questions), take it out",
    ),
}
