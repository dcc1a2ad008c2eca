r"""YAML files, read with the line of every value.

YAML 1.2 as ruamel.yaml reads it: `1e-4` is a number, `yes` is text, a key given twice an error::

    >>> file = parse_yaml("train:\n  learning_rate: 1e-4\n", where="r.yaml", error=InstilError)
    >>> file.data
    {'train': {'learning_rate': 0.0001}}
    >>> file.place(("train", "learning_rate"))
    'r.yaml:2'

A file of a known form is read in two steps, each of which gathers every mistake: `read_yaml` (or
`parse_yaml`) here, then `validation.validate`.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq, TaggedScalar
from ruamel.yaml.composer import Composer
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import AliasEvent

from instil.errors import InstilError, Problem, nearest

Loc = tuple[str | int, ...]
"""The way to a value: `("tasks", 0, "train")`."""

LONGEST = 1_000_000
"""Characters of a file."""
MOST_VALUES = 10_000
"""Keys, list items and values of a file, those that an alias repeats counted each time."""
DEEPEST = 100
"""Lists and mappings within one another."""
LARGEST = 1024
"""Bits of a whole number."""


class _TooMuch(MarkedYAMLError):
    """The text is YAML, and more of it than a recipe or a task can be."""


class BoundedComposer(Composer):
    """Stops at what is too deep or too much while it is read, before time and memory are gone."""

    def __init__(self, loader: Any = None) -> None:
        super().__init__(loader=loader)
        self.values = 0
        self.open: list[object] = []  # the anchors (or None) of the values that are being read
        self.warn_double_anchors = False  # an anchor may be given anew

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a value and all in it."""
        event = self.parser.peek_event()
        alias = isinstance(event, AliasEvent)
        self.values += 1
        if len(self.open) >= DEEPEST:
            raise _TooMuch(None, None, _TOO_DEEP, event.start_mark)
        if self.values > MOST_VALUES:
            raise _TooMuch(None, None, _TOO_MANY, event.start_mark)
        if alias and event.anchor in self.open:
            raise _TooMuch(None, None, "a value is repeated within itself", event.start_mark)
        self.open.append(None if alias else event.anchor)
        node = super().compose_node(parent, index)
        self.open.pop()
        return node


_TOO_DEEP = f"lists and mappings may be nested {DEEPEST} deep at most"
_OPENED = re.compile(r"(?:[\[{]\s{0,9}){100}")
_TOO_MANY = f"the file has more than {MOST_VALUES:,} keys and values, aliases written out"


@dataclass(frozen=True, slots=True)
class YamlFile:
    """A YAML text as plain Python values, and the line of each."""

    where: str
    """The file's name, for messages."""
    data: object
    """dict, list, str, int, float, bool or None, nested."""
    lines: Mapping[Loc, int]
    """The way to a key or list item -> its line, counted from 1."""

    def place(self, loc: Loc = ()) -> str:
        """Return `file:line` of the value at `loc`, or of the nearest thing around it."""
        while loc and loc not in self.lines:
            loc = loc[:-1]
        return f"{self.where}:{self.lines[loc]}" if loc else self.where


def read_text(path: Path, *, error: type[InstilError]) -> str:
    """Read a UTF-8 text file.

    Args:
        path: The file.
        error: The class to raise when it is missing, a folder or not UTF-8.
    """
    try:
        if path.is_dir():
            raise error("this is a folder, not a file", where=str(path))
        if path.is_symlink() and not path.exists():
            raise error("this link leads nowhere", where=str(path))
        if path.exists() and not path.is_file():
            what = "this is a device or a pipe, not a file"
            raise error(what, where=str(path), fix="save it as a file first")
        if not path.exists():
            beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            close = nearest(path.name, beside)
            lost = "" if path.parent.is_dir() else f"the folder {path.parent} does not exist either"
            raise error(
                "there is no such file",
                where=str(path),
                nearest=str(path.parent / close) if close else "",
                fix=lost,
            )
        with path.open("rb") as file:
            data = file.read(4 * LONGEST + 1)  # a character has four bytes at most
    except (OSError, ValueError) as bad:  # ValueError: a zero byte in the name
        what = f"this cannot be read: {getattr(bad, 'strerror', None) or bad}"
        raise error(what, where=str(path)) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as bad:
        line = data.count(b"\n", 0, bad.start) + 1
        raise error(
            "this file is not UTF-8 text",
            where=f"{path}:{line}",
            found=f"byte 0x{data[bad.start]:02x} at position {bad.start}",
            fix="save the file with the encoding UTF-8",
        ) from None


