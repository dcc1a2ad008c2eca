r"""A tokenizer as llama.cpp reads it: tokens, their kinds, merges or scores, special tokens.

Two kinds of tokenizer are known there, and each by what tokenizer.json says of itself::

    BPE over bytes    merges, and the name of the rule that splits a text into words first
    SentencePiece     blanks are "▁", unknown characters are bytes `<0x41>`, and of two neighbours
                      those are joined whose token has the best score: here by the rank of its merge

llama.cpp names the rules that split words. Which one a tokenizer has is read off its own rule, not
off its vocabulary, so that a tokenizer with other words is known too; one that llama.cpp does not
have is refused.

Tests: `tests/ship/test_gguf_families.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gguf import GGUFWriter, TokenType

from instil.encode.chat_format import ChatFormat
from instil.errors import ModelError
from instil.ship.formats import USE_MERGED

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _words(digits: str) -> str:
    """Return the rule of Llama 3 and of those after it, which differ in runs of digits."""
    return rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}{_REST}"


# The parts of a rule, in order -> llama.cpp's name: a splitting pattern, or a step's own name.
_RULES: Mapping[tuple[str, ...], str] = {
    ("words",): "gpt-2",
    ("digit", "words"): "smollm",
    (_words(r"\p{N}"),): "qwen2",
    (_words(r"\p{N}{1,3}"),): "llama-bpe",
}
_KEEPS_MERGES = {"llama-bpe": "smaug-bpe"}
"""Where llama.cpp looks whole words up before it merges -> the same rule that merges always."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens in the order of their ids."""

    model: str
    """llama.cpp's name of the kind: `gpt2` or `llama`."""
    rule: str
    """How words are split, for `gpt2`."""
    tokens: Sequence[str]
    """As many as the model has embeddings."""
    kinds: Sequence[TokenType]
    """Of each token."""
    merges: Sequence[str] = ()
    """Two tokens with a blank between them, for `gpt2`."""
    scores: Sequence[float] = ()
    """For `llama`."""
    prefixed: bool = False
    """Whether a text gets a blank in front."""


def vocabulary(tokenizer: Any, *, rows: int) -> Vocabulary:
    """Read a tokenizer.

    Args:
        tokenizer: A transformers tokenizer of the fast kind.
        rows: Embeddings that the model has; places beyond the tokenizer's tokens are filled.

    Raises:
        ModelError: llama.cpp has no such tokenizer.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    words, added = state["model"], state["added_tokens"]
    if words["type"] != "BPE":
        raise _unknown(f"a tokenizer of the kind {words['type']}")
    tokens = [f"[PAD{place}]" for place in range(rows)]
    kinds = [TokenType.UNUSED] * rows
    by_bytes = bool(words.get("byte_fallback"))
    for token, place in words["vocab"].items():
        if place < rows:
            tokens[place] = token
            is_byte = by_bytes and len(token) == 6 and token.startswith("<0x")
            kinds[place] = TokenType.BYTE if is_byte else TokenType.NORMAL
    for token in added:
        if token["id"] < rows:
            tokens[token["id"]] = token["content"]
            special = TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED
            kinds[token["id"]] = special
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in words["merges"]]
    if not by_bytes:
        if state.get("normalizer") not in (None, {"type": "NFC"}):
            raise _unknown(f"a tokenizer that rewrites texts first: {state['normalizer']['type']}")
        parts = tuple(_parts(state["pre_tokenizer"]))
        if parts not in _RULES:
            raise _unknown(f"a tokenizer that splits words by {' then '.join(parts) or 'no rule'}")
        rule = _RULES[parts]
        if not words.get("ignore_merges"):
            rule = _KEEPS_MERGES.get(rule, rule)
        merges = [" ".join(pair) for pair in pairs]
        return Vocabulary("gpt2", rule, tokens, kinds, merges=merges)
    if words.get("unk_token") in words["vocab"]:
        kinds[words["vocab"][words["unk_token"]]] = TokenType.UNKNOWN
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(pairs):
        ranks.setdefault("".join(pair), rank)
    scores = [-float(ranks.get(token, 0)) for token in tokens]
    # A text gets a blank in front by either of two ways to say so.
    steps = json.dumps([state.get("normalizer"), state.get("pre_tokenizer")])
    marks = ('"Prepend"', '"prepend_scheme": "first"', '"always"')
    prefixed = any(mark in steps for mark in marks)
    return Vocabulary("llama", "default", tokens, kinds, scores=scores, prefixed=prefixed)


def write_vocabulary(writer: GGUFWriter, chat: ChatFormat, *, rows: int) -> None:
    """Write a tokenizer, its special tokens and the chat template, as the run was judged with.

    Raises:
        ModelError: llama.cpp has no such tokenizer.
    """
    words, tokenizer = vocabulary(chat.tokenizer, rows=rows), chat.tokenizer
    writer.add_tokenizer_model(words.model)
    writer.add_tokenizer_pre(words.rule)
    writer.add_token_list(words.tokens)
    writer.add_token_types(words.kinds)
    if words.merges:
        writer.add_token_merges(words.merges)
    if words.scores:
        writer.add_token_scores(words.scores)
        writer.add_add_space_prefix(words.prefixed)
    stop = chat.stop_id
    ends = tokenizer.eos_token_id if tokenizer.eos_token_id in range(rows) else stop
    special = {
        "bos": tokenizer.bos_token_id,
        "eos": ends,
        "eot": next((each for each in (stop, *chat.stop_ids) if each != ends), None),
        "unk": tokenizer.unk_token_id,
        "pad": chat.pad_id,
    }
    for name, token in special.items():
        if token is not None and token < rows:
            getattr(writer, f"add_{name}_token_id")(token)
    writer.add_add_bos_token(begins_with_bos(chat))
    writer.add_add_eos_token(False)
    writer.add_chat_template(tokenizer.chat_template)


def begins_with_bos(chat: ChatFormat) -> bool:
    """Whether a text gets BOS in front, as the tokenizer has it and as prompts were trained.

    Where the template writes BOS too, llama.cpp takes the template's away and puts its own there.
    """
    bos = chat.tokenizer.bos_token_id
    return bos is not None and chat.tokenizer("a")["input_ids"][:1] == [bos]


def _parts(step: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield the parts of a rule: `words` and `digit`, or the pattern itself."""
    if step is None:
        return
    if step["type"] == "Sequence":
        for each in step["pretokenizers"]:
            yield from _parts(each)
    elif step["type"] == "ByteLevel":
        if step.get("add_prefix_space"):
            yield "a blank in front"
        if step.get("use_regex", True):
            yield "words"
    elif step["type"] == "Digits" and step["individual_digits"]:
        yield "digit"
    elif step["type"] == "Split" and step["behavior"] == "Isolated" and not step["invert"]:
        yield next(iter(step["pattern"].values()))
    else:
        yield step["type"]


def _unknown(what: str) -> ModelError:
    return ModelError(f"llama.cpp does not have {what}", where="export", fix=USE_MERGED)
