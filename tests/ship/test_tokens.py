from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from instil.ship.server.tokens import token_text

TEXT = "a 你 é 😀"


def byte_level() -> PreTrainedTokenizerFast:
    letters = {letter: n for n, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(vocab=letters, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made)


def byte_fallback() -> PreTrainedTokenizerFast:
    pieces = ["<unk>", *(f"<0x{value:02X}>" for value in range(256)), "a", " "]
    vocab = {piece: n for n, piece in enumerate(pieces)}
    model = models.BPE(vocab=vocab, merges=[], byte_fallback=True, unk_token="<unk>")
    made = Tokenizer(model)
    made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=made)


@pytest.mark.parametrize("make", [byte_level, byte_fallback])
def test_the_bytes_of_tokens_are_those_of_the_text(make) -> None:
    tokenizer = make()
    ids = tokenizer(TEXT)["input_ids"]
    told = [token_text(tokenizer, token) for token in ids]
    assert b"".join(said for _, said in told) == TEXT.encode()
    parts = [text for text, _ in told if text.startswith("bytes:")]
    assert len(parts) == 3 + 2 + 4
    assert parts[:3] == [r"bytes:\xe4", r"bytes:\xbd", r"bytes:\xa0"]
    assert told[0] == ("a", b"a")
