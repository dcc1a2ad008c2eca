from __future__ import annotations

import pytest

from instil.tasks.spans import names_of


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-PER I-PER O B-LOC", [("PER", "a b"), ("LOC", "d")]),
        ("B-PER B-PER O O", [("PER", "a"), ("PER", "b")]),
        ("I-PER I-LOC I-LOC O", [("PER", "a"), ("LOC", "b c")]),
        ("O O O O", []),
        ("S-PER B-LOC I-LOC E-LOC", [("PER", "a"), ("LOC", "b c d")]),
        ("B-LOC E-LOC I-LOC O", [("LOC", "a b"), ("LOC", "c")]),
        ("U-PER U-PER B-LOC L-LOC", [("PER", "a"), ("PER", "b"), ("LOC", "c d")]),
        ("PER PER O LOC", [("PER", "a b"), ("LOC", "d")]),
        ("B_PER I_PER O O", [("PER", "a b")]),
        ("I-PER O I-PER O", [("PER", "a"), ("PER", "c")]),
    ],
)
def test_names_are_read_from_tags(tags, expected):
    assert names_of("a b c d".split(), tags.split()) == expected
