import os
import signal
from dataclasses import replace

import pytest
import torch
from safetensors import SafetensorError
from test_loop import encoded  # the same made-up examples

from builds import add_lora
from instil.encode.pack import batches
from instil.errors import TrainError
from instil.model.adapter import snapshot
from instil.model.load import ModelFolder, load_model
from instil.results.training import Lost
from instil.signals import ENDING
from instil.train import checkpoint
from instil.train.checkpoint import read_progress
from instil.train.fit import Plan, Validation, fit
from instil.train.loop import Schedule

pytestmark = pytest.mark.slow  # many whole runs


@pytest.fixture
def fresh(tiny_folder):
    def make():
        loaded = load_model(ModelFolder("tiny", tiny_folder, ""), device="cpu", dtype="float32")
        return add_lora(
            loaded, r=4, lora_alpha=8, lora_dropout=0.1, target_modules="all-linear", seed=3
        )

    return make


def plan(checkpoint, *, count: int = 20, patience: int = 0, items=None) -> Plan:
    made = batches(
        items or encoded([12] * count), tokens_per_batch=24, micro_batch_tokens=12, seed=0, epoch=0
    )
    schedule = Schedule(0.01, 0.1, "cosine", 1.0)
    return Plan(made, 1.0, schedule, 0.01, 2, patience, checkpoint)


def test_stopped_and_resumed_equals_straight_through_bit_for_bit(fresh, tmp_path):
    looks = iter(range(1000))

    def validate() -> Validation:  # the best one is before the interruption: it must survive it
        return Validation(1.0, {0: 0.9}.get(next(looks), 0.5))

    straight = fresh()
    steps = []
    whole = fit(straight, plan(None), validate=validate, on_step=steps.append)

    looks = iter(range(1000))
    broken, seen = fresh(), []

    def interrupt(step):
        seen.append(step)
        if step.step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(broken, plan(tmp_path / "c"), validate=validate, on_step=interrupt)
    assert seen[-1].step == 5, "the step under way is finished"

    resumed = fresh()
    torch.manual_seed(99)  # the random state comes from the checkpoint, not from here
    rest = []
    again = fit(resumed, plan(tmp_path / "c"), validate=validate, on_step=rest.append)
    assert [s.step for s in rest] == [6, 7, 8, 9, 10]
    assert [s.loss for s in seen + rest] == [s.loss for s in steps]
    one, two = snapshot(straight.model), snapshot(resumed.model)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert again.progress.best_step == whole.progress.best_step == 2


def test_the_best_weights_are_kept_and_patience_ends_training(fresh):
    loaded = fresh()
    scores = iter([0.5, 0.9, 0.8, 0.7, 0.6])
    kept = {}

    def validate() -> Validation:
        score = next(scores)
        kept[score] = snapshot(loaded.model)
        return Validation(1.0, score)

    done = fit(loaded, plan(None, patience=2), validate=validate, on_step=lambda s: None)
    assert done.stopped_early
    assert (done.progress.best_step, done.progress.step) == (4, 8)
    now = snapshot(loaded.model)
    assert all(torch.equal(now[name], kept[0.9][name]) for name in now)


def test_equal_scores_go_to_the_lower_loss(fresh):
    looks = iter([Validation(2.0, 0.5), Validation(1.0, 0.5), *[Validation(1.5, 0.5)] * 3])
    done = fit(fresh(), plan(None), validate=lambda: next(looks), on_step=lambda s: None)
    assert done.progress.best_step == 4


def test_weights_within_what_may_be_forgotten_come_first(fresh):
    def kept(*looks: tuple[float, float]) -> int:
        seen = iter([Validation(1.0, score, lost=Lost(b, None, None)) for score, b in looks])
        done = fit(fresh(), plan(None), validate=lambda: next(seen), on_step=lambda s: None)
        assert [(each.step, each.score) for each in done.progress.lost] == [
            (2 * n, score) for n, (score, _) in enumerate(looks, 1)
        ]
        return done.progress.best_step

    assert kept((0.5, 0.0), (0.6, 0.0), (0.9, 0.1), (0.9, 2.0), (0.55, 0.0)) == 4
    assert kept((0.9, 0.3), (0.5, 0.2), (0.9, 0.4), (0.9, 2.0), (0.8, 0.3)) == 4
    assert kept((0.9, 0.3), (0.1, 0.0), (0.9, 0.4), (0.9, 2.0), (0.05, 0.0)) == 4


def test_other_data_is_not_resumed(fresh, tmp_path):
    look = Validation(1.0, 0.5)
    fit(fresh(), plan(tmp_path / "c"), validate=lambda: look, on_step=lambda s: None)
    other = plan(tmp_path / "c", items=encoded([12] * 20, seed=5))
    with pytest.raises(TrainError, match="changed"):
        fit(fresh(), other, validate=lambda: look, on_step=lambda s: None)


