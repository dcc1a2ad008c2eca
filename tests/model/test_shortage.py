"""Memory that runs out while a model computes: less at once, in a thread that is not spoilt."""

from __future__ import annotations

import threading

import pytest
import torch

from instil.model.shortage import apart, halved, retried


def spoilt(most: int, asked: list[tuple[int, int]]):
    """Fails as oneDNN does: for more than `most` items, and from then on in that thread."""
    failed = threading.local()

    def compute(items):
        asked.append((len(items), threading.get_ident()))
        if len(items) > most or getattr(failed, "once", False):
            failed.once = True
            raise RuntimeError("could not create a primitive")
        return [2 * item for item in items]

    return compute


def test_halves_are_computed_in_threads_of_their_own() -> None:
    asked: list[tuple[int, int]] = []
    compute = spoilt(3, asked)
    assert halved(compute, range(8)) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert [size for size, _ in asked] == [8, 4, 2, 2, 4, 2, 2]
    # This thread is spoilt: a later pack goes through all the same, a lone row too.
    assert halved(compute, range(2)) == [0, 2]
    assert halved(compute, range(1)) == [0]


def test_what_never_fits_and_other_errors_come_through() -> None:
    with pytest.raises(RuntimeError, match="primitive"):
        halved(spoilt(0, []), range(4))

    def broken(items):
        raise RuntimeError("shapes")

    with pytest.raises(RuntimeError, match="shapes"):
        halved(broken, range(4))


def test_a_thread_has_the_modes_of_its_maker() -> None:
    def modes():
        return torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    assert apart(modes) == (False, True)
    with torch.inference_mode():
        assert apart(modes) == modes() == (True, False)
    with torch.no_grad():
        assert apart(modes) == (False, False)


def test_loading_is_tried_once_more() -> None:
    tries = []

    def load():
        tries.append(1)
        if len(tries) == 1:
            raise MemoryError
        return "model"

    assert retried(load) == "model"
    with pytest.raises(MemoryError):
        retried(lambda: (_ for _ in ()).throw(MemoryError()))
