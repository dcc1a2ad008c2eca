"""Whole runs on a tiny model that hand over a part of the tuning, and say how far it moved."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from instil.compare import forgetting, interpolation
from instil.encode.chat_format import ChatFormat
from instil.errors import RunError
from instil.model import prune
from instil.report.sections.keeping import keeping_lines
from instil.ship.export import export as write_export
from instil.ship.formats import Format
from instil.stages.context import prepare
from instil.stages.directory import open_run
from instil.stages.judge import Look
from instil.stages.runfiles import load_manifest, load_scores, load_summary
from moods import lay_out, make_recipe, run

pytestmark = pytest.mark.slow  # many whole runs


QUICK = (
    "dtype=float32",
    "baselines.shots=[0]",
    "baselines.tfidf=false",
    "train.num_train_epochs=2",
)
BARE = (*QUICK, "forgetting.tasks=none")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return lay_out(tmp_path)


def alpha(done: Path) -> float:
    return json.loads((done / "model" / "adapter_config.json").read_text())["lora_alpha"]


def answers(done: Path, arm: str) -> dict[str, tuple[str, str]]:
    lines = load_scores(done, "test-moods")
    return {s["row"]: (s["template"], s["prediction"]) for s in lines if s["arm"] == arm}


@pytest.mark.parametrize("budget", ["null", pytest.param("90", marks=pytest.mark.slow)])
def test_auto_tries_some_shares_and_hands_the_chosen_one_over(
    folder, tiny_folder, monkeypatch, budget
):
    monkeypatch.setattr(forgetting, "TEXT_FROM", str(folder / "echo.yaml"))
    monkeypatch.setattr(interpolation, "SHARES", (0.4, 0.8, 1.0))
    wanted = ("keep.interpolate=auto", f"forgetting.budget={budget}")
    recipe = make_recipe(folder, tiny_folder, *QUICK, *wanted)
    done = run(recipe, folder / "run")
    summary = load_summary(done)
    found = summary.interpolation
    assert [each.share for each in found.tried] == [0.0, 0.4, 0.8, 1.0]
    # A budget is of the guard's metrics; without one nothing that is chosen by needs an answer.
    asked = budget != "null"
    assert (found.tried[0].points, found.tried[0].nats) == (0.0 if asked else None, 0.0)
    assert all((each.points is not None) == asked for each in found.tried)
    assert all(each.nats is not None and each.nats >= 0 for each in found.tried)
    assert found.tried[0].loss > found.tried[-1].loss
    best = max(each.score for each in found.tried[1:])
    (chosen,) = (each for each in found.tried if each.share == found.chosen)
    assert chosen.score >= best - 0.0051
    assert alpha(done) == pytest.approx(8 * found.chosen)
    assert found.guard_rows == {"echo": 6, "general text": 6}
    assert summary.moved.overall.mean > 0
    page = (done / "report.html").read_text(encoding="utf-8")
    assert "How far to go: what was tried" in page
    assert ("metrics were not asked for" in page) != asked
    assert all(line.startswith(("Moved", "Exported")) for line in keeping_lines(summary))


def test_guard_rows_to_choose_on_are_not_those_reported_on(
    folder: Path, tiny_chat: ChatFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "TEXT_FROM", str(folder / "echo.yaml"))
    names = (str(folder / "echo.yaml"),)
    reported = forgetting.load_guard(names, rows=12, text=True, chat=tiny_chat, seed=0)
    other = forgetting.load_guard(
        names, rows=6, text=True, chat=tiny_chat, seed=0, apart_from=reported
    )
    rows = [{e.row for item in guard for e in item.examples} for guard in (reported, other)]
    assert [len(item.examples) for item in other] == [6, 6]
    assert not rows[0] & rows[1]
    everything = forgetting.load_guard(names, rows=160, text=False, chat=tiny_chat, seed=0)
    left = forgetting.load_guard(
        names, rows=6, text=False, chat=tiny_chat, seed=0, apart_from=everything
    )
    assert left == ()


@pytest.mark.slow
def test_at_0_the_untouched_model_is_handed_over_and_judged_once(folder, tiny_folder):
    recipe = make_recipe(folder, tiny_folder, *BARE, "keep.interpolate=0.0")
    done = run(recipe, folder / "run")
    summary = load_summary(done)
    assert alpha(done) == 0
    assert summary.moved.overall.mean == 0
    assert summary.interpolation.tried == ()
    untouched = answers(done, "zero_shot")
    assert untouched == answers(done, "tuned")

    # Going on with a finished run changes nothing of it.
    run(recipe, done, resume=True)
    assert alpha(done) == 0
    again = load_summary(done)
    timed = ("stage_seconds", "processor_seconds")
    assert again == replace(summary, **{name: getattr(again, name) for name in timed})

    # A run that was judged is judged again only where that is asked for, and says so.
    anew = {"resume": True, "restart_from": "test"}
    with pytest.raises(RunError, match="has been opened"):
        run(recipe, done, **anew)
    run(recipe, done, **anew, look=Look.AGAIN)
    second = load_summary(done)
    assert (summary.looks, second.looks) == (1, 2)
    assert len(load_manifest(done)["test_opened"]) == 2
    first, again = (  # the advice has milliseconds in it
        [text for text in each.verdict if " to use" not in text and not text.startswith("Use ")]
        for each in (summary, second)
    )
    (told,) = set(again) - set(first)
    assert "opened 2 times" in told
    assert len(again) == len(first) + 1
    assert "scored once" not in (done / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_full_weights_are_mixed_with_those_of_the_base(folder, tiny_folder):
    whole = run(make_recipe(folder, tiny_folder, *BARE, "method=full"), folder / "whole")
    recipe = make_recipe(folder, tiny_folder, *BARE, "method=full", "keep.interpolate=0.5")
    half = run(recipe, folder / "half")
    ends = (
        load_file(tiny_folder / "model.safetensors"),
        load_file(whole / "model" / "model.safetensors"),
    )
    mixed = load_file(half / "model" / "model.safetensors")
    assert mixed.keys() == ends[1].keys()
    for name, weight in mixed.items():
        torch.testing.assert_close(weight, torch.lerp(ends[0][name], ends[1][name], 0.5))
    assert not (half / "checkpoints" / "tuned").exists()
    moved = [load_summary(done).moved.overall.mean for done in (whole, half)]
    assert 0 < moved[1] < moved[0]
    # A stop after the old weights were laid aside, or after all was done, mixes them only once.
    run(recipe, half, resume=True)
    for name, weight in load_file(half / "model" / "model.safetensors").items():
        assert torch.equal(weight, mixed[name])


def test_a_pruned_update_is_exported_whole(folder, tiny_folder):
    recipe = make_recipe(folder, tiny_folder, *BARE, "keep.prune=0.25")
    done = run(recipe, folder / "run")
    summary, weights = load_summary(done), done / "model" / "model.safetensors"
    starts, ends = load_file(tiny_folder / "model.safetensors"), load_file(weights)
    differ = sum(int((weight != starts[name]).sum()) for name, weight in ends.items())
    assert differ == summary.pruning.kept
    assert summary.pruning.kept == pytest.approx(0.25 * summary.pruning.changed, rel=0.01)
    assert not (done / "model" / "adapter_config.json").exists()
    assert summary.moved.overall.mean > 0
    card = (done / "model" / "README.md").read_text(encoding="utf-8")
    assert "PeftModel" not in card
    assert "library_name: transformers" in card
    assert "a whole model, with 25" in (done / "report.html").read_text(encoding="utf-8")
    with pytest.raises(RunError, match="pruned and merged"):
        write_export(done, out=folder / "out", form=Format.GGUF_LORA)


@pytest.mark.slow
def test_what_was_pruned_is_pruned_once_however_it_was_stopped(folder, tiny_folder, monkeypatch):
    recipe = make_recipe(folder, tiny_folder, *BARE, "keep.prune=0.25")
    whole = run(recipe, folder / "whole")
    weights = load_file(whole / "model" / "model.safetensors")

    def same(done: Path) -> bool:
        found = load_file(done / "model" / "model.safetensors")
        return all(torch.equal(weight, found[name]) for name, weight in weights.items())

    with monkeypatch.context() as patched:  # the tuned adapter lies aside, nothing is written yet
        patched.setattr(prune, "prune", stop)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, folder / "stopped")
    assert (folder / "stopped" / "checkpoints" / "tuned").exists()
    done = run(recipe, folder / "stopped", resume=True)
    assert same(done)
    assert not (done / "checkpoints" / "tuned").exists()
    run(recipe, done, resume=True)
    assert same(done)
    # The weights before it are not kept: begun anew, it is trained anew.
    run(recipe, done, resume=True, restart_from="pruned", look=Look.AGAIN)
    assert same(done)


def stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_the_base_model_shown_each_answer_is_distilled_from(folder, tiny_folder):
    done = run(
        make_recipe(folder, tiny_folder, *BARE, "keep.distil=1", "train.max_length=256"),
        folder / "run",
    )
    (term,) = load_summary(done).training.means.terms
    assert term.name == "distil"
    assert term.mean > 0
    assert "was shown each answer" in (done / "report.html").read_text(encoding="utf-8")


def test_at_most_steers_to_a_weight_that_loses_no_more(folder, tiny_folder, monkeypatch):
    monkeypatch.setattr(forgetting, "TEXT_FROM", str(folder / "echo.yaml"))
    monkeypatch.setattr(interpolation, "SHARES", (0.4, 0.8, 1.0))
    quick = (*QUICK, "forgetting.rows=40", "forgetting.at_most=0.02")
    done = run(make_recipe(folder, tiny_folder, *quick), folder / "run")
    summary = load_summary(done)
    settled, law = summary.interpolation, summary.interpolation.law
    assert 0 < settled.chosen < 1
    assert alpha(done) == pytest.approx(8 * settled.chosen)
    assert law.predicted <= 0.02 + 1e-9
    assert law.points[0].nats == 0
    assert law.points[-1].nats > 0.02  # of the tuned model
    text = next(line.comparison for line in summary.forgetting if line.task == "general text")
    assert law.came_out.mean == text.difference
    assert law.low <= law.came_out.mean <= law.high
    assert any("At most 0.020 nats" in sentence for sentence in summary.verdict)
    assert any("of the way is exported: on validation" in text for text in summary.verdict)
    page = (done / "report.html").read_text(encoding="utf-8")
    assert "Validation score against loss on general text" in page
    # What was exported is the model that the curve was fitted to, on the same texts.
    with open_run(make_recipe(folder, tiny_folder, *quick), folder=done, resume=True) as opened:
        context = prepare(make_recipe(folder, tiny_folder, *quick), run=opened)
        texts = [item for item in context.choosing_guard if item.id == "general text"]
        sides = (forgetting.measure(m, texts) for m in (context.load_base(), context.load_tuned()))
        (line,) = forgetting.ledger(texts, *sides)
    (chosen,) = (each for each in law.points if each.weight == settled.chosen)
    assert line.comparison.difference == pytest.approx(chosen.nats, abs=1e-6)
    assert law.predicted == pytest.approx(chosen.nats)
    assert law.fitted_to <= 1
    # Gone on with, nothing is scaled twice.
    run(make_recipe(folder, tiny_folder, *quick), done, resume=True)
    assert alpha(done) == pytest.approx(8 * settled.chosen)
    assert load_summary(done).interpolation == summary.interpolation
