"""What one token says: its text, or where it is a part of a character its bytes."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def token_text(tokenizer: Any, token: int) -> tuple[str, bytes]:
    r"""Return a token's text and its bytes in UTF-8, as OpenAI's API gives them.

    The bytes of all tokens, joined, are those of the answer. A token that is no whole characters is
    called `bytes:\xe4\xbd`, so that two of them are two.

    Args:
        tokenizer: Of the model; byte-level BPE, or SentencePiece with tokens for bytes.
        token: Its id.
    """
    text = str(tokenizer.decode([token]))
    if "\ufffd" not in text:
        return text, text.encode()
    piece = str(tokenizer.convert_ids_to_tokens(token))
    if byte := _BYTE.fullmatch(piece):
        said = bytes([int(byte[1], 16)])
    elif all(letter in _bytes_of_letters() for letter in piece):
        said = bytes(_bytes_of_letters()[letter] for letter in piece)
    else:
        return text, text.encode()
    return "bytes:" + "".join(f"\\x{value:02x}" for value in said), said


@cache
def _bytes_of_letters() -> dict[str, int]:
    """Return the byte that each letter of byte-level BPE stands for (Radford et al. 2019)."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return {letter: value for value, letter in bytes_to_unicode().items()}
