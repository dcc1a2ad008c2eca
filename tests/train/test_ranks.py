"""Several processes train together, and get what one process gets."""

import contextlib
import os
import traceback
import warnings
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from test_loop import SCHEDULE, encoded, lora

from builds import OWN, PADDED, add_lora
from instil.encode.pack import batches, pack
from instil.errors import TrainError
from instil.model.adapter import restore, snapshot, train_all, trainable
from instil.model.load import ModelFolder, load_model
from instil.train import loop, ranks
from instil.train.fit import Plan, Validation, fit
from instil.train.loop import batch_gradient, train_steps
from instil.train.optim import adamw
from instil.train.room import Room

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not dist.is_gloo_available(), reason="torch without gloo"),
]


def together(size: int, act: Callable[[int], Any], folder: Path) -> list[Any]:
    """Call `act` in processes that are joined, forked off this one; what each returned."""
    context = get_context("fork")
    queue = context.SimpleQueue()

    def process(number: int) -> None:
        try:
            os.environ["GLOO_SOCKET_IFNAME"] = "lo"
            torch.set_num_threads(1)
            store = dist.FileStore(str(folder / "store"), size)
            dist.init_process_group("gloo", store=store, rank=number, world_size=size)
            found = act(number)
        except BaseException:
            found = traceback.format_exc()
        queue.put((number, found))
        os._exit(0)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
        workers = [context.Process(target=process, args=(n,)) for n in range(size)]
        for worker in workers:
            worker.start()
    found = dict(queue.get() for _ in workers)
    for worker in workers:
        worker.join(20)
    failed = [each for each in found.values() if isinstance(each, str) and "Traceback" in each]
    assert not failed, failed[0]
    return [found[n] for n in range(size)]


def plain(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {name: t.numpy() for name, t in tensors.items()}


def items_of(sizes):
    """Examples with different numbers of supervised tokens."""
    return [
        replace(e, mask=(False,) * (len(e.ids) - n % 4 - 1) + (True,) * (n % 4 + 1))
        for n, e in enumerate(encoded(sizes))
    ]


def trained(loaded, *, cut: int):
    """Three steps over batches of eight examples; losses and weights."""
    made = batches(
        items_of([12] * 24), tokens_per_batch=96, micro_batch_tokens=cut, seed=0, epoch=0
    )
    assert len(made) == 3
    optimizer = adamw(trainable(loaded.model), learning_rate=0.01, weight_decay=0.1)
    steps = list(
        train_steps(loaded, made, optimizer=optimizer, schedule=SCHEDULE, steps_per_epoch=3)
    )
    return [(s.loss, s.grad_norm, s.tokens, s.supervised_tokens) for s in steps], snapshot(
        loaded.model
    )


@pytest.mark.parametrize("method", [lora, train_all])
def test_1_x_8_equals_8_x_1_equals_2_processes_x_4(tiny, tmp_path, method):
    loaded = method(tiny)
    before = snapshot(loaded.model)

    def here(number):
        steps, weights = trained(loaded, cut=48 if number >= 0 else 1000)
        return steps, plain(weights)

    two = together(2, here, tmp_path)
    assert two[0][0] == two[1][0], "all processes see the same losses"
    for cut in (1000, 1):
        with torch.no_grad():
            for name, p in trainable(loaded.model).items():
                p.copy_(before[name])
        steps, weights = trained(loaded, cut=cut)
        for ours, theirs in zip(two[0][0], steps, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-5)
        for name, wanted in weights.items():
            for _, found in two:
                # AdamW divides by the gradient's size: where that is rounding, so is the step.
                far = (torch.tensor(found[name]) - wanted).abs()
                assert far.mean() < 1e-6, name
                assert far.max() < 1e-3, name
            assert (two[0][1][name] == two[1][1][name]).all(), "bit for bit among processes"


@pytest.mark.parametrize(("size", "build"), [(2, OWN), (3, OWN), (2, PADDED)])
def test_the_gradient_is_that_of_one_process_however_packs_are_dealt(tiny, tmp_path, size, build):
    loaded = replace(lora(tiny), build=build)
    packs = pack(items_of([20, 14, 9, 22, 17]), max_tokens=60)  # two packs

    def gradient(number=0):
        sums = batch_gradient(loaded, packs, room=Room())
        found = {name: p.grad.clone() for name, p in trainable(loaded.model).items()}
        return sums.loss, sums.tokens, plain(found), [p.example_ids for p in ranks.deal(packs)]

    loss, supervised, wanted, _ = gradient()
    loaded.model.zero_grad()
    found = together(size, gradient, tmp_path)
    assert sorted(e for *_, own in found for ids in own for e in ids) == sorted(
        e for p in packs for e in p.example_ids
    )
    for each in found:
        assert each[0] == pytest.approx(loss, rel=1e-6)
        assert each[1] == supervised
        for name, grad in each[2].items():
            torch.testing.assert_close(
                torch.tensor(grad), torch.tensor(wanted[name]), atol=1e-6, rtol=1e-4
            )


def test_a_weight_that_has_a_gradient_nowhere_gets_none(tmp_path):
    def act(number):
        weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(3)]
        weights[0].grad = torch.ones(2)
        if number == 1:
            weights[2].grad = torch.ones(2)
        ranks.sum_gradients(weights)
        return [None if p.grad is None else p.grad.tolist() for p in weights]

    assert together(2, act, tmp_path) == [[[2.0, 2.0], None, [1.0, 1.0]]] * 2


