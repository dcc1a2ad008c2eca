"""What `instil init` tells of its guesses: a line for each, and what the user should look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from instil.data.columns import MISSING, NUMBER, Column
from instil.data.readers.shapes import Shape
from instil.init.guesses import Kind, Pick, mending, personal_data, unused_texts
from instil.init.labels import Labels, listable
from instil.tasks.template import spelt

if TYPE_CHECKING:
    from instil.init.inspect import Table

SHOWN = 8
"""Names that a line lists."""


def reasons(
    table: Table,
    kind: Kind,
    text: Pick,
    target: Pick,
    group: Pick | None,
    labels: Labels | None,
) -> Iterator[str]:
    """Say what was taken for what, and why."""
    yield f"{table.file}: {table.rows} rows; columns {_some(table.columns)}"
    yield f"  text    {text.column.name} ({text.why})"
    yield from _mended(text.column)
    unread = unused_texts(table.columns.values(), used=(text.column.name, target.column.name))
    if table.shape is Shape.PLAIN and unread:
        listed = " and ".join(", ".join(unread).rsplit(", ", 1))
        field = f"{{{{ {spelt(unread[0])} }}}}"
        yield f"          not read: {listed}; to ask with it: {field} in a prompt"
    if table.has_system:
        yield f"  system  system (in {rows_of(table.columns['system'].filled)})"
    for use, name in (("tools", table.tools), ("calls", table.calls)):
        if name:
            yield f"  {use}   {name} (in {rows_of(table.columns[name].filled)})"
    values = f": {_some(labels.choices)}" if labels else ""
    yield f"  answer  {target.column.name}, {kind} ({target.why}){values}"
    if target.others:
        others = _some(target.others)
        yield f"          it could also be {others}: --label or --target COLUMN, and a --name"
    yield from (f"          {note}" for note in (labels.notes if labels else ()))
    if kind is Kind.WRITTEN:
        many = f"{len(target.column.values)} values in {rows_of(target.column.filled)}"
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


def warnings(
    table: Table, kind: Kind, text: Pick, target: Pick, labels: Labels | None
) -> Iterator[str]:
    """Say what the user should look at."""
    empty = target.column.empty
    if empty:
        yield f"{rows_of(empty)} without {target.column.name!r} left out"
    if text.column.empty:
        yield f"{rows_of(text.column.empty)} without {text.column.name!r} left out"
    values = (tuple(labels.words) or labels.choices) if labels else ()
    for value, count in (labels.left_out if labels else {}).items():
        if value.casefold() in MISSING:
            why = "it stands for nothing"
        elif any(map(NUMBER.fullmatch, values)) and not NUMBER.fullmatch(value):
            why = "not a number"
        else:
            why = "too few to learn"
        yield f"{rows_of(count)} with {target.column.name!r} {value!r} left out: {why}"
    if labels and len(labels.choices) < 2:
        yield f"{target.column.name!r} has one value only: there is nothing to tell apart"
    yield from (labels.warnings if labels else ())
    if text.column.tags and not any("strip_tags" in line for line in _mended(text.column)):
        tagged = rows_of(text.column.tags)
        yield f"{tagged} with HTML tags in {text.column.name!r}, left as they are"
    yield from (f"{note}: {rows_of(count)}" for note, count in table.notes.items())
    if table.bad.found:
        yield f"{rows_of(len(table.bad.found))} skipped, such as {table.bad.found[0]}"
    if table.talks:
        named = (name for name in table.no_tools if name in table.columns)
        yield from (f"the column {name!r} holds no JSON schemas: not used" for name in named)
    for column in table.columns.values():
        yield from personal_data(column, used=column in (text.column, target.column))


def _mended(column: Column) -> Iterator[str]:
    """Tell what is mended in the text as it is read."""
    filters = mending(column)
    if "mend_encoding" in filters:
        count = rows_of(column.mojibake)
        yield f"          damaged encoding in {count}: read through `mend_encoding`"
    if "strip_tags" in filters:
        yield f"          HTML in {rows_of(column.tags)}: read through `strip_tags`"
    elif "unescape" in filters:
        yield f"          HTML entities in {rows_of(column.entities)}: read through `unescape`"


def rows_of(count: int) -> str:
    """Write a number of rows: `1 row`, `2 rows`."""
    return f"{count} row" if count == 1 else f"{count} rows"


def _some(names: Mapping[str, object] | tuple[str, ...]) -> str:
    listed = list(names)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more