def test_patience_waits_while_the_loss_still_falls(fresh):
    losses = iter([5.0, 4.0, 3.0, 2.0, 1.0])
    look = fit(
        fresh(),
        plan(None, patience=1),
        validate=lambda: Validation(next(losses), 0.5),
        on_step=lambda s: None,
    )
    assert not look.stopped_early


def test_patience_waits_until_something_is_shown_to_be_learnt(fresh):
    """A slow learner's score stays at the commonest class's while its loss wobbles."""
    waits = plan(None, patience=2)
    slow = [Validation(0.7 + 0.01 * (n % 2), 0.5, shown=False) for n in range(10)]
    looks = iter(slow)
    done = fit(fresh(), waits, validate=lambda: next(looks), on_step=lambda s: None)
    assert not done.stopped_early
    looks = iter([slow[0], *[Validation(0.8, 0.5)] * 9])
    done = fit(fresh(), waits, validate=lambda: next(looks), on_step=lambda s: None)
    assert done.progress.step == 6, "the look that shows it counts, and the one after it"


def test_patience_waits_for_the_warm_up(fresh):
    long = replace(plan(None, patience=2), schedule=Schedule(0.01, 0.5, "cosine", 1.0))
    done = fit(fresh(), long, validate=lambda: Validation(1.0, 0.5), on_step=lambda s: None)
    assert done.progress.step == 8, "looks after steps 2 and 4 do not count, 6 and 8 do"


def test_a_damaged_checkpoint_says_what_to_do(fresh, tmp_path):
    look = Validation(1.0, 0.5)
    fit(fresh(), plan(tmp_path / "c"), validate=lambda: look, on_step=lambda s: None)
    for name in ("state-*.safetensors", "progress.json"):
        (file,) = (tmp_path / "c").glob(name)
        file.write_bytes(b"half")
        with pytest.raises(TrainError, match="delete"):
            fit(fresh(), plan(tmp_path / "c"), validate=lambda: look, on_step=lambda s: None)


def fitted(fresh, checkpoint, **changes):
    look = Validation(1.0, 0.5)
    return fit(
        fresh(), replace(plan(checkpoint), **changes), validate=lambda: look, on_step=lambda s: None
    )


def test_another_runs_checkpoint_is_not_taken(fresh, tmp_path):
    fitted(fresh, tmp_path / "c", run="one")
    with pytest.raises(TrainError, match="another run's"):
        fitted(fresh, tmp_path / "c", run="other")


def test_tensors_that_were_sent_before_their_counters_are_passed_over(fresh, tmp_path):
    """As at an address where sending the next checkpoint was broken off, or of old versions."""
    fitted(fresh, tmp_path / "c")
    (tmp_path / "c" / "state-20.safetensors").write_bytes(b"the next one, or half of it")
    assert read_progress(tmp_path / "c", run="").step == 10
    (tmp_path / "c" / "state-10.safetensors").rename(tmp_path / "c" / "state.safetensors")
    assert read_progress(tmp_path / "c", run="").step == 10
    assert fitted(fresh, tmp_path / "c").progress.step == 10


def test_what_was_left_of_an_older_checkpoint_is_no_hindrance(fresh, tmp_path):
    fitted(fresh, tmp_path / "c")
    (tmp_path / ".c-old").mkdir()
    (tmp_path / ".c-old" / "state.safetensors").write_bytes(b"killed while this was removed")
    assert read_progress(tmp_path / "c", run="").step == 10
    assert not (tmp_path / ".c-old").exists()
    (tmp_path / ".c-old" / "deep").mkdir(parents=True)
    fitted(fresh, tmp_path / "c")
    (tmp_path / "c").rename(tmp_path / ".c-old")
    assert read_progress(tmp_path / "c", run="").step == 10


@pytest.mark.parametrize("error", [OSError(28, "full"), SafetensorError("(os error 28)")])
def test_a_full_disk_is_one_message_and_keeps_the_checkpoint_before(
    fresh, tmp_path, monkeypatch, error
):
    fitted(fresh, tmp_path / "c")

    def fail(tensors, path):
        path.write_bytes(b"half")
        raise error

    before = read_progress(tmp_path / "c", run="")
    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(TrainError, match="the checkpoint cannot be written"):
        fitted(fresh, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c"]
    assert read_progress(tmp_path / "c", run="") == before


@pytest.mark.parametrize("number", ENDING)
def test_other_signals_stop_it_as_ctrl_c_does(fresh, tmp_path, number):
    def stop(step):
        if step.step == 3:
            os.kill(os.getpid(), number)

    look = Validation(1.0, 0.5)
    with pytest.raises(KeyboardInterrupt):
        fit(fresh(), plan(tmp_path / "c"), validate=lambda: look, on_step=stop)
    assert read_progress(tmp_path / "c", run="").step == 3
