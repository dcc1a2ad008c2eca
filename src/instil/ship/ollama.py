"""A chat template in Ollama's words: a Modelfile's TEMPLATE, of which Go writes every turn.

Ollama does not run the Jinja template of a GGUF file. What the model's own template writes around
the turns is read off conversations that it renders, put into Go's form, and held against the
template again; a template that is no such frame around turns is refused::

    begin | user's prefix  Q  user's suffix | answer's prefix  A  answer's suffix | ... | generation

Tests: `tests/ship/test_ollama.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from instil.encode.chat_format import ChatFormat
from instil.encode.chat_proof import SystemHeld, content_of
from instil.encode.store import common_start
from instil.errors import ModelError
from instil.ship.gguf.vocabulary import begins_with_bos

_SYSTEM, _ASKED, _ANSWER, _AGAIN = "Qsystem", "Qasked", "Qanswer", "Qagain"


@dataclass(frozen=True, slots=True)
class Frame:
    """What a chat template writes around the turns."""

    begin: str
    """Before the first turn, where there is no system text: BOS, or a default system text."""
    system: tuple[str, str]
    """Around the system text, all that stands before it included; empty: it knows none."""
    user: tuple[str, str]
    """Around a user's turn."""
    answer: tuple[str, str]
    """Around an answer that was given."""
    generation: str
    """Before the answer that is asked for."""

    def render(self, turns: Sequence[tuple[str, str]]) -> str:
        """Write turns, each a role and a text, as Go will."""
        text = "" if turns and turns[0][0] == "system" else self.begin
        around = {"system": self.system, "user": self.user, "assistant": self.answer}
        for role, content in turns:
            text += around[role][0] + content + around[role][1]
        return text + self.generation

    def template(self) -> str:
        """Return Ollama's TEMPLATE."""
        begin = _literal(self.begin)
        if self.system != ("", ""):
            begin = _if(".System", _said(self.system, ".System"), other=begin)
        parts = [
            begin,
            "{{ range .Messages }}",
            _if('eq .Role "user"', _said(self.user, ".Content")),
            _if('eq .Role "assistant"', _said(self.answer, ".Content")),
            "{{ end }}",
            _literal(self.generation),
        ]
        return "".join(parts)


def _if(condition: str, then: str, *, other: str = "") -> str:
    otherwise = f"{{{{ else }}}}{other}" if other else ""
    return f"{{{{ if {condition} }}}}{then}{otherwise}{{{{ end }}}}"


def _said(around: tuple[str, str], name: str) -> str:
    return f"{_literal(around[0])}{{{{ {name} }}}}{_literal(around[1])}"


def _literal(text: str) -> str:
    """Write a text so that Go takes none of it for a command, nor a Modelfile for its end."""
    plain = "{{" not in text and '"""' not in text
    return text if plain else f"{{{{ {json.dumps(text)} }}}}"


def frame(chat: ChatFormat) -> Frame:
    """Read what a chat template writes around turns.

    Raises:
        ModelError: It is no frame around turns: it writes something else than the frame says.
    """
    bos = chat.tokenizer.bos_token if begins_with_bos(chat) else ""

    def rendered(*turns: tuple[str, str]) -> str:
        parts = chat.holds.parts
        messages = [
            {"role": role, "content": content_of(text, parts=parts)} for role, text in turns
        ]
        text = chat.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False
        )
        return str(text).removeprefix(bos)  # the GGUF file says that BOS is put there

    user, system = ("user", _ASKED), ("system", _SYSTEM)
    talk = [user, ("assistant", _ANSWER), ("user", _AGAIN)]
    try:
        head, tail = rendered(user).split(_ASKED)
        before, between = rendered(*talk).split(_ANSWER)
        answer_prefix = before.split(_ASKED)[1]
        answer_suffix = between.split(_AGAIN)[0]
        user_prefix = _common(head[::-1], answer_suffix[::-1])[::-1]
        user_suffix = _common(tail, answer_prefix)
        around = Frame(
            begin=head.removesuffix(user_prefix),
            system=("", ""),
            user=(user_prefix, user_suffix),
            answer=(
                answer_prefix.removeprefix(user_suffix),
                answer_suffix.removesuffix(user_prefix),
            ),
            generation=tail.removeprefix(user_suffix),
        )
        if chat.holds.system is SystemHeld.KEPT:
            opening, rest = rendered(system, user).split(_SYSTEM)
            between = rest.split(_ASKED)[0].removesuffix(user_prefix)
            around = replace(around, system=(opening, between))
    except ValueError:
        raise _no_frame() from None
    tried = [[user], talk, [("user", "a\n b")]]
    if around.system != ("", ""):
        tried += [[system, *turns] for turns in tried]
    if any(around.render(turns) != rendered(*turns) for turns in tried):
        raise _no_frame()
    return around


def _common(one: str, other: str) -> str:
    """Return what both texts begin with."""
    return one[: common_start(one, other, limit=min(len(one), len(other)))]


def _no_frame() -> ModelError:
    return ModelError(
        "the model's chat template cannot be put into Ollama's words: it writes more than a "
        "frame around turns",
        where="--format ollama",
        fix="--format gguf, and run it with llama.cpp, which takes the template as it is",
    )
