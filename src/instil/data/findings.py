"""The audit of a task's rows: everything that looks wrong, with counts, examples and a fix.

A `Finding` is a warning, never an error: the rows can be used, but a user should know. Looked for
are repeats within and across the parts of the split, one text with several labels, lopsided labels,
fields that hold nothing or always the same, personal data, damaged encoding, and HTML left in the
text.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import product
from typing import TypeVar

from instil.data.audit import (
    EXACT,
    NEAR,
    conflicting_labels,
    label_counts,
    normalise,
    read_text,
    repeats_within,
)
from instil.data.damage import DAMAGE, PERSONAL
from instil.data.prepare import TaskData
from instil.data.readers.rowfile import excerpt
from instil.data.registry import plain, some
from instil.format import plural
from instil.init.labels import FORMS
from instil.scoring.text import spaced
from instil.tasks.sandbox import tidied
from instil.tasks.template import evaluate, expression_names, names, spelt
from instil.types import Part, Role, Row, Task

EXAMPLES = 3
"""Shown for each finding."""
LONG_ANSWER = 6
"""Words from which on two answers are hardly alike by chance."""
OFTEN = 10
"""Texts of train with one answer, from which on it is a usual one and no text of its own."""
MOST_NEAR = 20_000
"""Rows of a part among which near duplicates are looked for: some seconds' work."""
RARE = 0.1
"""A label with less than this share of the commonest one's rows is rare."""
LOPSIDED = 0.8
"""With this share of all rows, a label makes a constant answer look good."""
FEW_FILLED = 0.5
_WIDTH = 60
T = TypeVar("T")


