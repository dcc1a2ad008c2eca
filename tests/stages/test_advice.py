"""Advice on a tiny model: what is tried, on which rows, and that the run goes on as if without."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.progress import Progress

from instil.compare import contest, forgetting
from instil.pipeline import advise_recipe
from instil.report.sections.advice import advice_lines, advice_table
from instil.results.names import PROBE, PROMPTING, TFIDF, TUNED
from instil.stages import advice as stage
from instil.stages.runfiles import load_manifest, load_scores, load_steps, load_summary
from moods import lay_out, make_recipe, run

pytestmark = pytest.mark.slow  # many whole runs


QUICK = ("dtype=float32", "train.num_train_epochs=4", "forgetting.rows=4")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(forgetting, "TEXT_FROM", str(tmp_path / "echo.yaml"))
    return lay_out(tmp_path)


def begin(recipe, place: Path, *, resume: bool = False):
    return advise_recipe(recipe, folder=place, resume=resume, progress=Progress(disable=True))


def test_ways_are_tried_on_validation_alone_and_the_run_goes_on_as_without(
    folder, tiny_folder, monkeypatch
):
    recipe = make_recipe(folder, tiny_folder, *QUICK)
    asked: list[str] = []
    ask = contest.ask

    def noting(loaded, data, *, rows, **rest):
        asked.extend(row.id for row in rows)
        return ask(loaded, data, rows=rows, **rest)

    monkeypatch.setattr(contest, "ask", noting)
    (advice,) = begin(recipe, folder / "run")
    split = json.loads((folder / "run" / "split.json").read_text())["splits"][0]
    validation = split["validation"]
    assert set(asked) == set(validation)
    assert "test_opened" not in load_manifest(folder / "run")
    assert [way.name for way in advice.ways] == ["majority", TFIDF, PROBE, PROMPTING, TUNED]
    assert advice.rows == len(validation)
    assert advice.text is not None
    assert advice.text.metric == "nats_per_token"
    assert advice.twice_the_rows is not None
    steps = len(load_steps(folder / "run" / "arms" / "advice"))

    monkeypatch.setattr(stage, "_short_try", None)  # what is finished is not done anew
    assert begin(recipe, folder / "run", resume=True) == (advice,)
    with_advice, plain = run(recipe, folder / "run", resume=True), run(recipe, folder / "plain")
    assert advice.tried == pytest.approx(steps / len(load_steps(plain)), abs=0.05)
    first, second = load_summary(with_advice), load_summary(plain)
    assert first.advice == (advice,)
    assert second.advice == ()
    assert [s.loss for s in load_steps(with_advice)] == [s.loss for s in load_steps(plain)]
    assert load_scores(with_advice, "test-moods") == load_scores(plain, "test-moods")
    assert first.verdict[0] == second.verdict[0]
    page = (with_advice / "report.html").read_text(encoding="utf-8")
    assert "What was advised before the training" in page
    assert "advised" not in (plain / "report.html").read_text(encoding="utf-8")


def test_free_text_has_prompts_and_the_try_alone(folder, tiny_folder):
    recipe = make_recipe(folder, tiny_folder, *QUICK, "forgetting.tasks=none", task="echo.yaml")
    (advice,) = begin(recipe, folder / "run")
    assert [way.name for way in advice.ways] == [PROMPTING, TUNED]
    assert advice.twice_the_rows is advice.text is None
    assert not any("Training rows" in line for line in advice_lines(advice))


def test_sentences_say_what_to_do(folder, tiny_folder, monkeypatch):
    monkeypatch.setattr(stage, "_twice_the_rows", lambda *_: None)
    recipe = make_recipe(folder, tiny_folder, *QUICK, "forgetting.tasks=none")
    (advice,) = begin(recipe, folder / "run")
    said = {
        way.name: advice_lines(replace(advice, chosen=n))[0] for n, way in enumerate(advice.ways)
    }
    assert "moods: tune: tuned (lora)" in said[TUNED]
    assert "do not tune: TF-IDF + logistic regression will do" in said[TFIDF]
    assert "more rows, or better labels, come first" in said["majority"]
    unsure = replace(advice.ways[0], risk=0.5)
    lines = advice_lines(replace(advice, ways=(unsure, *advice.ways[1:]), chosen=0))
    assert any("do not settle it" in line for line in lines)
    assert [row[0].text for row in advice_table(advice).rows] == [w.label for w in advice.ways]
