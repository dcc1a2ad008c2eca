"""What is wrong with the data itself: repeated texts, contradicting labels, lopsided classes.

Terms. Two texts are *exact* duplicates when they are the same once case, punctuation and white
space are set aside. They are *near* duplicates when the Jaccard similarity of their *shingles*, the
runs of three words, reaches a threshold:

>>> sorted(shingles("A good, solid film."))
['a good solid', 'good solid film']

A worked example: `the film is good fun for all` and `the film is good fun for us` have five
shingles each and share four of them, so their similarity is 4 / (5 + 5 - 4) = 0.67.

Candidates are found with MinHash and locality-sensitive hashing (Broder 1997; Leskovec, Rajaraman
and Ullman, Mining of Massive Datasets, chapter 3) and are then compared exactly, so that no text is
taken out on an estimate.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from instil.data.split import part_rows
from instil.errors import DataError, Problem
from instil.scoring.text import spaced
from instil.types import Part, Removed, Row, Split, Task

EXACT = "exact duplicate"
NEAR = "near duplicate"
PERMUTATIONS = 64
SHINGLE_WORDS = 3
MINHASH_SEED = 1
RECALL = 0.98
FEW_CANDIDATES = 8
"""Candidates that are compared without a look at their sketches."""
THRESHOLD = 0.8


_KEPT = frozenset("*/\\%&#@")
"""Punctuation that is not set aside: what tells formulas, code and shares apart."""
_MINUS = re.compile(r"(?<![^\W\d_])[-\u2013]\s*(?=\d)")
_NOT = re.compile(r"!(?=[\w=(])")


class _NoPunctuation(dict[int, str | None]):
    """A table for `str.translate`, filled as characters are met.

    Apostrophes vanish (don't = dont), other punctuation parts words; symbols such as emoji stay,
    for they can be all that tells two reviews apart.
    """

    def __missing__(self, codepoint: int) -> str | None:
        character = chr(codepoint)
        if character in "'\u2019":
            kept = None
        else:
            parts = unicodedata.category(character).startswith("P") and character not in _KEPT
            kept = " " if parts else character
        self[codepoint] = kept
        return kept


_NO_PUNCTUATION = _NoPunctuation()


def normalise(text: str) -> str:
    r"""Set aside case, white space and what ends or parts sentences.

    What changes the sense of formulas and code stays: a minus before a number, `!=`, `*`, `/`, `%`,
    `&`, `#`, `@`. A text of punctuation alone keeps it.

    >>> normalise("  Good,   SOLID\nfilm!")
    'good solid film'
    >>> normalise("12 - 4"), normalise("12 / 4"), normalise("x != y"), normalise("?!")
    ('12 \u22124', '12 / 4', 'x \u00ac= y', '?!')
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    if "-" in folded or "\u2013" in folded:
        folded = _MINUS.sub(" \u2212", folded)
    if "!" in folded:
        folded = _NOT.sub("\u00ac", folded)
    return " ".join(folded.translate(_NO_PUNCTUATION).split()) or " ".join(folded.split())


def shingles(text: str) -> frozenset[str]:
    """Return the runs of three words of the normalised text; a shorter text is one shingle.

    Of scripts without blanks between words each character counts as a word.
    """
    words = spaced(normalise(text)).split()
    if len(words) < SHINGLE_WORDS:
        return frozenset([" ".join(words)])
    runs = (words[i : i + SHINGLE_WORDS] for i in range(len(words) - SHINGLE_WORDS + 1))
    return frozenset(map(" ".join, runs))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Return the share of shingles that two texts have in common, 0 to 1."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)


def read_text(task: Task, fields: Mapping[str, object]) -> str:
    """Return all that a row gives the model to read: the text, and the turns before it."""
    text = str(fields[task.text])
    turns = fields.get(task.history) if task.history else None
    if not isinstance(turns, list | tuple):
        return text
    said = (str(turn.get("content") or "") for turn in turns if isinstance(turn, Mapping))
    return "\n".join([*said, text])


def repeats_within(rows: Sequence[Row], *, task: Task, near: bool = True) -> list[Removed]:
    """Find the rows of one part that repeat an earlier one of it; nothing is taken out.

    Args:
        rows: Of one part; the first of several alike is not listed.
        task: Says what is read.
        near: Look for near duplicates too.
    """
    texts = {row.id: read_text(task, row.fields) for row in rows}
    index = _Index(texts, threshold=THRESHOLD if near else 1)
    repeats: list[Removed] = []
    for row in rows:
        again = list(index.removed([row.id], part=Part.TRAIN))
        repeats += again
        if not again:
            index.add([row.id])
    return repeats


def repeats_of(
    rows: Sequence[Row], others: Mapping[str, str], *, task: Task, threshold: float = THRESHOLD
) -> list[Removed]:
    """Find the rows that repeat one of some other texts, such as those of a guard task.

    Args:
        rows: To look through.
        others: What to call a text -> the text.
        task: The rows' task.
        threshold: As in `remove_duplicates`.
    """
    texts = {f"row {row.id}": read_text(task, row.fields) for row in rows}
    index = _Index({**texts, **others}, threshold=threshold)
    index.add(others)
    repeats = index.removed([f"row {row.id}" for row in rows], part=Part.TRAIN)
    return [replace(entry, row=entry.row.removeprefix("row ")) for entry in repeats]


def remove_duplicates(
    split: Split,
    rows: Sequence[Row],
    *,
    task: Task,
    threshold: float = THRESHOLD,
) -> Split:
    """Take texts that another part repeats out of the split.

    A row of validation goes when test repeats it, a row of train when test or validation does. No
    row is ever taken from test, and repeats inside one part stay: they leak nothing
    (`conflicting_labels` finds those that contradict one another).

    Args:
        split: As decided on groups.
        rows: All rows of the task.
        task: Says what is read.
        threshold: Jaccard similarity from which two texts are near duplicates, above 0 to 1; at 1
            only exact duplicates are looked for.

    Returns:
        The split without them, each one listed in `removed` with the row that it repeats.

    Raises:
        DataError: Nothing would be left of train or validation, or a threshold out of range.
    """
    if not 0 < threshold <= 1:
        what, allowed = "the threshold for near duplicates is out of range", "above 0, up to 1"
        raise DataError(what, found=str(threshold), allowed=allowed)
    parts = {part: part_rows(split, rows, part) for part in Part}
    texts = {row.id: read_text(task, row.fields) for part in parts.values() for row in part}
    index = _Index(texts, threshold=threshold)
    index.add(split.test)
    no_validation = list(index.removed(split.validation, part=Part.VALIDATION))
    validation = _without(split.validation, no_validation)
    index.add(validation)
    no_train = list(index.removed(split.train, part=Part.TRAIN))
    train = _without(split.train, no_train)
    problems = [
        Problem(
            f"every row of {part} repeats a text that must stay unseen",
            where=f"task {split.task}",
            found=f"{len(parts[part])} rows, all of them duplicates",
            fix="add rows with other texts, or name a group column that keeps repeats together",
        )
        for part, kept in ((Part.VALIDATION, validation), (Part.TRAIN, train))
        if parts[part] and not kept
    ]
    if problems:
        raise DataError(*problems)
    removed = (*split.removed, *no_validation, *no_train)
    return replace(split, train=train, validation=validation, removed=removed)


class _Index:
    """The texts of the parts that must stay unseen, to be asked for repeats."""

    def __init__(self, texts: Mapping[str, str], *, threshold: float) -> None:
        from datasketch import MinHash, MinHashLSH

        self.texts = texts
        self.threshold = threshold
        self.exact: dict[str, str] = {}
        self.shingles: dict[str, frozenset[str]] = {}
        self.sketches = np.empty((len(texts) if threshold < 1 else 0, PERMUTATIONS), np.uint32)
        self.places: dict[str, int] = {}
        self.blank = MinHash(num_perm=PERMUTATIONS, seed=MINHASH_SEED)
        self.lsh = MinHashLSH(num_perm=PERMUTATIONS, params=_bands(threshold))

    def add(self, row_ids: Iterable[str]) -> None:
        """Take up the texts of these rows; the first row of a text stands for it."""
        for row_id in row_ids:
            text = self.texts[row_id]
            if self.exact.setdefault(normalise(text), row_id) == row_id and self.threshold < 1:
                self.shingles[row_id] = shingles(text)
                minhash = self._minhash(self.shingles[row_id])
                self.places[row_id] = len(self.places)
                self.sketches[self.places[row_id]] = minhash.hashvalues
                self.lsh.insert(row_id, minhash)

    def removed(self, row_ids: Iterable[str], *, part: Part) -> Iterator[Removed]:
        """Yield those of the rows that repeat a text of the index."""
        for row_id in row_ids:
            text = self.texts[row_id]
            original = self.exact.get(normalise(text))
            if original is not None:
                yield Removed(row_id, part=part, why=EXACT, of=original, similarity=1.0)
                continue
            if self.threshold == 1:
                continue
            own = shingles(text)
            minhash = self._minhash(own)
            # In the order of ids: candidates come in the order of a set, which no seed fixes.
            candidates = sorted(self._likely(minhash.hashvalues, self.lsh.query(minhash)))
            alike = ((jaccard(own, self.shingles[other]), other) for other in candidates)
            similarity, nearest = max(alike, key=lambda pair: pair[0], default=(0.0, ""))
            if similarity >= self.threshold:
                yield Removed(row_id, part=part, why=NEAR, of=nearest, similarity=similarity)

    def _likely(self, sketch: Any, candidates: Sequence[str]) -> Sequence[str]:
        """Leave out those candidates that the sketches say are far from the threshold.

        Texts that share a frame (a form, a footer) find one another by the thousand. A pair at the
        threshold is left out with a probability of less than half a percent.
        """
        if len(candidates) < FEW_CANDIDATES:
            return candidates
        same = self.sketches[[self.places[other] for other in candidates]] == sketch.astype(
            np.uint32
        )
        doubt = (self.threshold * (1 - self.threshold) / PERMUTATIONS) ** 0.5
        kept = same.mean(axis=1) >= self.threshold - 3 * doubt
        return [other for other, close in zip(candidates, kept, strict=True) if close]

    def _minhash(self, runs: frozenset[str]) -> Any:
        minhash = self.blank.copy()
        minhash.update_batch([run.encode() for run in runs])
        return minhash


def _bands(threshold: float) -> tuple[int, int]:
    """Return bands and rows a band that find a pair at the threshold with 98 % probability.

    The probability is 1 - (1 - s^r)^b for similarity s, r rows and b bands (Mining of Massive
    Datasets, 3.4.2). The library's own choice weighs misses and false alarms alike and finds 36 %
    at 0.8; here a false alarm costs one exact comparison, and a miss is a leak.

    >>> _bands(0.8)
    (12, 5)
    """
    sizes = range(PERMUTATIONS // 2, 1, -1)
    chances = {r: 1 - (1 - threshold**r) ** (PERMUTATIONS // r) for r in sizes}
    rows = next((r for r in sizes if chances[r] >= RECALL), 1)
    return PERMUTATIONS // rows, rows


def _without(row_ids: Sequence[str], removed: Iterable[Removed]) -> tuple[str, ...]:
    gone = {entry.row for entry in removed}
    return tuple(row_id for row_id in row_ids if row_id not in gone)


def label_counts(rows: Iterable[Row], task: Task) -> dict[str, int]:
    """Count the rows of each choice, in the order of the choices; empty for free text."""
    counts = Counter(str(row.fields[task.target]) for row in rows) if task.choices else Counter()
    return {choice: counts[choice] for choice in task.choices}


def conflicting_labels(rows: Iterable[Row], task: Task) -> list[tuple[str, str]]:
    """Return pairs of row ids with the same normalised text and different labels.

    Each row is paired with the first earlier row of its text that has another label, so that the
    list never has more pairs than there are rows. Empty for free text, where answers may differ.
    """
    if not task.choices:
        return []
    seen: dict[str, dict[str, str]] = {}
    pairs = []
    for row in rows:
        label = str(row.fields[task.target])
        first = seen.setdefault(normalise(read_text(task, row.fields)), {})
        other = next((row_id for known, row_id in first.items() if known != label), None)
        if other is not None:
            pairs.append((other, row.id))
        first.setdefault(label, row.id)
    return pairs
