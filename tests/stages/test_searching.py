"""Whole runs on a tiny model whose bar is a prompt that was searched for."""

from dataclasses import replace

import pytest

from instil.compare import search
from instil.compare.ladder import best_rung
from instil.results.names import PROMPTING, TUNED_PROMPTED
from instil.stages.context import prepare
from instil.stages.directory import open_run
from instil.stages.ladder import climb_ladders, prompts_to_train
from instil.stages.runfiles import load_summary
from instil.stages.training import encoded_training
from moods import lay_out, make_recipe, run

pytestmark = pytest.mark.slow  # many whole runs


QUICK = (
    "baselines.search=quick",
    "forgetting.tasks=none",
    "baselines.tfidf=false",
    "baselines.probe=false",
    "train.num_train_epochs=1",
    "tasks.0.templates=all",
)


class StoppedError(Exception):
    """In place of a signal."""


def climbed(recipe, folder):
    with open_run(recipe, folder=folder, resume=folder.exists()) as opened:
        context = prepare(recipe, run=opened)
        return climb_ladders(context)["moods"], context


def test_a_stopped_search_is_resumed_to_the_same_bar(tmp_path, tiny_folder, monkeypatch):
    recipe = make_recipe(lay_out(tmp_path), tiny_folder, *QUICK, "baselines.search_prompts=200")
    whole, context = climbed(recipe, tmp_path / "whole")
    assert whole.search.ways
    assert whole.search.prompts <= whole.search.budget == 200
    assert whole.costs.seconds == whole.seconds + whole.search.seconds

    def stopped(*_, **__):
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(search, "race", stopped)
        with pytest.raises(StoppedError):
            climbed(recipe, tmp_path / "stopped")
        state = tmp_path / "stopped" / "state"
        assert [path.name for path in state.glob("*.json")] == ["ladder.json"]
    resumed, _ = climbed(recipe, tmp_path / "stopped")
    assert replace(resumed.search, seconds=0) == replace(whole.search, seconds=0)

    with monkeypatch.context() as patch:
        patch.setattr(search, "race", stopped)
        again, _ = climbed(recipe, tmp_path / "stopped")
    assert again == resumed

    (data,) = context.data
    loaded = context.load_base()
    way, rule = whole.bar(loaded, data, data.test, seed=recipe.seed, longest=context.longest)
    best = whole.search if whole.search.better else best_rung(whole.rungs)
    assert rule == best.scoring
    assert way.template.id == getattr(best.template, "id", best.template)
    bar = replace(whole, search=None).bar(loaded, data, data.test, seed=recipe.seed, longest=0)
    rung = best_rung(whole.rungs)
    assert (bar[0].template.id, bar[0].shots, bar[1]) == (rung.template, rung.shots, rung.scoring)


def test_without_a_search_nothing_but_the_ladder_is_asked(tmp_path, tiny_folder):
    recipe = make_recipe(lay_out(tmp_path), tiny_folder, *QUICK[1:])
    ladder, _ = climbed(recipe, tmp_path / "run")
    assert ladder.search is None
    assert ladder.costs.seconds == ladder.seconds
    assert not (tmp_path / "run" / "state" / "search.json").exists()


@pytest.mark.slow
def test_a_whole_run_asks_the_test_by_the_prompt_that_was_found(tmp_path, tiny_folder):
    recipe = make_recipe(lay_out(tmp_path), tiny_folder, *QUICK)
    done = run(recipe, tmp_path / "run")
    task = load_summary(done).tasks[0]
    found, arm = task.search, task.arm(PROMPTING)
    assert found.better, "on this tiny model; else this test shows less than it should"
    assert found.prompts <= found.budget == 16 * task.rows["validation"]
    assert arm.template == found.template.id
    assert arm.shots == (found.demonstrations.shots if found.demonstrations else 0)
    assert arm.scoring == found.scoring
    assert arm.costs.seconds > found.seconds, "the ladder's and the search's"
    page = (done / "report.html").read_text()
    assert "The prompt that was searched for" in page
    assert found.shown.messages[-1].content.splitlines()[0] in page


def test_training_by_the_best_prompt_shows_no_row_of_the_same_group(tmp_path, tiny_folder):
    changes = (*QUICK[1:], "mix.few_shot=best", "mix.few_shot_share=0.5")
    recipe = make_recipe(lay_out(tmp_path), tiny_folder, *changes)
    with open_run(recipe, folder=tmp_path / "run", resume=False) as opened:
        context = prepare(recipe, run=opened)
        plain = encoded_training(context)
        assert [line.few_shot for line in plain.mix] == [0], "the best prompt is not known yet"
        ladders = climb_ladders(context)
        shots = replace(ladders["moods"], rungs=_few_shot_best(ladders["moods"].rungs))
        context.prompts = prompts_to_train(context, {"moods": shots})
        trained = encoded_training(context)
    (data,), prompt = context.data, context.prompts["moods"]
    assert prompt.shown.keys() == {row.id for row in data.train}
    train = {row.id for row in data.train}
    for row in data.train:
        shown = prompt.shown[row.id]
        assert row.group not in {each.group for each in shown}
        assert {each.id for each in shown} <= train
    assert max(map(len, prompt.shown.values())) == 2
    (before,), (line,) = plain.mix, trained.mix
    assert line.examples == before.examples
    assert line.few_shot == round(line.examples / 2)
    assert line.tokens > before.tokens


def _few_shot_best(rungs):
    first = next(n for n, rung in enumerate(rungs) if rung.shots)
    return tuple(replace(rung, best=n == first) for n, rung in enumerate(rungs))


@pytest.mark.slow
def test_the_tuned_model_is_tested_with_the_best_prompt_too(tmp_path, tiny_folder):
    changes = ("mix.few_shot=best", "mix.few_shot_share=0.5", "baselines.search_prompts=200")
    recipe = make_recipe(lay_out(tmp_path), tiny_folder, *QUICK, *changes)
    done = run(recipe, tmp_path / "run")
    summary = load_summary(done)
    task = summary.tasks[0]
    tuned, prompting = task.arm(TUNED_PROMPTED), task.arm(PROMPTING)
    assert tuned.label == f"tuned, {prompting.label}"
    assert (tuned.template, tuned.shots) == (prompting.template, prompting.shots)
    assert tuned.costs.tokens_per_prediction == prompting.costs.tokens_per_prediction
    pairs = {(each.a, each.b) for each in (*task.comparisons, *task.rivals)}
    assert (TUNED_PROMPTED, "tuned") in pairs
    assert (PROMPTING, TUNED_PROMPTED) in pairs
    assert tuned.label in (done / "report.html").read_text()
    assert run(recipe, done, resume=True) == done
