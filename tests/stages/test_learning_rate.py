"""Trainings of a tiny model whose learning rate is found by short tries."""

from pathlib import Path

import pytest

from instil.compare import rates
from instil.config.recipe import HIGHEST_RATE, Recipe
from instil.stages import training
from instil.stages.runfiles import load_manifest, load_steps
from moods import lay_out, make_recipe, ready

pytestmark = pytest.mark.slow  # many whole runs


QUICK = (
    "dtype=float32",
    "train.num_train_epochs=1",
    "tasks.0.train=40",
    "validation=12",
    "forgetting.tasks=none",
    "lora.lora_dropout=0.1",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return lay_out(tmp_path)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tries be made for the few steps of a test."""
    monkeypatch.setattr(rates, "SHARE", 8.0)
    monkeypatch.setattr(rates, "LEAST_STEPS", 2)
    monkeypatch.setattr(rates, "MOST_STEPS", 4)


def train(recipe: Recipe, folder: Path) -> training.Trained:
    return training.train(*ready(recipe, folder))


def weights(run: Path) -> bytes:
    return (run / "model" / "adapter_model.safetensors").read_bytes()


@pytest.mark.usefixtures("short")
def test_the_rate_that_was_found_gives_the_run_that_has_it_from_the_start(folder, tiny_folder):
    run = folder / "found"
    found = train(make_recipe(folder, tiny_folder, *QUICK, "train.learning_rate=auto"), run)
    sweep = found.sweep
    assert sweep.rule == HIGHEST_RATE
    assert sweep.chosen == found.summary.learning_rate
    assert sweep.chosen in {each.rate for each in sweep.tried}
    assert sum(each.behind == 0 for each in sweep.tried) == 1
    assert all(each.steps <= sweep.steps == 4 for each in sweep.tried)
    assert (sweep.rows, sweep.of_steps) == (12, len(load_steps(run)))
    assert 0 < sweep.seconds < found.summary.seconds
    assert "learning rates" in load_manifest(run)["stage_seconds"]

    rate = f"train.learning_rate={sweep.chosen!r}"
    given = train(make_recipe(folder, tiny_folder, *QUICK, rate), folder / "given")
    assert given.sweep is None
    assert [s.loss for s in load_steps(folder / "given")] == [s.loss for s in load_steps(run)]
    assert weights(folder / "given") == weights(run)


@pytest.mark.usefixtures("short")
def test_a_resumed_run_takes_the_rate_that_was_found(folder, tiny_folder, monkeypatch):
    recipe = make_recipe(folder, tiny_folder, *QUICK, "train.learning_rate=auto")

    def stop(step):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "_step_note", stop)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, folder / "run")
    before = (folder / "run" / "state" / "sweep.json").read_text(encoding="utf-8")
    monkeypatch.setattr(rates, "ABOVE", ())  # were it done again, it would show
    train(recipe, folder / "run")
    assert (folder / "run" / "state" / "sweep.json").read_text(encoding="utf-8") == before


def test_a_short_training_keeps_the_rule_and_says_so(folder, tiny_folder):
    auto = make_recipe(folder, tiny_folder, *QUICK, "train.learning_rate=auto")
    done = train(auto, folder / "auto")
    assert done.summary.learning_rate == done.sweep.rule == HIGHEST_RATE
    assert "too few" in done.sweep.why
    assert "learning rates" not in load_manifest(folder / "auto")["stage_seconds"]
    rule = make_recipe(folder, tiny_folder, *QUICK, "train.learning_rate=rule")
    assert train(rule, folder / "rule").sweep is None
    assert weights(folder / "rule") == weights(folder / "auto")
