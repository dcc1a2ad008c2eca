"""Words with a tag each (BIO, IOB, IOBES or bare types): the names that the tags mark."""

from __future__ import annotations

import re
from collections.abc import Sequence

_TAG = re.compile(r"([BIESLU])[-_](.+)")


def names_of(tokens: Sequence[str], tags: Sequence[str]) -> list[tuple[str, str]]:
    """Return the names that tags mark, each with its type, in order.

    An `I-` that goes on with nothing begins a name, as it does in IOB1; bare types (`PER PER O`)
    run on until they change.

    >>> names_of(["Ada", "Byron", "in", "Paris"], ["B-PER", "I-PER", "O", "B-LOC"])
    [('PER', 'Ada Byron'), ('LOC', 'Paris')]
    """
    names: list[tuple[str, list[str]]] = []
    last = ""
    for token, tag in zip(tokens, tags, strict=True):
        match = _TAG.fullmatch(tag)
        begins, kind = (match[1], match[2]) if match else ("", tag)
        kind = "" if tag in ("O", "", "0") else kind
        if kind and (kind != last or begins in ("B", "S", "U")):
            names.append((kind, [token]))
        elif kind:
            names[-1][1].append(token)
        last = "" if begins in ("E", "L", "S", "U") else kind
    return [(kind, " ".join(words)) for kind, words in names]
