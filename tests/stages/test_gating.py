"""Checkpoints held against what may be forgotten, in whole runs on a tiny model."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest

from instil.compare import forgetting
from instil.errors import RecipeError
from instil.report.sections.keeping import gate_line
from instil.results.training import Gate, Lost
from instil.stages import training
from instil.stages.check import check_recipe
from instil.stages.gating import gate_rows, lost_of
from instil.stages.runfiles import load_scores, load_steps, load_summary
from instil.types import Estimate
from moods import lay_out, make_recipe, run

pytestmark = pytest.mark.slow  # many whole runs


QUICK = (
    "dtype=float32",
    "baselines.shots=[0]",
    "baselines.tfidf=false",
    "baselines.probe=false",
    "forgetting.rows=24",
    "train.num_train_epochs=2",
    "train.eval_steps=3",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(forgetting, "TEXT_FROM", str(tmp_path / "echo.yaml"))
    return lay_out(tmp_path)


@pytest.mark.parametrize(
    ("nats", "points", "budget", "at_most", "beyond"),
    [
        (0.01, None, None, 0.02, 0.0),
        (-0.5, None, None, 0.02, 0.0),
        (0.05, None, None, 0.02, 1.5),
        (None, -3.0, 2.0, None, 0.5),
        (None, -3.0, 0.0, None, 3.0),
        (None, 3.0, 0.0, None, 0.0),
        (0.05, -3.0, 2.0, 0.02, 1.5),
        (0.01, -3.0, 2.0, 0.02, 0.5),
    ],
)
def test_how_far_beyond_the_limits(nats, points, budget, at_most, beyond):
    each = [None if value is None else Estimate(value, -9, 9) for value in (nats, points)]
    assert lost_of(*each, budget=budget, at_most=at_most).beyond == pytest.approx(beyond)


def test_a_limit_that_nothing_reaches_changes_no_figure(folder, tiny_folder):
    # Training rows that repeat guard rows to choose on are left out of both.
    wanted = (*QUICK, "forgetting.at_most=50")
    free = load_summary(run(make_recipe(folder, tiny_folder, *wanted), folder / "free"))
    assert free.training.gate is None
    recipe = make_recipe(folder, tiny_folder, *wanted, "forgetting.gate_checkpoints=true")
    summary = load_summary(run(recipe, folder / "gated"))
    assert summary.interpolation.chosen == 1
    assert summary.training.best_step == free.training.best_step
    free_lines, lines = (load_scores(folder / name, "test-moods") for name in ("free", "gated"))
    assert lines == free_lines
    seen = summary.training.gate.checkpoints
    looked = [step for step in load_steps(folder / "gated") if step.validation_score is not None]
    assert [each.step for each in seen] == [step.step for step in looked]
    assert [each.score for each in seen] == [step.validation_score for step in looked]
    assert summary.training.gate.rows == {"general text": 12}
    assert all(each.points is None and not each.beyond for each in seen)


@pytest.mark.slow
def test_stopped_and_gone_on_with_it_is_the_same(folder, tiny_folder, monkeypatch):
    limits = ("forgetting.budget=5", "forgetting.at_most=0.001")
    gated = (*QUICK, *limits, "forgetting.gate_checkpoints=true")
    recipe = make_recipe(folder, tiny_folder, *gated)
    whole = load_summary(run(recipe, folder / "whole")).training
    seen = whole.gate.checkpoints
    for each in seen:
        over = [each.nats.mean / 0.001 - 1, -each.points.mean / 5 - 1, 0]
        assert each.beyond == pytest.approx(max(over), abs=1e-6)
    best = max((-each.beyond, each.score) for each in seen)
    kept = next(each for each in seen if each.step == whole.best_step)
    assert (-kept.beyond, kept.score) == best
    assert "Checkpoints held against" in (folder / "whole" / "report.html").read_text("utf-8")
    save = training.Watch.follow

    def stop(self, step, *, aloud=True):
        save(self, step, aloud=aloud)
        if aloud and step.step == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.Watch, "follow", stop)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, folder / "broken")
    again = load_summary(run(recipe, folder / "broken", resume=True)).training
    assert again.gate == whole.gate
    assert again.best_step == whole.best_step


def test_without_rows_to_measure_on_it_is_refused(folder, tiny_folder):
    changes = (*QUICK, "forgetting.gate_checkpoints=true", "forgetting.at_most=1")
    context = SimpleNamespace(recipe=make_recipe(folder, tiny_folder, *changes), choosing_guard=())
    with pytest.raises(RecipeError, match="no guard rows are left"):
        gate_rows(context)


def test_too_few_texts_to_predict_a_loss_with_are_told_before_anything_is_asked(
    folder, tiny_folder
):
    changes = ("forgetting.at_most=0.05", "forgetting.rows=6")
    with pytest.raises(RecipeError, match="too little general text is left"):
        check_recipe(make_recipe(folder, tiny_folder, *changes))


def test_the_line_says_which_limit_and_how_many():
    one, two = Lost(0.0, None, None, 2, 0.5), Lost(1.0, None, None, 4, 0.9)
    gate = Gate(2.0, 0.02, (one, two), {})
    assert gate_line(gate, kept=2) == (
        "1 of 2 checkpoints within a loss of 2 points of the guard and 0.02 nats per token of "
        "general text: the best, step 2, was kept."
    )
    assert gate_line(dataclasses.replace(gate, checkpoints=(two,)), kept=4).startswith("No check")