def test_each_process_drops_its_own_inputs_and_a_resumed_training_the_same_ones(
    tiny_folder, tmp_path
):
    base = load_model(ModelFolder("tiny", tiny_folder, ""), device="cpu", dtype="float32")
    loaded = add_lora(
        base, r=4, lora_alpha=8, lora_dropout=0.5, target_modules="all-linear", seed=3
    )
    made = batches(items_of([12] * 24), tokens_per_batch=48, micro_batch_tokens=24, seed=0, epoch=0)
    start, look = snapshot(loaded.model), Validation(0.5, 0.5)

    def act(number, *, folder, interrupted=None):
        restore(loaded.model, start)
        losses, drawn = [], []

        def on_step(step):
            losses.append(step.loss)
            drawn.append(torch.initial_seed())
            if step.step == interrupted and number == 0:
                os.kill(os.getpid(), 2)

        plan = Plan(made, 1, SCHEDULE, 0.1, 2, 0, tmp_path / folder / "checkpoint", seed=7)
        with contextlib.suppress(KeyboardInterrupt):
            fit(loaded, plan, validate=lambda: look, on_step=on_step)
        return losses, drawn, plain(snapshot(loaded.model))

    for name in ("straight", "first", "second"):
        (tmp_path / name).mkdir()
    straight = together(2, lambda n: act(n, folder="straight"), tmp_path / "straight")
    first = together(2, lambda n: act(n, folder="broken", interrupted=3), tmp_path / "first")
    second = together(2, lambda n: act(n, folder="broken"), tmp_path / "second")
    for whole, before, after in zip(straight, first, second, strict=True):
        assert (before[0] + after[0], before[1] + after[1]) == (whole[0], whole[1])
        assert all((after[2][name] == weights).all() for name, weights in whole[2].items())
    drawn = [seed for _, seeds, _ in straight for seed in seeds]
    assert len(set(drawn)) == len(drawn), "no two processes and no two steps draw the same"


def test_more_processes_than_examples(tiny, tmp_path):
    loaded = lora(tiny)
    packs = pack(items_of([20, 14]), max_tokens=60)

    def act(number):
        loss = batch_gradient(loaded, packs, room=Room()).loss
        return loss, len(ranks.deal(packs))

    wanted = batch_gradient(loaded, packs, room=Room()).loss
    loaded.model.zero_grad()
    found = together(3, act, tmp_path)
    assert [n for _, n in found] == [1, 1, 0]
    assert all(loss == pytest.approx(wanted, rel=1e-6) for loss, _ in found)


