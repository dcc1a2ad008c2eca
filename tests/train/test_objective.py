"""KL to the base model and entropy weights: what brute force says, however a batch is cut."""

import math
import os
import signal
from dataclasses import replace

import pytest
import torch
from test_checkpoint import plan
from test_loop import encoded, gradients, lora
from test_room import short_of_memory

from builds import EACH, OWN, PACKED_HEAD, PLAIN, add_lora
from instil.config.sections import Keep, Replay
from instil.encode.batch import to_batch
from instil.encode.pack import pack
from instil.encode.places import places
from instil.model.adapter import adapter_off, snapshot, train_all, trainable
from instil.model.engine import losses as losses_module
from instil.model.engine.losses import entropy_weights, losses
from instil.model.load import ModelFolder, load_model
from instil.train.fit import Validation, fit
from instil.train.loop import backward, batch_gradient
from instil.train.objective import Objective
from instil.train.room import Room
from instil.train.terms import Term, terms_of
from instil.types import REPLAY, Encoded, KlOn

SIZES = [9, 14, 25, 22]


@pytest.fixture(params=EACH, ids=str)
def each_build(request, tiny):
    return replace(tiny, build=request.param)


def again(folder, **kwargs):
    settings = {"device": "cpu", "dtype": "float32"} | kwargs
    return load_model(ModelFolder("tiny", folder, ""), **settings)


def shaken(loaded, *, std: float = 0.1):
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in trainable(loaded.model).values():
            weight.add_(torch.randn_like(weight) * std)
    return loaded


def mixed() -> list[Encoded]:
    """Prompts that begin alike, of several lengths, and two texts that are replayed."""
    head = (7, 8, 9)
    items = [Encoded(e.example_id, head + e.ids, (False,) * 3 + e.mask) for e in encoded(SIZES)]
    texts = [
        Encoded(f"{REPLAY}own/{n}", e.ids, (False, *[True] * (len(e.ids) - 1)))
        for n, e in enumerate(encoded([12, 8], seed=5))
    ]
    return [*items, *texts]


def keep(kl: float, on: KlOn, *, entropy_weighted: bool = False) -> Keep:
    replay = Replay(share=0.1) if on is KlOn.REPLAY else Replay()
    return Keep(kl=kl, kl_on=on, replay=replay, entropy_weighted=entropy_weighted)


def kl_by_hand(loaded, base, item, on: KlOn, *, step: int, skip: int) -> list[torch.Tensor]:
    """Both whole distributions from the models' own forward passes, at an example's places."""
    (one,) = pack([item], max_tokens=1000)
    ids = torch.tensor([item.ids])
    log_q = loaded.model(input_ids=ids).logits[0].log_softmax(-1)
    with torch.no_grad():
        if base is None:
            with adapter_off(loaded.model):
                log_p = loaded.model(input_ids=ids).logits[0].log_softmax(-1)
        else:
            log_p = base.model(input_ids=ids).logits[0].log_softmax(-1)
    kl = (log_p.exp() * (log_p - log_q)).sum(-1)
    return [kl[n] for n in places(one, on, seed=4, step=step, skip=skip)]


HEAD, NONE = PACKED_HEAD, PLAIN


