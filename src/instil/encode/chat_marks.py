r"""The marks by which a chat template parts turns, and how data is kept from forging them.

A *mark* is a special token, or a piece of what the template itself writes before, between and
behind the texts of a conversation, found by rendering one with texts that occur nowhere else::

    <|user|>\ninstilmarkA</s>\n<|assistant|>\ninstilmarkB</s>   ->  <|user|>  </s>  <|assistant|>
    <s>[INST] instilmarkA [/INST] instilmarkB </s>              ->  <s>  [INST]  [/INST]  </s>

Which piece is a mark is decided by its form: an added token of the tokenizer with more in it than
letters, digits and blanks; what stands in pointed or square brackets; a heading between two texts
(`### Response:`).
Plain words (`User:`), line feeds and think tags are none: they are ordinary text in data too.

A mark in data is *broken*: a blank goes behind its first character (`< |user|>`). So is what the
tokenizer's normalizer makes a mark (full-width brackets under NFKC, capitals where it has lower
case), and what the template makes one by taking blanks out; there `_` is put in. A template that
changes case is refused: it loses the user's text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from instil.encode.chat_proof import MARK, Holds, SystemHeld, content_of
from instil.encode.chat_template import ChatTemplateError, render

_BRACKETS = re.compile(r"<+[^<>\n]{1,60}>+|\[[^\[\]\n]{1,60}\]")
_HEADINGS = re.compile(r"#{2,} ?\w[^\n]{0,60}")
_THINK = re.compile(r"\W*think(ing)?\W*", re.IGNORECASE)
_FOLDED = "\uff1cA\u00e9\u200b\u00ad\x01"
"""Characters of which a normalizer that does more than mark blanks changes at least one."""
_TEXTS = re.compile(f"{MARK}[A-D]")


@dataclass(frozen=True, slots=True)
class Marks:
    """What to break in data, and how."""

    names: tuple[str, ...]
    """The marks, as the template writes them."""
    pattern: re.Pattern[str]
    """Matches each of them."""
    folded: re.Pattern[str]
    """Matches each as the normalizer writes it."""
    normalize: Callable[[str], str] | None = None
    """The tokenizer's normalizer; None where it leaves marks, and what looks like them, alone."""
    gap: str = " "
    """Goes behind a mark's first character."""
    words: tuple[str, ...] = ()
    """Plain words that alone part two turns (`User:`); they are never broken."""

    def broken(self, text: str) -> str:
        """Break every mark in a text; a text without one stays as it is."""
        text = self.pattern.sub(self._break, text)
        if self.normalize is None or not self.folded.search(self.normalize(text)):
            return text
        # Break the characters that become a mark, leaving all others as they are.
        pieces = [self.normalize(character) for character in text]
        places = [place for place, piece in enumerate(pieces) for _ in piece]
        for mark in reversed(list(self.folded.finditer("".join(pieces)))):
            behind = places[mark.start()] + 1
            text = text[:behind] + self.gap + text[behind:]
        whole = self.normalize(text)
        return self.folded.sub(self._break, whole) if self.folded.search(whole) else text

    def count(self, text: str) -> int:
        """Return how many marks a rendered text has for the tokenizer."""
        return len(self.folded.findall(self.normalize(text) if self.normalize else text))

    def _break(self, mark: re.Match[str]) -> str:
        return f"{mark[0][0]}{self.gap}{mark[0][1:]}"


def special_marks(tokenizer: Any) -> Marks:
    """The marks of a model without turns: its special tokens."""
    return _marks(special_tokens(tokenizer), tokenizer)


