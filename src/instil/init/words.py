"""Words for the values of a label column: what a prompt says instead of 0 and 1.

A model knows `yes`, `no`, `negative`, and next to nothing of `0` and `1`. The words that a user
gives come first; else the values and the column's name tell:

==========================  ===================================================================
values, name                words
==========================  ===================================================================
0/1, true/false, y/n ...    no, yes: the name is asked about (`Is this text sarcastic?`)
the same, `sentiment`       negative, positive: a guess, and the user is warned of it
the same, `quality`         low, high
the same, `gender`          A, B: the name is no question, and nothing says what the values mean
-/+                         negative, positive
1/3, 2/3                    0.33, 0.67: the fewest digits that tell the values apart
other numbers, a class      the numbers, and the user is asked for words
==========================  ===================================================================

A worked example: the values 0 and 1 of a column `is_spam` become `no` and `yes`; in the task file
that is `labels: {1: yes, 0: no}`.
"""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace

from instil.data.registry import NUMBER, choice_of
from instil.errors import DataError, Problem, nearest
from instil.init.guesses import ATTRIBUTES, Kind, name_words
from instil.init.labels import FORMS, Asks, Labels

YES_NO = ("yes", "no")
"""The words of a question that is answered so, in the order in which people say them."""

_CODED = (("0", "1"), ("-1", "1"), ("false", "true"), ("no", "yes"), ("n", "y"), ("f", "t"))
"""Pairs of values that say yes and no, the no first; in lower case."""
_SAID = _CODED[3:5]
"""Those of them that are words for it."""
_MOST_SAID = 4  # yes, no, and two such as maybe
_SIGNS = ("-", "+")
_POLES = ("negative", "positive")
_THREE_POLES = ("negative", "neutral", "positive")
_POLAR = (
    *(("0", "1"), ("1", "2"), ("0", "4"), ("-1", "1"), _SIGNS),
    *(("0", "1", "2"), ("-1", "0", "1"), ("-", "0", "+")),
)
"""Values from negative to positive in the columns of well-known data sets."""

VERBS = frozenset("is has was are were can does did should will would contains needs".split())
"""What the name of a yes-or-no column begins with: `is_spam`."""
GENERIC = frozenset(
    "label labels target targets class y output gold outcome result results value truth ground "
    "flag binary bool int num cls lbl tag annotation annotated final".split()
)
"""Words of a name that say nothing of what the values mean."""
_ANSWERS = frozenset("answer answers response reply completion output".split())
_SENTIMENTS = frozenset("sentiment polarity mood valence attitude opinion feeling".split())
_SCALES = frozenset(
    "quality priority severity rating ratings stars star score scores grade points level "
    "difficulty risk importance confidence relevance urgency strength intensity".split()
)


def own_words(name: str) -> list[str]:
    """Return the words of a column's name without those that every label column has.

    >>> own_words("sarcasm_label"), own_words("isSpam"), own_words("label_text"), own_words("y1")
    (['sarcasm'], ['is', 'spam'], [], [])
    >>> own_words("category_name"), own_words("Topics")
    (['category'], ['topic'])
    """
    words = [word for word in name_words(name) if not word.isdigit()]
    while len(words) > 1 and words[-1] in _FORMS:
        words.pop()
    own = [word for word in words if word not in GENERIC and word.rstrip("0123456789") != "y"]
    if not own:
        return []
    singular = (f"{own[-1][:-3]}y", own[-1][:-2], own[-1][:-1])
    last = next((each for each in singular if each in ATTRIBUTES | _SENTIMENTS), own[-1])
    return [*own[:-1], last]


_FORMS = frozenset("text name names str string id ids idx value values".split())
"""What a name ends with where several columns hold the label: `label_text` beside `label`."""


def is_answer(name: str) -> bool:
    """Whether a column's name says that it answers what the text asks, and nothing more.

    >>> is_answer("answer"), is_answer("final_output"), is_answer("needs_reply"), is_answer("label")
    (True, True, False, False)
    """
    words = {word for word in name_words(name) if not word.isdigit()}
    return bool(words & _ANSWERS) and words <= _ANSWERS | GENERIC


def parse_words(texts: Sequence[str]) -> dict[str, str]:
    """Read `VALUE=WORD,VALUE=WORD`, as `--label-names` has it; what holds a comma is quoted.

    >>> parse_words(["0=serious,1=sarcastic"]), parse_words(["a=b=c", "d = e"])
    ({'0': 'serious', '1': 'sarcastic'}, {'a': 'b=c', 'd': 'e'})
    >>> parse_words(['"Good, or fair=fine",Bad=bad'])
    {'Good, or fair': 'fine', 'Bad': 'bad'}

    Raises:
        DataError: A part without `=`, an empty value or word, or a value given twice.
    """
    found: dict[str, str] = {}
    problems = []
    for part in (part for text in texts for part in _parts(text)):
        value, _, word = (piece.strip() for piece in part.partition("="))
        if not value or not word:
            what, allowed = "this is no value with its word", "0=serious,1=sarcastic"
            fix = "quote a pair with a comma as a whole: '\"a, b=WORD\"'" if '"' in part else ""
            problems.append(
                Problem(what, where="--label-names", found=part, allowed=allowed, fix=fix)
            )
        elif value in found:
            what = f"the value {value!r} has two words"
            found_words = f"{found[value]}, {word}"
            problems.append(Problem(what, where="--label-names", found=found_words))
        found[value] = word
    if problems:
        raise DataError(*problems)
    return found