@pytest.mark.parametrize(
    ("build", "full", "on"),
    [
        *((OWN, full, on) for full in (False, True) for on in KlOn),
        (HEAD, False, KlOn.PROMPT),
        (NONE, False, KlOn.PROMPT),
        (NONE, True, KlOn.COMPLETION),
    ],
)
def test_kl_and_its_gradient_are_what_brute_force_says(
    tiny, tiny_folder, monkeypatch, build, full, on
):
    tiny = replace(tiny, build=build)
    monkeypatch.setattr(losses_module, "CHUNK", 7 * 400)  # several blocks
    loaded, base = (train_all(tiny), again(tiny_folder)) if full else (lora(tiny), None)
    shaken(loaded, std=0.02 if full else 0.1)
    wanted = Objective(terms=terms_of(keep(1.5, on)), base=base, seed=4)
    plain = Objective()
    packs = pack(mixed(), max_tokens=60, shared=3)
    whole = wanted.over(packs, step=1)
    assert whole.skip == (3 if on is KlOn.PROMPT else 0)
    found = [kl_by_hand(loaded, base, e, on, step=1, skip=whole.skip) for e in mixed()]
    every = torch.stack([kl for each in found for kl in each])
    assert whole.counts == (len(every),)
    expected = torch.autograd.grad(1.5 * every.mean(), list(trainable(loaded.model).values()))

    with_kl, without = (gradients(loaded, packs, each) for each in (wanted, plain))
    sums = batch_gradient(loaded, packs, room=Room(), whole=whole)
    assert whole.means(sums)["kl"] == pytest.approx(every.mean().item(), rel=1e-4)
    assert every.mean() > 0.01
    for (name, both), theirs in zip(with_kl.items(), expected, strict=True):
        close = 1e-4 * theirs.abs().max().item() + 1e-6
        torch.testing.assert_close(both - without[name], theirs, rtol=0, atol=close, msg=name)


@pytest.mark.parametrize(
    ("build", "full"), [(OWN, False), (OWN, True), (HEAD, False), (NONE, True)]
)
def test_distillation_and_its_gradient_are_what_brute_force_says(
    tiny, tiny_folder, monkeypatch, build, full
):
    """Of each example alone, the teacher having read it once before; replayed texts have none."""
    monkeypatch.setattr(losses_module, "CHUNK", 7 * 400)
    loaded = replace(tiny, build=build)
    loaded, base = (train_all(loaded), again(tiny_folder)) if full else (lora(loaded), None)
    shaken(loaded, std=0.02 if full else 0.1)
    found = []
    for item in mixed()[: len(SIZES)]:
        asked = [n - 1 for n, mask in enumerate(item.mask) if mask]
        log_q = loaded.model(input_ids=torch.tensor([item.ids])).logits[0].log_softmax(-1)[asked]
        twice = torch.tensor([item.ids + item.ids])
        with torch.no_grad(), adapter_off(loaded.model):
            said = (base or loaded).model(input_ids=twice).logits[0].log_softmax(-1)
        log_p = said[[len(item.ids) + n for n in asked]]
        found.append((log_p.exp() * (log_p - log_q)).sum(-1))
    every = torch.cat(found)
    expected = torch.autograd.grad(1.5 * every.mean(), list(trainable(loaded.model).values()))

    wanted = Objective(terms=terms_of(Keep(distil=1.5)), base=base)
    for packs in (pack(mixed(), max_tokens=60, shared=3), pack(mixed(), max_tokens=30)):
        whole = wanted.over(packs, step=1)
        assert whole.counts == (len(every),)
        sums = batch_gradient(loaded, packs, room=Room(), whole=whole)
        loaded.model.zero_grad()
        assert whole.means(sums)["distil"] == pytest.approx(every.mean().item(), rel=1e-5)
        both, without = (gradients(loaded, packs, each) for each in (wanted, Objective()))
        for (name, ours), theirs in zip(both.items(), expected, strict=True):
            close = 1e-5 * theirs.abs().max().item() + 1e-5
            torch.testing.assert_close(ours - without[name], theirs, rtol=0, atol=close, msg=name)


def test_kl_and_distillation_together_are_what_each_is_alone(tiny):
    loaded = shaken(lora(tiny))
    packs = pack(mixed(), max_tokens=60, shared=3)

    def means(**asked):
        whole = Objective(terms=terms_of(Keep(**asked)), seed=4).over(packs, step=1)
        return whole.means(batch_gradient(loaded, packs, room=Room(), whole=whole))

    kl, taught, both = means(kl=1.0), means(distil=1.0), means(kl=1.0, distil=1.0)
    assert both["kl"] == pytest.approx(kl["kl"], rel=1e-5)
    assert both["distil"] == pytest.approx(taught["distil"], rel=1e-5)
    assert both["kl"] != pytest.approx(both["distil"], rel=0.1)


