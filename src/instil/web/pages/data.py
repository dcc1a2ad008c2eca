"""The page of a file of rows: its columns, what `init` guesses and why, and the rows themselves.

What the form says goes to `write_starter`, as the options of `instil init` do; the command is
shown.

Tests: `tests/web/test_data.py`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from instil.data.columns import Column, count_columns
from instil.data.readers.rowfile import BadRows, PlacedRow
from instil.data.registry import plain
from instil.data.sources.source import read_table
from instil.errors import DataError, InstilError
from instil.init.inspect import NO_GROUP, Guess, Wishes, inspect_table
from instil.init.starter import starter_files, write_starter
from instil.init.words import write_words
from instil.sanitize import shortened
from instil.types import OnBadRow, SourceSpec
from instil.web.jobs import command_line
from instil.web.site import Site, aside, form, here, number, once, picked, told

ROWS = 20
"""Rows a page."""
MOST_ROWS = 20_000
"""Rows that are kept for leafing through."""
EXAMPLES = 3
"""Values of a column that are shown."""
ENCODINGS = tuple(
    "utf-8 cp1252 latin-1 utf-16 cp1250 cp1251 cp1253 cp1254 cp1255 cp1256 koi8-r gb18030 big5 "
    "cp932 euc_kr cp874".split()
)
"""Of a text file of rows; the first is the default."""
_FEW = 24
"""Different values up to which a column is called one of few."""


@dataclass(frozen=True, slots=True)
class Table:
    """A file's rows and columns."""

    rows: Sequence[PlacedRow]
    """The first ones, each with its place."""
    columns: Mapping[str, Column]
    """Of these rows."""
    all: bool
    """Whether these are all rows."""
    bad: Sequence[str]
    """Rows that cannot be used, each with why."""


def read(path: Path, *, encoding: str) -> Table:
    """Read a file's rows, as many as are leafed through; bad ones are passed over and listed."""
    columns: dict[str, Column] = {}
    rows, bad = list[PlacedRow](), BadRows()
    source = SourceSpec(uri=str(path), encoding=encoding, on_bad_row=OnBadRow.SKIP)
    for count, placed in enumerate(islice(read_table(source, bad=bad), MOST_ROWS + 1)):
        if count == MOST_ROWS:
            return Table(rows, columns, False, bad.found)
        rows.append(placed)
        count_columns(columns, placed[1], seen=count)
    return Table(rows, columns, True, bad.found)


def table_of(site: Site, path: Path, encoding: str = ENCODINGS[0]) -> Table:
    """Return a file's rows, read once."""
    return once(site, "table", path, partial(read, encoding=encoding), how=encoding)


