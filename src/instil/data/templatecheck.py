"""Templates against rows: what cannot be seen in a template alone.

`check_templates` renders every row through every template and gathers what is wrong, with counts,
places and what to do:

- *errors* stop a run: a row that a template cannot render (an unknown field, an empty prompt or
  answer, a target outside the choices), an answer that is handed over as a field of the prompt, or
  that the prompt shows in another way (`answer_shown`);
- *warnings* are for people to judge: an answer that stands word for word in most prompts (as it
  should in extractive questions), two templates that render alike, prompts that do not depend on
  the row, one template that gives the same answer to every row.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from instil.data.answer_shown import Shown, shown_answer
from instil.data.build import render_example
from instil.errors import DataError, Problem, TaskError
from instil.tasks.template import OverBudgetError
from instil.types import Example, Role, Row, Task, Template

PLACES = 3  # rows that a finding names
KINDS = 5  # errors of one template that are told apart
MOST = 0.9  # share of rows from which an answer in the prompt is reported
SHORTEST = 4  # characters of an answer that is looked for in a prompt


class Level(StrEnum):
    """How much a finding matters."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class TemplateFinding:
    """One thing that is wrong with a template, or may be."""

    level: Level
    """An error stops a run."""
    template: str
    """The template's id."""
    what: str
    """In one sentence."""
    count: int
    """Rows that have it."""
    of: int
    """Rows that were tried."""
    places: tuple[str, ...] = ()
    """Where the first of them stand."""
    found: str = ""
    """The value, from the first of them."""
    allowed: str = ""
    """What would have been allowed."""
    fix: str = ""
    """What to do."""


@dataclass(slots=True)
class _Seen:
    """What is kept of one template over all rows."""

    rows: int = 0
    rendered: int = 0
    targets: set[str] = field(default_factory=set)
    prompts: set[int] = field(default_factory=set)
    leaks: Counter[str] = field(default_factory=Counter)
    leak_places: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    faults: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], Problem] = field(default_factory=dict)
    fault_places: dict[tuple[str, str], list[str]] = field(
        default_factory=lambda: defaultdict(list)
    )
    digests: list[int] = field(default_factory=list)


def check_templates(task: Task, rows: Iterable[Row]) -> tuple[TemplateFinding, ...]:
    """Render all rows through all templates, and return what is wrong: errors first.

    Args:
        task: Its templates are checked.
        rows: All its rows, or a sample.
    """
    seen = {template.id: _Seen() for template in task.templates}
    for row in rows:
        for template in task.templates:
            _try(task, template, row, seen[template.id])
    found = [f for t in task.templates for f in _findings(task, t, seen[t.id])]
    found += _alike(task.templates, seen)
    return tuple(sorted(found, key=lambda finding: finding.level is Level.WARNING))


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
            seen.faults[kind] += 1
            seen.examples.setdefault(kind, problem)
            _note(seen.fault_places[kind], place)
        return
    seen.rendered += 1
    prompt = example.messages[-1].content
    seen.digests.append(hash((example.messages, example.answer)))
    seen.prompts.add(hash(example.messages))
    if len(seen.targets) < 2:
        seen.targets.add(example.answer.shown)
    shown = shown_answer(task, template, row, choices=example.choices)
    leak = shown.value or _leak(task, example, row, prompt)
    if leak:
        seen.leaks[leak] += 1
        _note(seen.leak_places[leak], place)


def _note(places: list[str], place: str) -> None:
    if len(places) < PLACES:
        places.append(place)


def _leak(task: Task, example: Example, row: Row, prompt: str) -> str:
    """Return how an answer stands in its prompt: as a whole field, as a choice alone, as text."""
    target = example.target
    if example.choices:
        named = [choice for choice in example.choices if _word_within(choice, prompt)]
        return "choice" if named == [target] else ""
    if len(target) < SHORTEST or not _within(target, prompt):
        return ""
    others = (v for name, v in row.fields.items() if name not in (task.target, task.references))
    whole = any(isinstance(value, str) and value.strip() == target for value in others)
    return "field" if whole else "text"


def _within(text: str, prompt: str) -> bool:
    return text.casefold() in prompt.casefold()


def _word_within(choice: str, prompt: str) -> bool:
    """Whether a choice stands in a prompt as a word of its own: `no`, but not in `know`."""
    return re.search(rf"(?<!\w){re.escape(choice)}(?!\w)", prompt, re.IGNORECASE) is not None


def _findings(task: Task, template: Template, seen: _Seen) -> Iterator[TemplateFinding]:
    for kind, count in seen.faults.most_common(KINDS):
        problem, places = seen.examples[kind], tuple(seen.fault_places[kind])
        yield TemplateFinding(
            Level.ERROR, template.id, problem.what, count, seen.rows, places,
            problem.found, problem.allowed, problem.fix,
        )  # fmt: skip
    if len(seen.faults) > KINDS:
        what = f"and {len(seen.faults) - KINDS} more kinds of error"
        others = seen.faults.total() - sum(c for _, c in seen.faults.most_common(KINDS))
        yield TemplateFinding(Level.ERROR, template.id, what, others, seen.rows)
    yield from _leak_findings(task, template, seen)
    if seen.rendered > 1 and len(seen.prompts) == 1:
        fix = f"use {{{{ {task.text} }}}} or another field in it"
        if template.role is not Role.INVERTED:
            yield _warning(template, seen, "the prompt is the same for every row", fix=fix)
    if seen.rendered > 1 and len(seen.targets) == 1:
        fix = "look at the template's `target`, or at the rows"
        yield _warning(template, seen, "the answer is the same for every row", fix=fix)


_LEAKS = {
    Shown.WHOLE: (
        "the prompt shows the answer",
        "take the answer, and fields that are computed from it, out of the prompt",
    ),
    Shown.CHANGES: (
        "the prompt is another one for another label",
        "take the label, and fields that are computed from it, out of the prompt",
    ),
    "field": (
        "the answer is handed over in the prompt, as the whole of another field",
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


def _leak_findings(task: Task, template: Template, seen: _Seen) -> Iterator[TemplateFinding]:
    for kind, count in seen.leaks.items():
        most = count >= MOST * max(1, seen.rendered)
        if not most and kind not in (Shown.WHOLE, Shown.CHANGES):
            continue
        what, fix = _LEAKS[kind]
        sure = kind == Shown.WHOLE or (most and kind != "text")
        level = Level.ERROR if sure else Level.WARNING
        places = tuple(seen.leak_places[kind])
        yield TemplateFinding(level, template.id, what, count, seen.rendered, places, fix=fix)


def _warning(template: Template, seen: _Seen, what: str, *, fix: str) -> TemplateFinding:
    return TemplateFinding(Level.WARNING, template.id, what, seen.rendered, seen.rows, fix=fix)


def _alike(templates: Sequence[Template], seen: dict[str, _Seen]) -> Iterator[TemplateFinding]:
    """Find templates that ask and answer every row in the same words."""
    first: dict[tuple[int, ...], str] = {}
    for template in templates:
        mine = seen[template.id]
        key = tuple(mine.digests)
        if not mine.rendered:
            continue
        if key in first:
            what = f"it renders every row as the template {first[key]!r} does"
            yield _warning(template, mine, what, fix="leave one of the two out")
        first.setdefault(key, template.id)
