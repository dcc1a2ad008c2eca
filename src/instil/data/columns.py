"""What each column of a table holds, counted in one pass over its rows.

`Column` keeps counts, not rows, so that a large file can be looked at: how many cells are filled,
how long the texts are, which short values there are and how often, and what the values look like
(numbers, dates, e-mail addresses).

Tests: `tests/init/test_labels.py`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from instil.data.damage import email, entity, mojibake, tag
from instil.data.registry import NUMBER, plain
from instil.scoring.text import UNSPACED, spaced

LONGEST_VALUE = 300
"""Characters; longer cells are texts, whose values are not counted."""
MISSING = frozenset("nan null none n/a #n/a <na> na".split())
"""Texts that stand for nothing among numbers and truth values; in lower case."""
MOST_VALUES = 50_000
"""Values counted in a column; from there on only those that are known already."""

_LEADING_ZERO = re.compile(r"[+-]?0[0-9]+", re.ASCII)
_MONTH = r"(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}\.?"
_DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ].*)?|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d\d)( \d.*)?"
    rf"|(\w{{3,9}},? )?({_MONTH} \d{{1,2}}(st|nd|rd|th)?|\d{{1,2}}\.? {_MONTH}),? \d{{4}}( .*)?",
    re.IGNORECASE,
)
_LINK = re.compile(r"(https?://|www\.)\S+")


def counted(text: str) -> tuple[int, int]:
    """Return the words of a text, and how many are characters of scripts without blanks."""
    unspaced = 0 if text.isascii() else len(UNSPACED.findall(text))
    return len(spaced(text).split()) if unspaced else len(text.split()), unspaced


def tokens(text: str, *, words: int, unspaced: int) -> int:
    """Estimate how many tokens a text takes at most, without a tokenizer.

    Two a word, or two a character of scripts without blanks; words of other scripts are spelt out
    in pieces, of which a small model's tokenizer has .9 a byte (one Korean word: 9 tokens), and
    words glued together (`card_not_working|refund`) come to one in 3.5 characters.

    >>> tokens("a good film", words=3, unspaced=0), tokens("хороший фильм", words=2, unspaced=0)
    (6, 22)
    """
    ascii_ = sum(map(str.isascii, text)) if not text.isascii() else len(text)
    others = len(text.encode("utf-8", "replace")) - ascii_ - 3 * unspaced
    return max(2 * words, math.ceil(ascii_ / 3.5 + 2 * unspaced + 0.9 * max(0, others)))


def _at(share: float, numbers: list[int]) -> int:
    ordered = sorted(numbers)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0


@dataclass(slots=True)
class Column:
    """One column, as far as it has been read."""

    name: str
    """Its name in the file."""
    rows: int = 0
    """Cells seen."""
    absent: int = 0
    """Rows without the column (JSON)."""
    filled: int = 0
    """Cells that hold something."""
    nested: int = 0
    """Cells that hold a list or a mapping."""
    objects: int = 0
    """Cells that look like a JSON object, however long."""
    numbers: int = 0
    """Cells that hold a number."""
    codes: int = 0
    """Those of them with a leading zero, such as 01234."""
    missing: int = 0
    """Cells with a text that stands for nothing, such as `nan`."""
    unspaced: int = 0
    """Cells that are mostly of a script without blanks between words."""
    dates: int = 0
    """Cells that hold a date."""
    links: int = 0
    """Cells that hold nothing but a link."""
    emails: int = 0
    """Cells with an e-mail address in them."""
    entities: int = 0
    """Cells with an HTML entity in them."""
    tags: int = 0
    """Cells with an HTML tag in them."""
    mojibake: int = 0
    """Cells with text of a damaged encoding."""
    words: list[int] = field(default_factory=list)
    """Words of each filled cell; characters where a script has no blanks between words."""
    tokens: list[int] = field(default_factory=list)
    """Tokens that each of them takes at most, estimated (`tokens`)."""
    values: Counter[str] = field(default_factory=Counter)
    """Short values and how often they come, as text without blanks around it."""
    distinct: set[int] = field(default_factory=set)
    """Hashes of all values."""

    def add(self, value: object) -> None:
        """Count one cell."""
        self.rows += 1
        text = plain(value)
        if not text:
            return
        self.filled += 1
        self.nested += isinstance(value, list | dict)
        self.objects += text[0] == "{" and text[-1] == "}"
        self.numbers += not isinstance(value, bool) and bool(NUMBER.fullmatch(text))
        self.codes += bool(_LEADING_ZERO.fullmatch(text))
        self.missing += len(text) <= 5 and text.casefold() in MISSING
        self.dates += bool(_DATE.fullmatch(text))
        self.links += bool(_LINK.fullmatch(text))
        self.emails += bool(email(text))
        self.entities += bool(entity(text))
        self.tags += bool(tag(text))
        self.mojibake += bool(mojibake(text))
        words, unspaced = counted(text)
        self.unspaced += 2 * unspaced > len(text)
        self.words.append(words)
        self.tokens.append(tokens(text, words=words, unspaced=unspaced))
        self.distinct.add(hash(text))
        if len(text) <= LONGEST_VALUE and (len(self.values) < MOST_VALUES or text in self.values):
            self.values[text] += 1

    @property
    def mean_words(self) -> float:
        """Words of a filled cell, on average."""
        return sum(self.words) / len(self.words) if self.words else 0.0

    @property
    def empty(self) -> int:
        """Cells that hold nothing."""
        return self.rows - self.filled

    @property
    def counted(self) -> bool:
        """Whether all that it holds is in `values`."""
        return sum(self.values.values()) == self.filled

    @property
    def repeats(self) -> bool:
        """Whether it has two values or more that come three times each on average."""
        return self.counted and 2 <= len(self.values) <= self.filled // 3

    def words_at(self, share: float) -> int:
        """Return the number of words that this share of the filled cells does not exceed."""
        return _at(share, self.words)

    def tokens_at(self, share: float) -> int:
        """Return the estimate of tokens that this share of the filled cells does not exceed."""
        return _at(share, self.tokens)

    @property
    def unit(self) -> str:
        """What `words` counts, for people."""
        return "characters" if 2 * self.unspaced > self.filled else "words"

    def is_mostly(self, count: int) -> bool:
        """Whether a kind of cell makes up nearly all of those that hold something."""
        return count > 0 and count >= 0.95 * (self.filled - self.missing)


def count_columns(columns: dict[str, Column], row: Mapping[str, object], *, seen: int) -> None:
    """Count one row.

    Args:
        columns: Changed in place; a name that is new gets a column.
        row: Its cells.
        seen: Rows before this one, so that a column that begins late has its empty cells counted.
    """
    for name, value in row.items():
        if name not in columns:
            columns[name] = Column(name, rows=seen, absent=seen)
        columns[name].add(value)
    for name in columns.keys() - row.keys():
        columns[name].rows += 1
        columns[name].absent += 1
