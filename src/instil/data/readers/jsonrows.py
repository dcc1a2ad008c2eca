"""Readers of JSON: a list of objects, or one object a line.

Tests: `tests/data/test_readers.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

from instil.data.readers.rowfile import Faults, PlacedRow, RowFile, check_columns, excerpt
from instil.data.readers.textfile import bad_bytes, lines_of, text_of
from instil.errors import DataError, Problem


def read_jsonl(file: RowFile) -> Iterator[PlacedRow]:
    """Read one JSON object a line; empty lines are passed over.

    Raises:
        DataError: for lines that are not a JSON object, with their numbers; for a file without one.
    """
    faults, rows = Faults(file.place, file.bad), 0
    commas: list[int] = []
    with text_of(file) as text:
        for number, line in enumerate(lines_of(text, place=file.place), start=1):
            if not line.strip():
                continue
            rows += 1
            place = f"{file.place}:{number}"
            try:
                _check_bytes(line, file, where=place)
                columns = _object(_parse(line, place=file.place, line=number), place=place)
            except DataError as error:
                item, comma, after = line.rpartition(",")
                if file.bad is None and comma and not after.strip() and is_object(item):
                    commas.append(number)
                else:
                    faults.add(error.problems[0])
                continue
            if not faults.count and not commas:
                yield place, columns
    if commas:  # list items rather than lines of JSON: told once for all of them
        more = f", and {len(commas) - 1} more lines" if len(commas) > 1 else ""
        problem = Problem(
            f"a comma follows the object{more}",
            where=f"{file.place}:{commas[0]}",
            allowed="one JSON object a line, and nothing after it",
            fix="take the commas away, or put the rows into a list: [ before them, ] after",
        )
        faults.add(problem)
    faults.done(rows=rows, fix="write one JSON object a line")


def is_object(text: str) -> bool:
    """Whether a text is a JSON object, and nothing more."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def read_json(file: RowFile) -> Iterator[PlacedRow]:
    """Read a JSON list of objects, or an object of which exactly one value is such a list.

    In the latter case the place of a row says which one was taken: `data.json "examples" row 3`.
    A table that pandas wrote by columns (`{"text": {"0": ..., "1": ...}, "label": {...}}`), or as
    `{"columns": [...], "data": [[...], ...]}`, or one list a column, is read as its rows.
    Any other object of nothing but objects is taken for rows by name: `{"a": {...}, "b": {...}}`
    has two, with the names in the column `key`.

    Raises:
        DataError: for text that is not JSON (with its line), or not such a list.
    """
    faults = Faults(file.place, file.bad)
    with text_of(file) as stream:
        text = stream.read()
    place, items = _items(_parse(text, place=file.place), file.place) if text.strip() else ("", [])
    del text
    for number, item in enumerate(items, start=1):
        where = f"{place} row {number}"
        try:
            if file.bad is not None:
                _check_bytes(json.dumps(item, ensure_ascii=False), file, where=where)
            columns = _object(item, place=where)
        except DataError as error:
            faults.add(error.problems[0])
            continue
        if not faults.count:
            yield where, columns
    faults.done(rows=len(items), fix="write a list of objects, one a row")


def _check_bytes(text: str, file: RowFile, *, where: str) -> None:
    wrong = bad_bytes([text], file.encoding) if file.bad is not None else ""
    if wrong:
        raise DataError(wrong, where=where)


def _parse(text: str, *, place: str, line: int = 0) -> object:
    """Parse JSON; `line` is the number of the text's only line, where it has but one."""
    where = f"{place}:{line}" if line else place
    try:
        value: object = json.loads(text, object_pairs_hook=_without_doubles)
        if "\\ud" in text.lower():  # half of a surrogate pair is a character that no encoder takes
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        end, column = len(text.rstrip()), error.colno
        if error.pos >= end:  # text that ends too soon did so at its end, not in a next line
            column = end - text.rfind("\n", 0, end)
        fix = ""
        if "property name enclosed in double quotes" in error.msg:
            fix = "JSON wants double quotes, and no comma after the last item"
        elif "Extra data" in error.msg:
            fix = "one object a line is read with `format: jsonl`"
            # In line 2 it may be one object a line.
            if text[error.pos :].lstrip().startswith(",") or error.lineno > 2:
                fix = (
                    "put the values into one list, [..., ...], or write one object a line (.jsonl)"
                )
        raise DataError(
            f"this is not valid JSON: {error.msg}, at column {column}",
            where=f"{place}:{line or error.lineno}",
            found=excerpt(text, at=error.pos),
            fix=fix,
        ) from error
    except DataError as error:
        raise DataError(*(replace(problem, where=where) for problem in error.problems)) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"this JSON cannot be used: {error}", where=where) from error
    return value