def read_yaml(path: Path, *, error: type[InstilError]) -> YamlFile:
    """Read a YAML file; see `read_text` and `parse_yaml` for what is raised."""
    return parse_yaml(read_text(path, error=error), where=str(path), error=error)


def parse_yaml(text: str, *, where: str, error: type[InstilError]) -> YamlFile:
    """Read YAML text into plain values and their lines.

    Args:
        text: YAML 1.2.
        where: The file's name, for messages.
        error: The class to raise on a syntax error, a key given twice or a tag.
    """
    if len(text) > LONGEST:
        raise error(f"the file has more than {LONGEST:,} characters", where=where)
    if brackets := _OPENED.search(text):  # ruamel takes seconds to look through them
        line = text.count("\n", 0, brackets.start()) + 1
        raise error(_TOO_DEEP, where=f"{where}:{line}")
    yaml = YAML(typ="rt")
    yaml.Composer = BoundedComposer
    lines: dict[Loc, int] = {}
    problems: list[Problem] = []
    try:
        data = _plain(yaml.load(text), loc=(), lines=lines, problems=problems)
    except MarkedYAMLError as bad:
        raise error(_syntax_problem(bad, text, where=where)) from None
    except Exception as bad:  # on odd texts ruamel raises all kinds, ArithmeticError for one
        raise error("this is not YAML", where=where, found=str(bad)) from None
    file = YamlFile(where=where, data=data, lines=lines)
    if problems:
        raise error(*(replace(p, where=f"{where}:{p.where}") for p in problems))
    return file


def parse_scalar(text: str, *, where: str, error: type[InstilError]) -> object:
    """Read one value as YAML 1.2 does: `2e-4` a number, `yes` text, `[0, 1]` a list."""
    try:
        return parse_yaml(text, where=where, error=error).data
    except InstilError as bad:
        raise error(*(replace(p, where=where) for p in bad.problems)) from None


def _syntax_problem(bad: MarkedYAMLError, text: str, *, where: str) -> Problem:
    mark = bad.problem_mark or bad.context_mark
    place = f"{where}:{mark.line + 1}" if mark else where
    what = (bad.problem or "this is not YAML").strip()
    if isinstance(bad, _TooMuch):
        return Problem(what, where=place)
    twice = re.match(r'found duplicate key "(.*?)"', what)
    if twice:
        first, start, second = "", bad.context_mark, bad.problem_mark
        if start and second:  # where the first is not written otherwise, its line can be told
            lines = enumerate(text.splitlines()[start.line : second.line], start.line + 1)
            same = [number for number, line in lines if line.find(twice[1]) == second.column]
            first = f" (first in line {same[0]})" if same else ""
        return Problem(f"the key {twice[1]!r} is given twice{first}", where=place, fix="keep one")
    if "found another document" in what:
        return Problem("this holds more than one YAML document", where=place, fix="keep one")
    hint = "indent with spaces, not with tabs" if "\\t" in what else ""
    return Problem(f"this is not YAML: {what}", where=place, fix=hint)


def _plain(value: object, *, loc: Loc, lines: dict[Loc, int], problems: list[Problem]) -> object:
    """Turn ruamel's types into Python's own, noting lines; problems carry a bare line number."""
    if len(loc) > DEEPEST or len(lines) > MOST_VALUES:  # an alias may repeat what has others
        raise _TooMuch(None, None, _TOO_DEEP if len(loc) > DEEPEST else _TOO_MANY, None)
    tag = getattr(value, "tag", None)
    if isinstance(value, TaggedScalar) or (tag is not None and tag.value and "!" in str(tag)):
        line = str(lines.get(loc, 1))
        problems.append(Problem("tags are not allowed here", where=line, found=str(tag)))
        return None
    if isinstance(value, CommentedMap):
        mapping: dict[str, object] = {}
        for key, item in value.items():
            inner = _noted((*loc, str(key)), value.lc.data, key, lines)
            mapping[str(key)] = _plain(item, loc=inner, lines=lines, problems=problems)
        return mapping
    if isinstance(value, CommentedSeq):
        items = []
        for index, item in enumerate(value):
            inner = _noted((*loc, index), value.lc.data, index, lines)
            items.append(_plain(item, loc=inner, lines=lines, problems=problems))
        return items
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and value.bit_length() > LARGEST:
        raise ValueError(f"a whole number has more than {LARGEST:,} bits")
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()  # YAML 1.2 knows no dates: it is text
    return bool(value) if type(value).__name__ == "ScalarBoolean" else str(value)


def _noted(loc: Loc, marks: Mapping[object, list[int]], key: object, lines: dict[Loc, int]) -> Loc:
    if marks and key in marks:
        lines[loc] = marks[key][0] + 1
    return loc