@pytest.mark.parametrize("full", [False, True])
def test_kl_is_zero_before_the_first_step(each_build, tiny_folder, full):
    loaded = train_all(each_build) if full else lora(each_build)
    base = again(tiny_folder) if full else None
    packs = pack(mixed(), max_tokens=60, shared=3)
    for on in KlOn:
        whole = Objective(terms=terms_of(keep(10.0, on)), base=base).over(packs, step=1)
        sums = batch_gradient(loaded, packs, room=Room(), whole=whole)
        assert whole.counts > (0,)
        if each_build.build.own_layers or not full:  # else the two are not computed alike
            assert sums.terms == (0,)
        assert sums.terms == pytest.approx((0,), abs=1e-5)
        with_kl = {n: p.grad.clone() for n, p in trainable(loaded.model).items()}
        loaded.model.zero_grad()
        for name, grad in gradients(loaded, packs).items():
            torch.testing.assert_close(with_kl[name], grad, atol=1e-5, rtol=1e-4)


BOTH = Objective(terms=terms_of(Keep(kl=2.0, entropy_weighted=True)), seed=4)


@pytest.mark.parametrize("on", list(KlOn))
def test_a_batch_may_be_cut_into_any_packs(tiny, on):
    """1 x 8 equals 8 x 1, shared prefix or not."""
    loaded = shaken(lora(tiny))
    wanted = replace(BOTH, terms=terms_of(keep(2.0, on, entropy_weighted=True)))

    def found(packs):
        whole = wanted.over(packs, step=3)
        sums = batch_gradient(loaded, packs, room=Room(), whole=whole)
        grads = {n: p.grad.clone() for n, p in trainable(loaded.model).items()}
        loaded.model.zero_grad()
        return whole.counts, sums, whole.means(sums), grads

    whole = found(pack(mixed(), max_tokens=1000))
    for limit, shared in ((1, 0), (30, 0), (60, 3), (1000, 3)):
        cut = found(pack(mixed(), max_tokens=limit, shared=shared))
        assert cut[0] == whole[0]
        assert cut[1].loss == pytest.approx(whole[1].loss, rel=1e-5)
        assert cut[2] == pytest.approx(whole[2], rel=1e-4)
        for name, grad in cut[3].items():
            torch.testing.assert_close(grad, whole[3][name], atol=1e-6, rtol=1e-3)


def test_memory_that_runs_out_changes_no_figure(tiny, monkeypatch):
    loaded = shaken(lora(tiny))
    packs = pack(mixed(), max_tokens=1000, shared=3)
    wanted = gradients(loaded, packs, BOTH)
    short_of_memory(monkeypatch, 30)
    room = Room()
    loaded.model.train()
    batch_gradient(loaded, packs, room=room, whole=BOTH.over(packs, step=1))
    assert room.max_tokens is not None
    assert loaded.model.training
    for name, p in trainable(loaded.model).items():
        torch.testing.assert_close(p.grad, wanted[name], atol=1e-6, rtol=1e-3)


def test_weights_of_one_give_the_plain_gradient_exactly(each_build, monkeypatch):
    of_one = Term("one", "", "", 0, weigh=lambda logits: logits.new_ones(logits.shape[0]))
    packs = pack(mixed(), max_tokens=60)
    loaded = shaken(lora(each_build))
    weighted = gradients(loaded, packs, Objective(terms=(of_one,)))
    for name, plain in gradients(loaded, packs).items():
        assert torch.equal(weighted[name], plain), name


def test_entropy_weights_by_hand():
    """Of three likely tokens and of one: H / ln 3; over twenty equal ones 1, whatever follows."""
    two = torch.tensor([[math.log(0.5), math.log(0.5), -1e9], [0.0, -1e9, -1e9]])
    assert entropy_weights(two).tolist() == pytest.approx([math.log(2) / math.log(3), 0.0])
    even = torch.zeros(1, 30)
    even[:, 20:] = -3.0
    assert entropy_weights(even).tolist() == pytest.approx([1.0])
    chances = torch.tensor([0.5, 0.25, 0.25]).log()
    tail = torch.cat([chances, torch.full((27,), -60.0)])[None]
    assert entropy_weights(tail).tolist() == pytest.approx([1.5 * math.log(2) / math.log(20)])


