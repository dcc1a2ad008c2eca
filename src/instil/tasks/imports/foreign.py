"""Templates of other projects' collections, fitted to a task of ours.

A task file takes them by path, among templates of its own::

    templates:
      - from: promptsource/templates/imdb
        format: promptsource            # or natural_instructions, flan
        fields: {label: sentiment}      # their name for a field -> ours
        labels: [negative, positive]    # our choices in the order in which they number them
      - {id: own, prompt: "Good or bad? {{ text }}"}

A template that maps each label to one fixed answer becomes one with `choices`, as we would write
it. Where the answer depends on the row, what the collection's templates see beside the fields is
set in front of the template: their names for the fields, the label as a number, `answer_choices`.
All of it runs in our sandbox: nothing of the collection is executed.

How a label is handed to a template: as its number in `labels` (the task's choices where that is
left out), or, where the choices are whole numbers themselves, as that number; or as text. The
first of these that gives every label an answer of its own is taken.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from instil.errors import Problem, TaskError, nearest
from instil.tasks import sandbox
from instil.tasks.form import Collection
from instil.tasks.imports.flan import ANSWER, read_flan
from instil.tasks.imports.natural_instructions import INPUT, OUTPUT, read_natural_instructions
from instil.tasks.imports.promptsource import SEPARATOR, read_promptsource
from instil.tasks.imports.wording import Wording
from instil.tasks.template import FIELD, names, spelt
from instil.types import Role, Template

READERS: Mapping[str, Callable[..., list[Wording]]] = {
    "promptsource": read_promptsource,
    "natural_instructions": read_natural_instructions,
    "flan": read_flan,
}
"""Format -> what reads a collection of it."""

ANSWERS = "answer_choices"

_WHOLE = re.compile(r"[+-]?[0-9]+")


@dataclass(frozen=True, slots=True)
class Question:
    """What must be known of a task to fit templates to it."""

    text: str
    """The field that holds the input."""
    target: str
    """The field that holds the answer."""
    choices: tuple[str, ...]
    """Its values; empty: free text."""


def read_collection(collection: Collection, question: Question) -> list[Template]:
    """Read a collection and fit its templates to a task.

    Raises:
        TaskError: It cannot be read, a name in `only`, `skip` or `labels` is unknown, a template
            has no answer, or one contradicts the order of the labels.
    """
    wordings = READERS[collection.format](Path(collection.from_), name=collection.set)
    known = [wording.name for wording in wordings]
    problems = [
        Problem(
            f"this collection has no template {name!r}",
            where=collection.from_,
            allowed=", ".join(known),
            nearest=nearest(name, known),
        )
        for name in (*collection.only, *collection.skip)
        if name not in known and name not in map(slug, known)
    ]
    if collection.labels and sorted(collection.labels) != sorted(question.choices):
        problems.append(
            Problem(
                "`labels` must be the task's choices, in the collection's order",
                found=", ".join(collection.labels),
                allowed=", ".join(question.choices) or "nothing: the task has no choices",
            )
        )
    only, skip = set(collection.only), set(collection.skip)
    called = {wording: {wording.name, slug(wording.name)} for wording in wordings}
    chosen = [w for w in wordings if (not only or called[w] & only) and not called[w] & skip]
    if not problems and not chosen:
        problems = [Problem("no template of this collection is left", where=collection.from_)]
    if problems:
        raise TaskError(*problems)
    fits = [_Fit(wording, collection, question) for wording in chosen]
    problems = [problem for fit in fits for problem in fit.problems()]
    if problems:
        raise TaskError(*problems)
    ids: list[str] = []
    for name in (slug(wording.name) for wording in chosen):
        numbered = re.compile(rf"{re.escape(name)}(-\d+)?")
        count = sum(numbered.fullmatch(id) is not None for id in ids)
        ids.append(f"{name}-{count + 1}" if count else name)
    return [fit.template(id) for fit, id in zip(fits, ids, strict=True)]


def slug(name: str) -> str:
    """Turn a name into an id of ours.

    >>> slug("Movie Expressed Sentiment 2"), slug("...which one?")
    ('Movie_Expressed_Sentiment_2', 'which_one')
    """
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-") or "template"


class _Fit:
    """One wording against one task."""

    def __init__(self, wording: Wording, collection: Collection, question: Question) -> None:
        self.wording, self.question = wording, question
        self.where = collection.from_
        self.labels = collection.labels or question.choices
        self.told = bool(collection.labels)
        self.numbered = collection.format == "promptsource"
        ours = dict(collection.fields)
        if collection.format == "natural_instructions":
            ours = {INPUT: question.text, OUTPUT: question.target, **ours}
        if collection.format == "flan":
            ours = {ANSWER: question.target, **ours}
        self.ours = {their: our for their, our in ours.items() if their != our}
        self.answer = next((t for t, o in ours.items() if o == question.target), question.target)
        self.asked, self.said = _names(wording.prompt), _names(self._target())

    def _target(self) -> str:
        return self.wording.target or "{{ " + self.answer + " }}"

    def problems(self) -> Iterator[Problem]:
        wording = self.wording
        broken = [_fault(text) for text in (wording.prompt, self._target(), wording.answers)]
        name = f"template {wording.name!r}"
        leave_out = f"skip: [{json.dumps(wording.name, ensure_ascii=False)}]"
        if any(broken):
            what = f"{name} is not to be used here: {next(filter(None, broken))}"
            yield Problem(what, where=self.where, fix=leave_out)
        elif not wording.prompt.strip() or not self._target().strip():
            what = f"{name} has no answer: there is no `{SEPARATOR}` in it"
            yield Problem(what, where=self.where, fix=leave_out)
        elif (fixed := None if self.told else self._fixed()) is not None:
            own = [choice.casefold() for choice in self.question.choices]
            theirs = [answer.casefold() for answer in fixed]
            if sorted(own) == sorted(theirs) and own != theirs:
                named = [self.question.choices[own.index(answer)] for answer in theirs]
                order = ", ".join(json.dumps(choice, ensure_ascii=False) for choice in named)
                yield Problem(
                    f"{name} numbers the labels in another order than the task's choices",
                    where=self.where,
                    found=", ".join(fixed),
                    allowed=", ".join(self.question.choices),
                    fix=f"labels: [{order}]",
                )

    def template(self, id: str) -> Template:
        role = Role.ANSWER if self.wording.judged else Role.AUXILIARY
        if self.answer in self.asked and self.answer not in self.said:
            role = Role.INVERTED
        fixed = self._fixed() if role is Role.ANSWER else None
        target, answers = self._with_scope(self._target()), list[str]()
        if fixed is None and role is Role.ANSWER:  # answers that are open until the row is known
            pieces = self.wording.answers.split(SEPARATOR)
            answers = [self._with_scope(piece.strip()) for piece in pieces]
            if len(answers) != len(self.labels) or any(map(_fault, answers)):
                answers = []
        answers = answers if fixed is None else fixed
        labels = self.question.choices if answers else ()
        choices = tuple(answers[self.labels.index(label)] for label in labels)
        if fixed is not None:
            target = answer_target(self.question, choices)
        return Template(
            id=id,
            prompt=self._with_scope(self.wording.prompt),
            target=target,
            role=role,
            choices=choices,
            origin=self.wording.origin,
            licence=self.wording.licence,
        )

    def _fixed(self) -> list[str] | None:
        """Return the answer that each of `labels` has, where it depends on the label alone."""
        if not self.question.choices or self.answer not in self.said:
            return None
        conventions: list[Callable[[str], object]] = [str]
        if self.numbered:
            whole = _whole(self.labels)
            index = [self.labels.index] if self.told or not whole else []
            conventions = [*([int] if whole else []), *index, str]
        for convert in conventions:
            answers = [self._answer(convert(label)) for label in self.labels]
            given = [answer for answer in answers if answer]
            if len(set(given)) == len(self.labels):
                return given
        return None

    def _answer(self, label: object) -> str:
        """Render the target from a label alone; empty where it needs more, or fails."""
        try:
            fields: dict[str, object] = {self.answer: label}
            pieces = sandbox.rendered(self.wording.answers, fields).split(SEPARATOR)
            fields[ANSWERS] = [piece.strip() for piece in pieces]
            return sandbox.rendered(self._target(), fields).strip()
        # Whatever goes wrong, this way of handing over the label is not the template's.
        except Exception:
            return ""

    def _with_scope(self, source: str) -> str:
        """Set what the collection's templates see in front of one of them."""
        used = _names(source) | (
            _names(self.wording.answers) if ANSWERS in _names(source) else set()
        )
        lines = [
            "{% set " + their + " = " + spelt(our) + " %}"
            for their, our in self.ours.items()
            if their in used and FIELD.fullmatch(their)
        ]
        if self.answer in used and self._takes_number(source):
            labels = json.dumps(self.labels, ensure_ascii=False)
            number = f"{labels}.index({self.answer} | string)"
            if _whole(self.labels) and not self.told:
                number = f"{self.answer} | int"
            lines.append("{% set " + self.answer + " = " + number + " %}")
        if ANSWERS in used and self.wording.answers:
            lines.append(
                "{% set _all %}" + self.wording.answers + "{% endset %}"
                "{% set answer_choices = _all.split('|||') | map('trim') | list %}"
            )  # fmt: skip
        return "".join(lines) + source.strip()

    def _takes_number(self, source: str) -> bool:
        """Whether a template uses the label as a number: an index, compared, or true unless 0."""
        if not self.numbered or not self.question.choices:
            return False
        name = re.escape(self.answer)
        uses = (
            rf"\[[\s\d+-]*\b{name}\b",
            rf"\b{name}\b\s*[=!<>]=?\s*-?\d",
            rf"\b{name}\b\s*[+-]\s*\d",
            rf"\b{name}\s+(?:not\s+)?in\s*[\[(]\s*-?\d",
            rf"\b(?:if|elif|and|or|not)\s+{name}\s*(?:-?%\}}|\}}\}}|\)|and\b|or\b|else\b)",
        )
        return re.search("|".join(uses), source + self.wording.answers) is not None


def answer_target(question: Question, choices: Sequence[str]) -> str:
    """Write the target of an answer: the field itself, or the template's wording of it."""
    name = spelt(question.target)
    if tuple(choices) == tuple(question.choices):
        return f"{{{{ {name} }}}}"
    labels = json.dumps(question.choices, ensure_ascii=False)
    return f"{{{{ choices[{labels}.index({name} | string)] }}}}"


def _whole(labels: Iterable[str]) -> bool:
    return all(_WHOLE.fullmatch(label) for label in labels)


def _names(source: str) -> frozenset[str]:
    return frozenset() if _fault(source) else names(source)


def _fault(source: str) -> str:
    """Return why a text is no template of ours, or an empty text."""
    try:
        sandbox.compiled(source)
        return ""
    except Exception as error:
        return str(error) or repr(error)
