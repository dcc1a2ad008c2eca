"""The rules by which columns are taken for text, label, text to write, and group.

A column's name speaks first, read as words (`reviewText`, `review-text` and `Review Text` are
`review`, `text`), then what it holds. Counters, ids, dates and links are never taken for text or
label.

Tests: `tests/init/test_inspect.py`.
"""

from __future__ import annotations

import contextlib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import regex

from instil.data.columns import Column
from instil.data.registry import NUMBER
from instil.init.labels import FEWEST_OF_CLASS

_LABELS = (
    "label labels sentiment category class topic rating ratings stars star score scores grade "
    "polarity intent intents emotion genre gold spam stance "
    "kategorie klasse etikett stimmung catégorie classe étiquette categoría clase "
    "etiqueta sentimiento categoria etichetta"
).split()
RATINGS = frozenset("rating ratings stars star score scores grade points".split())
"""Words of a name for ratings."""
_NOMINAL = frozenset("label labels class category topic intent genre gold stance spam".split())
ATTRIBUTES = frozenset(
    "gender sex category type kind group topic genre language lang intent emotion domain section "
    "department subject stance party side variant version code color colour country region city "
    "state status author source product brand nationality species race ethnicity religion weekday "
    "month year class cluster".split()
)
"""Words of a name for kinds of things, whose numbers have no order."""
_CODES = frozenset(
    "zip zipcode postcode postal plz code codes sku isbn ean upc asin version icd hs naics year "
    "month day weekday hour week quarter".split()
)
_TARGETS = (
    "target summary highlights headline answer output completion response reply translation "
    "abstract correction title"
).split()
REWRITES = frozenset(
    "correction corrected fixed translated rewritten rewrite revised simplified improved "
    "paraphrase paraphrased".split()
)
"""Words of a name for a text that was made from another one."""
NOUNS = frozenset(
    "review sentence message comment document question article tweet post email ticket dialogue "
    "conversation paragraph abstract note letter report story product headline statement claim "
    "passage title caption utterance answer response".split()
)
"""What texts are called."""
_TEXTS = "text review sentence content body message comment document question prompt input".split()
_GROUPS = (
    "group review document doc article thread conversation dialogue session patient case product "
    "asin item movie book user author reviewer customer account source url file"
).split()
_PRIVATE = frozenset(
    "email mail phone telephone mobile street ssn iban passport birthday birthdate surname "
    "firstname lastname".split()
)
_IDS = frozenset({"id", "ids", "index", "idx", "uuid", "guid", "key", "number", "column"})
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+", re.ASCII)
_FEWEST_GROUPS = 12
_AS_LONG = 0.8  # of the longest text's words, from which on another is as long
_SHORT_NAME = 6  # words of a label on average
_FEWEST_EACH = 1.5  # rows a value, on average, in a column that is named like a label


FEW_TAGS = 0.01
"""From this share of cells with HTML tags on, the text is read without them."""


class Kind(StrEnum):
    """What the target is."""

    CLASSES = "classes"
    RATING = "rating"
    WRITTEN = "classes, written"
    """Too many to list or to score each: the answer is generated."""
    FREE_TEXT = "free text"


@dataclass(frozen=True, slots=True)
class Pick:
    """A column and why it was taken."""

    column: Column
    """The one that was taken."""
    why: str
    """For people."""
    others: tuple[str, ...] = ()
    """Columns that would have done as well."""


def name_words(name: str) -> list[str]:
    """Read a column's name as words.

    >>> name_words("reviewText"), name_words("Star-Rating_2")
    (['review', 'text'], ['star', 'rating', '2'])
    >>> name_words("भावना-अंक")  # vowel signs are of their letters
    ['भावना', 'अंक']
    """
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", unicodedata.normalize("NFC", name))
    return [word.lower() for word in regex.split(r"[\W_]+", spaced) if word]


