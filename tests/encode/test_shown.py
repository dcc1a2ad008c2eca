"""What a teacher is shown: every example twice, its answer before it is asked."""

from instil.encode.pack import pack
from instil.encode.shown import shown
from instil.types import REPLAY, Encoded

A = Encoded("a", (1, 5, 6, 9), (False, False, True, True))
B = Encoded("b", (1, 7, 8), (False, False, True))
OWN = Encoded(f"{REPLAY}own/0", (1, 4, 3), (False, True, True))


def test_the_second_time_is_trained_on_and_bos_is_said_once():
    (one,) = pack([A], max_tokens=20)
    said = shown(one, bos=1)
    assert said.ids == (1, 5, 6, 9, 5, 6, 9)
    assert said.mask == (False,) * 5 + (True, True)
    assert said.positions == tuple(range(7))


def test_a_token_that_begins_turns_is_said_again():
    (one,) = pack([Encoded("a", (1, 5, 1, 9), (False, False, False, True))], max_tokens=20)
    assert shown(one, bos=1).ids == (1, 5, 1, 9, 1, 5, 1, 9)
    assert shown(one, bos=None).ids == (1, 5, 1, 9, 1, 5, 1, 9)


def test_a_shared_start_stands_in_front_and_again_in_each():
    (both,) = pack([A, B], max_tokens=40, shared=1)
    said = shown(both, bos=None)
    assert both.shared == said.shared == 1
    assert [i for i, s in zip(said.ids, said.segments, strict=True) if s == -1] == [1]
    for number, name in enumerate(said.example_ids):
        item = {"a": A, "b": B}[name]
        ids = [i for i, s in zip(said.ids, said.segments, strict=True) if s == number]
        assert ids == [*item.ids[1:], *item.ids]


def test_what_is_trained_on_keeps_its_order_and_replay_is_left_out():
    (both,) = pack([A, OWN, B], max_tokens=40)
    said = shown(both, bos=1)
    assert set(said.example_ids) == {"a", "b"}
    taught = [i for i, m in zip(said.ids, said.mask, strict=True) if m]
    rows = zip(both.ids, both.mask, both.segments, strict=True)
    assert taught == [i for i, m, s in rows if m and not both.replayed[s]]
    assert len(taught) == 3
    (texts,) = pack([OWN], max_tokens=20)
    assert shown(texts, bos=1) is None
