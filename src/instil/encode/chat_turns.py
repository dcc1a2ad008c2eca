"""Turns as a chat template can hold them, and the thoughts that an answer may begin with.

A system message goes before the user's first text where the recipe says `system: merge`. Where the
template raises, neighbours of one role are joined and an opening of the assistant is left out; both
are counted by `chat_findings`.

Tests: `tests/encode/test_chat_format.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from instil.encode.chat_proof import Holds, SystemHeld
from instil.errors import ModelError
from instil.types import Message, Row, SystemTurn, Task

_THOUGHT = re.compile(r"(?:\s*<think>)?(\s*)(.*?)(\s*)</think>(\s*)(.*)", re.DOTALL)
"""An answer with its thoughts; a model whose prompt opens the block does not open it again."""


def parted(text: str) -> re.Match[str] | None:
    """Part an answer that begins with thoughts: thoughts and rest, and the blanks around."""
    return _THOUGHT.match(text) if "</think>" in text else None


def thoughts_of(text: str) -> str:
    """Return the thoughts that an answer begins with; empty where it has none, or empty ones.

    >>> thoughts_of("<think>Hm.</think> Yes."), thoughts_of("<think></think> Yes.")
    ('Hm.', '')
    """
    match = parted(text)
    return match[2] if match else ""


def has_thoughts(row: Row, task: Task) -> bool:
    """Whether a row's answer begins with thoughts; a label never does."""
    return not task.choices and bool(thoughts_of(str(row.fields.get(task.target))))


def without_thoughts(text: str) -> str:
    """Return an answer without the thoughts that it begins with.

    >>> without_thoughts("<think>Hm.</think> Yes."), without_thoughts("Yes.")
    ('Yes.', 'Yes.')
    """
    match = parted(text)
    return match[5] if match else text


def fit_turns(
    messages: Sequence[Message], *, holds: Holds, system: SystemTurn
) -> tuple[Message, ...]:
    """Return the turns as a template can hold them; the same again for what it returns.

    Args:
        messages: The turns before an answer.
        holds: What the template can hold.
        system: What becomes of a system message.

    Raises:
        ModelError: The template takes no system message.
    """
    turns = list(messages)
    if any(turn.role == "system" for turn in turns):
        if system is SystemTurn.MERGE:
            texts = [turn.content for turn in turns if turn.role == "system"]
            turns = [turn for turn in turns if turn.role != "system"]
            asked = next((n for n, turn in enumerate(turns) if turn.role == "user"), None)
            if asked is None:
                turns.insert(0, Message("user", "\n\n".join(texts)))
            else:
                text = "\n\n".join([*texts, turns[asked].content])
                turns[asked] = replace(turns[asked], content=text)
        elif holds.system is SystemHeld.REFUSED:
            raise ModelError(
                "the model's chat template takes no system message",
                where="system",
                fix="in the recipe: `system: merge`, which puts it before the user's first text, "
                "or take it out of the rows or the task file",
            )
    if not holds.assistant_first:
        first = next((n for n, turn in enumerate(turns) if turn.role != "system"), len(turns))
        while len(turns) > first + 1 and turns[first].role == "assistant":
            del turns[first]
    if holds.neighbours:
        return tuple(turns)
    joined = list[Message]()
    for turn in turns:  # neighbours that are both the user's or both the assistant's become one
        last = joined[-1] if joined else None
        if last is None or last.role != turn.role or turn.role not in ("user", "assistant"):
            joined.append(turn)
            continue
        text = "\n\n".join(filter(None, [last.content, turn.content]))
        calls = (*last.tool_calls, *turn.tool_calls)
        joined[-1] = replace(
            last, content=text, tool_calls=calls, trained=last.trained and turn.trained
        )
    return tuple(joined)
