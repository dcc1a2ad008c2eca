"""What ends an answer in a conversation."""

from __future__ import annotations

from pathlib import Path

import pytest

from instil.cli.chat import talk as converse
from instil.evaluate import generate
from instil.ship.chat import chat

pytestmark = pytest.mark.slow  # many whole runs


def test_what_ends_the_generation_is_told(done_lora: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object, **__: object) -> None:
        raise MemoryError("no room")

    talk = chat(done_lora)
    monkeypatch.setattr(generate, "continue_ids", broken)
    with pytest.raises(MemoryError, match="no room"):
        list(talk.reply("Is it good?"))
    monkeypatch.undo()
    assert isinstance("".join(talk.reply("Is it good?")), str)


def test_what_does_not_fit_is_told_and_the_conversation_goes_on(
    done_lora: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    partner = chat(done_lora)
    lines = iter(["good", "long " * 2000, "bad", "/quit"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    converse(partner)
    assert "takes" in capsys.readouterr().err
    assert [m.content for m in partner.messages if m.role == "user"] == ["good", "bad"]
