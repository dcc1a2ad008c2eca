"""What a chat template can hold: marks are put in every turn, rendered, and found again.

A template may raise on a system message, insist that user and assistant take turns, want content as
a list of parts, or leave a turn out without a word. All of that is found out once, when a chat
format is made, on turns like these::

    user: instilmarkA   assistant: instilmarkB   user: instilmarkC   assistant: instilmarkD

Tests: `tests/encode/test_chat_marks.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from instil.encode.chat_template import ChatTemplateError, render
from instil.errors import ModelError

MARK = "instilmark"
_A, _B, _C, _D = (MARK + letter for letter in "ABCD")
Turn = Mapping[str, object]


class SystemHeld(StrEnum):
    """What a template makes of a system message."""

    KEPT = "kept"
    DROPPED = "dropped"
    """It is not in the text."""
    REFUSED = "refused"
    """The template raises."""


@dataclass(frozen=True, slots=True)
class Holds:
    """What a chat template can hold."""

    parts: bool = False
    """Whether content is a list of parts, each with a type."""
    system: SystemHeld = SystemHeld.KEPT
    """What becomes of a system message."""
    neighbours: bool = True
    """Whether two turns of one role may follow each other."""
    assistant_first: bool = True
    """Whether a conversation may begin with the assistant."""
    earlier: bool = True
    """Whether the turns before the last question are written."""
    strips: bool = False
    """Whether blanks around an answer are taken off."""
    split_thoughts: bool = False
    """Whether an answer's thoughts are given apart from it, as `reasoning_content`."""


def content_of(text: str, *, parts: bool) -> object:
    """Return a turn's content as the template wants it: text, or a list of one part."""
    return [{"type": "text", "text": text}] if parts else text


def call_of(number: str, name: str, arguments: object) -> Mapping[str, object]:
    """Return a call of a function as chat templates read it; `number` is its id."""
    function = {"name": name, "arguments": arguments}
    return {"id": number, "type": "function", "function": function}


def call_id(number: int) -> str:
    """Return the id of a conversation's call: nine letters and digits, as Mistral's templates ask.

    >>> call_id(7)
    'call00007'
    """
    return f"call{number:05}"


def prove(tokenizer: Any) -> Holds:
    """Find out what the tokenizer's chat template holds.

    Raises:
        ModelError: It cannot be used: it raises, or leaves out the user's text or the answer.
    """
    forms = [_holds(tokenizer, parts=parts) for parts in _forms(tokenizer)]
    return next((holds for holds in forms if holds.system is SystemHeld.KEPT), forms[0])


def _holds(tokenizer: Any, *, parts: bool) -> Holds:
    def turn(role: str, text: str) -> Turn:
        return {"role": role, "content": content_of(text, parts=parts)}

    def written(*turns: Turn) -> str | None:
        try:
            return render(tokenizer, turns)
        except ChatTemplateError:
            return None

    asked, answered = turn("user", _B), turn("assistant", _C)
    system = written(turn("system", _A), asked, answered)
    four = written(turn("user", _A), turn("assistant", _B), turn("user", _C), turn("assistant", _D))
    blanks = written(asked, turn("assistant", f" {_C} "))
    thoughts = written(asked, {**answered, "reasoning_content": _D})
    if system is None:
        held = SystemHeld.REFUSED
    else:
        held = SystemHeld.KEPT if _A in system else SystemHeld.DROPPED
    return Holds(
        parts=parts,
        system=held,
        neighbours=_in_order(written(turn("user", _A), asked, answered), _A, _B, _C),
        assistant_first=_in_order(written(turn("assistant", _A), asked, answered), _A, _B, _C),
        earlier=_in_order(four, _A, _B, _C, _D),
        strips=blanks is not None and f" {_C} " not in blanks,
        split_thoughts=_in_order(thoughts, _D, _C),
    )


def _forms(tokenizer: Any) -> list[bool]:
    """Whether content can be text, and a list of parts: a question with its answer is written."""
    why, forms = "it leaves out the user's text", list[bool]()
    for parts in (False, True):
        turns = [
            {"role": role, "content": content_of(text, parts=parts)}
            for role, text in (("user", _A), ("assistant", _B))
        ]
        try:
            text = render(tokenizer, turns)
        except ChatTemplateError as error:
            why = error.problems[0].what if not parts else why
            continue
        if _in_order(text, _A, _B):
            forms.append(parts)
        elif _A in text:
            why = "it leaves out the assistant's answer"
    if forms:
        return forms
    raise ModelError(
        f"the chat template of {tokenizer.name_or_path} cannot be used: {why}",
        where="model",
        fix="mend its chat_template.jinja (or chat_template in tokenizer_config.json), or name "
        "another one in the recipe: chat_template: FILE.jinja",
    )


def _in_order(text: str | None, *marks: str) -> bool:
    """Whether all marks stand in the text, in this order."""
    at = -1
    for mark in marks:
        at = -1 if text is None else text.find(mark, at + 1)
        if at < 0:
            return False
    return True
