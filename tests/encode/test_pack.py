from hypothesis import given
from hypothesis import strategies as st

from instil.encode.pack import batches, pack
from instil.encode.store import Store
from instil.types import Encoded


def items(lengths: list[int]) -> list[Encoded]:
    return [
        Encoded(f"e{n:03}", tuple(range(n * 1000, n * 1000 + k)), (False,) * (k - 1) + (True,))
        for n, k in enumerate(lengths)
    ]


lengths = st.lists(st.integers(2, 60), min_size=1, max_size=40)


@given(lengths, st.integers(10, 100))
def test_packs_hold_every_example_whole_once_and_in_order(sizes, limit):
    encoded = items(sizes)
    packs = pack(encoded, max_tokens=limit)
    assert [i for p in packs for i in p.example_ids] == [e.example_id for e in encoded]
    assert [t for p in packs for t in p.ids] == [t for e in encoded for t in e.ids]
    assert [m for p in packs for m in p.mask] == [m for e in encoded for m in e.mask]
    for p in packs:
        assert len(p.ids) <= limit or len(p.example_ids) == 1
        assert len({len(p.ids), len(p.mask), len(p.positions), len(p.segments)}) == 1
        assert sum(position == 0 for position in p.positions) == len(p.example_ids)
        assert len(set(p.segments)) == len(p.example_ids)


@given(lengths, st.integers(10, 100), st.integers(0, 5))
def test_batches_are_a_seeded_shuffle_of_the_epoch(sizes, limit, seed):
    encoded = items(sizes)
    plan = {"tokens_per_batch": 2 * limit, "micro_batch_tokens": limit, "seed": seed}
    one = batches(encoded, **plan, epoch=0)
    again = batches(list(reversed(encoded)), **plan, epoch=0)
    assert one[:] == again[:], "the order given is immaterial"
    ids = [i for batch in one for p in batch for i in p.example_ids]
    assert sorted(ids) == [e.example_id for e in encoded]
    for batch in one:
        tokens = sum(len(p.ids) for p in batch)
        assert tokens <= 2 * limit or sum(len(p.example_ids) for p in batch) == 1


def test_epochs_and_seeds_differ():
    encoded = items([5] * 30)

    def order(**kwargs):
        made = batches(encoded, tokens_per_batch=20, micro_batch_tokens=20, **kwargs)
        return [i for b in made for p in b for i in p.example_ids]

    assert order(seed=1, epoch=0) != order(seed=1, epoch=1)
    assert order(seed=1, epoch=0) != order(seed=2, epoch=0)


def test_dropped_examples_are_left_out():
    encoded = [*items([5, 5]), Encoded("gone", (), ())]
    assert [p.example_ids for p in pack(encoded, max_tokens=50)] == [("e000", "e001")]


@given(st.lists(st.integers(2, 30), min_size=1, max_size=20), st.integers(0, 12))
def test_a_shared_prefix_stands_once_and_loses_nothing(sizes, head):
    prefix = tuple(range(head))
    encoded = [
        Encoded(e.example_id, (*prefix, 7000 + n, *e.ids), (False,) * (head + 1) + e.mask)
        for n, e in enumerate(items(sizes))
    ]
    shared = Store(encoded).shared_prefix()
    assert shared == head or len(encoded) == 1
    for p in pack(encoded, max_tokens=80, shared=shared):
        heads = p.ids[: p.shared]
        for number, name in enumerate(p.example_ids):
            here = [i for i, segment in enumerate(p.segments) if segment == number]
            item = next(e for e in encoded if e.example_id == name)
            assert heads + tuple(p.ids[i] for i in here) == item.ids
            assert tuple(p.mask[i] for i in here) == item.mask[p.shared :]
            assert [p.positions[i] for i in here] == list(range(p.shared, len(item.ids)))