def _without_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object's keys; json would let the last of two with one name win, in silence."""
    columns = dict(pairs)
    if len(columns) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise DataError(f"an object has the key {twice!r} twice", fix="rename one of them")
    return columns


def _object(value: object, *, place: str) -> dict[str, object]:
    if isinstance(value, dict):
        return value
    raise DataError(
        "a row must be an object",
        where=place,
        found=excerpt(json.dumps(value, ensure_ascii=False)),
        allowed='{"text": "...", "label": "..."}',
    )


def _items(value: object, place: str) -> tuple[str, Sequence[object]]:
    """The list of rows, and what to call it."""
    if isinstance(value, list):
        return place, value
    keys, found = list[str](), excerpt(json.dumps(value, ensure_ascii=False))
    if isinstance(value, dict):
        found = f"an object with the keys {', '.join(list(value)[:8])}" if value else "{}"
        table = _table(value, place)
        if table is not None:
            return place, table
        if len(value) > 1 and all(isinstance(item, dict) for item in value.values()):
            return place, [{"key": key, **item} for key, item in value.items()]
        lists = {key: items for key, items in value.items() if isinstance(items, list)}
        of_objects = [key for key, items in lists.items() if items and isinstance(items[0], dict)]
        keys = of_objects or list(lists)
        if len(keys) == 1:
            return f'{place} "{keys[0]}"', lists[keys[0]]
    raise DataError(
        "this is not a list of objects, one a row",
        where=place,
        found=found,
        allowed='[{"text": "...", "label": "..."}, ...], or an object with one such list',
        fix=f"keep one of the lists {', '.join(keys)}" if keys else "",
    )


def _table(value: dict[str, object], place: str) -> list[dict[str, object]] | None:
    """The rows of a table that is written by columns; None where the object is no such table.

    Raises:
        DataError: Columns or rows of different lengths.
    """
    columns, data = value.get("columns"), value.get("data")
    if isinstance(columns, list) and isinstance(data, list) and _are(data, list):
        names = [str(name) for name in columns]
        check_columns(names, where=f"{place}, columns")
        uneven = next((n for n, cells in enumerate(data, 1) if len(cells) != len(names)), 0)
        if uneven:
            what = f"{len(data[uneven - 1])} cells, but there are {len(names)} columns"
            raise DataError(what, where=f"{place} row {uneven}")
        return [dict(zip(names, cells, strict=True)) for cells in data]
    by_index = {name: cells for name, cells in value.items() if isinstance(cells, dict)}
    index = list(next(iter(by_index.values()), {}))
    if len(by_index) == len(value) and _is_index(index) and not _is_index(list(value)):
        if all(list(cells) == index for cells in by_index.values()):
            return [{name: cells[key] for name, cells in by_index.items()} for key in index]
    lists = {name: cells for name, cells in value.items() if isinstance(cells, list)}
    if len(lists) == len(value) > 1 and not any(_are(cells, dict) for cells in lists.values()):
        lengths = {name: len(cells) for name, cells in lists.items()}
        if len(set(lengths.values())) > 1:
            return None
        rows = zip(*lists.values(), strict=True)
        return [dict(zip(lists, cells, strict=True)) for cells in rows]
    return None


def _is_index(names: Sequence[str]) -> bool:
    """Whether names are the whole numbers that pandas gives rows."""
    return bool(names) and all(name.isascii() and name.isdigit() for name in names)


def _are(items: Sequence[object], kind: type) -> bool:
    return bool(items) and all(isinstance(item, kind) for item in items)
