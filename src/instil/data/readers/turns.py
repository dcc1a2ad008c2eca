r"""One turn of a conversation: from the mapping that public data writes to a `Message`.

A turn is `{"role": ..., "content": ...}` (OpenAI, Hugging Face) or `{"from": ..., "value": ...}`
(ShareGPT). Beside its text it may hold

- `tool_calls`, the functions that an answer calls: `{"function": {"name", "arguments"}}` or the
  two keys alone, the arguments an object or its JSON text; also the older `function_call`;
- `name` or `tool_call_id` on the turn of a tool, the function that it answers for;
- `weight`, 0 for an answer that is read and not trained on (OpenAI's fine-tuning format).

A worked example::

    {"role": "assistant", "content": null,
     "tool_calls": [{"id": "c1", "function": {"name": "stock", "arguments": "{\"of\": \"mugs\"}"}}]}
    -> Message("assistant", "", tool_calls=(ToolCall("stock", '{"of": "mugs"}'),))
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from instil.errors import DataError, nearest
from instil.types import Message, ToolCall

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "ipython": "tool",
    "observation": "tool",
    "tool_response": "tool",
}
"""What the speakers are called in public data -> what they are."""

CALLERS = frozenset({"function_call", "tool_call"})
"""Speakers whose text is a call, or a list of calls."""

EMPTY = "empty earlier answers (read, not trained on)"
UNASKED = "answers before the first question (read, not trained on)"
UNWEIGHTED = "answers of weight 0, or in a `prompt` of turns (read, not trained on)"


@dataclass(frozen=True, slots=True)
class Keys:
    """Under which keys a turn has its speaker and its text."""

    speaker: str = "role"
    """`role`, or ShareGPT's `from`."""
    text: str = "content"
    """`content`, or ShareGPT's `value`."""


def read_turn(
    turn: Mapping[str, object], *, keys: Keys, where: str, called: dict[str, str]
) -> Message:
    """Read one turn.

    Args:
        turn: As it stands in the data.
        keys: Where its speaker and its text stand.
        where: Its place, for messages.
        called: Id of a call -> the function's name, for the turns before; this turn's are added.

    Raises:
        DataError: An unknown speaker, no text (an image, say), a call that cannot be read, or a
            weight other than 0 and 1.
    """
    speaker = str(turn.get(keys.speaker)).lower()
    role = ROLES.get(speaker)
    if role is None:
        name, key = str(turn.get(keys.speaker, "")), keys.speaker
        raise DataError(
            "unknown speaker" if key in turn else f"this turn does not say {key!r}",
            where=where,
            found=name,
            allowed=", ".join(ROLES),
            nearest=nearest(name, ROLES),
        )
    if speaker in CALLERS and not (turn.get("tool_calls") or turn.get("function_call")):
        spelt = _json(turn.get(keys.text), "this call", where=where)
        calls = read_calls(spelt if isinstance(spelt, list) else [spelt], where=where)
        text = ""
    else:
        calls = _calls(turn, role=role, where=where, called=called)
        text = _content(turn, keys.text, role=role, calls=bool(calls), where=where)
    weight = turn.get("weight") if role == "assistant" else None
    if weight not in (None, 0, 1):
        raise DataError(
            "an answer has a weight that cannot be taken",
            where=where,
            found=repr(weight)[:80],
            allowed="1 (trained on, as without it) or 0 (read and not trained on)",
        )
    name = str(turn.get("name") or called.get(str(turn.get("tool_call_id")), ""))
    return Message(
        role,
        text,
        tool_calls=calls,
        name=name if role == "tool" else "",
        trained=weight is None or bool(weight),
    )


def untrained(turns: Sequence[Message]) -> dict[int, str]:
    """Find the answers that are read and never trained on.

    Args:
        turns: Of a conversation, from its beginning.

    Returns:
        Number of the turn -> why: nobody has asked yet, it is empty, or it has weight 0.
    """
    reasons: dict[int, str] = {}
    asked = False
    for number, turn in enumerate(turns):
        asked = asked or turn.role == "user"
        if turn.role != "assistant":
            continue
        if not asked:
            reasons[number] = UNASKED
        elif not turn.content.strip() and not turn.tool_calls:
            reasons[number] = EMPTY
        elif not turn.trained:
            reasons[number] = UNWEIGHTED
    return reasons


def read_calls(value: object, *, where: str) -> tuple[ToolCall, ...]:
    """Read a list of calls, or its JSON text.

    Raises:
        DataError: It is no list, or one of the calls cannot be read.
    """
    listed = _json(value, "a list of calls", where=where) if isinstance(value, str) else value
    if not isinstance(listed, list | tuple):
        raise DataError(
            "these calls are no list", where=where, found=repr(value)[:80], allowed=_ALLOWED_CALL
        )
    return tuple(read_call(call, where=where) for call in listed)


