from hypothesis import given
from hypothesis import strategies as st
from test_loop import encoded

from instil.encode.pack import pack
from instil.encode.places import PER_PROMPT, places, same_start
from instil.types import REPLAY, Encoded, KlOn


def chosen(packs, on, *, skip: int = 0, step: int = 1) -> set[tuple[str, int]]:
    """Which tokens are predicted there: example and position."""
    found = []
    for one in packs:
        for n in places(one, on, seed=0, step=step, skip=skip):
            position = one.positions[n] + 1
            found.append((one.ids[n], position))
    return sorted(found)


def items(sizes, head):
    made = [
        Encoded(e.example_id, head + e.ids, (False,) * len(head) + e.mask) for e in encoded(sizes)
    ]
    text = encoded([9], seed=3)[0]
    return [*made, Encoded(f"{REPLAY}own/0", text.ids, (False, *[True] * 8))]


@given(st.lists(st.integers(6, 60), min_size=2, max_size=6), st.integers(1, 90), st.booleans())
def test_what_is_drawn_does_not_hang_on_the_packing(sizes, limit, with_head):
    head = (3, 4, 5, 6) if with_head else ()
    made = items(sizes, head)
    whole = pack(made, max_tokens=10_000)
    cut = pack(made, max_tokens=limit, shared=len(head))
    assert same_start(whole) == same_start(cut) >= len(head)
    for on in KlOn:
        skip = same_start(whole)
        assert chosen(whole, on, skip=skip) == chosen(cut, on, skip=skip)


def test_each_kind_of_place():
    made = items([20, 60], (3, 4, 5))
    (one,) = pack(made, max_tokens=1000)
    prompt = chosen([one], KlOn.PROMPT, skip=3)
    first = [p for p in prompt if p[1] < 23]
    assert len(prompt) == 2 * PER_PROMPT
    assert min(position for _, position in prompt) >= 3
    assert max(position for _, position in first) < 20 + 3
    assert len(chosen([one], KlOn.COMPLETION)) == 6
    assert len(chosen([one], KlOn.REPLAY)) == 8
    assert chosen([one], KlOn.PROMPT, step=1) != chosen([one], KlOn.PROMPT, step=2)


def test_a_batch_of_one_prompt_has_no_same_start():
    (one,) = pack(encoded([20]), max_tokens=1000)
    assert same_start([one]) == 0
    assert len(places(one, KlOn.PROMPT, seed=0, step=0, skip=0)) == PER_PROMPT
