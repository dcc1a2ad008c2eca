"""Rows that are made from a seed."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instil.data.sources.source import read_table
from instil.errors import DataError
from instil.library.made import MAKERS
from instil.scoring.constraints import holds
from instil.types import SourceSpec


def read(uri: object, **how: str) -> list[tuple[str, dict[str, object]]]:
    return list(read_table(SourceSpec(uri=str(uri), **how)))


@pytest.mark.parametrize("name", MAKERS)
def test_the_same_seed_makes_the_same_rows_and_another_seed_others(name: str) -> None:
    first = read(f"made:{name}?rows=300&seed=3")
    assert first == read(f"made:{name}?rows=300&seed=3")
    assert first[:200] == read(f"made:{name}?rows=200&seed=3")
    assert first != read(f"made:{name}?rows=300&seed=4")
    keys = [next(iter(columns.values())) for _, columns in first]
    assert len(set(keys)) == 300


def test_made_rows_stay_what_they_were() -> None:
    """A run is repeatable only as long as these never change."""
    (_, sums), (_, asked) = (next(iter(read(f"made:{n}?rows=1"))) for n in MAKERS)
    assert sums == {
        "term": "16 x 7",
        "spoken": "16 times 7",
        "operation": "multiplication",
        "story": "16 boxes hold 7 pencils each. How many pencils is that in all?",
        "answer": "112",
        "pair": "multiplication 7 16",
    }
    assert str(asked["request"]).startswith("Give 2 different words that start with the letter W")
    assert (asked["answer"], len(asked["conditions"])) == ("window, winter", 4)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**8))
def test_every_sum_is_right(seed: int) -> None:
    signs = {"+": int.__add__, "-": int.__sub__, "x": int.__mul__, "/": int.__floordiv__}
    for _, row in read(f"made:arithmetic?rows=40&seed={seed}"):
        left, sign, right = str(row["term"]).split()
        assert signs[sign](int(left), int(right)) == int(str(row["answer"])) >= 0
        assert sign != "/" or int(left) % int(right) == 0
        assert left in str(row["story"])
        assert right in str(row["story"])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**8))
def test_every_answer_meets_its_conditions_and_not_all_of_anothers(seed: int) -> None:
    rows = [row for _, row in read(f"made:constraints?rows=40&seed={seed}")]
    for row in rows:
        assert row["conditions"]
        assert all(holds(c, str(row["answer"])) for c in row["conditions"]), row
        assert not all(holds(c, "I cannot say.") for c in row["conditions"]), row
    assert len({row["kind"] for row in rows}) >= 4


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("made:arithmetics", "did you mean: arithmetic"),
        ("made:arithmetic?row=5", "did you mean: rows"),
        ("made:arithmetic?rows=many", "whole number"),
        ("made:arithmetic?rows=0", "1 to 100000"),
    ],
)
def test_what_cannot_be_made_is_told_at_once(uri: str, told: str) -> None:
    with pytest.raises(DataError, match=told):
        read_table(SourceSpec(uri=uri))


def test_rows_are_made_one_by_one() -> None:
    rows = read_table(SourceSpec(uri="made:arithmetic?rows=100000"))
    assert len(list(islice(rows, 5))) == 5
