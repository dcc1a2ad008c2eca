"""The values of a label column: which are choices, in which order, and how they are reached.

Text labels become choices in alphabetical order. Numbers become choices in their own order; many
different numbers are rounded to whole ones or, where that leaves too many or too few, put into five
steps.
Labels that differ in upper and lower case alone, or in blanks, Unicode form or characters that
cannot be seen, are one. Labels of too few rows are left out.

What has to be computed is a Jinja2 expression for the task file's `fields`, what is left out are
conditions for its `where`::

    >>> column = Column("stars")
    >>> for value in ["4.0", "5", "5"] * 9 + ["", "1"]:
    ...     column.add(value)
    >>> labels = rating_labels(column, field="rating")
    >>> labels.choices, dict(labels.left_out)
    (('4', '5'), {'1': 1})
    >>> labels.where
    ('stars is not none and stars | string | trim', 'stars | float not in [1]')
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from instil.data.columns import Column
from instil.data.registry import NUMBER
from instil.tasks.sandbox import tidied
from instil.tasks.template import quoted, spelt

FEWEST_OF_CLASS = 5
"""Rows that a class needs, so that every part of the split can have some."""
MOST_STEPS = 11
"""More numbers than that are rounded: 0 to 10 is the longest scale that people rate on."""
STEPS = 5
"""Steps of a scale that still has too many whole numbers."""
MOST_LISTED = 200
"""Tokens, as estimated, that a list of the choices may take in a prompt."""
_FEWEST_STEPS = 3  # rounding 0 to 1 would leave two

FORMS: tuple[tuple[str, Callable[[str], str], str], ...] = (
    ("tidy", tidied, "blanks, Unicode form or invisible characters"),
    ("lower", str.lower, "upper and lower case"),
)
"""Filters that make labels one, what they do, and the difference that they take away."""


class Asks(StrEnum):
    """How a question asks for a label."""

    NAME = "name"
    """What is the sentiment? Its answers are words."""
    YES_NO = "yes or no"
    """Is it sarcastic?"""
    ANSWER = "answer"
    """Yes or no? The text itself asks, or nothing says what is asked."""
    LETTER = "letter"
    """Which class is it? Its answers are letters that stand for it."""
    NUMBER = "number"
    """Which class is it? Its answers are the numbers of the data."""


@dataclass(frozen=True, slots=True)
class Labels:
    """The choices of a task and the way to them."""

    choices: tuple[str, ...]
    """In order."""
    counts: Mapping[str, int]
    """Choice -> rows."""
    expression: str
    """Of the derived field that holds the label; empty: the column itself does."""
    left_out: Mapping[str, int]
    """Values that are no choice -> rows."""
    where: tuple[str, ...]
    """Conditions that leave out these, and the rows without a label."""
    notes: tuple[str, ...]
    """What was done to the values, for people."""
    words: Mapping[str, str] = field(default_factory=dict)
    """Value -> the choice that stands for it, in order; empty: the choices are the values."""
    asks: Asks = Asks.NAME
    """How a question asks for them."""
    warnings: tuple[str, ...] = ()
    """What was guessed of them that the user should look at."""


def class_labels(column: Column, *, field: str, as_text: bool = False) -> Labels:
    """Turn the values of a column into unordered choices.

    Args:
        column: All its values are short.
        field: What a derived field would be called.
        as_text: Whether numbers are texts: codes, in which 012 is not 12.
    """
    if not as_text and column.numbers and column.numbers + column.missing == column.filled:
        return _numbers_as_they_are(column)
    # Texts such as `nan` are no labels among truth values; among other texts they are classes.
    gone = {value: n for value, n in column.values.items() if value.casefold() in _NOT_A_NUMBER}
    others = {value.casefold() for value in column.values if value not in gone}
    gone = gone if others and others <= _TRUTHS else {}
    counts, expression, notes = Counter(column.values), "", []
    for value in gone:
        del counts[value]
    for steps, form, difference in FORMS:
        joined = Counter[str]()
        for value, count in counts.items():
            joined[form(value)] += count
        if len(joined) < len(counts):
            counts = joined
            before = expression or f"{spelt(column.name)} | string | trim"
            expression = f"{before} | {steps}"
            notes.append(f"labels that differ in {difference} are taken as one")
    if expression:
        expression = _guarded(expression, _filled(column))
    kept, rare = _without_rare(counts)
    label = field if expression else f"{spelt(column.name)} | string | trim"
    where = [*_filled(column)]
    if gone:
        where.append(f"{spelt(column.name)} | string | trim not in [{_listed(gone)}]")
    if len(rare) > len(kept):
        where.append(f"{label} in [{_listed(kept)}]")
    elif rare:
        where.append(f"{label} not in [{_listed(rare)}]")
    left_out = {**rare, **gone}
    # In the order of the one number that each has (`2 stars`, `10 stars`), else of the alphabet.
    numbers = {value: re.findall(r"\d+(?:\.\d+)?", value) for value in kept}
    numbered = all(len(its) == 1 for its in numbers.values())
    places = {value: float(its[0]) if numbered else 0.0 for value, its in numbers.items()}
    choices = tuple(sorted(kept, key=lambda value: (places[value], value.casefold(), value)))
    return Labels(choices, kept, expression, left_out, tuple(where), tuple(notes))


_NOT_A_NUMBER = frozenset({"nan", "#n/a", "<na>"})
_TRUTHS = frozenset("true false yes no y n t f".split())


def rating_labels(column: Column, *, field: str) -> Labels:
    """Turn the numbers of a column into ordered choices.

    Args:
        column: Nearly all its values are numbers; the others are left out.
        field: What a derived field would be called.
    """
    if len(_numbers(column)) <= MOST_STEPS:
        return _numbers_as_they_are(column)
    name, numbers = spelt(column.name), _numbers(column)
    low, high = min(numbers), max(numbers)
    if _FEWEST_STEPS <= len({round(number) for number in numbers}) <= MOST_STEPS:
        step: Callable[[float], int] = round
        rule = f"{name} | float | round | int | string"
        note = "ratings are rounded to whole numbers"
    else:
        width = (high - low) / STEPS

        def step(number: float) -> int:
            return min(int((number - low) / width), STEPS - 1) + 1

        share = f"(({name} | float) - {_number(low)}) / {_number(width)}"
        rule = f"(([({share}) | int, {STEPS - 1}] | min) + 1) | string"
        note = f"ratings from {_number(low)} to {_number(high)} are put into {STEPS} equal steps"
    counts = Counter[str]()
    for number, count in numbers.items():
        counts[str(step(number))] += count
    kept, rare = _without_rare(counts)
    usable = [*_filled(column), *_only_numbers(column)]
    where = [*usable, *([f"{field} not in [{_listed(rare)}]"] if rare else [])]
    choices = tuple(sorted(kept, key=int))
    left_out = {**rare, **_no_numbers(column)}
    return Labels(choices, kept, _guarded(rule, usable), left_out, tuple(where), (note,))


def tokens(text: str) -> int:
    """Estimate how many tokens a label takes in a list, its comma included.

    >>> tokens("positive"), tokens("财经新闻")
    (3, 4)
    """
    return 1 + math.ceil(len(text.encode()) / 4)


def listable(choices: Iterable[str]) -> bool:
    """Whether a prompt has room for all choices."""
    return sum(map(tokens, choices)) <= MOST_LISTED


def _numbers_as_they_are(column: Column) -> Labels:
    counts = Counter({_number(number): n for number, n in _numbers(column).items()})
    kept, rare = _without_rare(counts)
    where = [*_filled(column), *_only_numbers(column)]
    if rare:
        where.append(f"{spelt(column.name)} | float not in [{', '.join(rare)}]")
    left_out = {**rare, **_no_numbers(column)}
    return Labels(tuple(sorted(kept, key=float)), kept, "", left_out, tuple(where), ())


def _numbers(column: Column) -> Counter[float]:
    """Count the numbers, `4.0` and `4` being one."""
    counts = Counter[float]()
    for value, count in column.values.items():
        if NUMBER.fullmatch(value):
            counts[float(value)] += count
    return counts


def _no_numbers(column: Column) -> dict[str, int]:
    return {value: n for value, n in column.values.items() if not NUMBER.fullmatch(value)}


def _only_numbers(column: Column) -> list[str]:
    """Write the condition that leaves out what is no number, such as `n/a`."""
    others = _no_numbers(column)
    return [f"{spelt(column.name)} | string | trim not in [{_listed(others)}]"] if others else []


def _number(number: float) -> str:
    """Write a number in full, without a needless `.0`, and never with an exponent."""
    return str(int(number)) if number == int(number) else f"{Decimal(repr(number)):f}"


def _without_rare(counts: Mapping[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """Part the values that have enough rows from the others; all stay if two do not."""
    kept = {value: count for value, count in counts.items() if count >= FEWEST_OF_CLASS}
    if len(kept) < 2:
        return dict(counts), {}
    return kept, {value: count for value, count in counts.items() if value not in kept}


def _filled(column: Column) -> list[str]:
    return [is_filled(column)] if column.empty else []


def _guarded(rule: str, conditions: Sequence[str]) -> str:
    """Write an expression that is empty where it could not be computed."""
    if not conditions:
        return rule
    return f'({rule}) if {" and ".join(f"({each})" for each in conditions)} else ""'


def _listed(values: Mapping[str, int]) -> str:
    return ", ".join(quoted(value) for value in values)


def is_filled(column: Column) -> str:
    """Write the condition that a column holds something."""
    name = spelt(column.name)
    defined = f"{name} is defined and " if column.absent else ""
    return f"{defined}{name} is not none and {name} | string | trim"
