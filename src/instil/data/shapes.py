"""Well-known shapes of instruction data, brought to `prompt` and `completion`.

======================  =======================================================================
shape                   columns of a row
======================  =======================================================================
alpaca                  `instruction`, `output`, and perhaps `input` (and `system`)
sharegpt                `conversations`: turns with `from` (human, gpt, system) and `value`
messages                `messages`: turns with `role` (user, assistant, system) and `content`
prompt_completion       `prompt`, `completion`
tagged                  `tokens` and `tags` (or `ner_tags`, `labels`): two lists of one length
plain                   anything else: a table with columns of its own
======================  =======================================================================

A worked example: a ShareGPT row of two turns becomes one question and its answer::

    {"conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]}
    -> {..., "prompt": "2 + 2?", "completion": "4"}

The completion is the last answer; of several turns before it the prompt is a transcript, each turn
begun with `User:` or `Assistant:`. A task that asks with real turns takes `history` instead, a list
of the turns up to the last question, and `last_message`, that question.

A row of words with their tags (BIO, IOB, IOBES or bare types) gets its names in order, or `none`::

    {"tokens": ["Ada", "Byron", "in", "Paris"], "tags": ["B-PER", "I-PER", "O", "B-LOC"]}
    -> {..., "prompt": "Ada Byron in Paris", "completion": "PER: Ada Byron; LOC: Paris"}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from instil.errors import DataError, Problem, nearest
from instil.tasks.spans import names_of


class Shape(StrEnum):
    """How a row of instruction data is laid out."""

    ALPACA = "alpaca"
    SHAREGPT = "sharegpt"
    MESSAGES = "messages"
    PROMPT_COMPLETION = "prompt_completion"
    TAGGED = "tagged"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class _Turn:
    role: str
    """system, user, assistant or tool."""
    text: str


_ROLES = {
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
    "tool": "tool",
    "function": "tool",
    "function_call": "assistant",
    "observation": "tool",
}
"""What the speakers are called in public data -> what they are."""

_COLUMNS = ("messages", "conversations", "conversation")
"""Columns that hold a conversation."""

_KEYS = {Shape.SHAREGPT: ("from", "value"), Shape.MESSAGES: ("role", "content")}
"""Shape -> the keys of speaker and text in a turn, whichever column it stands in."""


_TAGS = ("tags", "ner_tags", "labels")
"""Columns that hold a tag for each of the `tokens`."""
NO_NAMES = "none"
"""What a tagged row without any name is completed with."""


def recognise(columns: Mapping[str, object]) -> Shape:
    """Tell the shape of a row by its columns.

    >>> recognise({"instruction": "Add.", "input": "2 2", "output": "4"})
    <Shape.ALPACA: 'alpaca'>
    """
    if _hold_text(columns, "prompt", "completion"):
        return Shape.PROMPT_COMPLETION
    if _tag_column(columns):
        return Shape.TAGGED
    turns = columns.get(_conversation(columns))
    if isinstance(turns, list):
        keys = turns[0].keys() if turns else {"role", "content"}
        for shape, names in _KEYS.items():
            if set(names) <= keys:
                return shape
    texts = ("instruction", "output", *(["input"] if "input" in columns else []))
    return Shape.ALPACA if _hold_text(columns, *texts) else Shape.PLAIN


def normalise_shape(columns: Mapping[str, object], *, place: str = "") -> dict[str, object]:
    """Add `prompt` and `completion` to a row of a known shape; a conversation gets more.

    That is `history`, `last_message`, and `system` where there is one.

    Args:
        columns: One row.
        place: Where it stands, for messages.

    Returns:
        All its columns and the new ones; a column that is there already is left as it is. A
        conversation without an answer gets an empty `completion`.

    Raises:
        DataError: for a turn without speaker or text, or with an unknown speaker; for tokens and
            tags that do not go together.
    """
    shape = recognise(columns)
    if shape is Shape.ALPACA:
        parts = [str(columns[name] or "") for name in ("instruction", "input") if name in columns]
        added: dict[str, object] = {
            "prompt": "\n\n".join(part for part in parts if part.strip()),
            "completion": str(columns["output"] or ""),
        }
    elif shape is Shape.TAGGED:
        added = _from_tags(columns, place=place)
    elif shape in _KEYS:
        added = _from_turns(_turns(columns, shape, place=place))
    else:
        added = {}
    return {**added, **columns}


def _tag_column(columns: Mapping[str, object]) -> str:
    """The column with a tag for each token; empty where there is none, or the tags are numbers."""
    tokens = columns.get("tokens")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        return ""
    for name in _TAGS:
        tags = columns.get(name)
        if isinstance(tags, list) and all(isinstance(tag, str) for tag in tags):
            return name
    return ""


def _from_tags(columns: Mapping[str, object], *, place: str) -> dict[str, object]:
    """The sentence, and its names as a text."""
    column = _tag_column(columns)
    tokens, tags = columns["tokens"], columns[column]
    assert isinstance(tokens, list), "`recognise` has looked"
    assert isinstance(tags, list), "`recognise` has looked"
    if len(tokens) != len(tags):
        found = f"{len(tokens)} tokens and {len(tags)} {column}"
        raise DataError(Problem("every token needs one tag", where=place, found=found))
    names = "; ".join(f"{kind}: {name}" for kind, name in names_of(tokens, tags))
    return {"prompt": " ".join(tokens), "completion": names or NO_NAMES}


def _from_turns(turns: Sequence[_Turn]) -> dict[str, object]:
    """Prompt, history, last message, completion and system of a conversation."""
    last = max((i for i, turn in enumerate(turns) if turn.role == "assistant"), default=len(turns))
    before = [turn for turn in turns[:last] if turn.role != "system"]
    if len(before) == 1:
        prompt = before[0].text
    else:
        prompt = "\n\n".join(f"{turn.role.capitalize()}: {turn.text}" for turn in before)
    system = "\n\n".join(turn.text for turn in turns if turn.role == "system")
    completion = turns[last].text if last < len(turns) else ""
    asked = before[-1].text if before and before[-1].role == "user" else ""
    history = before[:-1] if asked else before
    found: dict[str, object] = {
        "prompt": prompt,
        "completion": completion,
        "history": [{"role": turn.role, "content": turn.text} for turn in history],
        "last_message": asked,
    }
    return found | {"system": system} if system else found


def _turns(columns: Mapping[str, object], shape: Shape, *, place: str) -> list[_Turn]:
    """The turns of a conversation; all that is wrong with them is told at once."""
    column, (speaker, text) = _conversation(columns), _KEYS[shape]
    found, problems = [], []
    turns = columns[column]
    assert isinstance(turns, list), "`recognise` has looked"
    for number, turn in enumerate(turns, start=1):
        where = f"{place}, {column}[{number}]" if place else f"{column}[{number}]"
        role = _ROLES.get(str(turn.get(speaker)).lower(), "")
        content = _text(turn.get(text))
        if not role:
            problems.append(_unknown_speaker(turn, speaker, where=where))
        elif content is None:
            problems.append(
                Problem(
                    f"this turn has no text under {text!r}",
                    where=where,
                    found=repr(turn.get(text))[:80],
                    fix="instil reads text alone: leave the row out, or write its text",
                )
            )
        else:
            found.append(_Turn(role, content))
    if problems:
        raise DataError(*problems)
    return found


def _unknown_speaker(turn: Mapping[str, object], key: str, *, where: str) -> Problem:
    name = str(turn.get(key, ""))
    return Problem(
        "unknown speaker" if key in turn else f"this turn does not say {key!r}",
        where=where,
        found=name,
        allowed=", ".join(_ROLES),
        nearest=nearest(name, _ROLES),
    )


def _text(content: object) -> str | None:
    """A turn's text: a text, or a list of parts `{type: text, text: ...}`; none for images."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, Mapping)]
        if len(parts) == len(content) and all(isinstance(part, str) for part in parts):
            return "\n".join(str(part) for part in parts)
    return None


def _conversation(columns: Mapping[str, object]) -> str:
    """The column that holds a list of turns; empty when there is none."""
    for name in _COLUMNS:
        turns = columns.get(name)
        if isinstance(turns, list) and all(isinstance(turn, Mapping) for turn in turns):
            return name
    return ""


def _hold_text(columns: Mapping[str, object], *names: str) -> bool:
    """Whether all these columns are there and hold text (or nothing)."""
    return all(name in columns and isinstance(columns[name], str | None) for name in names)