def kind_of(column: Column) -> str:
    """Say what a column holds, in a word or two."""
    filled = max(1, column.filled)
    if len(column.distinct) <= _FEW and filled >= 4 * len(column.distinct):
        return f"{len(column.distinct)} values"
    for count, word in (
        (column.nested, "lists"),
        (column.dates, "dates"),
        (column.links, "links"),
        (column.codes, "codes"),
        (column.numbers, "numbers"),
    ):
        if 2 * count > filled:
            return word
    return "text"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the form says; empty: as guessed."""

    text: str = ""
    label: str = ""
    target: str = ""
    group: str = ""
    name: str = ""
    encoding: str = ENCODINGS[0]
    skip: bool = False
    names: Mapping[str, str] | None = None
    free: bool = False

    @property
    def wishes(self) -> Wishes:
        """The same for `init`.

        Raises:
            DataError: A text is to be written, and nothing says which column holds it.
        """
        if self.free and not self.target:
            raise DataError(
                "a text is to be written, and nothing says which",
                where="Answer",
                fix="name the column that holds it, in place of 'as guessed'",
            )
        return Wishes(self.text, self.label, self.target, self.group, self.names or {})

    @property
    def on_bad_row(self) -> OnBadRow:
        """What becomes of rows that cannot be used."""
        return OnBadRow.SKIP if self.skip else OnBadRow.ERROR

    def command(self, file: str, *, force: bool) -> list[str]:
        """Return the command that does the same."""
        said = {"--text": self.text, "--label": self.label, "--target": self.target}
        said |= {"--group": self.group, "--name": self.name}
        said |= {"--folder": os.path.dirname(file.removeprefix("./"))}
        words = ["init", file, *(p for option in said.items() if option[1] for p in option)]
        words += ["--label-names", write_words(self.names)] if self.names else []
        words += ["--encoding", self.encoding] if self.encoding != ENCODINGS[0] else []
        words += ["--on-bad-row", "skip"] if self.skip else []
        return [*words, *(["--force"] if force else [])]


def asked_of(said: Mapping[str, str]) -> Asked:
    """Read the form; a name of a label counts where it is another than the value."""
    names = {
        name.removeprefix("name:"): word.strip()
        for name, word in said.items()
        if name.startswith("name:") and word.strip()
    }
    free = said.get("kind") == "free"
    return Asked(
        text=said.get("text", ""),
        label="" if free else said.get("label", ""),
        target=said.get("label", "") if free else "",
        group=said.get("group", ""),
        name=said.get("task", "").strip(),
        encoding=picked(dict.fromkeys(ENCODINGS), said.get("encoding", "")),
        skip="skip" in said,
        names=names if any(value != word for value, word in names.items()) and not free else None,
        free=free,
    )


async def data(request: Request) -> Response:
    """`GET /data/{name}`: columns, guess and form; `?from=` leafs through the rows."""
    site, asked = here(request), request.query_params
    path = site.workplace.path(request.path_params["name"])
    first, how = number(asked.get("from", "")), asked_of(dict(asked))
    return await aside(lambda: _page(site, path, how, first=first))


async def guess(request: Request) -> Response:
    """`POST /data/{name}/guess`: the guess anew, as the form is changed."""
    site, said = here(request), await form(request)
    path = site.workplace.path(request.path_params["name"])

    def look() -> Response:
        values = guessed(site, path, asked_of(said))
        return site.page("guess.part.html.jinja", name=site.workplace.name(path), **values)

    return await aside(look)


async def write(request: Request) -> Response:
    """`POST /data/{name}`: write the task and the recipe, as `instil init` does."""
    site, said = here(request), await form(request)
    path = site.workplace.path(request.path_params["name"])
    asked = asked_of(said)

    def make() -> Response:
        try:
            starter = write_starter(
                path,
                folder=path.parent,
                wishes=asked.wishes,
                name=asked.name or None,
                model=site.default_model,
                encoding=asked.encoding,
                on_bad_row=asked.on_bad_row,
                overwrite="force" in said,
            )
        except InstilError as error:
            return _page(site, path, asked, first=0, error=error)
        return site.go("task", site.workplace.name(starter.task_file))

    return await aside(make)


def _page(
    site: Site, path: Path, asked: Asked, *, first: int, error: InstilError | None = None
) -> Response:
    try:
        table = table_of(site, path, asked.encoding)
    except InstilError as bad:
        name = site.workplace.name(path)
        return site.page(
            "unreadable.html.jinja",
            name=name,
            encodings=ENCODINGS,
            asked=asked,
            error=told(bad)[0],
            status=400,
        )
    columns = [
        (
            column.name,
            kind_of(column),
            f"{column.filled:,} of {len(table.rows):,}",
            _examples(table.rows, column.name),
        )
        for column in table.columns.values()
    ]
    names = [*table.columns]
    page = [
        (place, [shortened(plain(row.get(name)), most=300) for name in names])
        for place, row in table.rows[first : first + ROWS]
    ]
    values = guessed(site, path, asked)
    if error is not None:
        values["error"] = told(error)[0]
    return site.page(
        "data.html.jinja",
        status=400 if error else 200,
        name=site.workplace.name(path),
        table=table,
        columns=columns,
        names=names,
        rows=page,
        first=first,
        page=ROWS,
        asked=asked,
        written=_written(path, asked),
        no_group=NO_GROUP,
        encodings=ENCODINGS,
        **values,
    )


def guessed(site: Site, path: Path, asked: Asked) -> dict[str, Any]:
    """Return what `init` makes of the file, or why it makes nothing."""

    def look(path: Path) -> Guess:
        source = SourceSpec(uri=str(path), encoding=asked.encoding, on_bad_row=asked.on_bad_row)
        return inspect_table(source, wishes=asked.wishes)

    name = site.workplace.name(path)
    line = command_line(asked.command(name, force=_written(path, asked)))
    try:
        guess = once(site, "guess", path, look, how=repr(asked))
    except InstilError as error:
        shown = list[tuple[str, str]]()
        if asked.names:  # a word may be wrong, or half typed: the fields stay as they are
            unworded = guessed(site, path, replace(asked, names=None))
            shown = [(value, asked.names.get(value, "")) for value, _ in unworded["labels"]]
        return {"guess": None, "error": told(error)[0], "line": line, "labels": shown}
    labels = guess.labels
    given = dict(labels.words) if labels else {}
    values = list(given) or (list(labels.choices) if labels else [])
    shown = [(value, given.get(value, value)) for value in values]
    return {"guess": guess, "error": "", "line": line, "labels": shown}


def _written(path: Path, asked: Asked) -> bool:
    """Whether a file is there that would be written over."""
    try:
        files = starter_files(path, folder=path.parent, name=asked.name or None)
    except DataError:  # no name of a file: told when it is to be written
        return False
    return any(file.exists() for file in files)


def _examples(rows: Sequence[PlacedRow], name: str) -> list[str]:
    examples: dict[str, None] = {}
    for _, row in rows[:500]:
        if text := plain(row.get(name)):
            examples.setdefault(shortened(text, most=80))
        if len(examples) == EXAMPLES:
            break
    return [*examples]
