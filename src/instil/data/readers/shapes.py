"""Well-known shapes of instruction data, brought to `prompt` and `completion`.

======================  =======================================================================
shape                   columns of a row
======================  =======================================================================
alpaca                  `instruction`, `output`, and perhaps `input` (and `system`)
sharegpt                `conversations`: turns with `from` (human, gpt, system) and `value`
messages                `messages`: turns with `role` (user, assistant, system) and `content`; or
                        `prompt` and `completion`, one of them (or both) a list of such turns
prompt_completion       `prompt`, `completion`
tagged                  `tokens` and `tags` (or `ner_tags`, `labels`): two lists of one length
plain                   anything else: a table with columns of its own
======================  =======================================================================

A worked example: a ShareGPT row of two turns becomes one question and its answer::

    {"conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]}
    -> {..., "prompt": "2 + 2?", "completion": "4"}

The completion is the last answer that a model can learn; of several turns before it the prompt is a
transcript, each turn begun with `User:`, `Assistant:` or `Tool:`. A task that asks with real turns
takes `history` instead, a list of the turns up to the last question, and `last_message`, that
question. Where a tool's answer stands there instead of a question, `last_message` is its text, and
`history` ends with that turn, its `content` None: what `last_message` fills in::

    user "Is it there?", assistant calls stock(), tool "yes", assistant "It is."
    -> {"history": [{"role": "user", "content": "Is it there?"},
                    {"role": "assistant", "content": "", "tool_calls": [...]},
                    {"role": "tool", "content": None, "name": "stock"}],
        "last_message": "yes", "completion": "It is."}

An answer that calls tools has its calls in `completion_calls`, and as JSON text at the end of
`completion`, for people and for metrics.

A row of words with their tags (BIO, IOB, IOBES or bare types) gets its names in order, or `none`::

    {"tokens": ["Ada", "Byron", "in", "Paris"], "tags": ["B-PER", "I-PER", "O", "B-LOC"]}
    -> {..., "prompt": "Ada Byron in Paris", "completion": "PER: Ada Byron; LOC: Paris"}
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import TypeGuard

from instil.data.readers.turns import (
    CALLERS,
    EMPTY,
    UNASKED,
    UNWEIGHTED,
    Keys,
    read_turn,
    untrained,
)
from instil.errors import DataError, Problem
from instil.tasks.spans import names_of
from instil.types import Message, ToolCall


class Shape(StrEnum):
    """How a row of instruction data is laid out."""

    ALPACA = "alpaca"
    SHAREGPT = "sharegpt"
    MESSAGES = "messages"
    PROMPT_COMPLETION = "prompt_completion"
    TAGGED = "tagged"
    PLAIN = "plain"


_COLUMNS = ("messages", "conversations", "conversation")
"""Columns that hold a conversation."""

_KEYS = {Shape.SHAREGPT: Keys("from", "value"), Shape.MESSAGES: Keys("role", "content")}
"""Shape -> the keys of speaker and text in a turn, whichever column it stands in."""

TOOL_COLUMNS = ("tools", "functions")
"""Columns of a conversation that hold the functions which the model may call."""

CALLS = "completion_calls"
"""The column with the calls that the last answer makes."""

LEFT_OVER = "turns after the last answer to train on"
UNTRAINED = (EMPTY, UNASKED, UNWEIGHTED, LEFT_OVER)
"""What of a conversation that is used is not trained on, as it is counted."""

UNUSABLE = {
    "": "conversations without a turn of the assistant are left out",
    UNASKED: "conversations in which no user asks before the answer are left out",
    EMPTY: "conversations whose answer is empty are left out",
    UNWEIGHTED: "conversations whose answers all have weight 0 are left out",
    "follows": "conversations whose last answer follows an answer, not a question, are left out",
}
"""Why no answer can be trained on (a reason of `untrained`, say) -> what people are told."""

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
    if _tagged(columns):
        return Shape.TAGGED
    conversation = _conversation(columns)
    if conversation:
        keys = {key for turns in conversation.values() for turn in turns for key in turn}
        for shape, names in _KEYS.items():
            if {names.speaker, names.text} <= keys:
                return shape
        if not keys:
            return Shape.MESSAGES
    texts = ("instruction", "output", *(["input"] if "input" in columns else []))
    return Shape.ALPACA if _hold_text(columns, *texts) else Shape.PLAIN


def normalise_shape(
    columns: Mapping[str, object],
    *,
    place: str = "",
    notes: Counter[str] | None = None,
    waiting: bool = False,
) -> dict[str, object]:
    """Add `prompt` and `completion` to a row of a known shape; a conversation gets more.

    That is `history`, `last_message`, and `system` and `completion_calls` where there are any.

    Args:
        columns: One row.
        place: Where it stands, for messages.
        notes: Takes up what is read otherwise than written, and why a conversation cannot be used:
            what -> rows.
        waiting: A conversation that ends with a question is read up to there, its answer unknown;
            else up to its last answer that can be learned.

    Returns:
        All its columns and the new ones; a column that is there already is left as it is, but for
        a `prompt` and a `completion` that are lists of turns. A conversation without an answer
        that can be learned gets an empty `completion`.

    Raises:
        DataError: for a turn without speaker or text, or with an unknown speaker; for calls that
            cannot be read; for tokens and tags that do not go together.
    """
    shape = recognise(columns)
    if shape is Shape.ALPACA:
        parts = [str(columns[name] or "") for name in ("instruction", "input") if name in columns]
        added: dict[str, object] = {
            "prompt": "\n\n".join(part for part in parts if part.strip()),
            "completion": str(columns["output"] or ""),
        }
    elif tagged := _tagged(columns) if shape is Shape.TAGGED else None:
        column, tokens, tags = tagged
        if len(tokens) != len(tags):
            found = f"{len(tokens)} tokens and {len(tags)} {column}"
            raise DataError("every token needs one tag", where=place, found=found)
        names = "; ".join(f"{kind}: {name}" for kind, name in names_of(tokens, tags))
        added = {"prompt": " ".join(tokens), "completion": names or NO_NAMES}
    elif shape in _KEYS:
        counted = Counter[str]() if notes is None else notes
        turns = _turns(columns, shape, place=place)
        added = _from_turns(turns, notes=counted, waiting=waiting)
        columns = dict(columns)
        for name in ("prompt", "completion"):  # as lists of turns they are in `history` now
            if isinstance(columns.get(name), list | None):
                columns.pop(name, None)
        for name in ("system", "history", "last_message"):  # an empty one says nothing
            if name in added and not columns.get(name):
                columns.pop(name, None)
    else:
        added = {}
    return {**added, **columns}


def _tagged(columns: Mapping[str, object]) -> tuple[str, list[str], list[str]] | None:
    """The name of the column with tags, the tokens, and the tags; None where tags are no texts."""
    tokens = columns.get("tokens")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        return None
    for name in _TAGS:
        tags = columns.get(name)
        if isinstance(tags, list) and all(isinstance(tag, str) for tag in tags):
            return name, tokens, tags
    return None


def _from_turns(
    turns: Sequence[Message], *, notes: Counter[str], waiting: bool
) -> dict[str, object]:
    """Prompt, history, last message, completion, its calls and system of a conversation."""
    said = [turn for turn in turns if turn.role != "system"]
    context = untrained(said)
    waiting &= bool(said) and said[-1].role != "assistant"
    answers = [number for number, turn in enumerate(said) if turn.role == "assistant"]
    learned = [] if waiting else [number for number in answers if number not in context]
    last = max(learned, default=len(said))
    answer = said[last] if last < len(said) else Message("assistant", "")
    before = said[:last]
    asked = before[-1] if before and before[-1].role != "assistant" else None
    if waiting:
        pass
    elif last == len(said):
        notes[UNUSABLE[context[answers[-1]] if answers else ""]] += 1
    elif asked is None:
        notes[UNUSABLE["follows"]] += 1
    else:
        if context:
            notes.update({why for number, why in context.items() if number < last})
        if last + 1 < len(said):
            notes[LEFT_OVER] += 1
    history = [_entry(turn) for turn in before[:-1]] if asked else []
    if asked and asked.role == "tool":
        history.append({**_entry(asked), "content": None})
    prompt = "\n\n".join(f"{turn.role.capitalize()}: {turn.shown}" for turn in before)
    if len(before) == 1 and before[0].role == "user":  # a question alone stands for itself
        prompt = before[0].content
    columns: dict[str, object] = {
        "prompt": prompt if asked else "",
        "completion": answer.shown,
        "history": history,
        "last_message": asked.content if asked else "",
    }
    system = "\n\n".join(turn.content for turn in turns if turn.role == "system")
    if system:
        columns["system"] = system
    if answer.tool_calls:
        columns[CALLS] = _spelt(answer.tool_calls)
    return columns


def _entry(turn: Message) -> dict[str, object]:
    """A turn of the `history`, in the keys of `messages`."""
    entry: dict[str, object] = {"role": turn.role, "content": turn.content}
    if turn.tool_calls:
        entry["tool_calls"] = _spelt(turn.tool_calls)
    if turn.name:
        entry["name"] = turn.name
    if not turn.trained:
        entry["weight"] = 0
    return entry


def _spelt(calls: Sequence[ToolCall]) -> list[dict[str, str]]:
    return [{"name": call.name, "arguments": call.arguments} for call in calls]


def _turns(columns: Mapping[str, object], shape: Shape, *, place: str) -> list[Message]:
    """The turns of a conversation; all that is wrong with them is told at once."""
    messages, problems = list[Message](), list[Problem]()
    called: dict[str, str] = {}
    keys = _KEYS[shape]
    for column, turns in _conversation(columns).items():
        for number, turn in enumerate(turns, start=1):
            label = f"{column}[{number}]"
            where = f"{place}, {label}" if place else label
            try:
                message = read_turn(turn, keys=keys, where=where, called=called)
            except DataError as error:
                problems += error.problems
                continue
            if column == "prompt" and message.role == "assistant":
                message = replace(message, trained=False)  # TRL trains on `completion` alone
            caller = message.tool_calls and str(turn.get(keys.speaker)).lower() in CALLERS
            before = messages[-1] if messages else None
            if caller and before and before.role == "assistant":  # one answer, told in two turns
                calls = (*before.tool_calls, *message.tool_calls)
                messages[-1] = replace(before, tool_calls=calls)
            else:
                messages.append(message)
    if problems:
        raise DataError(*problems)
    return messages


def _conversation(columns: Mapping[str, object]) -> dict[str, list[dict[str, object]]]:
    """The turns of a row by the columns in which they stand; empty where it has none.

    That is one column (a table may hold it as JSON text) or, as TRL has it, `prompt` and
    `completion`, one of which may be a text.
    """
    for name in _COLUMNS:
        turns = columns.get(name)
        if isinstance(turns, str) and turns.lstrip().startswith("["):
            with contextlib.suppress(ValueError):
                turns = json.loads(turns)
        if _is_turns(turns):
            return {name: turns}
    halves = {"prompt": columns.get("prompt"), "completion": columns.get("completion")}
    if not any(_is_turns(half) and half for half in halves.values()):
        return {}
    roles = {"prompt": "user", "completion": "assistant"}
    conversation = {
        name: [{"role": roles[name], "content": half}] if isinstance(half, str) else half or []
        for name, half in halves.items()
    }
    return {name: turns for name, turns in conversation.items() if _is_turns(turns)}


def _is_turns(value: object) -> TypeGuard[list[dict[str, object]]]:
    return isinstance(value, list) and all(isinstance(turn, dict) for turn in value)


def _hold_text(columns: Mapping[str, object], *names: str) -> bool:
    """Whether all these columns are there and hold text (or nothing)."""
    return all(name in columns and isinstance(columns[name], str | None) for name in names)
