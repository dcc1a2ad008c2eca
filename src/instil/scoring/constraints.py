"""Conditions on an answer that a program can check, such as `items = 3` or `capitals`.

A row lists them in the field that its task names with `checks:`; the metric `constraint` gives 1
where an answer meets them all. What there is (N is a number, TEXT stands in double quotes)::

    words = N         also <= and >=: how many words (without blanks: characters) there are
    items = N         also <= and >=: what commas (of any script) part; none may be empty
    lines = N         also <= and >=: lines with something on them; an empty answer has no count
    capitals          no lower-case letter, and at least one letter
    lower case        no capital, and at least one letter
    starts with TEXT  ends with TEXT  contains TEXT  avoids TEXT      up to case
    each starts with TEXT    every item, or where there is no comma every word, up to case
    each among TEXT          every item is one of those that commas part in TEXT, up to case
    all different            no item (or word) comes twice, up to case
    in order                 the items (or words) stand in alphabetical order
    equals TEXT              the answer is that text, letter for letter
    json                     the answer is valid JSON

A worked example: `plum, pear` meets `items = 2`, `each starts with "p"` and `in order` does not
hold, since plum comes after pear. How a letter with an accent is encoded makes no difference, but
for `equals`; it stands beside the letter without.
"""

from __future__ import annotations

import json
import operator
import re
import unicodedata
from collections.abc import Callable

from instil.scoring.text import is_wide_mark, spaced, visible_text

_COUNT = re.compile(r"(words|items|lines) (=|<=|>=) (\d+)")
_TEXT = re.compile(
    r'(starts with|ends with|contains|avoids|equals|each starts with|each among) "(.*)"', re.S
)
_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "=": operator.eq,
    "<=": operator.le,
    ">=": operator.ge,
}
_COMMA = re.compile("[,\uff0c\u3001\u060c]")
_EDGES = " \t\n.!?;:\"'"


def holds(condition: str, answer: str) -> bool:
    """Say whether an answer meets a condition.

    >>> holds("items = 3", "plum, pear, fig"), holds("capitals", "Fig")
    (True, False)

    Raises:
        ValueError: there is no such condition.
    """
    answer = answer.strip()
    if counted := _COUNT.fullmatch(condition):
        count = _count(counted[1], answer)
        return count is not None and _COMPARE[counted[2]](count, int(counted[3]))
    if quoted := _TEXT.fullmatch(condition):
        if quoted[1] == "equals":
            return answer == quoted[2]
        return _WITH_TEXT[quoted[1]](visible_text(answer), visible_text(quoted[2]))
    if condition in _PLAIN:
        return _PLAIN[condition](answer)
    raise ValueError(f"there is no condition {condition!r}")


def items(answer: str) -> list[str]:
    """Part an answer at its commas, or, where it has none, at its blanks; lower-cased.

    >>> items("Plum, blue berry."), items("Plum pear")
    (['plum', 'blue berry'], ['plum', 'pear'])
    """
    parts = _COMMA.split(answer) if _COMMA.search(answer) else answer.split()
    return [_stripped(part).lower() for part in parts]


def is_condition(condition: str) -> bool:
    """Whether there is such a condition."""
    try:
        holds(condition, "")
    except ValueError:
        return False
    return True


def _count(what: str, answer: str) -> int | None:
    """How many there are; None for a list with an empty item, which no count fits."""
    if not answer:
        return None
    if what == "words":
        return len([word for word in spaced(answer).split() if any(map(str.isalnum, word))])
    if what == "lines":
        return len([line for line in answer.splitlines() if line.strip()])
    parts = [_stripped(part) for part in _COMMA.split(answer)]
    return len(parts) if all(parts) else None


def _stripped(part: str) -> str:
    """Return an item without blanks and punctuation around it."""
    return visible_text(part).strip(_EDGES + "".join(filter(is_wide_mark, part)))


def _order(item: str) -> str:
    """Return what an item is sorted by: its letters without accents."""
    return "".join(c for c in unicodedata.normalize("NFKD", item) if not unicodedata.combining(c))


def _each_starts(answer: str, text: str) -> bool:
    parts = items(answer)
    return bool(parts) and all(part.startswith(text.lower()) for part in parts)


def _each_among(answer: str, text: str) -> bool:
    parts = items(answer)
    return bool(parts) and set(parts) <= {part.strip().lower() for part in _COMMA.split(text)}


def _is_json(answer: str) -> bool:
    try:
        json.loads(answer)
    except (ValueError, RecursionError):  # RecursionError: nested without end
        return False
    return True


_WITH_TEXT: dict[str, Callable[[str, str], bool]] = {
    "starts with": lambda answer, text: answer.lower().startswith(text.lower()),
    "ends with": lambda answer, text: answer.lower().endswith(text.lower()),
    "contains": lambda answer, text: text.lower() in answer.lower(),
    "avoids": lambda answer, text: bool(answer) and text.lower() not in answer.lower(),
    "each starts with": _each_starts,
    "each among": _each_among,
}
_PLAIN: dict[str, Callable[[str], bool]] = {
    "capitals": str.isupper,
    "lower case": str.islower,
    "all different": lambda answer: len(set(items(answer))) == len(items(answer)) > 0,
    "in order": lambda answer: (
        bool(items(answer)) and items(answer) == sorted(items(answer), key=_order)
    ),
    "json": _is_json,
}
