"""Short tries with several rates: what is tried, when a try ends, and that no trace is left."""

import pytest
import torch
from test_loop import encoded

from builds import add_lora
from instil.encode.pack import batches
from instil.errors import DivergedError
from instil.model.adapter import snapshot, train_all, trainable
from instil.model.load import ModelFolder, load_model
from instil.train import loop as module
from instil.train.loop import Schedule
from instil.train.optim import adamw
from instil.train.sweep import best, mean, sweep
from measures import mean_loss

BATCHES = batches(encoded([12] * 16), tokens_per_batch=24, micro_batch_tokens=24, seed=0, epoch=0)[
    :4
]


def training(loaded, on_step=lambda rate, step: None):
    """Return what trains at a rate; a try runs at twice the rate that it stands for."""

    def train(rate):
        steps = module.train_steps(
            loaded,
            BATCHES,
            optimizer=adamw(trainable(loaded.model), learning_rate=2 * rate, weight_decay=0.0),
            schedule=Schedule(2 * rate, 0.1, "linear", 1.0),
            steps_per_epoch=len(BATCHES),
        )
        for step in steps:
            on_step(rate, step)
            yield step

    return train


@pytest.fixture
def fresh(tiny_folder):
    def make(*, full: bool = False):
        loaded = load_model(
            ModelFolder("tiny", tiny_folder, ""), device="cpu", dtype="float32", masters=full
        )
        if full:
            return train_all(loaded)
        return add_lora(
            loaded, r=4, lora_alpha=8, lora_dropout=0.1, target_modules="all-linear", seed=3
        )

    return make


def tried(loaded, losses, *, above=(3.0,), below=(1 / 3, 1 / 9), halfway=None) -> dict:
    """Sweep with made-up looks: `losses` (rate -> nats of two examples) decide."""
    current = []

    def look():
        rate, step = current[-1]
        loss = (halfway or {}).get(rate, losses[rate]) if step == 2 else losses[rate]
        return {"a": loss, "b": loss}

    trials = sweep(
        loaded,
        training(loaded, lambda rate, step: current.append((rate, step.step))),
        steps=len(BATCHES),
        rule=1.0,
        above=above,
        below=below,
        look=look,
        worse=lambda a, b: mean(a) > mean(b) + 0.1,
    )
    return {trial.rate: trial for trial in trials}


@pytest.mark.parametrize("full", [False, True])
def test_weights_and_random_state_are_as_before(fresh, full):
    loaded = fresh(full=full)
    before, state = snapshot(loaded.model), torch.get_rng_state()
    found = tried(loaded, {1.0: 1.0, 3.0: 0.9, 1 / 3: 1.0, 1 / 9: 1.0})
    assert list(found) == [1 / 9, 1 / 3, 1.0, 3.0]
    now = snapshot(loaded.model)
    assert all(torch.equal(now[name], before[name]) for name in before)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in loaded.model.parameters())


def test_a_direction_ends_where_a_try_is_clearly_worse(fresh):
    found = tried(fresh(), {1.0: 1.0, 3.0: 0.5, 9.0: 0.7, 27.0: 0.1, 1 / 3: 1.2}, above=(3, 9, 27))
    assert set(found) == {1.0, 3.0, 9.0, 1 / 3}
    assert {rate: trial.steps for rate, trial in found.items()} == {1: 4, 3: 4, 9: 2, 1 / 3: 2}
    assert (found[9].end, found[1 / 3].end) == (None, None)
    assert best(list(found.values())).rate == 3


def test_who_is_behind_at_the_middle_alone_is_stopped_there(fresh):
    found = tried(fresh(), {1.0: 1.0, 3.0: 0.2, 1 / 3: 1.0, 1 / 9: 1.0}, halfway={3.0: 2.0})
    assert (found[3.0].steps, found[3.0].end) == (2, None)
    assert found[1 / 9].end


def test_where_the_rule_diverges_only_lower_ones_are_tried(fresh, monkeypatch):
    steps = module.train_steps

    def diverges(loaded, batches, *, schedule, **rest):
        if schedule.learning_rate > 0.5:  # twice the rate it stands for
            raise DivergedError("the gradient is not finite")
        yield from steps(loaded, batches, schedule=schedule, **rest)

    monkeypatch.setattr(module, "train_steps", diverges)
    found = tried(fresh(), {1 / 9: 1.0})
    assert {rate: trial.end is not None for rate, trial in found.items()} == {
        1 / 9: True,
        1 / 3: False,
        1.0: False,
    }
    assert best(list(found.values())).rate == 1 / 9


def test_an_interrupt_puts_the_weights_back(fresh):
    loaded = fresh()
    before = snapshot(loaded.model)

    def stop(rate, step):
        if rate == 3.0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(
            loaded,
            training(loaded, stop),
            steps=len(BATCHES),
            rule=1.0,
            above=(3.0,),
            below=(),
            look=lambda: {"a": 1.0},
            worse=lambda a, b: False,
        )
    now = snapshot(loaded.model)
    assert all(torch.equal(now[name], before[name]) for name in before)


def test_tries_differ_in_nothing_but_the_rate(fresh):
    """The same rate twice gives the same figures, dropout and all; and it is what was asked for."""
    loaded, losses, rates = fresh(), [], []

    def look():
        return {"a": mean_loss(loaded, BATCHES[0])}

    def note(rate, step):
        losses.append(step.loss)
        rates.append(step.learning_rate)

    sweep(
        loaded,
        training(loaded, note),
        steps=len(BATCHES),
        rule=0.01,
        above=(0.01,),
        below=(),
        look=look,
        worse=lambda a, b: False,
    )
    assert losses[:4] == losses[4:]
    assert rates[:4] == pytest.approx([0.02, 0.015, 0.01, 0.005])
