"""Rows made by a program from a seed: `made:arithmetic?rows=5000&seed=0`.

They need no download and no licence, and what is right about them is known exactly. The same rows
and seed give the same rows on every machine. `MAKERS` is the table of what can be made:

- `arithmetic`: the four operations on whole numbers, as a term (`37 + 58`), in words (`37 plus 58`)
  and as a story. Columns `term`, `spoken`, `operation`, `story`, `answer`, and `pair` (both numbers
  and the operation, whatever their order: 37 + 58 and 58 + 37 are one pair).
- `constraints`: requests whose answers a program can check. Columns `request`, `kind`, `answer`
  (one of many that are right) and `conditions` (a list, as in `scoring.constraints`).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from urllib.parse import parse_qsl

from instil.data.readers.rowfile import PlacedRow
from instil.data.sources.uri import MADE
from instil.errors import DataError, Problem, nearest

ROWS = 5000
"""Rows that are made unless the address says how many."""
MOST_ROWS = 100_000
"""Rows that can be made, all different."""

Columns = dict[str, object]
Maker = Callable[[random.Random], Columns]
"""Makes one row; the same row may come twice, `read_made` keeps the first."""


def read_made(uri: str) -> Iterator[PlacedRow]:
    """Make the rows of an address, all different; `rows` and `seed` are its options.

    Raises:
        DataError: an unknown maker or option, or a number that is none or too large.
    """
    name, _, query = uri.removeprefix(MADE).partition("?")
    options, problems = {"rows": ROWS, "seed": 0}, []
    if name not in MAKERS:
        problems.append(_unknown(name, MAKERS, uri=uri))
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in options:
            problems.append(_unknown(key, options, uri=uri))
        elif not re.fullmatch(r"[0-9]{1,9}", value):
            problems.append(Problem(f"{key} must be a whole number", where=uri, found=value))
        else:
            options[key] = int(value)
    if not 1 <= options["rows"] <= MOST_ROWS:
        found = str(options["rows"])
        problems.append(Problem("rows", where=uri, found=found, allowed=f"1 to {MOST_ROWS}"))
    if problems:
        raise DataError(*problems)
    return _rows(MAKERS[name], name, rows=options["rows"], seed=options["seed"])


def _rows(maker: Maker, name: str, *, rows: int, seed: int) -> Iterator[PlacedRow]:
    draw = random.Random(f"{name} {seed}")
    seen: set[object] = set()
    while len(seen) < rows:
        row = maker(draw)
        key = next(iter(row.values()))
        if key not in seen:
            seen.add(key)
            yield f"{MADE}{name} row {len(seen)}", row


def _unknown(name: str, allowed: Mapping[str, object], *, uri: str) -> Problem:
    return Problem(
        f"there is no {name!r} to be made",
        where=uri,
        allowed=", ".join(allowed),
        nearest=nearest(name, allowed),
    )


# ---- arithmetic

_NAMES = ("Ann", "Ben", "Carla", "Dev", "Elif", "Femi", "Grace", "Hugo", "Ines", "Jun")
_THINGS = ("apples", "books", "candles", "eggs", "marbles", "nails", "pencils", "stamps", "tiles")
_OPERATIONS = {
    "addition": ("+", "plus"),
    "subtraction": ("-", "minus"),
    "multiplication": ("x", "times"),
    "division": ("/", "divided by"),
}
"""Operation -> its sign, and its name between two numbers."""
_STORIES = {
    "addition": (
        "{name} has {a} {things} and gets {b} more. How many {things} does {name} have now?",
        "There are {a} {things} in one box and {b} in another. How many are there in all?",
    ),
    "subtraction": (
        "{name} had {a} {things} and gave {b} of them away. How many are left?",
        "Of {a} {things}, {b} are broken. How many are whole?",
    ),
    "multiplication": (
        "{a} boxes hold {b} {things} each. How many {things} is that in all?",
        "{name} buys {b} {things} on each of {a} days. How many {things} is that?",
    ),
    "division": (
        "{name} shares {a} {things} equally among {b} friends. How many does each of them get?",
        "{a} {things} are packed into {b} boxes, the same number in each. How many is that?",
    ),
}


def _arithmetic(draw: random.Random) -> Columns:
    operation = draw.choice(tuple(_OPERATIONS))
    sign, word = _OPERATIONS[operation]
    if operation == "addition":
        left, right = draw.randint(2, 999), draw.randint(2, 999)
        answer = left + right
    elif operation == "subtraction":  # the result is never negative
        right, answer = draw.randint(2, 500), draw.randint(1, 499)
        left = right + answer
    elif operation == "multiplication":
        left, right = draw.randint(2, 20), draw.randint(2, 99)
        answer = left * right
    else:  # the result is never a fraction
        right, answer = draw.randint(2, 20), draw.randint(2, 99)
        left = right * answer
    story = draw.choice(_STORIES[operation])
    told = {"name": draw.choice(_NAMES), "things": draw.choice(_THINGS)}
    low, high = sorted((left, right))
    return {
        "term": f"{left} {sign} {right}",
        "spoken": f"{left} {word} {right}",
        "operation": operation,
        "story": story.format(a=left, b=right, **told),
        "answer": str(answer),
        "pair": f"{operation} {low} {high}",
    }


# ---- constraints

_WORDS = (
    "acorn anchor apple arrow badge basket beacon blanket bridge bucket cabin camel candle "
    "carrot castle cedar circle cotton desert dinner dragon drum eagle echo elbow engine fabric "
    "falcon feather fiddle forest garden ginger glove guitar hammer harbour hazel helmet honey "
    "island ivory jacket jelly jungle kettle kitchen kitten ladder lantern lemon lizard magnet "
    "maple meadow mirror nectar needle noodle nutmeg oasis olive onion orchard paddle pebble "
    "pepper pillow quartz quill rabbit ribbon river rocket saddle salmon silver spider temple "
    "thunder ticket tunnel umbrella valley velvet violin walnut whistle window winter yarn "
    "yogurt zebra zipper"
).split()
_ADJECTIVES = "big calm dark fast glad kind loud old proud red shy small strong tall young".split()
_ANIMALS = "bear cat crow dog duck fox frog goat horse lion mouse owl pig rabbit wolf".split()
_VERBS = "jumps looks naps plays rolls runs sings sits stands swims waits walks".split()
_PLACES = (
    "on a hill|by a river|in a garden|at night|in town|during a long storm|far from its old home|"
    "on top of a high wall|with a glad crowd of birds|at dawn"
).split("|")


def _constraints(draw: random.Random) -> Columns:
    names = ("request", "kind", "answer", "conditions")
    return dict(zip(names, draw.choice(_REQUESTS)(draw), strict=True))


_Request = tuple[str, str, str, list[str]]


def _choose(draw: random.Random) -> _Request:
    words = draw.sample(_WORDS, draw.randint(5, 8))
    count = draw.randint(2, len(words) - 2)
    request = f"Choose exactly {count} of these words and part them by commas: {', '.join(words)}."
    answer = ", ".join(draw.sample(words, count))
    among = f'each among "{", ".join(words)}"'
    return request, "choice", answer, [f"items = {count}", among, "all different"]


def _start(draw: random.Random) -> _Request:
    count = draw.randint(2, 4)
    letters = [
        letter
        for letter in sorted({word[0] for word in _WORDS})
        if sum(word[0] == letter for word in _WORDS) >= count
    ]
    letter = draw.choice(letters)
    also = draw.choice([word for word in _WORDS if word[0] == letter])
    request = (
        f'Give {count} different words that start with the letter {letter.upper()}, "{also}" among '
        "them, parted by commas."
    )
    others = [word for word in _WORDS if word[0] == letter and word != also]
    given = [also, *draw.sample(others, count - 1)]
    draw.shuffle(given)
    conditions = [f"items = {count}", f'each starts with "{letter}"', "all different"]
    return request, "first letter", ", ".join(given), [*conditions, f'contains "{also}"']


def _order(draw: random.Random) -> _Request:
    words = draw.sample(_WORDS, draw.randint(3, 6))
    request = f"Put these words into alphabetical order, with commas: {', '.join(words)}."
    among = f'each among "{", ".join(words)}"'
    conditions = [f"items = {len(words)}", among, "all different", "in order"]
    return request, "order", ", ".join(sorted(words)), conditions


def _repeat(draw: random.Random) -> _Request:
    word, count = draw.choice(_WORDS), draw.randint(2, 7)
    request = f'Write the word "{word}" {count} times in a row, with blanks between.'
    return request, "repetition", " ".join([word] * count), [f'equals "{" ".join([word] * count)}"']


def _capitals(draw: random.Random) -> _Request:
    sentence = _sentence(draw).rstrip(".")
    request = f"Write this sentence in capital letters: {sentence}."
    return request, "capitals", f"{sentence}.".upper(), ["capitals", f'contains "{sentence}"']


def _length(draw: random.Random) -> _Request:
    sentence = _sentence(draw).rstrip(".")
    count, sign = len(sentence.split()), draw.choice((".", "!"))
    named = {".": "a full stop", "!": "an exclamation mark"}[sign]
    word = draw.choice([word for word in _ANIMALS if word in sentence.split()])
    request = (
        f'Write a sentence of exactly {count} words that has the word "{word}" in it and ends with '
        f"{named}."
    )
    conditions = [f"words = {count}", f'contains "{word}"', f'ends with "{sign}"']
    return request, "length", f"{sentence}{sign}", conditions


def _avoid(draw: random.Random) -> _Request:
    missing: list[str] = []
    while not missing:
        sentence = _sentence(draw)
        missing = [letter for letter in "abdefgiklmnoprstuw" if letter not in sentence.lower()]
    letter, least = draw.choice(missing), min(len(sentence.split()), draw.randint(4, 8))
    word = draw.choice([word for word in _ANIMALS if word in sentence.split()])
    request = (
        f'Write a sentence of at least {least} words that has the word "{word}" in it and not once '
        f"the letter {letter.upper()}."
    )
    conditions = [f"words >= {least}", f'avoids "{letter}"', f'contains "{word}"']
    return request, "missing letter", sentence, conditions


def _sentence(draw: random.Random) -> str:
    return (
        f"The {draw.choice(_ADJECTIVES)} {draw.choice(_ANIMALS)} {draw.choice(_VERBS)} "
        f"{draw.choice(_PLACES)}."
    )


_REQUESTS: Sequence[Callable[[random.Random], _Request]] = (
    _choose,
    _start,
    _order,
    _repeat,
    _capitals,
    _length,
    _avoid,
)

MAKERS: dict[str, Maker] = {"arithmetic": _arithmetic, "constraints": _constraints}
"""What can be made: name -> the function that makes a row."""
