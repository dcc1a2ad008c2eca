"""A text as tokens, and which of them holds a character.

Fast tokenizers know it by themselves; for the others, what the tokens of the text and of its
beginning have in common must do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from instil.encode.store import common_start


@dataclass(frozen=True, slots=True)
class Tokenized:
    """A text that has been tokenized as a whole, without added special tokens."""

    text: str
    """The text."""
    ids: list[int]
    """Its tokens."""
    tokenizer: Any
    """A transformers tokenizer."""
    encoding: Any
    """What it gave for the text."""

    def at(self, place: int) -> int:
        """Return the token that holds the character at `place`, else the next one that holds any.

        Past the last character it is the number of tokens.
        """
        if not self.encoding.is_fast:
            known = self.tokenizer(self.text[:place], add_special_tokens=False)["input_ids"]
            return common_start(self.ids, known, limit=min(len(self.ids), len(known)))
        for character in range(place, len(self.text)):
            token = self.encoding.char_to_token(character)
            if token is not None:
                return int(token)
        return len(self.ids)

    def begin(self, place: int) -> int:
        """Return the first token of what begins at `place`, blanks right before it included.

        A token that holds the character at `place` belongs to it, whatever else it holds. A token
        of blanks alone belongs to it too: another text might take the blank into its first token.
        """
        blanks = len(self.text[:place].rstrip(" "))
        first, token = self.at(place), self.at(blanks)
        if token < first and self.encoding.is_fast:
            span = self.encoding.token_to_chars(token)
            token += span is not None and span.start < blanks  # a special token takes blanks in
        return token

    def end(self, place: int) -> int:
        """Return how many tokens hold what ends before `place`."""
        last = self.at(place - 1) + 1 if place else 0
        return max(self.at(place), min(last, len(self.ids)))


def tokenized(tokenizer: Any, text: str) -> Tokenized:
    """Tokenize a text in which all special tokens are written out."""
    made = tokenizer(text, add_special_tokens=False)
    return Tokenized(text, list(made["input_ids"]), tokenizer, made)
