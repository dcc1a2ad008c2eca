"""Whole runs on a tiny model that try one way of tuning after another, and pick."""

import json
from pathlib import Path

import pytest

from instil.compare import forgetting, interpolation
from instil.config.recipe import Recipe, load_recipe
from instil.errors import RecipeError
from instil.results.keeping import TriedMethod
from instil.results.training import TrainingSummary
from instil.stages import auto_method as autopilot
from instil.stages import replaying, training
from instil.stages.runfiles import load_manifest, load_steps, load_summary
from moods import lay_out, make_recipe, ready, run

pytestmark = pytest.mark.slow  # many whole runs


QUICK = (
    "method=auto",
    "dtype=float32",
    "baselines.shots=[0]",
    "baselines.tfidf=false",
    "train.num_train_epochs=1",
    "validation=12",
    "test=8",
    "forgetting.rows=4",
    "tasks.0.train=32",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(forgetting, "TEXT_FROM", str(tmp_path / "echo.yaml"))
    monkeypatch.setattr(interpolation, "SHARES", (0.5, 1.0))
    monkeypatch.setattr(replaying, "OWN_TOKENS", 8)
    return lay_out(tmp_path)


def alpha(done: Path) -> float:
    return json.loads((done / "model" / "adapter_config.json").read_text())["lora_alpha"]


@pytest.mark.slow
def test_all_ways_are_tried_and_the_one_taken_is_the_run(folder, tiny_folder, monkeypatch):
    # Half of the way is made to be the least forgotten at an equal score.
    original = autopilot._try

    def as_good(context, arm, way, encoded):
        found = original(context, arm, way, encoded)
        return TriedMethod(way, 0.0, found.loss, found.points, 9.0, found.seconds)

    monkeypatch.setattr(autopilot, "_try", as_good)
    recipe = make_recipe(folder, tiny_folder, *QUICK)
    done = run(recipe, folder / "run")
    summary = load_summary(done)
    methods = summary.methods
    names = ["LoRA", "LoRA + replay", methods.tried[2].name]
    assert [each.name for each in methods.tried] == names
    assert methods.chosen == 2
    base, _, part = names[2].partition(" + interpolation")
    assert base in names[:2]
    assert part in (" (50 %)", " (100 %)")
    assert methods.guard_rows == {"echo": 2, "general text": 2}
    assert all(each.points is None for each in methods.tried)  # no budget: nats alone are asked
    assert alpha(done) == pytest.approx(8 * summary.interpolation.chosen)
    assert len(load_manifest(done)["test_opened"]) == 1
    arm = done / "arms" / autopilot._FOLDERS[base]
    assert load_steps(done) == load_steps(arm)
    assert (summary.training.means is not None) == (base == "LoRA + replay")
    assert summary.training.method == "lora"
    page = (done / "report.html").read_text(encoding="utf-8")
    assert "Methods that were tried" in page


def trained(recipe: Recipe, folder: Path) -> TrainingSummary:
    context, encoded, methods = autopilot.pick_method(*ready(recipe, folder))
    assert (methods is None) == (recipe.method == "lora")
    return training.train(context, encoded).summary


def test_where_nothing_tells_what_was_forgotten_it_is_the_plain_run(
    folder, tiny_folder, monkeypatch
):
    changes = [*QUICK, "forgetting.tasks=none"]
    recipe = make_recipe(folder, tiny_folder, *changes)

    def interrupt(step):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "_step_note", interrupt)
        with pytest.raises(KeyboardInterrupt):
            trained(recipe, folder / "run")
    done = trained(recipe, folder / "run")
    assert alpha(folder / "run") == 8
    assert not (folder / "run" / "arms" / "replay").exists()

    plain = trained(make_recipe(folder, tiny_folder, *changes, "method=lora"), folder / "plain")
    assert (plain.method, plain.steps) == (done.method, done.steps)
    losses = [[s.loss for s in load_steps(folder / name)] for name in ("run", "plain")]
    assert losses[0] == losses[1]
    file = Path("model") / "adapter_model.safetensors"
    assert (folder / "run" / file).read_bytes() == (folder / "plain" / file).read_bytes()


@pytest.mark.parametrize("key", ["keep.replay.share=0.05", "keep.interpolate=0.5"])
def test_what_auto_tries_is_not_asked_for_beside_it(folder, tiny_folder, key):
    make_recipe(folder, tiny_folder)
    with pytest.raises(RecipeError, match="by itself"):
        load_recipe(folder / "recipe.yaml", overrides=["method=auto", key])