def guess_text(columns: Iterable[Column]) -> Pick | None:
    """Take the column with the longest texts, but none that is named like an answer.

    Of several of about one length: the longest with a name for texts, or else the first.
    """
    texts = [column for column in columns if _is_text(column) and not _is_rejected(column)]
    asked = [column for column in texts if not _is_answer(column)] or texts
    if not asked:
        return None
    best = max(asked, key=lambda each: (each.mean_words, bool(_rank(each, _TEXTS))))
    alike = [each for each in asked if each.mean_words >= _AS_LONG * best.mean_words]
    named = [each for each in alike if {*name_words(each.name)} & {*_TEXTS, *NOUNS, "details"}]
    if len(alike) > 1 and not named:
        others = ", ".join(repr(each.name) for each in alike[1:])
        return Pick(alike[0], f"the first of the texts of about one length, with {others}")
    best = max(named or alike, key=lambda each: (each.mean_words, bool(_rank(each, _TEXTS))))
    return Pick(best, f"the longest text, {best.mean_words:.0f} {best.unit} on average")


def unused_texts(columns: Iterable[Column], *, used: Sequence[str]) -> tuple[str, ...]:
    """Name the columns of written language that no template has, such as a question's context."""
    return tuple(each.name for each in columns if each.name not in used and _is_text(each))


def guess_target(columns: Sequence[Column], *, most: int) -> Pick | None:
    """Take what is named like a label, then like an answer, then what has few values, then a text.

    Args:
        columns: All but the text.
        most: Values that a label has at most, unless its name says that it is one.
    """
    labels = [column for column in columns if _is_label(column, most=most) or is_rating(column)]
    named = [column for column in labels if _rank(column, _LABELS)]
    # Of `label` and `label_text` the one with words.
    named.sort(key=lambda column: (_rank(column, _LABELS), column.is_mostly(column.numbers)))
    columns = [column for column in columns if not _is_rejected(column)]
    usable = [c for c in columns if not _is_something_else(c) and c.filled >= 0.5 * c.rows]
    answers = [column for column in usable if _is_answer(column)]
    answers.sort(key=lambda column: _rank(column, _TARGETS) or len(_TARGETS))
    words = sorted((c for c in labels if not c.is_mostly(c.numbers)), key=lambda c: len(c.values))
    if len(words) < len(labels):  # 0 and 1 are rather a label than the names of fifty products
        words = [column for column in words if not _is_group(column, rows=column.rows)]
    numbers = [column for column in labels if column.is_mostly(column.numbers)]
    texts = sorted((c for c in columns if _is_text(c)), key=lambda c: -c.mean_words)
    for why, found in (
        ("a name for labels", named),
        ("a name for answers", answers),
        ("the fewest values", words),
        ("the second longest text", texts),
        ("a few numbers", numbers),
    ):
        if found:
            return Pick(found[0], why, tuple(column.name for column in found[1:]))
    return None


def guess_group(columns: Sequence[Column], *, rows: int) -> Pick | None:
    """Take a column of names of things that come several times, if one has enough of them."""
    groups = [column for column in columns if _is_group(column, rows=rows)]
    groups.sort(key=lambda column: (_rank(column, _GROUPS) or len(_GROUPS), -len(column.distinct)))
    if not groups:
        return None
    best, *others = groups
    rows_each = best.filled / len(best.distinct)
    why = f"{len(best.distinct)} values, {rows_each:.1f} rows each on average"
    return Pick(best, why, tuple(column.name for column in others))


def is_rating(column: Column) -> bool:
    """Whether a column holds numbers in an order that matters."""
    words = set(name_words(column.name))
    if not column.is_mostly(column.numbers) or len(column.values) < 3:
        return False
    whole = all(value.lstrip("+-").isdigit() for value in column.values)
    if whole and len(column.distinct) == column.filled:
        return False  # every number comes once, as in an index or an id
    # `emotion` 0 to 27 are kinds; `emotion_intensity` and fractions are not.
    numbers = (float(value) for value in column.values if NUMBER.fullmatch(value))
    kinds = {*name_words(column.name)[-1:]} & ATTRIBUTES and all(n.is_integer() for n in numbers)
    nominal = kinds or words & (_NOMINAL | _IDS) or is_code(column)
    return bool(words & RATINGS) or not nominal


def holds_objects(column: Column) -> bool:
    """Whether nearly all that a column holds are JSON objects of short values."""
    found, words = 0, list[int]()
    for value, count in column.values.items():
        with contextlib.suppress(ValueError, RecursionError):
            read = json.loads(value) if value[0] == "{" else None
            found += count * isinstance(read, dict)
            values = read.values() if isinstance(read, dict) else ()
            words += [len(each.split()) for each in values if isinstance(each, str)]
    short = not words or sum(words) <= 5 * len(words)
    return short and column.objects >= 0.9 * column.filled > 0 and found > 0