def read_call(call: object, *, where: str) -> ToolCall:
    """Read one call: `{"function": {"name", "arguments"}}`, or the two keys alone.

    Raises:
        DataError: It has no name, or its arguments are no object.
    """
    inner = call.get("function", call) if isinstance(call, Mapping) else None
    name = inner.get("name") if isinstance(inner, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(name, str) or not name.strip():
        raise DataError(
            "this call names no function", where=where, found=repr(call)[:80], allowed=_ALLOWED_CALL
        )
    arguments = inner.get("arguments") or {}
    if isinstance(arguments, str):
        arguments = _json(arguments, f"the arguments of {name!r}", where=where)
    if not isinstance(arguments, Mapping):
        what = f"the arguments of the call of {name!r} are no object"
        found, allowed = repr(arguments)[:80], '{"city": "Paris"}, or that as a text'
        raise DataError(what, where=where, found=found, allowed=allowed)
    return ToolCall(name.strip(), _dump(arguments))


def read_tools(value: object, *, where: str) -> tuple[str, ...]:
    """Read the functions that a model may call: a list of JSON schemas, or its JSON text.

    Returns:
        JSON text of each, as chat templates take it: `{"type": "function", "function": {...}}`;
        a bare `{"name": ..., "parameters": ...}` is put into that form.

    Raises:
        DataError: It is no list of schemas, or one of them names no function.
    """
    listed = value
    if isinstance(value, str):
        listed = _json(value, "the list of tools", where=where) if value.strip() else []
    if isinstance(listed, Mapping):
        listed = [listed]
    schemas = [_schema(each) for each in listed] if isinstance(listed, list | tuple) else [None]
    if value is not None and None in schemas:
        raise DataError(
            "these tools cannot be read",
            where=where,
            found=repr(value)[:80],
            allowed='[{"type": "function", "function": {"name": ..., "parameters": {...}}}], '
            "or that as a text",
            fix="write them so, or call the column something else if no model should see it",
        )
    return tuple(_dump(schema) for schema in schemas if schema is not None)


_ALLOWED_CALL = '{"name": "weather", "arguments": {"city": "Paris"}}, or that under "function"'


def _calls(
    turn: Mapping[str, object], *, role: str, where: str, called: dict[str, str]
) -> tuple[ToolCall, ...]:
    """The calls of a turn, in either way to write them; their ids go into `called`."""
    older = turn.get("function_call")
    raw = turn.get("tool_calls") or ([older] if older else [])
    if not raw:
        return ()
    calls = read_calls(raw, where=where)
    if role != "assistant":
        what = f"a turn of the role {role!r} calls a tool, which only the assistant can"
        raise DataError(what, where=where, found=repr(raw)[:80])
    if isinstance(raw, list | tuple):
        named = zip(raw, calls, strict=True)
        called |= {str(each["id"]): call.name for each, call in named if each.get("id")}
    return calls


def _content(turn: Mapping[str, object], key: str, *, role: str, calls: bool, where: str) -> str:
    """A turn's text: a text, or a list of parts `{type: text, text: ...}`."""
    content = turn.get(key)
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(map(_is_text, content)):
        return "\n".join(str(part["text"]) for part in content)
    if content is None and (calls or (key in turn and role != "user")):
        return ""
    # A list of parts with a type, an image among them, is not a tool's own answer.
    parts = content if isinstance(content, list) else []
    typed = any(isinstance(part, Mapping) and "type" in part for part in parts)
    if role == "tool" and isinstance(content, Mapping | list) and not typed:
        return _dump(content)
    raise DataError(
        f"this turn has no text under {key!r}",
        where=where,
        found=repr(content)[:80],
        fix="instil reads text alone: leave the row out (`on_bad_row: skip` leaves out all "
        "such rows, and counts them), or write its text",
    )


def _is_text(part: object) -> bool:
    """Whether a part of a turn is text: its type says so, or it has no type."""
    if not isinstance(part, Mapping) or not isinstance(part.get("text"), str):
        return False
    return str(part.get("type") or "text").endswith("text")


def _schema(tool: object) -> dict[str, object] | None:
    """A tool in the form that chat templates take; None for what names no function."""
    if not isinstance(tool, Mapping):
        return None
    inner = tool.get("function", tool)
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        return None
    if inner is tool:
        return {"type": "function", "function": {k: v for k, v in tool.items() if k != "type"}}
    return {"type": "function", **tool}


def _json(text: object, what: str, *, where: str) -> object:
    try:
        return json.loads(str(text))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{what} is no JSON: {error}", where=where, found=repr(text)[:80]) from None


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
