"""What a tracker is told is what the run directory holds; what fails there is no failure here."""

from __future__ import annotations

from pathlib import Path

import pytest

from instil.compare import forgetting
from instil.config.recipe import Track, load_recipe
from instil.errors import RunError
from instil.stages import tracking
from instil.stages.directory import recipe_fingerprint
from instil.stages.runfiles import load_manifest, load_steps, load_summary
from instil.stages.tracking import (
    TRACKERS,
    Tracker,
    final_figures,
    open_tracker,
    require_tracker,
    step_figures,
)
from moods import lay_out, make_recipe, run

# mlflow and SQLAlchemy warn of one another.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
BRIEF = ("dtype=float32", "train.num_train_epochs=2", "baselines.shots=[0]")


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path):
    """Runs that differ in their tracker."""
    runs = {}
    for kind in ("tensorboard", "mlflow"):
        pytest.importorskip(kind)
        folder = lay_out(tmp_path_factory.mktemp(kind))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(forgetting, "TEXT_FROM", str(folder / "echo.yaml"))
            patch.delenv("MLFLOW_TRACKING_URI", raising=False)
            recipe = make_recipe(folder, tiny_folder, *BRIEF, f"track={kind}")
            runs[kind] = run(recipe, folder / "run")
    return runs


def test_tensorboard_has_every_step_and_the_final_figures(tracked):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tracked["tensorboard"]
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    losses = [(each.step, each.value) for each in events.Scalars("train/loss")]
    assert losses == [(s.step, pytest.approx(s.loss)) for s in load_steps(folder)]
    for name, value in final_figures(load_summary(folder)).items():
        assert events.Scalars(name)[-1].value == pytest.approx(value)


def test_mlflow_has_them_too(tracked):
    import mlflow

    folder = tracked["mlflow"]
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    number = client.get_experiment_by_name("instil").experiment_id
    (found,) = client.search_runs([number])
    assert found.data.tags["instil.run"] == load_manifest(folder)["run_id"]
    assert found.info.status == "FINISHED"
    steps = load_steps(folder)
    losses = client.get_metric_history(found.info.run_id, "train/loss")
    assert sorted((m.step, m.value) for m in losses) == [(s.step, s.loss) for s in steps]
    assert str(folder.parent) not in str(found.data.params)


def test_a_tracker_changes_no_figure_and_no_fingerprint(tracked):
    one, two = (load_steps(tracked[kind]) for kind in ("tensorboard", "mlflow"))
    assert [step.loss for step in one] == [step.loss for step in two]
    recipe = load_recipe(tracked["mlflow"] / "recipe.yaml")
    assert recipe_fingerprint(recipe) == recipe_fingerprint(
        recipe.model_copy(update={"track": None})
    )


def test_a_tracker_that_fails_is_let_go_of_with_a_line(tracked):
    said: list[str] = []
    told: list[int] = []

    def log(figures, step):
        told.append(step)
        if step == 3:
            raise OSError("gone")

    steps = load_steps(tracked["mlflow"])
    tracker = Tracker(said.append, log)
    tracker.steps(steps[:2])
    tracker.steps(steps)
    tracker.finish(load_summary(tracked["mlflow"]))
    assert told == [1, 2, 3]
    assert said == ["tracking has ended: OSError; the run goes on"]


def test_a_tracker_that_cannot_begin(tracked, monkeypatch, tmp_path):
    def broken(*_):
        raise ConnectionError

    monkeypatch.setattr(tracking, "TRACKERS", dict.fromkeys(Track, broken))
    said: list[str] = []
    tracker = open_tracker(Track.MLFLOW, settings={}, folder=tmp_path, run_id="x", say=said.append)
    tracker.steps(load_steps(tracked["mlflow"]))
    assert said == ["tracking cannot begin: ConnectionError; the run goes on"]


def test_of_paths_the_names_are_told_and_of_long_texts_all(monkeypatch, tmp_path):
    told = []

    def opened(settings, folder, run_id):
        told.append(settings)
        return (lambda figures, step: None), (lambda: None)

    monkeypatch.setattr(tracking, "TRACKERS", dict.fromkeys(Track, opened))
    settings = {"model": str(tmp_path), "tasks": [{"where": "x" * 5000}]}
    said: list[str] = []
    open_tracker(Track.MLFLOW, settings=settings, folder=tmp_path, run_id="x", say=said.append)
    assert told == [{"model": tmp_path.name, "tasks": [{"where": "x" * 5000}]}]
    assert not said


def test_a_tracker_that_is_not_installed_is_refused_before_anything(tracked, monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(RunError, match="pip install wandb"):
        require_tracker(Track.WANDB)


def test_every_tracker_has_its_few_lines():
    assert set(TRACKERS) == set(Track)


def test_names_are_those_of_hugging_face(tracked):
    names = set(step_figures(load_steps(tracked["mlflow"])[-1]))
    assert {"train/loss", "train/learning_rate", "train/grad_norm"} <= names
    assert {name.split("/")[0] for name in names} <= {"train", "eval"}