def test_the_weighted_loss_is_the_sum_of_weighted_tokens(each_build):
    """The gradient too: the weights themselves are held fixed."""
    (one,) = pack(encoded([30]), max_tokens=100)
    loaded = shaken(lora(each_build))
    ids = torch.tensor([one.ids])
    logits = loaded.model(input_ids=ids).logits[0, -4:-1]
    labels = torch.tensor(one.ids[-3:])
    top = logits.detach().topk(20).values.softmax(-1)
    weights = -(top * top.log()).sum(-1) / math.log(20)
    assert weights.std() > 0.01
    nats = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    expected = torch.autograd.grad(
        (weights * nats).sum() / 3, list(trainable(loaded.model).values())
    )
    found = losses(
        loaded.model,
        to_batch(one, device=loaded.device),
        build=loaded.build,
        weigh=[entropy_weights],
    )
    torch.testing.assert_close(found.total, (weights * nats).sum(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.nats, nats.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.weights[:, 0], weights, rtol=1e-4, atol=1e-5)
    weighted = Objective(terms=terms_of(Keep(entropy_weighted=True)))
    mine = gradients(loaded, [one], weighted)
    for (name, grad), theirs in zip(mine.items(), expected, strict=True):
        close = 1e-4 * theirs.abs().max().item() + 1e-6
        torch.testing.assert_close(grad, theirs, rtol=0, atol=close, msg=name)


def test_the_logged_loss_is_plain_and_of_the_tasks_alone(tiny):
    loaded = shaken(lora(tiny))
    packs = pack(mixed(), max_tokens=1000)
    whole = BOTH.over(packs, step=1)
    sums = batch_gradient(loaded, packs, room=Room(), whole=whole)
    own = pack([e for e in mixed() if not e.example_id.startswith(REPLAY)], max_tokens=1000)
    texts = pack([e for e in mixed() if e.example_id.startswith(REPLAY)], max_tokens=1000)
    plain, replayed = (batch_gradient(loaded, each, room=Room()) for each in (own, texts))
    assert sums.loss == pytest.approx(plain.loss, rel=1e-5)
    assert whole.means(sums)["replay_loss"] == pytest.approx(replayed.loss, rel=1e-5)
    assert (sums.tokens, sums.replay_tokens) == (12, 18)
    assert "replay_loss" not in Objective().over(own, step=1).means(plain)


@pytest.mark.slow
def test_a_run_with_all_of_it_resumes_bit_for_bit(tiny_folder, tmp_path):
    def fresh():
        return add_lora(
            again(tiny_folder),
            r=4,
            lora_alpha=8,
            lora_dropout=0.1,
            target_modules="all-linear",
            seed=3,
        )

    items = [*encoded([20] * 12), *mixed()]
    look = Validation(1.0, 0.5)
    straight, steps = fresh(), []
    fit(
        straight,
        plan(None, items=items),
        validate=lambda: look,
        on_step=steps.append,
        objective=BOTH,
    )
    broken, seen = fresh(), []

    def interrupt(step):
        seen.append(step)
        if step.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    stopped = plan(tmp_path / "c", items=items)
    with pytest.raises(KeyboardInterrupt):
        fit(broken, stopped, validate=lambda: look, on_step=interrupt, objective=BOTH)
    rest = []
    resumed = fresh()
    torch.manual_seed(99)
    fit(resumed, stopped, validate=lambda: look, on_step=rest.append, objective=BOTH)
    assert [(s.loss, s.terms) for s in steps] == [(s.loss, s.terms) for s in seen + rest]
    assert any(s.terms["kl"] for s in steps)
    one, two = snapshot(straight.model), snapshot(resumed.model)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_untouched_model_drops_nothing_out(tiny):
    """The adapter's dropout is on in training; the base behind it gives the same every time."""
    loaded = lora(tiny, lora_dropout=0.5)
    loaded.model.train()
    (one,) = pack(encoded([30]), max_tokens=100)
    whole = BOTH.over([one], step=1)
    batch = to_batch(one, device=loaded.device)
    state = torch.get_rng_state()
    first, second = (whole.anchors(loaded, one, batch)[0].states.values for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(state, torch.get_rng_state())
    assert loaded.model.training
    backward(loaded, one, whole=whole)
