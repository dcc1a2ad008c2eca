"""Encoded examples come out of the store as they went in."""

import json
import pickle
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instil.encode.store import Store, stored
from instil.types import Encoded, Fate

tokens = st.lists(st.tuples(st.integers(0, 200_000), st.booleans()), max_size=20)


@st.composite
def encoded(draw):
    made = []
    for number, pairs in enumerate(draw(st.lists(tokens, max_size=12))):
        ids, mask = tuple(i for i, _ in pairs), tuple(m for _, m in pairs)
        fate = draw(st.sampled_from([Fate.KEPT, Fate.TRUNCATED])) if ids else Fate.DROPPED
        why = "" if fate is Fate.KEPT else f"{fate} at {number}"
        made.append(Encoded(f"e{number}", ids, mask, fate, why))
    return made


@given(encoded())
def test_what_has_tokens_comes_out_as_it_went_in(items):
    store = Store(items)
    kept = [item for item in items if item.ids]
    assert list(store) == kept
    assert list(store[1:3]) == kept[1:3]
    assert [store.tokens(n) for n in range(len(store))] == [len(item.ids) for item in kept]
    assert list(store.names()) == [item.example_id for item in kept]
    assert store.fates.total() == len(items)
    assert all(store.fates[f] == sum(i.fate is f for i in items) for f in Fate)
    assert stored(store) is store


@given(encoded(), st.integers(0, 12), st.booleans())
def test_parts_joined_are_the_whole(items, cut, kept):
    items = [replace(item, example_id=f"x{n % 5}") for n, item in enumerate(items)]
    whole, joined = Store(items), Store()
    for part in (Store(items[:cut]), Store(items[cut:])):
        told, arrays = part.parts()
        joined.extend(Store.of(json.loads(json.dumps(told)), **arrays) if kept else part)
    assert vars(joined) == vars(whole)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(encoded(), st.integers(0, 12))
def test_tokens_in_a_file_are_the_same(tmp_path, items, cut):
    whole, store = Store(items), Store(items[:cut])
    for item in items[cut:]:
        store.spill(tmp_path)
        store.append(item)
        assert store[-1:] == ([item] if item.ids else store[-1:])
    store.spill(tmp_path)
    store.extend(whole)
    assert list(store) == [*whole, *whole]
    assert list(pickle.loads(pickle.dumps(store))) == list(store)
    assert not list(tmp_path.iterdir())


def test_beyond_its_end_is_an_error():
    store = Store([Encoded("a", (1, 2), (False, True))])
    assert store[-1] == store[0]
    with pytest.raises(IndexError):
        store[1]


def test_a_token_takes_five_bytes():
    items = [Encoded(f"e{n}", tuple(range(900, 1900)), (True,) * 1000) for n in range(100)]
    store = Store(items)
    held = store._ids.itemsize * len(store._ids) + len(store._mask)
    assert held == 5 * 100_000
