"""`--set train.learning_rate=2e-4`: one value of a YAML file, changed on the command line.

>>> class Loop(BaseModel):
...     learning_rate: float = 1e-4
>>> data: dict[str, object] = {}
>>> override(data, "learning_rate=2e-4", model=Loop, error=InstilError)
('learning_rate',)
>>> data
{'learning_rate': 0.0002}
"""

from __future__ import annotations

import re
from collections.abc import Callable

from pydantic import BaseModel

from instil.config.validation import dotted, dotted_names
from instil.config.yamlfile import Loc, parse_scalar
from instil.errors import InstilError, nearest


def override(
    data: dict[str, object],
    text: str,
    *,
    model: type[BaseModel],
    error: type[InstilError],
    taken_as: Callable[[Loc, object], object] = lambda _, value: value,
) -> Loc:
    """Write one `key=value` into plain values; return the way to it.

    Args:
        data: As `YamlFile.data`; changed in place.
        text: `train.learning_rate=2e-4` or `tasks.0.train=100`; the value is read as YAML.
        model: The form of the data, which says what keys there are.
        error: The class to raise on another form, an unknown key or a list item that is not there.
        taken_as: Returns what is written for a place and its value.
    """
    where = f"--set {text}"
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    # A list item's number is one; no list has a million items.
    loc: Loc = tuple(int(part) if re.fullmatch(r"[0-9]{1,6}", part) else part for part in parts)
    general = dotted(tuple(0 if isinstance(part, int) else part for part in loc))
    names = dotted_names(model)
    if not equals:
        raise error("this is not of the form key=value", where=where)
    if general not in names:
        last = general.rsplit(".", 1)[-1]
        same = [name for name in names if name.rsplit(".", 1)[-1] == last]
        near = nearest(general, same) or (same[0] if same else nearest(general, names))
        raise error(f"unknown key {key!r}", where=where, nearest=near)
    read = taken_as(loc, parse_scalar(value, where=where, error=error))
    if not _put(data, loc, read):
        raise error(f"there is no {dotted(loc)!r} to set", where=where)
    return loc


def _put(data: object, loc: Loc, value: object) -> bool:
    """Set a nested value, making sections on the way; False where a list is too short."""
    part, below = loc[0], loc[1:]
    if isinstance(data, list) and isinstance(part, int) and part < len(data):
        if not below:
            data[part] = value
        return not below or _put(data[part], below, value)
    if isinstance(data, dict) and isinstance(part, str):
        if not below:
            data[part] = value
        elif data.get(part) is None:
            data[part] = {}
        return not below or _put(data[part], below, value)
    return False