class Level(StrEnum):
    """How much a finding matters."""

    ERROR = "error"
    """It stops a run."""
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about the rows or a template that a user should look at."""

    what: str
    """One line, the count in it."""
    count: int
    """Rows (or pairs of rows, fields, labels) that are concerned."""
    examples: tuple[str, ...] = ()
    """A few of them, each with its place."""
    fix: str = ""
    """What to do about it, to paste where possible."""
    level: Level = Level.WARNING
    """How much it matters."""
    template: str = ""
    """The id of the template that it is about."""
    of: int = 0
    """Rows that went through the template."""
    found: str = ""
    """The value, from the first of them."""
    allowed: str = ""
    """What would have been allowed."""
    change: Mapping[str, object] = field(default_factory=dict)
    """What mends it in the task file: key (`where`, `fields.NAME`) -> its new value."""
    rows: tuple[str, ...] = ()
    """The ids of the rows concerned, where leaving them out of the file would mend it."""


def audit_rows(data: TaskData) -> tuple[Finding, ...]:
    """Look at the rows of a task that a recipe uses."""
    fix, bad = "mend them; all are listed in the run's split.json", data.split.bad_rows
    what = f"{plural(len(bad), 'row')} could not be used, and were skipped"
    return (
        *([Finding(what, len(bad), bad[:5], fix)] if bad else []),
        *(finding for check in _CHECKS for finding in check(data)),
    )


def _across(data: TaskData) -> Iterator[Finding]:
    """Repeats across parts; they are out of train already."""
    rows = {row.id: row for row in data.rows}
    read = {name for t in data.task.templates if t.role is Role.ANSWER for name in names(t.prompt)}
    more = sorted(read - {"choices", data.task.text, data.task.target, data.task.history})
    other = (
        f"rows are compared by {data.task.text!r} alone; if they differ in what prompts read of "
        f"{some(more, most=3)}, join these under `fields`, and name that field as `text`"
        if more
        else ""
    )
    for why, removed in _by(data.split.removed, lambda entry: entry.why).items():
        unseen = " of what must stay unseen" if why in (EXACT, NEAR) else ""
        alike = why.replace("duplicate", "duplicates") + unseen
        parts = ", ".join(sorted({str(entry.part) for entry in removed}))
        examples = tuple(
            f"row {entry.row} and row {entry.of}"
            + ("" if entry.similarity == 1 else f" (alike by {entry.similarity:.2f})")
            + (f": {_shown(data.task, rows[entry.of])}" if entry.of in rows else "")
            for entry in removed[:EXAMPLES]
        )
        what = f"{plural(len(removed), 'row')} taken out of {parts}: {alike}"
        yield Finding(what, len(removed), examples, other if unseen else "")


def _within(data: TaskData) -> Iterator[Finding]:
    for part in Part:
        rows = data.part(part)
        near = len(rows) <= MOST_NEAR
        repeats = repeats_within(rows, task=data.task, near=near)
        for why, pairs in _by(repeats, lambda repeat: repeat.why).items():
            by_id = {row.id: row for row in rows}
            examples = tuple(
                f"row {pair.row} and row {pair.of}: {_shown(data.task, by_id[pair.of])}"
                for pair in pairs[:EXAMPLES]
            )
            fix = (
                "a text that comes often weighs more; take repeats out of the file if it should not"
            )
            repeat = "repeats" if len(pairs) == 1 else "repeat"
            what = f"{plural(len(pairs), 'row')} of {part} {repeat} another one of it ({why}s)"
            yield Finding(what, len(pairs), examples, fix)
        if not near:
            what = f"{part} has {len(rows):,} rows: only exact duplicates were looked for within it"
            yield Finding(what, len(rows))


def _conflicts(data: TaskData) -> Iterator[Finding]:
    if any("{" in choice for template in data.task.templates for choice in template.choices):
        return  # the options are the row's own: A of one row is not A of another
    rows = {row.id: row for row in data.rows}
    pairs = conflicting_labels(rows.values(), data.task)
    if pairs:
        target = data.task.target
        examples = tuple(
            f"row {a} is {rows[a].fields[target]}, row {b} is {rows[b].fields[target]}: "
            f"{_shown(data.task, rows[b])}"
            for a, b in pairs[:EXAMPLES]
        )
        count = len(pairs)
        pair = "1 pair of rows has" if count == 1 else f"{count} pairs of rows have"
        fix = "decide on one label each, or leave such rows out with `where`"
        both = tuple(dict.fromkeys(row for each in pairs for row in each))
        what = f"{pair} the same text and different labels"
        yield Finding(what, count, examples, fix, rows=both)


def lost_classes(data: TaskData) -> Iterator[Finding]:
    """Find classes that are asked about and of which repeats were all that train had."""
    if not (data.task.choices and data.split.removed and data.train):
        return
    counts = {part: label_counts(data.part(part), data.task) for part in Part}
    for label in data.task.choices:
        asked = sum(counts[part].get(label, 0) for part in (Part.VALIDATION, Part.TEST))
        if asked and not counts[Part.TRAIN].get(label, 0):
            yield Finding(
                f"the class {label!r} is missing from train, and {plural(asked, 'row')} of "
                "validation and test are of it: all that train had repeat rows that must stay "
                "unseen",
                asked,
                fix="name a `group` that keeps repeats together, add other rows of the class, or "
                "raise split.near_duplicates in the recipe",
            )


def _labels(data: TaskData) -> Iterator[Finding]:
    counts = data.balance.get(str(Part.TRAIN), {})
    total, most = sum(counts.values()), max(counts.values(), default=0)
    rare = {label: n for label, n in counts.items() if n < RARE * most}
    if rare:
        examples = tuple(f"{label}: {plural(n, 'row')} of {total}" for label, n in rare.items())
        fix = (
            "bring more rows of it, or take it out of `choices` and leave its rows out with `where`"
        )
        left = [choice for choice in data.task.choices if choice not in rare]
        target, change = spelt(data.task.target), dict[str, object]()
        if len(left) > 1 and not data.task.labels:
            change = {"choices": left, "where": f"({target} | string) not in {[*rare]}"}
        what = f"rare in train: {', '.join(rare)}"
        yield Finding(what, len(rare), examples[:EXAMPLES], fix, change=change)
    if total and most / total >= LOPSIDED:
        label = max(counts, key=lambda label: counts[label])
        what = f"{100 * most / total:.0f} % of the training rows are {label!r}"
        fix = "accuracy says little here: read macro-F1, and compare with that share"
        yield Finding(what, most, fix=fix)


def _labels_alike(data: TaskData) -> Iterator[Finding]:
    """Labels that differ only in what a reader hardly sees, and are two classes all the same."""
    counts: Counter[str] = Counter(dict.fromkeys(data.task.choices, 0))
    for part in data.balance.values():
        counts.update(part)
    groups = _by(counts, lambda label: tidied(label).lower())
    alike = [group for group in groups.values() if len(group) > 1]
    if not alike:
        return
    told_apart = [  # by another form than this one
        (steps, difference)
        for (steps, _, difference), (_, other, _) in zip(FORMS, reversed(FORMS), strict=True)
        if any(len({other(label) for label in group}) > 1 for group in alike)
    ]
    examples = tuple(
        ", ".join(f"{label!a}: {plural(counts[label], 'row')}" for label in group)
        for group in alike
    )
    differences = ", or in ".join(difference for _, difference in told_apart)
    steps = " | ".join(steps for steps, _ in told_apart)
    target = data.task.target
    before = data.task.fields.get(target, spelt(target))
    plain = spelt(target) == target
    field = target if plain else "label"
    named = "" if plain else "`target: label`, "
    fix = (
        f"if they mean the same, under `fields` in the task file `{field}: {before} | {steps}`, "
        f"{named}and each label once in `choices`"
    )
    what = f"labels that differ in {differences} alone are classes of their own"
    change = dict[str, object]()
    if plain and not data.task.labels:
        merged = (evaluate(f"{target} | {steps}", {target: label}, where="") for label in counts)
        left = [*dict.fromkeys(map(str, merged))]
        change = {f"fields.{target}": f"{before} | {steps}", "choices": left}
    yield Finding(what, len(alike), examples[:EXAMPLES], fix, change=change)


def _fields(data: TaskData) -> Iterator[Finding]:
    """Fields that hold nothing, seldom anything, or always the same."""
    # What a conversation brings along may be the same in all rows, or stand in few of them.
    brought = {data.task.history, data.task.tools, data.task.calls}
    filled: Counter[str] = Counter()
    values: dict[str, set[str]] = defaultdict(set)
    for row in data.rows:
        for name, value in row.fields.items():
            if name in brought:
                continue
            text = plain(value)
            filled[name] += bool(text)
            if len(values[name]) < 2:
                values[name].add(text)
    total = len(data.rows)
    # What `where` looks at is often empty because it asks for that.
    asked = expression_names(data.task.where) if data.task.where else frozenset()
    empty = [name for name in values if not filled[name] and name not in asked]
    if empty:
        yield Finding(f"always empty: {', '.join(empty)}", len(empty))
    constant = [name for name in values if filled[name] == total > 1 and len(values[name]) == 1]
    if constant:
        examples = tuple(f"{name}: {excerpt(min(values[name]), width=_WIDTH)}" for name in constant)
        what = f"always the same, so that it tells nothing: {', '.join(constant)}"
        yield Finding(what, len(constant), examples[:EXAMPLES])

    seldom = [name for name in filled if 0 < filled[name] < FEW_FILLED * total]
    if seldom:
        examples = tuple(
            f"{name}: filled in {plural(filled[name], 'row')} of {total}" for name in seldom
        )
        what = f"empty in most rows: {', '.join(seldom)}"

        yield Finding(what, len(seldom), examples[:EXAMPLES])


def _texts(data: TaskData) -> Iterator[Finding]:
    """What is wrong with the texts themselves: damage, then personal data."""
    rows, task = data.rows, data.task
    damage = [(what, check, mend) for what, (check, mend) in DAMAGE.items()]
    personal = [(what, check, None) for what, check in PERSONAL.items()]
    # The fields that the model reads or writes.
    read = {task.text: None, **({} if task.choices else {task.target: None})}
    for template in task.templates:
        for source in (template.prompt, template.target, template.system):
            read.update(dict.fromkeys(sorted(names(source) - {"choices", task.target})))
    for checks in (damage, personal):
        for name, (what, check, mend) in product(read, checks):
            hits = [(row, text) for row in rows if (text := check(str(row.fields.get(name, ""))))]
            if not hits:
                continue
            fix = "the model may learn it by heart and say it to others: take it out first"
            if mend is not None:
                field = f"clean_{name}" if spelt(name) == name else "clean_text"
                mended = f"`{field}: {spelt(name)} | {mend}`; then use {field}"
                fix = "bring the text anew from where it was whole"
                fix = f"under `fields` in the task file, {mended}" if mend else fix
            examples = (f"{row.place or f'row {row.id}'}: {text}" for row, text in hits[:EXAMPLES])
            what_where = f"{plural(len(hits), 'row')} with {what} in {name!r}"
            before = data.task.fields.get(name, spelt(name))
            change = (
                {f"fields.{name}": f"{before} | {mend}"} if mend and spelt(name) == name else {}
            )
            yield Finding(what_where, len(hits), tuple(examples), fix, change=change)


def _answers(data: TaskData) -> Iterator[Finding]:
    """Find free answers that train has as well, and texts of which each row has another answer."""
    task = data.task
    if task.choices or task.calls:
        return
    said = {row.id: normalise(plain(row.fields[task.target])) for row in data.rows}
    texts = {row.id: normalise(read_text(task, row.fields)) for row in data.rows}
    asked: dict[str, set[str]] = {}
    for row in data.train:
        asked.setdefault(said[row.id], set()).add(texts[row.id])
    usual = {answer for answer, each in asked.items() if len(each) >= OFTEN}
    learnt = {*asked, *(texts[row.id] for row in data.train)} - usual
    judged = [*data.validation, *data.test]
    long = [row for row in judged if len(spaced(said[row.id]).split()) >= LONG_ANSWER]
    known = [row for row in long if said[row.id] in learnt]
    if known and 10 * len({*said.values()}) >= len(said):  # else they are a few set phrases
        shown = tuple(f"row {row.id}: {excerpt(said[row.id])}" for row in known[:EXAMPLES])
        what = f"{plural(len(known), 'row')} of validation and test: the right answer is in train"
        target = f"group: {spelt(task.target)} | lower"
        fix = f"the model may know it by heart; `{target}` in the task keeps such rows together"
        yield Finding(what, len(known), shown, fix)
    read = {name for t in data.answering for name in names(t.prompt)}
    if task.references or read - {"choices", task.text, task.target, task.history}:
        return  # what else is asked of a text may be why its answers differ
    groups: dict[str, set[str]] = {}
    answers: dict[str, set[str]] = {}
    for row in data.rows:
        answers.setdefault(texts[row.id], set()).add(said[row.id])
        groups.setdefault(texts[row.id], set()).add(row.group)
    several = [text for text in answers if len(answers[text]) > 1 and len(groups[text]) > 1]
    if several:
        what = f"{plural(len(several), 'text')} with several answers, each on a row of its own"
        fix = (
            "each row knows its own answer alone, and rows of one text count as independent: make "
            "one row of them, with the answers as `references`, or take "
            f"`group: {spelt(task.text)} | lower`"
        )
        yield Finding(what, len(several), tuple(map(excerpt, several[:EXAMPLES])), fix)


_CHECKS = (
    _across,
    _within,
    _conflicts,
    _answers,
    lost_classes,
    _labels,
    _labels_alike,
    _fields,
    _texts,
)
"""In the order in which their findings are told."""


def _by(items: Iterable[T], key: Callable[[T], str]) -> Mapping[str, list[T]]:
    groups: dict[str, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def _shown(task: Task, row: Row) -> str:
    return excerpt(read_text(task, row.fields), width=_WIDTH)
