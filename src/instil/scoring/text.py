"""Text as the metrics compare it: normalised answers, their words, and which choice they name.

Tests: `tests/evaluate/test_metrics.py`.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Sequence
from functools import cache, partial
from itertools import dropwhile
from typing import Any

_SCRIPTS = (
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff]"
)
UNSPACED = re.compile(_SCRIPTS)
"""A character of a script that puts no blanks between words: Thai, Lao, Burmese, Khmer, Japanese,
Chinese."""
_WITH_MARKS = re.compile(rf"{_SCRIPTS}(?:(?![\w\s]){_SCRIPTS})*")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_MARK = re.compile(rf"[{re.escape(string.punctuation)}]|[^\w\s\x00-\x7f]")
_LISTING = re.compile(r"[|;\"\[\]]|(?<!\d),|,(?!\d)")
_THOUSANDS = re.compile(r"[,'\u2019](?:\d{3}|\d{2}(?:,\d{2})*,\d{3})(?!\d)")  # 1,000 and 1,50,000
_JOINERS = "\u200c\u200d"
_PLAIN = {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5E)} | str.maketrans(
    dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\uff5e\u301c", "-")
    | {"\u066a": "%", "\u066b": ".", "\u066c": ","}
)
"""Full-width and Arabic signs, hyphens, short dashes and minus, as ASCII writes them."""
_LONG_DASHES = "\u2014\u2015"
_NUMBER = re.compile(r"(?<![A-Za-z0-9_.])[-+]?\d+(?:\.\d+|,\d{1,2}(?!\d))?")
_OPENING = " \t\n\"'`*([{<"
_CLOSING = " \t\n\"'`*)]}>.,;:!?"


def visible_text(text: str) -> str:
    """Return a text composed (NFC), without characters that nobody sees, such as U+200B."""
    composed = unicodedata.normalize("NFC", text)
    if composed.isascii():
        return composed
    return "".join(c for c in composed if c in _JOINERS or unicodedata.category(c) != "Cf")


def normalise(text: str) -> str:
    """Return an answer without case, punctuation, English articles and spare spaces.

    SQuAD's rule (Rajpurkar et al. 2016, evaluate-v1.1), except that marks which make another answer
    of it stay (`-5` is not 5, `3.14` not 314, `x+1` not `x-1`, `C#` not C), that those between two
    numbers part them (`3,5` is not 35, but `1,000` is 1000), that punctuation beyond ASCII goes as
    well, and that a text which would vanish (`+`, `The`) is only lower-cased, or else it would
    equal every other such text.

    >>> normalise("The  Eiffel Tower!"), normalise("It is -3.5 %."), normalise("**1,000** C++")
    ('eiffel tower', 'it is -3.5', '1000 c++')
    >>> normalise("A"), normalise(" + ")
    ('a', '+')
    """
    lowered = visible_text(text).lower().translate(_PLAIN)
    bare = _MARK.sub(_left_of, lowered)
    kept = " ".join(_ARTICLES.sub(" ", bare).split())
    return kept or " ".join(lowered.split())


def is_wide_mark(character: str) -> bool:
    """Whether a character is punctuation beyond ASCII."""
    return not character.isascii() and unicodedata.category(character)[0] == "P"


def _left_of(found: re.Match[str]) -> str:
    """Return what a mark comes to: itself where it says something, a blank between two numbers."""
    text, place = found.string, found.start()
    mark, before, after = text[place], text[place - 1 : place], text[place + 1 : place + 2]
    if mark in _LONG_DASHES:  # between words, or a range; never a sign
        return "-" if before.isdecimal() and after.isdecimal() else " "
    if not mark.isascii() and not is_wide_mark(mark):
        return mark
    if _says(mark, before, after, first=place < 2):
        return mark
    parts = before.isdecimal() and after.isdecimal()
    return " " if parts and not _THOUSANDS.match(text, place) else ""


def _says(mark: str, before: str, after: str, *, first: bool) -> bool:
    """Whether a mark is a sign, an operator or within a number."""
    if mark == "-":
        return after.isdecimal()
    if mark == "+":
        return before.isalnum() or after.isdecimal() or (before == "+" and not first)
    if mark == ".":
        return after.isdecimal() and not before.isalpha()
    if mark in ":/":
        return before.isdecimal() and after.isdecimal()
    if mark in "%\u2030#":
        return before.isalnum() if mark == "#" else before.isdecimal()
    return mark in "*=<>^" and before.isalnum() and after.isalnum()


def spaced(text: str) -> str:
    """Return a text with blanks round each character of scripts that put none between words.

    >>> spaced("北京 Beijing")
    ' 北  京  Beijing'
    """
    return text if text.isascii() else _WITH_MARKS.sub(r" \g<0> ", text)


def words(text: str) -> list[str]:
    """Return the words of the normalised text; without blanks between words, its characters.

    Marks of lists part words also where no blank does: `a|b`, `a;b`, `["a","b"]`.

    >>> words("in the north of France."), words("北京。")
    (['in', 'north', 'of', 'france'], ['北', '京'])
    """
    found = spaced(normalise(_LISTING.sub(" ", text))).split()
    return found if any(map(str.isalnum, "".join(found))) else normalise(text).split()


def letters(text: str) -> list[str]:
    """Return the lower-cased runs of letters and digits, of any script; a mark is its letter's.

    Of scripts without blanks between words each character is a word.

    >>> letters("Crème-brûlée, 2 x"), letters("हिन्दी की"), letters("我爱北京")
    (['crème', 'brûlée', '2', 'x'], ['हिन्दी', 'की'], ['我', '爱', '北', '京'])
    """
    kept = [
        c if c.isalnum() or c in _JOINERS or unicodedata.category(c).startswith("M") else " "
        for c in spaced(visible_text(text).lower())
    ]
    # A mark or joiner without a letter before it is what an emoji left behind.
    said = ["".join(dropwhile(lambda c: not c.isalnum(), word)) for word in "".join(kept).split()]
    return [word for word in said if word]


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

    A comma before one or two figures is a decimal one.

    >>> number_in("I would give it 4 out of 5."), number_in("我给4分"), number_in("4,5 Sterne")
    (4.0, 4.0, 4.5)
    """
    match = _NUMBER.search(text.translate(_PLAIN))
    return float(match.group().replace(",", ".")) if match else None


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
    folded = " ".join(visible_text(text).translate(_PLAIN).casefold().split())
    # Signs stay in front (-1 is not 1), and a text of nothing but punctuation stays whole.
    led = "".join(dropwhile(partial(_wraps, marks=_OPENING), folded))
    kept = "".join(dropwhile(partial(_wraps, marks=_CLOSING), reversed(led)))
    return kept[::-1] or folded


def _wraps(character: str, *, marks: str) -> bool:
    return character in marks or is_wide_mark(character)
