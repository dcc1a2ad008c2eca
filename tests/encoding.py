"""Examples encoded at once, for tests that look at their tokens."""

from collections.abc import Iterable

from instil.encode.chat_format import ChatFormat
from instil.encode.mask import encode_turns
from instil.types import Encoded, Example, TooLong


def encode_all(
    examples: Iterable[Example],
    chat: ChatFormat,
    *,
    max_length: int,
    too_long: TooLong = TooLong.ERROR,
) -> tuple[Encoded, ...]:
    """Encode every example; dropped ones stay in the result with empty ids and a reason."""
    return tuple(
        item
        for example in examples
        for item in encode_turns(example, chat, max_length=max_length, too_long=too_long)
    )
