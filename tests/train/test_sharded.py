"""Weights dealt out over processes: the figures of one, whoever writes and reads a checkpoint."""

import copy
from contextlib import suppress
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from test_loop import SCHEDULE
from test_ranks import items_of, plain, together

from builds import OWN, PADDED, PLAIN
from instil.config.sections import Keep
from instil.encode.pack import batches, pack
from instil.errors import ModelError, TrainError
from instil.model.adapter import restore, snapshot, train_all, trainable
from instil.train.checkpoint import read_progress
from instil.train.fit import Plan, Validation, fit
from instil.train.loop import batch_gradient, train_steps
from instil.train.objective import Objective
from instil.train.optim import adamw
from instil.train.ranks import OutOfStepError
from instil.train.room import Room
from instil.train.sharded import deal_out, full
from instil.train.terms import terms_of
from measures import pack_loss

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not dist.is_gloo_available(), reason="torch without gloo"),
]


def made(size=24):
    return batches(
        items_of([12] * 24), tokens_per_batch=96, micro_batch_tokens=size, seed=0, epoch=0
    )


def stepped(loaded):
    optimizer = adamw(trainable(loaded.model), learning_rate=0.01, weight_decay=0.1)
    steps = train_steps(loaded, made(48), optimizer=optimizer, schedule=SCHEDULE, steps_per_epoch=3)
    return [(s.loss, s.grad_norm, s.tokens, s.supervised_tokens) for s in steps]


def whole_weights(loaded):
    return {name: full(p).detach().clone() for name, p in trainable(loaded.model).items()}


@pytest.mark.parametrize("size", [2, 4])
def test_losses_gradients_and_weights_are_those_of_one_process(tiny, tmp_path, size):
    loaded = train_all(tiny)
    before = snapshot(loaded.model)

    def here(number):
        dealt = deal_out(loaded)
        held = sum(p.to_local().numel() for p in trainable(dealt.model).values())
        return stepped(dealt), plain(whole_weights(dealt)), held

    found = together(size, here, tmp_path)
    wanted = stepped(loaded)
    for steps, weights, _ in found:
        for ours, theirs in zip(steps, wanted, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-5)
        for name, right in snapshot(loaded.model).items():
            far = (torch.tensor(weights[name]) - right).abs()
            assert far.mean() < 1e-6, name
            assert far.max() < 1e-3, name
    total = sum(t.numel() for t in before.values())
    assert sum(held for *_, held in found) == total
    assert max(held for *_, held in found) < 1.1 * total / size


def test_a_process_with_fewer_packs_keeps_step(tiny, tmp_path):
    """Three packs for two processes; and two examples for four, of which two have none."""
    loaded = train_all(tiny)
    for size, sizes in ((2, [20, 14, 9, 22, 17, 8]), (4, [20, 14])):
        packs = pack(items_of(sizes), max_tokens=40)

        def act(number, packs=packs):
            dealt = deal_out(loaded)
            sums = batch_gradient(dealt, packs, room=Room())
            found = {n: full(p.grad) for n, p in trainable(dealt.model).items()}
            return sums.loss, sums.tokens, plain(found)

        (folder := tmp_path / str(size)).mkdir()
        told = together(size, act, folder)
        wanted = batch_gradient(loaded, packs, room=Room())
        right = {name: p.grad.clone() for name, p in trainable(loaded.model).items()}
        loaded.model.zero_grad()
        for loss, tokens, found in told:
            assert loss == pytest.approx(wanted.loss, rel=1e-6)
            assert tokens == wanted.tokens
            for name, grad in right.items():
                torch.testing.assert_close(torch.tensor(found[name]), grad, atol=5e-6, rtol=1e-4)


def test_held_to_the_base_model_as_one_process_is(tiny, tmp_path):
    """The base is a whole model beside the parts, with `keep.kl`."""
    loaded, base = train_all(tiny), replace(tiny, model=copy.deepcopy(tiny.model))
    with torch.no_grad():
        for p in loaded.model.parameters():
            p.mul_(1.1)
    terms = terms_of(Keep(kl=0.5))
    packs = pack(items_of([20, 14, 9, 22, 17, 8]), max_tokens=40)

    def gradient(here):
        whole = Objective(terms=terms, base=base).over(packs, step=1)
        found = batch_gradient(here, packs, room=Room(), whole=whole)
        grads = {n: full(p.grad) for n, p in trainable(here.model).items()}
        return whole.means(found), plain(grads)

    told = together(2, lambda number: gradient(deal_out(loaded)), tmp_path)
    means, grads = gradient(loaded)
    for found, parts in told:
        assert found == pytest.approx(means, rel=1e-5)
        assert found["kl"] > 0
        for name, grad in grads.items():
            assert abs(parts[name] - grad).max() < 1e-5 * max(1, abs(grad).max()), name


