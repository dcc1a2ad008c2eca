"""Readers of JSON: a list of objects, or one object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

from instil.data.rowfile import Faults, PlacedRow, RowFile, excerpt
from instil.data.textfile import reading_text
from instil.errors import DataError, Problem


def read_jsonl(file: RowFile) -> Iterator[PlacedRow]:
    """Read one JSON object a line; empty lines are passed over.

    Raises:
        DataError: for lines that are not a JSON object, with their numbers; for a file without one.
    """
    faults, rows = Faults(file.place), 0
    with reading_text(file.path, encoding=file.encoding, place=file.place) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            rows += 1
            place = f"{file.place}:{number}"
            try:
                columns = _object(_parse(line, place=file.place, line=number), place=place)
            except DataError as error:
                faults.add(error.problems[0])
                continue
            if not faults.count:
                yield place, columns
    faults.done(rows=rows, fix="write one JSON object a line")


def read_json(file: RowFile) -> Iterator[PlacedRow]:
    """Read a JSON list of objects, or an object of which exactly one value is such a list.

    In the latter case the place of a row says which one was taken: `data.json "examples" row 3`.
    An object of nothing but objects is taken for rows by name: `{"a": {...}, "b": {...}}` has two,
    with the names in the column `key`.

    Raises:
        DataError: for text that is not JSON (with its line), or not such a list.
    """
    with reading_text(file.path, encoding=file.encoding, place=file.place) as stream:
        text = stream.read()
    faults, rows = Faults(file.place), 0
    place, items = _items(_parse(text, place=file.place), file.place) if text.strip() else ("", [])
    for rows, item in enumerate(items, start=1):
        try:
            columns = _object(item, place=f"{place} row {rows}")
        except DataError as error:
            faults.add(error.problems[0])
            continue
        if not faults.count:
            yield f"{place} row {rows}", columns
    faults.done(rows=rows, fix="write a list of objects, one a row")


def _parse(text: str, *, place: str, line: int = 0) -> object:
    """Parse JSON; `line` is the number of the text's only line, where it has but one."""
    where = f"{place}:{line}" if line else place
    try:
        value: object = json.loads(text, object_pairs_hook=_without_doubles)
        if "\\ud" in text.lower():
            # half of a surrogate pair is a character that no encoder takes
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise DataError(
            Problem(
                f"this is not valid JSON: {error.msg}, at column {_column(error)}",
                where=f"{place}:{line or error.lineno}",
                found=excerpt(text, at=error.pos),
                fix=_json_fix(error),
            )
        ) from error
    except DataError as error:
        raise DataError(*(replace(problem, where=where) for problem in error.problems)) from None
    except (ValueError, RecursionError) as error:
        raise DataError(Problem(f"this JSON cannot be used: {error}", where=where)) from error
    return value


def _column(error: json.JSONDecodeError) -> int:
    """Where the JSON went wrong; text that ends too soon did so at its end, not in a next line."""
    end = len(error.doc.rstrip())
    return error.colno if error.pos < end else end - error.doc.rfind("\n", 0, end)


def _json_fix(error: json.JSONDecodeError) -> str:
    if "Extra data" in error.msg:
        return "one object a line is read with `format: jsonl`"
    if "property name enclosed in double quotes" in error.msg:
        return "JSON wants double quotes, and no comma after the last item"
    return ""


def _without_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object's keys; json would let the last of two with one name win, in silence."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise DataError(Problem(f"an object has the key {twice!r} twice", fix="rename one of them"))
    return found


def _object(value: object, *, place: str) -> dict[str, object]:
    if isinstance(value, dict):
        return value
    raise DataError(
        Problem(
            "a row must be an object",
            where=place,
            found=excerpt(json.dumps(value, ensure_ascii=False)),
            allowed='{"text": "...", "label": "..."}',
        )
    )


def _items(value: object, place: str) -> tuple[str, Sequence[object]]:
    """The list of rows, and what to call it."""
    if isinstance(value, list):
        return place, value
    keys: list[str] = []
    if isinstance(value, dict):
        if len(value) > 1 and all(isinstance(item, dict) for item in value.values()):
            return place, [{"key": key, **item} for key, item in value.items()]
        lists = {key: items for key, items in value.items() if isinstance(items, list)}
        of_objects = [key for key, items in lists.items() if items and isinstance(items[0], dict)]
        keys = of_objects or list(lists)
        if len(keys) == 1:
            return f'{place} "{keys[0]}"', lists[keys[0]]
    raise DataError(
        Problem(
            "this is not a list of objects, one a row",
            where=place,
            found=_described(value),
            allowed='[{"text": "...", "label": "..."}, ...], or an object with one such list',
            fix=f"keep one of the lists {', '.join(keys)}" if keys else "",
        )
    )


def _described(value: object) -> str:
    if isinstance(value, dict):
        return f"an object with the keys {', '.join(list(value)[:8])}" if value else "{}"
    return excerpt(json.dumps(value, ensure_ascii=False))
