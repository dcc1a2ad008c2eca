import pytest

from instil.encode.plan import plan_training
from instil.encode.shard import Encoder
from instil.errors import DataError
from instil.types import Example, Message, TooLong

SETTINGS = {
    "tokens_per_batch": 60,
    "micro_batch_tokens": 64,
    "seed": 0,
}


def examples(epoch: int, count: int = 12) -> list[Example]:
    return [
        Example(f"t/{n}/e{epoch}", "t", "a", str(n), "g", (Message("user", f"good {n}"),), "bad")
        for n in range(count)
    ]


def planned(examples_of, chat, **settings):
    encoder = Encoder(chat, 64, TooLong.DROP)
    return plan_training(lambda e: [encoder.encoded(examples_of(e))], **SETTINGS, **settings)


def seen(data) -> list[str]:
    return [name for packs in data.batches for p in packs for name in p.example_ids]


def test_each_epoch_sees_its_own_examples_once(tiny_chat):
    data = planned(examples, tiny_chat, epochs=2)
    assert sorted(seen(data)) == sorted(e.id for epoch in (0, 1) for e in examples(epoch))
    assert data.fates == {"kept": 24}


def test_half_an_epoch_is_half_of_its_batches(tiny_chat):
    whole = planned(examples, tiny_chat, epochs=1)
    half = planned(examples, tiny_chat, epochs=0.5)
    assert tuple(half.batches) == whole.batches[: (len(whole.batches) + 1) // 2]
    assert half.epochs == pytest.approx(len(half.batches) / len(whole.batches))
    one = len(planned(examples, tiny_chat, epochs=0.01).batches)
    assert one == 1, "a batch at least"
    assert planned(examples, tiny_chat, epochs=0.01).epochs == 1 / len(whole.batches)


def test_dropped_examples_are_counted_and_nothing_left_is_refused(tiny_chat):
    long = Example("t/x/e", "t", "a", "x", "g", (Message("user", "good " * 99),), "bad")
    data = planned(lambda e: [*examples(e), long], tiny_chat, epochs=1)
    assert data.fates == {"kept": 12, "dropped": 1}
    with pytest.raises(DataError, match="0 %"):
        planned(lambda e: [long], tiny_chat, epochs=1)
