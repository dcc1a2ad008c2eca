"""Text as the metrics compare it: normalised answers, their words, and which choice they name.

Tests: `tests/evaluate/test_metrics.py`.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any

UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""A character of a script that puts no blanks between words: Thai, Lao, Burmese, Khmer, Japanese,
Chinese."""
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_MARK = re.compile(f"[{re.escape(string.punctuation)}]")
_PLAIN = {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)} | {
    ord(dash): "-" for dash in "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
}
"""Full-width signs, and every dash and minus, as ASCII writes them."""
_JOINERS = "\u200c\u200d"
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?")
_OPENING = " \t\n\"'`*([{<\u201c\u2018\u00ab\u201e\u300c\u300e\u300a\u3010\u00bf\u00a1"
_CLOSING = (
    " \t\n\"'`*)]}>\u201d\u2019\u00bb\u201c\u300d\u300f\u300b\u3011"
    ".,;:!?\u3002\u3001\u2026\u0964\u060c\u061b\u061f\u06d4"
)


def normalise(text: str) -> str:
    """Return an answer without case, punctuation, English articles and spare spaces.

    SQuAD's rule (Rajpurkar et al. 2016, evaluate-v1.1), except that marks which make another answer
    of it stay (`-5` is not 5, `3.14` not 314, `x+1` not `x-1`, `C#` not C), that punctuation beyond
    ASCII goes as well, and that a text which would vanish (`+`, `The`) is only lower-cased, or else
    it would equal every other such text.

    >>> normalise("The  Eiffel Tower!"), normalise("It is -3.5 %."), normalise("**1,000** C++")
    ('eiffel tower', 'it is -3.5', '1000 c++')
    >>> normalise("A"), normalise(" + ")
    ('a', '+')
    """
    lowered = unicodedata.normalize("NFC", text).lower().translate(_PLAIN)
    bare = _MARK.sub(lambda mark: mark[0] if _says(lowered, mark.start()) else "", lowered)
    if not bare.isascii():
        bare = "".join(c for c in bare if c.isascii() or unicodedata.category(c)[0] != "P")
    kept = " ".join(_ARTICLES.sub(" ", bare).split())
    return kept or " ".join(lowered.split())


def _says(text: str, place: int) -> bool:
    """Whether the mark at a place is a sign, an operator or within a number."""
    mark, before, after = text[place], text[place - 1 : place], text[place + 1 : place + 2]
    if mark == "-":
        return after.isdecimal()
    if mark == "+":
        return before.isalnum() or after.isdecimal() or (before == "+" and place > 1)
    if mark == ".":
        return after.isdecimal() and not before.isalpha()
    if mark in ":/":
        return before.isdecimal() and after.isdecimal()
    if mark in "%#":
        return before.isdecimal() if mark == "%" else before.isalnum()
    return mark in "*=<>^" and before.isalnum() and after.isalnum()


def spaced(text: str) -> str:
    """Return a text with blanks round each character of scripts that put none between words.

    >>> spaced("北京 Beijing")
    ' 北  京  Beijing'
    """
    return text if text.isascii() else UNSPACED.sub(r" \g<0> ", text)


def words(text: str) -> list[str]:
    """Return the words of the normalised text; without blanks between words, its characters.

    >>> words("in the north of France."), words("北京。")
    (['in', 'north', 'of', 'france'], ['北', '京'])
    """
    return spaced(normalise(text)).split()


def letters(text: str) -> list[str]:
    """Return the lower-cased runs of letters and digits, of any script; a mark is its letter's.

    Of scripts without blanks between words each character is a word.

    >>> letters("Crème-brûlée, 2 x"), letters("हिन्दी की"), letters("我爱北京")
    (['crème', 'brûlée', '2', 'x'], ['हिन्दी', 'की'], ['我', '爱', '北', '京'])
    """
    kept = [
        c if c.isalnum() or c in _JOINERS or unicodedata.category(c).startswith("M") else " "
        for c in spaced(unicodedata.normalize("NFC", text).lower())
    ]
    said = "".join(kept).split()
    return [word for word in said if any(map(str.isalnum, word)) or UNSPACED.match(word)]


def match_choice(text: str, choices: Sequence[str]) -> int | None:
    """Return the place of the choice that `text` is, or None.

    Tried in turn: letter for letter; up to case, quotes and closing punctuation; the same for the
    first line that says anything, since models like to go on after their answer. A text that only
    mentions a choice is not taken for it: `not positive` is not `positive`.

    >>> match_choice("Positive.", ["positive", "negative"])
    0
    >>> match_choice("not positive", ["positive", "negative"]) is None
    True
    """
    if text in choices:
        return list(choices).index(text)
    bare = [_bare(choice) for choice in choices]
    first = next((line for line in text.splitlines() if line.strip()), "")
    for candidate in (_bare(text), _bare(first)):
        if bare.count(candidate) == 1:
            return bare.index(candidate)
    return None


def number_in(text: str) -> float | None:
    """Return the first number in the text.

    >>> number_in("I would give it 4 out of 5.")
    4.0
    """
    match = _NUMBER.search(text)
    return float(match.group()) if match else None


@cache
def rouge_scorer(kind: str) -> Any:
    """Return rouge_score's scorer for `rouge1`, `rouge2` or `rougeL`, with stemming.

    Its own tokenizer deletes every letter beyond a-z, so that a Russian summary would score 0;
    here such words are kept whole. Plain ASCII text scores as in rouge_score itself.
    """
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import DefaultTokenizer

    class Tokenizer:
        plain = DefaultTokenizer(use_stemmer=True)

        def tokenize(self, text: str) -> list[str]:
            pieces = (self.plain.tokenize(w) if w.isascii() else [w] for w in letters(text))
            return [token for piece in pieces for token in piece]

    return RougeScorer([kind], tokenizer=Tokenizer())


def _bare(text: str) -> str:
    folded = " ".join(unicodedata.normalize("NFC", text).translate(_PLAIN).casefold().split())
    # Signs stay in front (-1 is not 1), and a text of nothing but punctuation stays whole.
    return folded.lstrip(_OPENING).rstrip(_CLOSING) or folded