def _parts(text: str) -> list[str]:
    """Part a line of CSV.

    Raises:
        DataError: A quote is not closed, or stands within a part.
    """
    try:
        lines = csv.reader(text.splitlines(keepends=True), skipinitialspace=True, strict=True)
        return [part for line in lines for part in line if part.strip()] or [text]
    except csv.Error as error:
        raise DataError(
            "this cannot be read as values with their words",
            where="--label-names",
            found=f"{text} ({error})",
            fix="quote a pair with a comma as a whole: '\"a, b=WORD\"'",
        ) from error


def write_words(words: Mapping[str, str]) -> str:
    """Undo `parse_words`.

    >>> write_words({"0": "serious", "1": "sarcastic"}), write_words({"Good, or fair": "fine"})
    ('0=serious,1=sarcastic', '"Good, or fair=fine"')
    """
    line = io.StringIO()
    csv.writer(line).writerow(f"{v}={word}" for v, word in words.items())
    return line.getvalue().removesuffix("\r\n")


def give_words(
    labels: Labels, *, name: str, codes: bool, kind: Kind, given: Mapping[str, str]
) -> Labels:
    """Put words in place of the values, where there are better ones.

    Args:
        labels: The values of a column, in order.
        name: The column's name.
        codes: Whether numbers are what the column is asked for: postcodes, years.
        kind: Classes or a rating.
        given: Value -> word, as the user has them; empty: the values and the name tell.

    Raises:
        DataError: A value without a word, a word without a value, or two values of one word.
    """
    if given:
        return _given(labels, given, name=name)
    values = tuple(value.lower() for value in labels.choices)
    own = own_words(name)
    last = own[-1] if own and own[0] not in VERBS else ""
    if last in _SENTIMENTS and values in _POLAR:
        return _poles(labels, values, name=name)
    if values == _SIGNS[::-1] or values == _SIGNS:
        return _poles(labels, values, name=name)
    pair = next((pair for pair in _CODED if set(values) == set(pair)), None)
    if pair:
        no = next(value for value in labels.choices if value.lower() == pair[0])
        yes = next(value for value in labels.choices if value.lower() == pair[1])
        return _coded(labels, no=no, yes=yes, said=pair in _SAID, last=last, name=name)
    if set(YES_NO) < set(values) and len(set(values)) == len(values) <= _MOST_SAID:
        others = [value for value in labels.choices if value.lower() not in YES_NO]
        said = [next(v for v in labels.choices if v.lower() == word) for word in YES_NO]
        words = {value: value.lower() for value in (*said, *others)}
        asks = Asks.YES_NO if own and not is_answer(name) else Asks.ANSWER
        return _worded(labels, words, asks)
    if kind is Kind.RATING or not all(NUMBER.fullmatch(value) for value in labels.choices):
        return _shortened(labels)
    if codes:
        return labels
    if last in _SCALES:
        return _shortened(labels)
    warning = f"the labels are numbers; a model does better with words: {_flag(labels.choices)}"
    return replace(_shortened(labels), asks=Asks.NUMBER, warnings=(*labels.warnings, warning))


def _given(labels: Labels, given: Mapping[str, str], *, name: str) -> Labels:
    where = f"--label-names, for {name!r}"
    worded: dict[str, str] = {}
    problems = []
    for value, word in given.items():
        choice = choice_of(value, labels.choices) or _joined(value, labels.choices)
        if choice is not None and worded.setdefault(choice, word) != word:
            what = f"{value!r} is taken as the value {choice!r}, which has two words"
            problems.append(Problem(what, where=where, found=f"{worded[choice]}, {word}"))
        elif choice is not None:
            continue
        elif value not in labels.left_out:
            what, near = f"no row has the value {value!r}", nearest(value, labels.choices)
            allowed = ", ".join(labels.choices)
            problems.append(Problem(what, where=where, allowed=allowed, nearest=near))
    lacking = [value for value in labels.choices if value not in worded]
    if lacking:
        what = f"no word for {', '.join(map(repr, lacking))}"
        fix = f"give every value a word: {_flag(labels.choices)}"
        problems.append(Problem(what, where=where, fix=fix))
    words = list(worded.values())
    twice = next((word for word in words if words.count(word) > 1), "")
    if twice:
        what = f"two values have the same word, {twice!r}"
        problems.append(Problem(what, where=where, fix="give each value a word of its own"))
    if problems:
        raise DataError(*problems)
    asks = Asks.YES_NO if {word.lower() for word in words} == set(YES_NO) else Asks.NAME
    if asks is Asks.YES_NO:
        return _worded(
            labels, {v: w for w in YES_NO for v in worded if worded[v].lower() == w}, asks
        )
    return _worded(labels, {value: worded[value] for value in labels.choices}, asks)


