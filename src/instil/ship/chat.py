"""A conversation with a run's model."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from instil.ship.predict import ANSWER_TOKENS, require_room, usual_answer
from instil.ship.shipped import load_run_model
from instil.types import Message

if TYPE_CHECKING:
    from instil.model.load import LoadedModel


@dataclass(slots=True)
class Chat:
    """A conversation with a tuned model; `reply` remembers the turns."""

    loaded: LoadedModel
    """The model."""
    messages: list[Message] = field(default_factory=list)
    """The turns so far."""
    tokens: int = ANSWER_TOKENS
    """The longest answer."""

    def reply(self, text: str) -> Iterator[str]:
        """Answer greedily, piece by piece; a broken-off answer is kept as far as it got."""
        require_room(self.loaded, {"the conversation": [*self.messages, Message("user", text)]})
        self.messages.append(Message("user", text))
        said: list[str] = []
        try:
            for piece in stream(self.loaded, self.messages, tokens=self.tokens):
                said.append(piece)
                yield piece
        finally:
            self.messages.append(Message("assistant", "".join(said).strip()))


def stream(loaded: LoadedModel, messages: Sequence[Message], *, tokens: int) -> Iterator[str]:
    """Yield the answer to a conversation as it is generated; what ends that early is raised.

    Args:
        loaded: The model.
        messages: The turns so far.
        tokens: The longest answer.
    """
    import torch
    from transformers import TextIteratorStreamer

    from instil.evaluate.generate import continue_ids
    from instil.model.export import generation_config

    config = generation_config(loaded)
    config.max_new_tokens = tokens
    ids = torch.tensor([loaded.chat.prompt(messages)], device=loaded.device)
    streamer = TextIteratorStreamer(
        loaded.chat.tokenizer, skip_prompt=True, skip_special_tokens=True
    )
    left = threading.Event()
    failed: list[BaseException] = []

    def write() -> None:
        try:
            continue_ids(loaded, ids, config=config, streamer=streamer, until=left.is_set)
        except BaseException as error:  # raised where the answer is read
            failed.append(error)
        finally:  # without an end, who reads would wait for ever
            streamer.end()

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        yield from streamer
    finally:
        left.set()
        writer.join()
    if failed:
        raise failed[0]


def chat(folder: Path) -> Chat:
    """Begin a conversation with a run's tuned model.

    Raises:
        RunError: The folder is no finished run.
    """
    return Chat(load_run_model(folder), tokens=usual_answer(folder))
