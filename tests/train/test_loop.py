"""Exactness of the training step: packing, accumulation and adapters change no figure."""

from dataclasses import replace

import pytest
import torch

from builds import EACH, OWN, add_lora
from instil.encode.batch import to_batch
from instil.encode.pack import batches, pack
from instil.encode.store import Store
from instil.errors import TrainError
from instil.model.adapter import adapter_off, snapshot, trainable
from instil.model.engine.packed import head_of, hidden_states
from instil.train.loop import Schedule, backward, train_steps
from instil.train.objective import Objective
from instil.train.optim import adamw
from instil.types import Encoded, LossOver, Pack
from measures import mean_loss, pack_loss

SCHEDULE = Schedule(0.01, 0.1, "linear", 1.0)


@pytest.fixture(params=EACH, ids=str)
def tiny(request, tiny):
    """The tiny model with our own layers and head, and with transformers'."""
    assert tiny.build == OWN
    return replace(tiny, build=request.param)


def encoded(sizes: list[int], *, seed: int = 0) -> list[Encoded]:
    generator = torch.Generator().manual_seed(seed)
    made = []
    for n, size in enumerate(sizes):
        ids = tuple(torch.randint(3, 300, (size,), generator=generator).tolist())
        made.append(Encoded(f"e{n:02}", ids, (False,) * (size - 3) + (True,) * 3))
    return made


def logits(loaded, item: Pack) -> torch.Tensor:
    batch = to_batch(item, device=loaded.device)
    places = torch.arange(len(item.ids))
    hidden = hidden_states(loaded.model, batch, places, build=loaded.build)
    return hidden @ head_of(loaded.model).weight.t()


def gradients(loaded, packs: list[Pack], objective=None) -> dict[str, torch.Tensor]:
    whole = (objective or Objective()).over(packs, step=1)
    for p in packs:
        backward(loaded, p, whole=whole)
    found = {name: p.grad.clone() for name, p in trainable(loaded.model).items()}
    loaded.model.zero_grad()
    return found


def lora(tiny, **kwargs):
    settings = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": "all-linear"}
    return add_lora(tiny, **(settings | {"seed": 1} | kwargs))


def test_packed_equals_padded_equals_one_by_one(tiny):
    items = encoded([9, 14, 5, 22])
    (packed,) = pack(items, max_tokens=1000)
    together = logits(tiny, packed).split([9, 14, 5, 22])
    ids = torch.zeros(4, 22, dtype=torch.long)
    mask = torch.zeros(4, 22, dtype=torch.long)
    for row, item in enumerate(items):
        ids[row, : len(item.ids)] = torch.tensor(item.ids)
        mask[row, : len(item.ids)] = 1
    padded = tiny.model(input_ids=ids, attention_mask=mask).logits
    for row, (item, here) in enumerate(zip(items, together, strict=True)):
        alone = tiny.model(input_ids=torch.tensor([item.ids])).logits[0]
        close = 1e-5 * alone.abs().max().item()
        torch.testing.assert_close(here, alone, atol=close, rtol=0)
        torch.testing.assert_close(here, padded[row, : len(item.ids)], atol=close, rtol=0)


def test_packed_gradients_equal_one_by_one(tiny):
    items = encoded([9, 14, 5, 22])
    loaded = lora(tiny)
    together = gradients(loaded, list(pack(items, max_tokens=1000)))
    apart = gradients(loaded, list(pack(items, max_tokens=1)))
    assert together.keys() == apart.keys()
    for name in together:
        close = 1e-7 + 1e-5 * apart[name].abs().max().item()  # of the largest: sums round
        torch.testing.assert_close(together[name], apart[name], atol=close, rtol=1e-4)


def test_over_examples_a_long_completion_counts_as_much_as_a_short_one(tiny):
    short, long = encoded([9, 30])
    long = replace(long, mask=(False,) * 5 + (True,) * 25)
    loaded = lora(tiny)
    run(loaded, steps=2)  # an adapter that is no longer the identity
    alone = [gradients(loaded, list(pack([item], max_tokens=100))) for item in (short, long)]
    over = Objective(over_what=LossOver.EXAMPLES)
    together = gradients(loaded, list(pack([short, long], max_tokens=100)), over)
    apart = gradients(loaded, list(pack([short, long], max_tokens=1)), over)
    for name in together:
        mean = (alone[0][name] + alone[1][name]) / 2
        close = 1e-7 + 1e-5 * mean.abs().max().item()
        torch.testing.assert_close(together[name], mean, atol=close, rtol=1e-4)
        torch.testing.assert_close(apart[name], mean, atol=close, rtol=1e-4)