def _joined(value: str, choices: Sequence[str]) -> str | None:
    """Return the choice that a value was taken as one with, as labels differ in form alone.

    >>> _joined("Good ", ["bad", "good"]), _joined("Goods", ["bad", "good"])
    ('good', None)
    """
    for _, form, _ in FORMS:
        value = form(value)
        if value in choices:
            return value
    return None


def _worded(
    labels: Labels, words: Mapping[str, str], asks: Asks, *, note: str = "", warning: str = ""
) -> Labels:
    """Put the words, in their order, in place of the values; none are kept that change nothing."""
    return replace(
        labels,
        choices=tuple(words.values()),
        counts={word: labels.counts[value] for value, word in words.items()},
        words=words if any(value != word for value, word in words.items()) else {},
        asks=asks,
        notes=(*labels.notes, *([note] if note else [])),
        warnings=(*labels.warnings, *([warning] if warning else [])),
    )


def _poles(labels: Labels, values: Sequence[str], *, name: str) -> Labels:
    poles = _THREE_POLES if len(values) == 3 else _POLES
    choices = labels.choices[::-1] if values == _SIGNS[::-1] else labels.choices
    words = dict(zip(choices, poles, strict=True))
    if "-" in values or "-1" in values:
        return _worded(labels, words, Asks.NAME, note=_taken(words))
    other = dict(zip(choices, reversed(poles), strict=True))
    warning = f"{name!r}: {_taken(words)}, a guess; the other way round: {_flag(other)}"
    return _worded(labels, words, Asks.NAME, warning=warning)


def _coded(labels: Labels, *, no: str, yes: str, said: bool, last: str, name: str) -> Labels:
    """Find words for two values that say yes and no."""
    own, words = own_words(name), {yes: YES_NO[0], no: YES_NO[1]}
    if is_answer(name) or (said and not own):
        return _worded(labels, words, Asks.ANSWER)
    if said or (own[:1] and own[0] in VERBS):
        return _worded(labels, words, Asks.YES_NO)
    flag = _flag((no, yes))
    if last in _SCALES:
        scale = {no: "low", yes: "high"}
        return _worded(labels, scale, Asks.NAME, note=f"{_taken(scale)}; other words: {flag}")
    unsaid = f"nothing says what {no} and {yes} of {name!r} mean"
    if last in ATTRIBUTES:
        letters = {no: "A", yes: "B"}
        warning = f"{unsaid}, so they are called A and B; a model does better with words: {flag}"
        return _worded(labels, letters, Asks.LETTER, warning=warning)
    if not own:
        warning = (
            f'{unsaid}: {yes} is asked about as "the target class"; a model does better with '
            f"words: {flag}"
        )
        return _worded(labels, words, Asks.YES_NO, warning=warning)
    return _worded(labels, words, Asks.YES_NO, note=f"{_taken(words)}; other words: {flag}")


def _taken(words: Mapping[str, str]) -> str:
    return ", ".join(f"{value} is read as {word}" for value, word in words.items())


def _flag(words: Sequence[str] | Mapping[str, str]) -> str:
    """Write how words are given; of many values the first.

    >>> print(_flag(["0", "1"]), _flag(["good, or fair", "bad"]))
    --label-names 0=WORD,1=WORD --label-names '"good, or fair=WORD",bad=WORD'
    """
    values = list(words)[:4]
    given = write_words({v: words[v] if isinstance(words, Mapping) else "WORD" for v in values})
    return f"--label-names {shlex.quote(given + (',...' if len(words) > 4 else ''))}"


_LONG_NUMBER = 5  # characters; 0.25 and 12.5 stay as they are


def _shortened(labels: Labels) -> Labels:
    """Write fractions with the fewest digits that tell them apart, but with two at least."""
    if not any(len(value.lstrip("-")) > _LONG_NUMBER for value in labels.choices):
        return labels
    if not all(NUMBER.fullmatch(value) for value in labels.choices):
        return labels
    for digits in range(2, 17):
        long = [f"{float(value):.{digits}f}" for value in labels.choices]
        short = [text.rstrip("0").rstrip(".") for text in long]
        if len(set(short)) == len(short):
            words = dict(zip(labels.choices, short, strict=True))
            return _worded(labels, words, labels.asks)
    return labels
