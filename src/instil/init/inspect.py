"""Looking at a file of rows: which column is the text, which the answer, which the group.

Terms. The *text* is what the model reads. The *target* is what it should say: a label (few values),
a rating (numbers in order), or free text. Rows of one *group* (a product, say) stay on one side of
the split. What a user names (`Wishes`) is taken; the rest is guessed, and each guess is told with
its reason.

A worked example: a table with the columns `id`, `review`, `stars` and `product` gives the text
`review` (the longest), the rating `stars` (a name for ratings, five numbers) and the group
`product` (a name of things, 60 of them in 300 rows).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from instil import format as fmt
from instil.data.columns import LONGEST_VALUE, MISSING, Column, count_columns
from instil.data.readers.rowfile import BadRows
from instil.data.readers.shapes import CALLS, TOOL_COLUMNS, UNUSABLE, Shape, recognise
from instil.data.readers.turns import read_tools
from instil.data.registry import NUMBER, some
from instil.data.sources.source import read_table
from instil.errors import DataError, Problem, nearest
from instil.init.guesses import (
    Kind,
    Pick,
    comes_again,
    guess_group,
    guess_target,
    guess_text,
    has_decimal_commas,
    is_code,
    is_named_label,
    is_rating,
    mending,
    personal_data,
    unused_texts,
)
from instil.init.labels import Labels, class_labels, listable, rating_labels, tokens
from instil.init.words import give_words
from instil.tasks.template import spelt
from instil.types import SourceSpec

FEWEST_ROWS = 24
"""With fewer rows no part of a split says anything."""
MOST_CLASSES = 50
"""More values than that are a label only where the column is named like one, or by the user."""
LONGEST_ANSWER = 80
"""Characters of an answer that is taken for a label without being named like one."""
MOST_SCORED = 4000
"""Tokens of all labels together, as estimated; more are generated and matched, not each scored."""
_SHOWN = 8  # names that a line lists
NO_GROUP = "none"
"""What `--group` takes for no group at all."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """Columns that the user names; empty where the guess decides."""

    text: str = ""
    """The column with the text."""
    label: str = ""
    """The column with the label or rating."""
    target: str = ""
    """The column with the text to write."""
    group: str = ""
    """The column that keeps rows together, or `none`."""
    label_names: Mapping[str, str] = field(default_factory=dict)
    """Value of the label -> the word for it in prompts and answers."""


@dataclass(frozen=True, slots=True)
class Guess:
    """What a file of rows seems to be."""

    kind: Kind
    """What the target is."""
    shape: Shape
    """The well-known shape that its rows have, or plain."""
    text: Column
    """What the model reads."""
    target: Column
    """What it should say."""
    text_field: str
    """The field that holds the text: its column, or a derived one."""
    target_field: str
    """The field that holds the target: its column, or a derived one."""
    fields: Mapping[str, str]
    """Derived fields -> expressions."""
    group: Column | None
    """What keeps rows together."""
    labels: Labels | None
    """The values of the target, for classes and ratings."""
    columns: tuple[str, ...]
    """All columns of the file."""
    rows: int
    """Rows that can be used."""
    measured: Column
    """What tells how long a prompt is: the text, or the whole of a conversation."""
    history: str = ""
    """The field with the turns before the text, in conversations of several."""
    tools: Column | None = None
    """What holds the functions that the model may call, in conversations that have some."""
    calls: str = ""
    """The field with the calls that answers make, in conversations that have some."""
    system: str = ""
    """The field with the system prompt, where there is one."""
    reasons: tuple[str, ...] = ()
    """A line for each guess, for people."""
    warnings: tuple[str, ...] = ()
    """What the user should look at."""


@dataclass(slots=True)
class Table:
    """The columns of a file, and what is found out about them."""

    file: str
    """Its name."""
    columns: dict[str, Column] = field(default_factory=dict)
    """Name -> column."""
    shape: Shape = Shape.PLAIN
    """Of its rows."""
    rows: int = 0
    """How many."""
    bad: BadRows = field(default_factory=BadRows)
    """Those that cannot be used, where they are skipped."""
    no_tools: set[str] = field(default_factory=set)
    """Columns named like one of tools that hold something else."""
    notes: Counter[str] = field(default_factory=Counter)
    """What of conversations is read otherwise than written: what -> rows."""

    @property
    def talks(self) -> bool:
        """Whether its rows are conversations."""
        return self.shape in (Shape.SHAREGPT, Shape.MESSAGES)

    @property
    def has_turns(self) -> bool:
        """Whether its rows are conversations, some of several turns or with tools to call."""
        return self.talks and bool(self.columns["history"].filled or self.tools or self.calls)

    @property
    def tools(self) -> str:
        """The column with the functions that the model may call; empty where there is none."""
        names = (name for name in TOOL_COLUMNS if name not in self.no_tools and self._fills(name))
        return next(names, "") if self.talks else ""

    @property
    def calls(self) -> str:
        """The column with the calls that answers make; empty where there is none."""
        return CALLS if self.talks and self._fills(CALLS) else ""

    def _fills(self, name: str) -> bool:
        return name in self.columns and self.columns[name].filled > 0

    @property
    def has_system(self) -> bool:
        """Whether its rows are instructions, some of them with a system prompt."""
        system = self.columns.get("system")
        return self.shape is not Shape.PLAIN and system is not None and system.filled > 0

    def others(self, *names: str) -> Iterator[Column]:
        """The columns of other names."""
        return (column for name, column in self.columns.items() if name not in names)


def inspect_table(source: SourceSpec, *, wishes: Wishes) -> Guess:
    """Read a file of rows and guess what it is.

    Args:
        source: The file.
        wishes: Columns that the user names.

    Raises:
        DataError: The file cannot be read, has too few rows or no column that would do, or a wish
            names a column that is not there or does not fit.
    """
    table = Table(file=Path(source.uri).name)
    for _, row in read_table(source, bad=table.bad, notes=table.notes):
        if not table.rows:
            table.shape = _shape(row)
        count_columns(table.columns, row, seen=table.rows)
        table.no_tools |= {name for name in TOOL_COLUMNS if not _holds_tools(row.get(name))}
        table.rows += 1
    _check(table, wishes)
    text = _pick_text(table, wishes)
    target = _pick_target(table, wishes, text=text.column)
    kind = _kind(table, target, wishes)
    named = kind not in (Kind.FREE_TEXT, Kind.WRITTEN)
    if wishes.label_names and not named:
        raise DataError(
            f"{target.column.name!r} is {kind}, whose values have no words",
            where=f"{table.file}: --label-names",
            fix="name the column of the label: --label COLUMN",
        )
    group = None
    if wishes.group and wishes.group != NO_GROUP:
        group = Pick(table.columns[wishes.group], "as you say")
    elif not wishes.group:
        # Files of several folders have the same names, and nothing else in common.
        names = {"file"} if "folder" in table.columns else set()
        others = table.others(text.column.name, target.column.name, *names)
        group = guess_group(list(others), rows=table.rows)
    field, labels = _free_name(table, _FIELDS[kind]), None
    if named:
        column, codes = target.column, is_code(target.column)
        if kind is Kind.RATING:
            labels = rating_labels(column, field=field)
        else:
            labels = class_labels(column, field=field, as_text=codes)
        given = wishes.label_names
        labels = give_words(labels, name=column.name, codes=codes, kind=kind, given=given)
        if kind is Kind.RATING and not all(map(NUMBER.fullmatch, labels.choices)):
            kind = Kind.CLASSES
    guess = _guess(
        table, kind=kind, text=text, target=target, group=group, labels=labels, field=field
    )
    if guess.rows < FEWEST_ROWS:
        why = [f"{r}: {_rows(table.notes[r])}" for r in UNUSABLE.values() if table.notes[r]]
        left_out = [warning for warning in guess.warnings if "left out" in warning]
        what = f"there is nothing to learn: none of {_rows(table.rows)} can be used"
        if guess.rows:
            what = f"there is too little to learn: {guess.rows} of {_rows(table.rows)} can be used"
        fix = "join answers that follow one another to one turn, or put the question between them"
        raise DataError(
            what,
            where=table.file,
            found="; ".join(why or left_out),
            allowed=f"at least {FEWEST_ROWS} rows with a question and its answer; a few hundred to "
            "learn something",
            fix=fix if table.notes[UNUSABLE["follows"]] else "",
        )
    return guess


def _holds_tools(value: object) -> bool:
    try:
        read_tools(value, where="")
    except DataError:
        return False
    return True


def _shape(row: Mapping[str, object]) -> Shape:
    """Tell the shape of a row as it stands in the file, without what `read_table` adds."""
    own = {name: value for name, value in row.items() if name not in ("prompt", "completion")}
    shape = recognise(own)
    if shape is Shape.PLAIN and isinstance(row.get("history"), list) and "last_message" in row:
        return Shape.MESSAGES  # its turns stood in `prompt` and `completion`
    return recognise(row) if shape is Shape.PLAIN else shape


def _check(table: Table, wishes: Wishes) -> None:
    """Raise for a file that is too small and for wishes that cannot be met."""
    named = {"text": wishes.text, "label": wishes.label, "target": wishes.target}
    named["group"] = "" if wishes.group == NO_GROUP else wishes.group
    flags = {name: f"--{flag} {name}" for flag, name in named.items() if name}
    problems = [
        Problem(
            f"there is no column {name!r}",
            where=flag,
            allowed=", ".join(table.columns),
            nearest=nearest(name, table.columns),
        )
        for name, flag in flags.items()
        if name not in table.columns
    ]
    problems += [
        Problem(
            f"the column {name!r} holds lists or mappings, not text",
            where=flag,
            fix="name a column of texts; or write a task file by hand, where `fields` may name a "
            f'part, as in `question: {name}.question`, join a list, `{name} | join(", ")`, or '
            f"write it out, `{name} | tojson` (docs/tasks.md)",
        )
        for name, flag in flags.items()
        if name != wishes.group and name in table.columns and table.columns[name].nested
    ]
    if wishes.label and wishes.target:
        what = "give either --label (few values) or --target (free text)"
        problems.append(Problem(what, where=f"{table.file}: --label, --target"))
    elif len(flags) < sum(bool(name) for name in named.values()):
        problems.append(Problem("one column cannot be two things", where=" ".join(flags.values())))
    if table.rows < FEWEST_ROWS:
        what = f"{table.rows} rows are too few to train, validate and test on"
        allowed = f"at least {FEWEST_ROWS}; a few hundred to learn something"
        problems.append(Problem(what, where=table.file, allowed=allowed))
    if problems:
        raise DataError(*problems)


def _pick_text(table: Table, wishes: Wishes) -> Pick:
    if wishes.text:
        return Pick(table.columns[wishes.text], "as you say")
    if table.has_turns:
        turns = table.columns["history"].filled
        why = f"rows of the shape {table.shape}, {turns} of {table.rows} with earlier turns"
        return Pick(table.columns["last_message"], why)
    if table.shape is not Shape.PLAIN:
        return Pick(table.columns["prompt"], f"rows of the shape {table.shape}")
    taken = (wishes.label, wishes.target, wishes.group)
    pick = guess_text(table.others(*taken))
    if pick is None:
        raise _nothing(table, "text", "text of a sentence or more")
    return pick


def _pick_target(table: Table, wishes: Wishes, *, text: Column) -> Pick:
    named = wishes.label or wishes.target
    if named:
        return Pick(table.columns[named], "as you say")
    if table.shape is not Shape.PLAIN and "completion" != text.name:
        return Pick(table.columns["completion"], f"rows of the shape {table.shape}")
    pick = guess_target(list(table.others(text.name, wishes.group)), most=MOST_CLASSES)
    if pick is None:
        raise _nothing(table, "label", "a label (few values) or a text to write")
    return pick


def _nothing(table: Table, flag: str, wanted: str) -> DataError:
    other = " or --target COLUMN" if flag == "label" else ""
    return DataError(
        f"no column looks like {wanted}",
        where=table.file,
        found=", ".join(table.columns),
        fix=f"name it: --{flag} COLUMN{other}",
    )


def _kind(table: Table, target: Pick, wishes: Wishes) -> Kind:
    column = target.column
    if wishes.target or (table.calls and column.name == "completion"):
        return Kind.FREE_TEXT
    # Numbers that answer instructions are answers, each to a question of its own.
    told = table.shape is not Shape.PLAIN and column.name == "completion" and not wishes.label
    if is_rating(column) and not told:
        return Kind.RATING
    few = 2 <= len(column.values) <= MOST_CLASSES
    short = column.counted and max(map(len, column.values), default=0) <= LONGEST_ANSWER
    if is_named_label(column) or wishes.label:
        if column.repeats or (few and wishes.label and column.counted):
            scored = sum(map(tokens, column.values)) <= MOST_SCORED
            return Kind.CLASSES if scored else Kind.WRITTEN
        if comes_again(column):
            return Kind.WRITTEN
    elif few and short and column.repeats:
        return Kind.CLASSES
    if not wishes.label:
        return Kind.FREE_TEXT
    raise DataError(
        f"the column {column.name!r} has {fmt.plural(len(column.distinct), 'different value')}",
        where=f"{table.file}: --label {column.name}",
        allowed=f"values that come three times on average (or up to {MOST_CLASSES} of them), "
        f"each of at most {LONGEST_VALUE} characters, or numbers",
        fix=f"for text that the model should write: --target {column.name}",
    )


def _guess(
    table: Table,
    *,
    kind: Kind,
    text: Pick,
    target: Pick,
    group: Pick | None,
    labels: Labels | None,
    field: str,
) -> Guess:
    expression = (labels.expression if labels else "") or _alias(target.column, mend=labels is None)
    fields = {field: expression} if expression else {}
    read = _alias(text.column, mend=True)
    if table.has_system:
        fields[_free_name(table, "system_prompt")] = 'system | default("", true)'
    text_name = _free_name(table, "input_text")
    lost = sum(labels.left_out.values()) if labels else 0
    picks = (text, target, group)
    hidden = [p.column.name for p in picks if p and spelt(p.column.name).startswith("row[")]
    if "row" in table.columns and hidden:
        what = f"the column 'row' hides the way to {hidden[0]!r}, which is row[...] in a template"
        fix = "call the column 'row' something else"
        raise DataError(what, where=table.file, fix=fix)
    return Guess(
        kind=kind,
        shape=table.shape,
        text=text.column,
        target=target.column,
        text_field=text_name if read else text.column.name,
        target_field=field if expression else target.column.name,
        fields=fields | ({text_name: read} if read else {}),
        history="history" if table.has_turns else "",
        tools=table.columns[table.tools] if table.tools else None,
        calls=table.calls if target.column.name == "completion" else "",
        system=_free_name(table, "system_prompt") if table.has_system else "",
        measured=table.columns["prompt"] if table.has_turns else text.column,
        group=group.column if group else None,
        labels=labels,
        columns=tuple(table.columns),
        rows=min(target.column.filled - lost, text.column.filled),
        reasons=tuple(_reasons(table, kind, text, target, group, labels)),
        warnings=tuple(_warnings(table, text, target, labels)),
    )


_FIELDS = {
    Kind.RATING: "rating",
    Kind.CLASSES: "label",
    Kind.WRITTEN: "label",
    Kind.FREE_TEXT: "answer",
}
"""What a derived field for the target is called."""


def _alias(column: Column, *, mend: bool = False) -> str:
    """Return the expression of a field that stands for a column which cannot be used as it is.

    That is one that some rows lack, one called `choices`, which in a template are its own, and one
    with text to `mend`.
    """
    filters = mending(column) if mend else ()
    if filters:
        return " | ".join([spelt(column.name), 'default("", true)', *filters])
    if column.absent:
        return f'{spelt(column.name)} | default("")'
    return spelt(column.name) if column.name == "choices" else ""


def _free_name(table: Table, wanted: str) -> str:
    """Return a name for a derived field that no column has."""
    names = (wanted, f"{wanted}_value", *(f"{wanted}_{number}" for number in range(2, 1000)))
    return next(name for name in names if name not in table.columns)


def _reasons(
    table: Table,
    kind: Kind,
    text: Pick,
    target: Pick,
    group: Pick | None,
    labels: Labels | None,
) -> Iterator[str]:
    """Say what was taken for what, and why."""
    yield f"{table.file}: {table.rows} rows; columns {some(table.columns, most=_SHOWN)}"
    yield f"  text    {text.column.name} ({text.why})"
    yield from _mended(text.column)
    unread = unused_texts(table.columns.values(), used=(text.column.name, target.column.name))
    if table.shape is Shape.PLAIN and unread:
        listed = " and ".join(", ".join(unread).rsplit(", ", 1))
        field = f"{{{{ {spelt(unread[0])} }}}}"
        yield f"          not read: {listed}; to ask with it: {field} in a prompt"
    if table.has_system:
        yield f"  system  system (in {_rows(table.columns['system'].filled)})"
    for use, name in (("tools", table.tools), ("calls", table.calls)):
        if name:
            yield f"  {use}   {name} (in {_rows(table.columns[name].filled)})"
    values = f": {some(labels.choices, most=_SHOWN)}" if labels else ""
    yield f"  answer  {target.column.name}, {kind} ({target.why}){values}"
    if target.others:
        others = some(target.others, most=_SHOWN)
        yield f"          it could also be {others}: --label or --target COLUMN, and a --name"
    yield from (f"          {note}" for note in (labels.notes if labels else ()))
    if kind is Kind.WRITTEN:
        many = f"{len(target.column.values)} values in {_rows(target.column.filled)}"
        yield f"          {many}, too many to choose among: the model writes the answer"
    if labels and not listable(labels.choices):
        yield (
            f"          {len(labels.choices)} labels are too many to list in a prompt: the model "
            "learns them from the rows"
        )
    if group is None:
        yield "  group   none: every row stands for itself; --group COLUMN keeps rows together"
    else:
        yield f"  group   {group.column.name} ({group.why}): its rows stay on one side of the split"
        if group.others:
            yield f"          it could also be {', '.join(group.others)}: --group COLUMN"


def _warnings(table: Table, text: Pick, target: Pick, labels: Labels | None) -> Iterator[str]:
    """Say what the user should look at."""
    empty = target.column.empty
    if empty:
        yield f"{_rows(empty)} without {target.column.name!r} left out"
    if text.column.empty:
        yield f"{_rows(text.column.empty)} without {text.column.name!r} left out"
    values = (tuple(labels.words) or labels.choices) if labels else ()
    left_out: dict[str, dict[str, int]] = {}
    for value, count in (labels.left_out if labels else {}).items():
        if value.casefold() in MISSING:
            why = "it stands for nothing"
        elif any(map(NUMBER.fullmatch, values)) and not NUMBER.fullmatch(value):
            why = "not a number"
        else:
            why = "too few to learn"
        left_out.setdefault(why, {})[value] = count
    for why, counts in left_out.items():
        of = f"{target.column.name!r} {some(map(repr, counts), most=_SHOWN)}"
        yield f"{_rows(sum(counts.values()))} with {of} left out: {why}"
    if has_decimal_commas(target.column):
        yield (
            f"{target.column.name!r} has decimal commas: its numbers are taken for names, without "
            "their order. Write them with a point"
        )
    for column in table.columns.values():
        if column.name.strip() in column.values:
            yield (
                f"the column {column.name!r} holds {column.name!r} itself: if the file has no "
                "header line, its first row is taken for one. Write one in"
            )
    if labels and len(labels.choices) < 2:
        yield f"{target.column.name!r} has one value only: there is nothing to tell apart"
    yield from (labels.warnings if labels else ())
    if text.column.tags and not any("strip_tags" in line for line in _mended(text.column)):
        tagged = _rows(text.column.tags)
        yield f"{tagged} with HTML tags in {text.column.name!r}, left as they are"
    yield from (f"{note}: {_rows(count)}" for note, count in table.notes.items())
    if table.bad.found:
        yield f"{_rows(len(table.bad.found))} skipped, such as {table.bad.found[0]}"
    if table.talks:
        named = (name for name in table.no_tools if name in table.columns)
        yield from (f"the column {name!r} holds no JSON schemas: not used" for name in named)
    for column in table.columns.values():
        yield from personal_data(column, used=column in (text.column, target.column))


def _mended(column: Column) -> Iterator[str]:
    """Tell what is mended in the text as it is read."""
    filters = mending(column)
    if "mend_encoding" in filters:
        count = _rows(column.mojibake)
        yield f"          damaged encoding in {count}: read through `mend_encoding`"
    if "strip_tags" in filters:
        yield f"          HTML in {_rows(column.tags)}: read through `strip_tags`"
    elif "unescape" in filters:
        yield f"          HTML entities in {_rows(column.entities)}: read through `unescape`"


def _rows(count: int) -> str:
    """Write a number of rows: `1 row`, `2 rows`."""
    return f"{count} row" if count == 1 else f"{count} rows"