def test_a_shared_prefix_computed_once_changes_no_figure(tiny):
    head = tuple(range(3, 14))
    items = [
        Encoded(e.example_id, head + e.ids, (False,) * len(head) + e.mask)
        for e in encoded([9, 14, 5, 22])
    ]
    shared = Store(items).shared_prefix()
    assert shared == len(head)
    loaded = lora(tiny)
    run(loaded, steps=2)  # an adapter that is no longer the identity
    plain, once = pack(items, max_tokens=1000), pack(items, max_tokens=1000, shared=shared)
    assert len(once[0].ids) == len(plain[0].ids) - 3 * shared
    assert once[0].tokens == plain[0].tokens == len(plain[0].ids)
    assert mean_loss(loaded, once) == pytest.approx(mean_loss(loaded, plain), rel=1e-5)
    one, two = gradients(loaded, list(once)), gradients(loaded, list(plain))
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-6, rtol=1e-4)


def test_editing_one_document_changes_no_logit_of_its_neighbours(tiny):
    items = encoded([9, 14, 5])
    other = [Encoded("e00", tuple(reversed(items[0].ids)), items[0].mask), *items[1:]]
    before = logits(tiny, pack(items, max_tokens=1000)[0])
    after = logits(tiny, pack(other, max_tokens=1000)[0])
    assert torch.equal(before[9:], after[9:])
    assert not torch.equal(before[:9], after[:9])


def test_a_batch_may_be_cut_into_any_packs(tiny):
    """1 x 8 equals 8 x 1: the loss is divided by the supervised tokens of the whole batch."""
    loaded = lora(tiny)
    items = [
        Encoded(e.example_id, e.ids, (False,) * (len(e.ids) - n) + (True,) * n)
        for n, e in enumerate(encoded([12] * 8), start=1)
    ]
    whole = gradients(loaded, list(pack(items, max_tokens=1000)))
    for limit in (1, 24, 50):
        cut = gradients(loaded, list(pack(items, max_tokens=limit)))
        for name in whole:
            torch.testing.assert_close(cut[name], whole[name], atol=1e-7, rtol=1e-4)


def test_loss_at_supervised_places_equals_the_plain_formula(tiny):
    item = encoded([20])[0]
    (one,) = pack([item], max_tokens=100)
    ours = pack_loss(tiny, one)
    full = tiny.model(input_ids=torch.tensor([item.ids])).logits[0, :-1]
    labels = torch.tensor(item.ids[1:])
    labels[~torch.tensor(item.mask[1:])] = -100
    plain = torch.nn.functional.cross_entropy(full, labels, reduction="sum")
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-6)
    assert mean_loss(tiny, [one]) == pytest.approx(plain.item() / 3, rel=1e-5)


def test_a_fresh_adapter_is_the_identity_and_off_is_the_base(tiny):
    ids = torch.arange(3, 40)[None]
    base = tiny.model(input_ids=ids).logits
    loaded = lora(tiny)
    assert torch.equal(loaded.model(input_ids=ids).logits, base)
    run(loaded, steps=3)
    assert not torch.equal(loaded.model(input_ids=ids).logits, base)
    with adapter_off(loaded.model):
        assert torch.equal(loaded.model(input_ids=ids).logits, base)


def run(loaded, *, steps: int, seed: int = 0) -> list:
    made = batches(
        encoded([12] * 4 * steps),
        tokens_per_batch=48,
        micro_batch_tokens=24,
        seed=seed,
        epoch=0,
    )
    optimizer = adamw(trainable(loaded.model), learning_rate=0.01, weight_decay=0.01)
    steps = train_steps(loaded, made, optimizer=optimizer, schedule=SCHEDULE, steps_per_epoch=4)
    return list(steps)


def test_same_seed_same_weights_bit_for_bit(tiny_folder):
    from instil.model.load import ModelFolder, load_model

    ends = []
    for seed in (0, 0, 1):
        fresh = load_model(ModelFolder("tiny", tiny_folder, ""), device="cpu", dtype="float32")
        loaded = lora(fresh, lora_dropout=0.1, seed=seed)
        run(loaded, steps=4, seed=seed)
        ends.append(snapshot(loaded.model))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert not all(torch.equal(ends[0][name], ends[2][name]) for name in ends[0])


def test_the_loss_falls_and_the_steps_say_so(tiny):
    loaded = lora(tiny)
    items = encoded([12] * 4)
    made = batches(items, tokens_per_batch=48, micro_batch_tokens=48, seed=0, epoch=0)[:] * 12
    optimizer = adamw(trainable(loaded.model), learning_rate=0.02, weight_decay=0.0)
    steps = list(
        train_steps(loaded, made, optimizer=optimizer, schedule=SCHEDULE, steps_per_epoch=1)
    )
    assert steps[-1].loss < 0.7 * steps[0].loss
    assert [s.step for s in steps] == list(range(1, 13))
    assert all(s.tokens == 48 and s.supervised_tokens == 12 for s in steps)
    assert all(s.memory_bytes > 0 and s.seconds > 0 for s in steps)


def test_a_loss_that_is_not_finite_stops_with_advice(tiny):
    loaded = lora(tiny)
    with torch.no_grad():
        next(iter(trainable(loaded.model).values())).fill_(float("inf"))
    with pytest.raises(TrainError, match="learning_rate"):
        run(loaded, steps=1)
