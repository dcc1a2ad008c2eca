"""A base model dealt out over processes says, learns and forgets what a whole one does."""

import os
import signal

import pytest
import torch
import torch.distributed as dist
from test_loop import SCHEDULE
from test_ranks import items_of, plain, together
from test_sharded import made
from torch.distributed.tensor import DTensor

from builds import add_lora, shaken
from families import save
from instil.config.sections import Keep
from instil.encode.pack import pack
from instil.evaluate.generate import generate
from instil.model.adapter import snapshot, trainable
from instil.model.load import ModelFolder, load_model
from instil.train import dealt_base
from instil.train.dealt_base import Held, deal_base
from instil.train.fit import Plan, Validation, fit
from instil.train.loop import batch_gradient
from instil.train.objective import Objective
from instil.train.ranks import is_first, jobs, send_job
from instil.train.room import Room
from instil.train.terms import terms_of
from instil.types import REPLAY, Encoded, Example, Message
from measures import pack_loss

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not dist.is_gloo_available(), reason="torch without gloo"),
]
COMPUTING = {"device": "cpu", "dtype": "float32", "quantize": None}


def lora(loaded):
    return add_lora(
        loaded, r=4, lora_alpha=8, lora_dropout=0.0, target_modules="all-linear", seed=1
    )


def asked(act, folder, size, **computing):
    """What the first of several processes finds out; the others serve it."""

    def here(number):
        if is_first():
            try:
                return act()
            finally:
                send_job(None)
        held, most = Held(), 0
        for job in jobs():
            held.serve(job)
            for loaded in held.bases.values():
                parts = [p for p in loaded.model.parameters() if isinstance(p, DTensor)]
                most = max(most, sum(p.to_local().numel() for p in parts))
        return most, sorted(held.bases)

    return together(size, here, folder)


def losses(loaded):
    packs = pack(items_of([20, 14, 9, 22]), max_tokens=40)
    with torch.inference_mode():
        return [float(pack_loss(loaded, item)) for item in packs]


def written(loaded):
    texts = [f"phone book film. {'good ' * n}" for n in (1, 9, 4)]
    items = [
        Example(f"t/{n}/a", "t", "a", str(n), "g", (Message("user", text),), "good")
        for n, text in enumerate(texts)
    ]
    return [p.text for p in generate(loaded, items, max_new_tokens=6)]


@pytest.mark.parametrize("size", [2, 3])
def test_it_is_asked_as_a_whole_one_is(tiny, tiny_folder, tmp_path, size):
    """Two at a time, one of them with an adapter; losses, what they write, and losses again."""
    folder = ModelFolder("tiny", tiny_folder, "none")

    def act():
        one, two = deal_base(folder, **COMPUTING), shaken(lora(deal_base(folder, **COMPUTING)))
        return losses(one), losses(two), written(one), written(two), losses(one)

    first, *helped = asked(act, tmp_path, size)
    base, base_writes = losses(tiny), written(tiny)
    tuned = shaken(lora(tiny))
    for found, wanted in zip(
        (first[0], first[1], first[4]), (base, losses(tuned), base), strict=True
    ):
        assert found == pytest.approx(wanted, rel=1e-5)
    assert first[2:4] == (base_writes, written(tuned))
    blocks = sum(p.numel() for n, p in tiny.model.named_parameters() if ".layers." in n)
    assert all(0 < most <= blocks / size * 1.1 for most, _ in helped)


