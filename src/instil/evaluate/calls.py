r"""Calls of functions in a generated answer, whatever marks a chat template puts around them.

Models write a call as JSON between marks of their own; the data, and so the right answer, has the
JSON alone, one call a line. To compare the two, a generated answer is written as the data has it::

    Let me see.\n<tool_call>\n{"name": "stock", "arguments": {"of": "mugs"}}\n</tool_call>
    [TOOL_CALLS] [{"name": "stock", "arguments": {"of": "mugs"}}]
    {"name": "stock", "parameters": {"of": "mugs"}}
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from instil.data.readers.turns import read_call
from instil.encode.chat_turns import parted
from instil.errors import DataError
from instil.types import Message, ToolCall

_MARKS = re.compile(r"(?:<[^<>]*>|\[[A-Z_]+\]|[^\w\s.!?])*\s*$")
"""What stands between the words of an answer and its first call."""


def as_in_data(text: str) -> str:
    r"""Return an answer's text and its calls as the data writes them; without calls, the text.

    >>> as_in_data('<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>')
    '{"name": "f", "arguments": {"x": 1}}'
    """
    if match := parted(text):  # calls are made behind the thoughts, whatever is quoted in them
        thoughts = text[: match.start(5)]
        return thoughts + as_in_data(match[5])
    begin, calls = len(text), list[ToolCall]()
    for place, value in _values(text):
        listed = value if isinstance(value, list) else [value]
        made = [call for each in listed if (call := _call(each)) is not None]
        if made:
            begin = min(begin, place)
            calls += made
    if not calls:
        return text
    return Message("assistant", _MARKS.sub("", text[:begin]).strip(), tool_calls=tuple(calls)).shown


def _values(text: str) -> Iterator[tuple[int, object]]:
    """Yield each outermost JSON object or list, and where it begins."""
    decoder, at = json.JSONDecoder(), 0
    while opening := re.compile(r"[\[{]").search(text, at):
        try:
            value, at = decoder.raw_decode(text, opening.start())
        except ValueError:
            at = opening.end()
            continue
        except RecursionError:  # lists in lists that never end: none of them is looked at again
            behind = text[opening.end() :]
            at = len(text) - len(behind.lstrip("["))
            continue
        yield opening.start(), value


def _call(value: object) -> ToolCall | None:
    """Read a call; some models write `parameters` for its arguments."""
    inner = value.get("function", value) if isinstance(value, Mapping) else None
    if not isinstance(inner, Mapping) or not {"arguments", "parameters"} & inner.keys():
        return None
    try:
        return read_call({"arguments": inner.get("parameters"), **inner}, where="an answer")
    except DataError:
        return None
