r"""Pairs of prompt and answer in the manner of FLAN (Wei et al. 2022; Longpre et al. 2023).

A pair holds two texts with `{field}` in them, as Python's `str.format` takes them::

    ["{premise}\n\nCan we conclude that \"{hypothesis}\"?\n\n{options_}", "{answer}"]

`{answer}` is the task's answer and `{options_}` the list of its choices. A file holds a list of
pairs, or sets of them by name (`rte: [...]`), as JSON, JSONL or YAML; a pair is a list of two or a
mapping (`inputs` and `targets`, `prompt` and `completion` ...). FLAN's own `templates.py` is read
too, without running it: `PATTERNS` must be a plain literal.

Tests: `tests/tasks/imports/test_foreign.py`.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from string import Formatter

from instil.config.yamlfile import parse_yaml, read_text
from instil.errors import TaskError, nearest
from instil.tasks.imports.wording import Wording, literal

ANSWER, OPTIONS = "answer", "options_"
_OPTIONS = '{{ "OPTIONS:\\n- " ~ choices | join("\\n- ") }}'
_KEYS = (
    ("inputs", "targets"),
    ("input", "target"),
    ("input", "output"),
    ("prompt", "completion"),
    ("prompt", "target"),
)
_PATTERNS = "PATTERNS"


def read_flan(path: Path, *, name: str) -> list[Wording]:
    """Read a file of pairs.

    Args:
        path: JSON, JSONL, YAML, or FLAN's `templates.py`.
        name: Where the file holds several sets: the one to take.

    Raises:
        TaskError: No such file or set, or something in it that is no pair of texts.
    """
    pairs = _load(path)
    if isinstance(pairs, Mapping) and (name or not _pair(pairs)):
        sets = {str(key): value for key, value in pairs.items()}
        wanted = name or (next(iter(sets)) if len(sets) == 1 else "")
        if wanted not in sets:
            what = f"there is no set {name!r}" if name else "this file holds several sets"
            allowed, near = ", ".join(sorted(sets)), nearest(name, sets)
            fix = "" if near else "name one: `set: ...`"
            raise TaskError(what, where=str(path), allowed=allowed, nearest=near, fix=fix)
        pairs = sets[wanted]
    if not isinstance(pairs, list | tuple) or not pairs:
        raise TaskError("this is no list of pairs", where=str(path))
    return [
        _wording(pair, number=number, where=f"{path}: pair {number}")
        for number, pair in enumerate(pairs, start=1)
    ]


def _load(path: Path) -> object:
    text = read_text(path, error=TaskError)
    if path.suffix == ".py":
        return _literal_patterns(text, where=str(path))
    try:
        if path.suffix in (".jsonl", ".ndjson"):
            return [json.loads(line) for line in text.split("\n") if line.strip()]
        if path.suffix == ".json":
            return json.loads(text)
    except (ValueError, RecursionError) as bad:
        raise TaskError(f"this is not JSON: {bad}", where=str(path)) from None
    return parse_yaml(text, where=str(path), error=TaskError).data


def _literal_patterns(text: str, *, where: str) -> object:
    """Take the literal that is assigned to `PATTERNS`; nothing of the file is run."""
    try:
        for node in ast.parse(text).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            if any(isinstance(t, ast.Name) and t.id == _PATTERNS for t in targets):
                assert isinstance(node, ast.Assign)
                return ast.literal_eval(node.value)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as bad:
        what = f"the pairs cannot be read without running the file: {bad}"
        raise TaskError(what, where=where, fix="save them as JSON or YAML") from None
    raise TaskError(f"there is no `{_PATTERNS} = ...` in this file", where=where)


def _pair(value: object) -> tuple[str, str] | None:
    if isinstance(value, Mapping):
        keys = next((keys for keys in _KEYS if set(keys) <= set(value)), None)
        value = [value[key] for key in keys] if keys else None
    match value:
        case [str(prompt), str(target)] | (str(prompt), str(target)):
            return prompt, target
    return None


def _wording(value: object, *, number: int, where: str) -> Wording:
    pair = _pair(value)
    if pair is None:
        keys = " or ".join("/".join(keys) for keys in _KEYS)
        allowed = f"a list of two texts, or a mapping with {keys}"
        raise TaskError("this is no pair of texts", where=where, allowed=allowed)
    prompt, target = (_to_jinja(text, where=where) for text in pair)
    label = value.get("id") or value.get("name") if isinstance(value, Mapping) else None
    own = "" if pair[1].strip() == "{" + ANSWER + "}" else target
    return Wording(str(label or f"pair_{number}"), prompt, own, origin="FLAN-like pairs")


def _to_jinja(text: str, *, where: str) -> str:
    r"""Turn `str.format` into Jinja2.

    >>> _to_jinja("{text}\nGood {{or}} bad?", where="")
    '{{ text }}{{ "\\nGood {or} bad?" }}'
    """
    parts = list[str]()
    try:
        for plain, field, spec, conversion in Formatter().parse(text):
            parts.append(literal(plain))
            if field is None:
                continue
            if not field.isidentifier() or spec or conversion:
                raise ValueError(f"{{{field}}} is no plain field name")
            parts.append(_OPTIONS if field == OPTIONS else "{{ " + field + " }}")
    except ValueError as bad:
        fix = "write a brace that is none of a field twice: {{ or }}"
        raise TaskError(f"braces: {bad}", where=where, found=text, fix=fix) from None
    return "".join(parts)