def test_memory_that_runs_out_in_one_process_holds_up_no_other(tiny, tmp_path, monkeypatch):
    """Rank 1 has less memory: it cuts its packs, and then cannot do a single example."""
    loaded = lora(tiny)
    packs = pack(items_of([20, 14, 9, 22]), max_tokens=40)
    wanted = batch_gradient(loaded, packs, room=Room()).loss
    loaded.model.zero_grad()
    original = loop.backward

    def act(number):
        found = []
        for tokens in (23, 5):

            def short(loaded, item, *, limit=tokens, **how):
                if number == 1 and len(item.ids) > limit:
                    raise torch.OutOfMemoryError("CUDA out of memory")
                return original(loaded, item, **how)

            loop.backward = short
            try:
                found.append(batch_gradient(loaded, packs, room=Room()).loss)
            except TrainError as error:
                found.append(str(error))
            loaded.model.zero_grad()
        return found

    first, second = together(2, act, tmp_path)
    assert first[0] == second[0] == pytest.approx(wanted, rel=1e-6)
    assert "in another process" in first[1]
    assert "max_length" in second[1]


def test_the_first_validates_writes_and_is_asked_to_stop(tiny, tmp_path):
    """Ctrl-C in the first process stops both behind the same step; both go on from there."""
    loaded = lora(tiny)
    made = batches(items_of([12] * 24), tokens_per_batch=48, micro_batch_tokens=24, seed=0, epoch=0)
    start = snapshot(loaded.model)

    def act(number, interrupted=None):
        with torch.no_grad():
            for name, p in trainable(loaded.model).items():
                p.copy_(start[name])
        taken = []

        def validate():
            assert number == 0
            return Validation(1.0 / (1 + len(taken)), 0.5)

        def on_step(step):
            taken.append(step.step)
            if step.step == interrupted and number == 0:
                os.kill(os.getpid(), 2)

        plan = Plan(made, 1, SCHEDULE, 0.1, 2, 0, tmp_path / "checkpoint")
        try:
            fitted = fit(loaded, plan, validate=validate, on_step=on_step)
        except KeyboardInterrupt:
            return taken, None, None
        return taken, fitted.progress.best_step, plain(snapshot(loaded.model))

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert [t for t, *_ in together(2, lambda n: act(n, 3), tmp_path / "a")] == [[1, 2, 3]] * 2
    first, second = together(2, act, tmp_path / "b")
    assert first[0] == second[0] == [4, 5, 6]
    assert first[1] == second[1] == 6
    alone = act(0)  # a finished checkpoint: nothing is left to do
    assert alone[0] == []
    for name, weights in first[2].items():
        assert (weights == second[2][name]).all()
        assert (weights == alone[2][name]).all()


def test_other_data_in_a_helper_is_told_in_all(tiny, tmp_path):
    loaded = lora(tiny)

    def act(number):
        made = batches(
            items_of([12 + number] * 8),
            tokens_per_batch=48,
            micro_batch_tokens=24,
            seed=0,
            epoch=0,
        )
        with pytest.raises(TrainError, match="same training examples"):
            fit(
                loaded,
                Plan(made, 1, SCHEDULE, 0.1, 2, 0, None),
                validate=lambda: Validation(1.0, 1.0),
                on_step=lambda step: None,
            )
        return True

    assert together(2, act, tmp_path) == [True, True]


def test_jobs_reach_the_helpers_until_they_are_let_go(tmp_path):
    def act(number):
        if number == 0:
            for job in ("one", ("two", 2), None):
                ranks.send_job(job)
            return ranks.from_first(lambda: "said")
        return [*ranks.jobs(), ranks.from_first(lambda: "unsaid")]

    assert together(2, act, tmp_path) == ["said", ["one", ("two", 2), "said"]]