@pytest.mark.parametrize(
    ("size", "keep", "quantize"),
    [(2, Keep(), None), (4, Keep(kl=0.5), None), (2, Keep(), "nf4")],
)
def test_it_learns_what_a_whole_one_learns(tiny_folder, tmp_path, size, keep, quantize):
    """Losses and weights of three steps, with a look behind each, and answers after them."""
    if quantize:
        pytest.importorskip("bitsandbytes")
    folder, computing = ModelFolder("tiny", tiny_folder, "none"), COMPUTING | {"quantize": quantize}

    def learn(loaded, serve=None):
        steps, looks = [], []

        def validate():
            looks.append((losses(loaded), written(loaded)))
            return Validation(looks[-1][0][0], 0.5 + len(looks))

        fit(
            loaded,
            Plan(made(48), 1, SCHEDULE, 0.1, 1, 0, None),
            validate=validate,
            on_step=lambda step: steps.append((step.loss, step.grad_norm)),
            objective=Objective(terms=terms_of(keep)),
            serve=serve,
        )
        return steps, looks, plain(snapshot(loaded.model))

    def here(number):
        if is_first():
            loaded = lora(deal_base(folder, **computing))
            send_job("train")
            found = learn(loaded)
            after = losses(loaded)
            send_job(None)
            return (*found, after)
        held = Held()
        for job in jobs():
            if job == "train":
                found = learn(lora(held.bases[0]), held.serve)
            else:
                held.serve(job)
        return (*found, None)

    first, *others = together(size, here, tmp_path)
    loaded = lora(load_model(folder, **computing))
    steps, looks, weights = learn(loaded)
    for ours, theirs in zip(first[0], steps, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    for (nats, said), (right, words) in zip(first[1], looks, strict=True):
        assert nats == pytest.approx(right, rel=1e-4)
        assert said == words
    assert first[3] == pytest.approx(losses(loaded), rel=1e-4)
    for name, weight in weights.items():
        assert abs(first[2][name] - weight).max() < 1e-3, name
        assert all((each[2][name] == first[2][name]).all() for each in others), "bit for bit"
    assert all(each[0] == first[0] and not each[1] for each in others)


def test_a_base_in_four_bits_is_dealt_out_too(tiny_folder, tmp_path):
    pytest.importorskip("bitsandbytes")
    folder, packed = ModelFolder("tiny", tiny_folder, "none"), COMPUTING | {"quantize": "nf4"}

    def act():
        return losses(deal_base(folder, **packed)), losses(
            shaken(lora(deal_base(folder, **packed)))
        )

    first, (_, left) = asked(act, tmp_path, 2)
    assert left == [1], "the first one was let go of"
    whole = load_model(folder, **packed)
    assert first[0] == pytest.approx(losses(whole), rel=1e-5)
    assert first[1] == pytest.approx(losses(shaken(lora(whole))), rel=1e-5)


def test_memory_that_runs_out_within_a_block_leaves_nobody_waiting(tiny, tiny_folder, tmp_path):
    folder = ModelFolder("tiny", tiny_folder, "none")

    def act():
        loaded = deal_base(folder, **COMPUTING)
        norm = loaded.model.model.layers[1].post_attention_layernorm
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(norm, "forward", short)
            with pytest.raises(torch.OutOfMemoryError):
                losses(loaded)
        return losses(loaded)

    def short(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert asked(act, tmp_path, 2)[0] == pytest.approx(losses(tiny), rel=1e-5)


def test_ctrl_c_between_telling_and_gathering_waits_for_the_block(tiny_folder, tmp_path):
    folder = ModelFolder("tiny", tiny_folder, "none")

    def act():
        loaded = deal_base(folder, **COMPUTING)
        told = []

        def press(number, *_):
            told.append(number)
            if len(told) == 2:
                os.kill(os.getpid(), signal.SIGINT)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dealt_base, "send_job", lambda job: (send_job(job), press(job.block)))
            with pytest.raises(KeyboardInterrupt):
                losses(loaded)
        return told

    first, held = asked(act, tmp_path, 2)
    assert first == [0, 1]
    assert held


@pytest.mark.parametrize("family", ["Gemma 3", "gpt-oss", "Phi-3.5-MoE", "DiffLlama"])
def test_other_families_are_dealt_out_too(tiny_folder, tmp_path, family):
    """One whose router is a kind of layer of its own, and one that transformers generates with."""
    save(family, tmp_path / "model", tokenizer=tiny_folder)
    folder = ModelFolder("tiny", tmp_path / "model", "none")

    def act():
        loaded = deal_base(folder, **COMPUTING)
        before = losses(loaded), written(loaded)
        return *before, losses(shaken(lora(loaded)))

    first = asked(act, tmp_path, 2)[0]
    whole = load_model(folder, **COMPUTING)
    assert first[0] == pytest.approx(losses(whole), rel=1e-5)
    assert first[1] == written(whole)
    assert first[2] == pytest.approx(losses(shaken(lora(whole))), rel=1e-5)


@pytest.mark.parametrize("keep", [Keep(kl=0.5), Keep(distil=1.0), Keep(kl=0.5, distil=1.0)])
def test_packs_that_the_base_is_not_asked_about_keep_step(tiny_folder, tmp_path, keep):
    """Plain texts that are replayed have no prompt; some processes have nothing else."""
    folder = ModelFolder("tiny", tiny_folder, "none")
    draw = torch.Generator().manual_seed(0)

    def one(name, size, prompt):
        ids = tuple(torch.randint(3, 300, (size,), generator=draw).tolist())
        mask = (False,) * prompt + (True,) * (size - prompt)
        return pack([Encoded(name, ids, mask)], max_tokens=500)

    texts = [(f"{REPLAY}{n}", size, 1) for n, size in enumerate((59, 19))]
    asked = [(f"e{n}", size, size - 3) for n, size in enumerate((60, 20))]
    mixed = [one(*each)[0] for pair in zip(asked, texts, strict=True) for each in pair]

    def gradient(loaded):
        wanted = []
        for packs in (mixed, mixed[:2], mixed[::-1][:3]):
            loaded.model.zero_grad()
            whole = Objective(terms=terms_of(keep)).over(packs, step=1)
            found = batch_gradient(loaded, packs, room=Room(), whole=whole)
            wanted.append((found.nats, found.replay_nats, *found.terms))
        return wanted, plain({n: p.grad for n, p in trainable(loaded.model).items()})

    def here(number):
        if is_first():
            loaded = shaken(lora(deal_base(folder, **COMPUTING)))
            send_job("train")
            found = gradient(loaded)
            send_job(None)
            return found
        held = Held()
        for job in jobs():
            if job == "train":
                found = gradient(shaken(lora(held.bases[0])))
            else:
                held.serve(job)
        return found

    wanted, grads = gradient(shaken(lora(load_model(folder, **COMPUTING))))
    for found, parts in together(2, here, tmp_path):
        for ours, theirs in zip(found, wanted, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4)
        for name, grad in grads.items():
            assert abs(parts[name] - grad).max() < 1e-4 * max(1, abs(grad).max()), name