def test_resumed_by_any_number_of_processes(tiny, tmp_path):
    """Two begin, four go on, one ends: the losses and weights of one that is not stopped.

    What the first process validates is the whole model, as it is at that step.
    """
    loaded = train_all(tiny)
    start = snapshot(loaded.model)

    def act(number, *, folder, size=1, until=None):
        restore(loaded.model, start)
        dealt = deal_out(replace(loaded, model=copy.deepcopy(loaded.model))) if size > 1 else loaded
        taken, looked = [], []

        def validate():
            looked.append(float(pack_loss(loaded, made()[0][0]).detach()))
            return Validation(looked[-1], 0.5)

        def on_step(step):
            taken.append(step.loss)
            if step.step == until:  # before it is saved: the one behind the last look must do
                raise KeyboardInterrupt

        plan = Plan(made(), 1, SCHEDULE, 0.1, 1, 0, folder)
        asked = loaded if number == 0 else None
        with suppress(KeyboardInterrupt):
            fit(dealt, plan, validate=validate, on_step=on_step, asked=asked)
        return taken, looked, plain(snapshot(loaded.model))

    taken, looked, folder = [], [], tmp_path / "checkpoint"
    for size, until in ((2, 2), (4, 3)):
        (at := tmp_path / str(size)).mkdir()
        found = together(
            size,
            lambda number, at=(size, until): act(number, folder=folder, size=at[0], until=at[1]),
            at,
        )
        assert all(each[0] == found[0][0] for each in found)
        assert not any(each[1] for each in found[1:])
        assert len([*folder.glob("state-*/*.safetensors")]) == size
        taken, looked = taken + found[0][0][:-1], looked + found[0][1][:-1]
    last, final, weights = act(0, folder=folder)
    wanted, seen, right = act(0, folder=tmp_path / "whole")
    assert taken + last == pytest.approx(wanted, rel=1e-5)
    assert looked + final == pytest.approx(seen, rel=1e-5)
    for name, weight in right.items():
        assert abs(weights[name] - weight).max() < 1e-3, name


def test_a_whole_checkpoint_is_resumed_in_parts(tiny, tmp_path):
    """And at the end the first process holds the best weights, of the look before the last."""
    loaded = train_all(tiny)
    start, folder = snapshot(loaded.model), tmp_path / "checkpoint"

    def act(number=0, *, size=1, until=None, folder=folder):
        restore(loaded.model, start)
        dealt = deal_out(replace(loaded, model=copy.deepcopy(loaded.model))) if size > 1 else loaded
        scores = {0: 0.1, 1: 0.9, 2: 0.5}
        seen = []

        def on_step(step):
            seen.append(step.step)
            if step.step == until:
                raise KeyboardInterrupt

        plan = Plan(made(), 1, SCHEDULE, 0.1, 1, 0, folder)
        first = read_progress(folder, run="").step
        with suppress(KeyboardInterrupt):
            fit(
                dealt,
                plan,
                validate=lambda: Validation(1.0, scores[first + len(seen)]),
                on_step=on_step,
                asked=loaded if number == 0 else None,
            )
        return seen, plain(snapshot(loaded.model))

    act(until=2)
    seen, weights = together(2, lambda number: act(number, size=2), tmp_path)[0]
    assert seen == [2, 3]
    whole, right = act(folder=tmp_path / "whole")
    assert whole == [1, 2, 3]
    for name, weight in right.items():
        assert abs(weights[name] - weight).max() < 1e-3, name


def test_a_weight_without_a_gradient_is_no_damage_to_a_checkpoint(tiny, tmp_path):
    model, folder = copy.deepcopy(tiny.model), tmp_path / "checkpoint"
    model.model.layers[0].unused = torch.nn.Linear(6, 6)
    loaded = train_all(replace(tiny, model=model))

    def act(number, *, until):
        taken = []

        def on_step(step):
            taken.append(step.step)
            if step.step == until:
                raise KeyboardInterrupt

        with suppress(KeyboardInterrupt):
            fit(
                deal_out(replace(loaded, model=copy.deepcopy(loaded.model))),
                Plan(made(), 1, SCHEDULE, 0.1, 1, 0, folder),
                validate=lambda: Validation(1.0, 0.5),
                on_step=on_step,
                asked=loaded if number == 0 else None,
            )
        return taken

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert together(2, lambda n: act(n, until=2), tmp_path / "a")[0] == [1, 2]
    assert together(2, lambda n: act(n, until=None), tmp_path / "b")[0] == [2, 3]


def test_damage_to_one_part_is_found(tiny, tmp_path):
    loaded, folder = train_all(tiny), tmp_path / "checkpoint"

    def act(number):
        plan = Plan(made(), 1, SCHEDULE, 0.1, 1, 0, folder)
        fit(
            deal_out(loaded),
            plan,
            validate=lambda: Validation(1.0, 0.5),
            on_step=lambda step: None,
        )

    together(2, act, tmp_path)
    part = max(folder.glob("state-*/*.safetensors"))
    part.write_bytes(part.read_bytes()[:-1] + b"!")
    with pytest.raises(TrainError, match="not what was written"):
        read_progress(folder, run="")


def test_memory_that_runs_out_is_told_and_nobody_is_waited_for(tiny, tmp_path, monkeypatch):
    loaded = train_all(tiny)
    packs = pack(items_of([20, 14, 9, 22]), max_tokens=40)

    def act(number):
        dealt = deal_out(loaded)

        def short(*_):
            raise torch.OutOfMemoryError("CUDA out of memory")

        dealt = replace(dealt, through=short)
        with pytest.raises(OutOfStepError, match="micro_batch_tokens"):
            batch_gradient(dealt, packs, room=Room())
        return True

    assert together(2, act, tmp_path) == [True, True]


@pytest.mark.parametrize("build", [PLAIN, PADDED, replace(OWN, longest=64)])
def test_a_model_whose_rows_are_not_packed_is_refused(tiny, build):
    with pytest.raises(ModelError, match="keep step"):
        deal_out(replace(train_all(tiny), build=build))
