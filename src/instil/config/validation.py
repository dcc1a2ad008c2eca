"""From plain values to pydantic models, with every mistake told as a `Problem`.

`validate` checks the values of a file against a model; whoever calls it says how a place is named
(`YamlFile.place` gives file and line)::

    >>> class Loop(BaseModel):
    ...     epochs: int
    >>> validate(Loop, {"epochs": 2}, place=lambda loc: "loop.yaml:1", error=InstilError)
    Loop(epochs=2)
"""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Callable, Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from instil.config.yamlfile import Loc
from instil.errors import InstilError, Problem, nearest

Model = TypeVar("Model", bound=BaseModel)
_LONGEST_FOUND = 120


def validate(
    model: type[Model],
    data: object,
    *,
    place: Callable[[Loc], str],
    error: type[InstilError],
) -> Model:
    """Turn plain values into a pydantic model.

    They go in as JSON, in which pydantic's strict mode takes lists for tuples and text for enums,
    but neither `true` for a number nor `3` for a text.

    Args:
        model: The form of the data.
        data: As `YamlFile.data`.
        place: Names the file and line of a value: `YamlFile.place`.
        error: The class to raise, with every mistake at once.
    """
    try:
        return model.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as bad:
        raise error(*problems_of(bad, data, model=model, place=place)) from None


def problems_of(
    bad: ValidationError,
    data: object,
    *,
    model: type[BaseModel],
    place: Callable[[Loc], str],
) -> list[Problem]:
    """Tell pydantic's complaints about `data` as `Problem`s, one a value."""
    grouped: dict[Loc, list[ErrorDetails]] = {}
    for detail in bad.errors(include_url=False):
        grouped.setdefault(_way(detail, data), []).append(detail)
    # A complaint about something inside a value goes before one about the value: a list with a bad
    # item counts as too short, and as none of the other arms of a union.
    return [
        _problem(loc, details, model=model, place=place(loc))
        for loc, details in grouped.items()
        if not any(len(other) > len(loc) and other[: len(loc)] == loc for other in grouped)
    ]


def _way(detail: ErrorDetails, data: object) -> Loc:
    """Leave out what pydantic puts in for the arm of a union: `learning_rate.literal['auto']`."""
    loc: Loc = ()
    for part in detail["loc"]:
        if isinstance(data, dict) and part in data:
            loc, data = (*loc, part), data[part]
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            loc, data = (*loc, part), data[part]
    return (*loc, detail["loc"][-1]) if detail["type"] == "missing" else loc


def _problem(
    loc: Loc, details: Sequence[ErrorDetails], *, model: type[BaseModel], place: str
) -> Problem:
    first = details[0]
    if first["type"] == "extra_forbidden":
        return _unknown_key(loc, model=model, place=place)
    if first["type"] == "missing":
        return Problem(f"the key {dotted(loc)!r} is missing", where=place)
    if first["type"] in ("value_error", "assertion_error") and len(details) == 1:
        what = str(first.get("ctx", {}).get("error", first["msg"]))
        return Problem(f"{dotted(loc)}: {what}" if loc else what, where=place)
    options = [
        option
        for detail in details
        if detail["type"] in ("literal_error", "enum")
        for option in re.findall(r"'(.*?)'", str(detail.get("ctx", {}).get("expected", "")))
    ]
    value = first["input"]
    found = json.dumps(value, ensure_ascii=False, default=str)
    if len(found) > _LONGEST_FOUND:
        found = found[: _LONGEST_FOUND - 3] + "..."
    return Problem(
        f"{dotted(loc)} has a value that it cannot take" if loc else "this cannot be read",
        where=place,
        found=found,
        allowed=" or ".join(dict.fromkeys(_allowed(detail) for detail in details)),
        nearest=nearest(value, options) if isinstance(value, str) else "",
    )


def _unknown_key(loc: Loc, *, model: type[BaseModel], place: str) -> Problem:
    key = str(loc[-1])
    section = section_at(loc[:-1], model)
    siblings = list(section.model_fields) if section else []
    close = nearest(key, siblings)
    elsewhere = [name for name in dotted_names(model) if name.rsplit(".", 1)[-1] == key]
    if elsewhere and not close:
        above = elsewhere[0].rpartition(".")[0].replace(".0", "")
        return Problem(
            f"unknown key {dotted(loc)!r}",
            where=place,
            nearest=elsewhere[0],
            fix=f"move it under `{above}:`" if above else "move it to the top level",
        )
    return Problem(
        f"unknown key {dotted(loc)!r}", where=place, allowed=", ".join(siblings), nearest=close
    )


_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "text (in quotes where it looks like a number)",
    "model": "a section with keys of its own",
    "dict": "a section with keys of its own",
    "tuple": "a list, as in [a, b]",
    "list": "a list, as in [a, b]",
    "none": "null",
}
_BOUNDS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


def _allowed(detail: ErrorDetails) -> str:
    """Say what pydantic would have taken, by the kind of its complaint."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        return f"{words} {context[key]}"
    if kind in ("literal_error", "enum"):
        return str(context["expected"]).replace("'", "")
    if kind == "too_short":
        return f"at least {context['min_length']}"
    if kind == "string_too_short":
        return "text that is not empty"
    if kind == "string_pattern_mismatch":
        return f"text like {context['pattern']}"
    if kind == "value_error":
        return str(context.get("error", detail["msg"]))
    return _KINDS.get(kind.split("_")[0], detail["msg"])


def dotted(loc: Loc) -> str:
    """Write a way as users do: `tasks.0.train`."""
    return ".".join(str(part) for part in loc)


def dotted_names(model: type[BaseModel]) -> list[str]:
    """List every key of a model and its sections, `tasks.0.train` standing for any list item."""
    names: list[str] = []
    for name, field in model.model_fields.items():
        names.append(name)
        inner, in_list = _inner(field.annotation)
        if inner is not None:
            prefix = f"{name}.0" if in_list else name
            names += [f"{prefix}.{below}" for below in dotted_names(inner)]
    return names


def section_at(loc: Loc, model: type[BaseModel]) -> type[BaseModel] | None:
    """Return the model that describes the keys at `loc`, or None where there are none."""
    current: type[BaseModel] | None = model
    for part in loc:
        if isinstance(part, int):
            continue
        field = current.model_fields.get(part) if current else None
        current = _inner(field.annotation)[0] if field else None
    return current


def _inner(annotation: object) -> tuple[type[BaseModel] | None, bool]:
    """Find the model inside an annotation, and whether it stands in a list of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    in_list = typing.get_origin(annotation) in (tuple, list)
    for argument in typing.get_args(annotation):
        inner, nested = _inner(argument)
        if inner is not None:
            return inner, in_list or nested
    return None, False