def find_marks(tokenizer: Any, holds: Holds) -> Marks:
    """Find the marks of a tokenizer and its chat template."""
    added = [t.content for t in tokenizer.added_tokens_decoder.values()]
    names, written = special_tokens(tokenizer), list(_written(tokenizer, holds))
    for text, between in written:
        pieces = [*(token for token in added if token in text), *_BRACKETS.findall(text)]
        pieces += _HEADINGS.findall(text) if between else []
        names |= {
            piece.strip()
            for piece in pieces
            if re.search(r"[^\w\s]", piece) and not _THINK.fullmatch(piece)
        }
    marks = _marks(names, tokenizer)
    marks = _marks(names, tokenizer, loose=_takes_blanks_out(tokenizer, holds, marks))
    parts = {text.strip() for text, between in written if between}
    words = {part for part in parts if re.search(r"\w", part) and not marks.count(part)}
    return replace(marks, words=tuple(sorted(words)))


def special_tokens(tokenizer: Any) -> set[str]:
    """The texts of a tokenizer's special tokens."""
    added = tokenizer.added_tokens_decoder.values()
    return {t.content for t in added if t.special} | set(tokenizer.all_special_tokens)


def _written(tokenizer: Any, holds: Holds) -> Iterator[tuple[str, bool]]:
    """What the template writes around the texts of conversations; whether between two of them.

    Before the first there may be a whole page of instructions, with headings of its own.
    """
    talk = [("user", "A"), ("assistant", "B"), ("user", "C"), ("assistant", "D")]
    talks = [talk, talk[:2]]
    if holds.system is SystemHeld.KEPT:
        talks.append([("system", "D"), *talk[:2]])
    for turns in talks:
        text = _rendered(tokenizer, holds, [(role, MARK + letter) for role, letter in turns])
        for place, part in enumerate(_TEXTS.split(text or "")):
            yield part, place > 0
    yield _rendered(tokenizer, holds, [("user", "")], generation=True) or "", False


def _rendered(
    tokenizer: Any, holds: Holds, turns: Sequence[tuple[str, str]], *, generation: bool = False
) -> str | None:
    """Render a conversation; None where the template raises."""
    whole = [{"role": r, "content": content_of(text, parts=holds.parts)} for r, text in turns]
    try:
        return render(tokenizer, whole, generation=generation)
    except ChatTemplateError:
        return None


def _takes_blanks_out(tokenizer: Any, holds: Holds, marks: Marks) -> bool:
    """Whether marks with blanks between their characters are marks in a rendered conversation."""
    spaced = " ".join(" ".join(name) for name in marks.names)

    def count(text: str) -> int:
        turns = [("user", f"{MARK}A{text}"), ("assistant", f"{MARK}B")]
        return marks.count(_rendered(tokenizer, holds, turns) or "")

    return count(spaced) > count("") + marks.count(spaced)


def _marks(names: set[str], tokenizer: Any, *, loose: bool = False) -> Marks:
    """Make the marks of these names; `loose` where blanks may stand in them."""
    longest_first = sorted((n for n in names if len(n) > 1), key=lambda name: (-len(name), name))
    normalize = _normalizer(tokenizer)

    def pattern(texts: Sequence[str]) -> re.Pattern[str]:
        between = r"\s*" if loose else ""
        each = (between.join(map(re.escape, text)) for text in texts if text)
        return re.compile("|".join(each) or r"(?!)")

    folded = [normalize(name) for name in longest_first] if normalize else longest_first
    return Marks(
        tuple(longest_first),
        pattern(longest_first),
        pattern(folded),
        normalize=normalize,
        gap="_" if loose else " ",
    )


def _normalizer(tokenizer: Any) -> Callable[[str], str] | None:
    """The tokenizer's normalizer, without what it puts before every text."""
    normalizer = tokenizer.backend_tokenizer.normalizer if tokenizer.is_fast else None
    if normalizer is None:
        return None
    front = normalizer.normalize_str("a")

    def normalize(text: str) -> str:
        whole = normalizer.normalize_str("a" + text)
        return whole[len(front) :] if whole.startswith(front) else text

    return normalize if any(normalize(each) != each for each in _FOLDED) else None
