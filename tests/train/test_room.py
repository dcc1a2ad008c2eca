"""Memory that runs out changes how much is computed at once, and no figure."""

import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_loop import encoded, lora

from instil.encode.pack import halves, pack
from instil.errors import TrainError
from instil.model.adapter import trainable
from instil.train import loop
from instil.train.loop import batch_gradient, probe
from instil.train.objective import Objective
from instil.train.room import Room


def examples_of(item):
    """Example id -> its own (id, mask, position) columns, prefix left out."""
    found = {}
    for number, name in enumerate(item.example_ids):
        at = [n for n, s in enumerate(item.segments) if s == number and n >= item.shared]
        found[name] = [(item.ids[n], item.mask[n], item.positions[n]) for n in at]
    return found


@given(st.lists(st.integers(6, 40), min_size=2, max_size=9), st.booleans())
def test_halves_hold_the_same_examples(sizes, with_prefix):
    items = encoded(sizes)
    shared = 0
    if with_prefix:
        head = (3, 4, 5, 6)
        items = [type(e)(e.example_id, head + e.ids, (False,) * 4 + e.mask) for e in items]
        shared = 4
    (whole,) = pack(items, max_tokens=10_000, shared=shared)
    left, right = halves(whole)
    assert left.example_ids + right.example_ids == whole.example_ids
    assert examples_of(left) | examples_of(right) == examples_of(whole)
    assert left.ids[:shared] == right.ids[:shared] == whole.ids[:shared]
    assert left.tokens + right.tokens == whole.tokens
    assert 0 < len(left.example_ids) < len(whole.example_ids)


def short_of_memory(monkeypatch, tokens: int, *, recompute_saves: bool = False):
    """Packs of more than so many tokens raise what torch raises when memory runs out."""
    asked = []
    plain = loop.backward

    def backward(loaded, item, *, whole, recompute=False):
        asked.append((len(item.ids), recompute))
        if len(item.ids) > tokens and not (recompute and recompute_saves):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return plain(loaded, item, whole=whole, recompute=recompute)

    monkeypatch.setattr(loop, "backward", backward)
    return asked


def test_what_onednn_spoils_in_a_thread_is_computed_in_another(tiny, monkeypatch):
    loaded, plain, failed = lora(tiny), loop.backward, threading.local()

    def backward(loaded, item, **rest):
        if len(item.ids) > 60 or getattr(failed, "once", False):
            failed.once = True
            raise RuntimeError("could not create a primitive")
        return plain(loaded, item, **rest)

    monkeypatch.setattr(loop, "backward", backward)
    packs, room = pack(encoded([20, 14, 9, 22, 17, 12]), max_tokens=1000), Room()
    for _ in range(2):
        sums, _ = gradient(loaded, packs, room)
        assert sums.tokens == 18
    assert room.max_tokens == 47  # halved once


def gradient(loaded, packs, room, objective=None):
    whole = (objective or Objective()).over(packs, step=3)
    sums = batch_gradient(loaded, packs, room=room, whole=whole)
    found = {name: p.grad.clone() for name, p in trainable(loaded.model).items()}
    loaded.model.zero_grad()
    return sums, found


@pytest.mark.parametrize("recompute_saves", [False, True])
def test_the_batch_goes_on_in_smaller_packs_with_the_same_gradient(
    tiny, monkeypatch, recompute_saves
):
    loaded = lora(tiny)
    packs = pack(encoded([20, 14, 9, 22, 17, 12]), max_tokens=1000)
    wanted = gradient(loaded, packs, Room())
    room = Room()
    asked = short_of_memory(
        monkeypatch, 10 if recompute_saves else 30, recompute_saves=recompute_saves
    )
    sums, found = gradient(loaded, packs, room)
    assert asked[0] == (94, False)
    assert room.max_tokens is not None
    assert room.recompute is recompute_saves
    assert sums.tokens == wanted[0].tokens == 18
    assert sums.loss == pytest.approx(wanted[0].loss, rel=1e-5)
    for name, grad in found.items():
        torch.testing.assert_close(grad, wanted[1][name], atol=1e-6, rtol=1e-4)
    asked.clear()
    gradient(loaded, packs, room)  # the next batch is cut from the start
    assert all(size <= 30 or again for size, again in asked)


def test_an_example_that_never_fits_is_told(tiny, monkeypatch):
    short_of_memory(monkeypatch, 5)
    with pytest.raises(TrainError, match=r"max_length: one example of 22 tokens"):
        batch_gradient(lora(tiny), pack(encoded([20, 22]), max_tokens=1000), room=Room())


def test_other_errors_are_not_swallowed(tiny, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(loop, "backward", broken)
    with pytest.raises(RuntimeError, match="mat1"):
        batch_gradient(lora(tiny), pack(encoded([20]), max_tokens=1000), room=Room())


def test_the_probe_computes_the_largest_pack_and_changes_nothing(tiny, monkeypatch):
    loaded = lora(tiny)
    before = {name: p.detach().clone() for name, p in trainable(loaded.model).items()}
    batches = [pack(encoded([9, 8]), max_tokens=9), pack(encoded([30, 20]), max_tokens=1000)]
    room = Room()
    short_of_memory(monkeypatch, 40)
    found = probe(loaded, batches, room=room)
    assert found.tokens == 50
    assert found.seconds > 0
    assert found.memory_bytes > 10_000_000
    assert room.max_tokens == 25
    assert all(p.grad is None for p in trainable(loaded.model).values())
    for name, p in trainable(loaded.model).items():
        assert torch.equal(p, before[name])