def _is_answer(column: Column) -> bool:
    """Whether a name is that of an answer; of a text made from another one where it is a text."""
    made = bool({*name_words(column.name)} & {*REWRITES, "chosen"})
    return bool(_rank(column, _TARGETS)) or (made and _is_text(column))


def _is_rejected(column: Column) -> bool:
    """Whether it holds the worse of two answers, which nobody wants to be learnt."""
    return "rejected" in name_words(column.name)


def has_decimal_commas(column: Column) -> bool:
    """Whether a column's numbers are written as 4,5, which reads as text."""
    found = sum(n for value, n in column.values.items() if _DECIMAL_COMMA.fullmatch(value))
    return found > 0 and column.is_mostly(found + column.numbers)


def is_named_label(column: Column) -> bool:
    """Whether a column's name says that it holds a label."""
    return _rank(column, _LABELS) > 0


def comes_again(column: Column) -> bool:
    """Whether values are names of something rather than texts: some come more than once."""
    return column.counted and 2 <= len(column.values) <= column.filled / _FEWEST_EACH


def is_code(column: Column) -> bool:
    """Whether a column's numbers are texts: postcodes, versions, years, anything as 01234."""
    words = set(name_words(column.name))
    return not words & RATINGS and bool(column.codes or words & (_CODES | _IDS))


def mending(column: Column) -> tuple[str, ...]:
    """Name the filters that mend a column's texts."""
    filters = ["mend_encoding"] if column.mojibake else []
    if column.tags >= FEW_TAGS * max(1, column.filled):
        filters.append("strip_tags")
    elif column.entities:
        filters.append("unescape")
    return tuple(filters)


def personal_data(column: Column, *, used: bool) -> Iterator[str]:
    """Warn of a column that seems to hold what belongs to a person."""
    named = bool(set(name_words(column.name)) & _PRIVATE)
    if used and column.emails:
        yield (
            f"{column.emails} cells of {column.name!r} hold an e-mail address, which the model "
            "would learn: take them out first"
        )
    elif not used and (named or column.emails > 0.2 * column.filled):
        yield f"the column {column.name!r} looks like personal data; no template uses it"


def _rank(column: Column, names: Sequence[str]) -> int:
    """Return the place of the first of `names` in a column's name, from 1; 0 for none.

    A name that ends in `id` is that of a thing, not of its text or label.
    """
    words = name_words(column.name)
    if words and words[-1] in _IDS and names is not _GROUPS:
        return 0
    return next((place for place, name in enumerate(names, 1) if name in words), 0)


def _is_text(column: Column) -> bool:
    """Whether a column holds written language: several words, and seldom the same."""
    if _is_something_else(column) or column.is_mostly(column.numbers):
        return False
    varied = len(column.distinct) >= 0.2 * column.filled
    return column.filled >= 0.5 * column.rows and column.mean_words >= 2.5 and varied


def _is_label(column: Column, *, most: int) -> bool:
    """Whether a column has few values, each in several rows."""
    words = set(name_words(column.name))
    if _is_something_else(column) or column.filled < 0.5 * column.rows:
        return False
    if column.is_mostly(column.numbers) and words & (_IDS | _CODES):
        return False
    named = is_named_label(column)
    longest = 2 * _SHORT_NAME if column.unspaced else _SHORT_NAME
    short = column.counted and (named or column.mean_words <= longest)
    enough = sum(count >= FEWEST_OF_CLASS for count in column.values.values()) >= 2
    if named and column.mean_words <= _SHORT_NAME and comes_again(column):
        return True
    return short and column.repeats and (named or (enough and len(column.values) <= most))


def _is_group(column: Column, *, rows: int) -> bool:
    """Whether a column names things, enough of them, none of which makes up much of the rows."""
    words = set(name_words(column.name))
    things = len(column.distinct)
    if column.nested or not words & (set(_GROUPS) | _IDS) or column.filled < 0.9 * rows:
        return False
    if column.mean_words > 8 or things < _FEWEST_GROUPS or column.filled < 1.2 * things:
        return False
    most = max(column.values.values(), default=0)
    return most <= 0.2 * rows


def _is_something_else(column: Column) -> bool:
    other = column.is_mostly(column.dates) or column.is_mostly(column.links)
    return other or column.nested > 0 or not column.filled
