"""Replay: as much as was asked for, never what a run judges by, and the same on resume."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from instil.compare import forgetting
from instil.config.recipe import load_recipe
from instil.data.registry import load_rows
from instil.encode.plan import replay_count
from instil.errors import RecipeError
from instil.evaluate.sample import sample_texts
from instil.model.load import ModelFolder
from instil.stages import replaying
from instil.stages.context import RunContext, prepare
from instil.stages.directory import Run
from instil.stages.preflight import preflight
from instil.stages.replaying import add_replay, own_texts, replay_pools
from instil.stages.runfiles import load_steps, load_summary
from instil.tasks.task import load_task
from moods import lay_out, make_recipe, run

pytestmark = pytest.mark.slow  # many whole runs


QUICK = (
    "dtype=float32",
    "baselines.shots=[0]",
    "baselines.tfidf=false",
    "train.num_train_epochs=1",
    "tasks.0.train=32",
    "validation=12",
    "test=12",
    "train.tokens_per_batch=128",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return lay_out(tmp_path)


@given(st.integers(1, 5000), st.floats(0.001, 0.5))
def test_the_share_is_as_asked(own: int, share: float) -> None:
    count = replay_count(own, share=share)
    assert count >= 1
    assert count == 1 or abs(count - share * (own + count)) < 1


def test_own_texts_are_drawn_from_the_models_own_chances(tiny) -> None:
    """The second token's frequencies against the model's probabilities of it: chi squared."""
    texts = sample_texts(tiny, 1500, max_new_tokens=2, seed=3)
    start = tiny.chat.text_start
    assert {text[0] for text in texts} == {start}
    with torch.inference_mode():
        chances = tiny.model(input_ids=torch.tensor([[start]])).logits[0, -1].softmax(-1)
    seen = Counter(text[1] for text in texts)
    likely = chances.topk(8)
    wanted = {int(t): 1500 * float(p) for p, t in zip(*likely, strict=True)}
    assert sum(wanted.values()) > 300
    squares = sum((seen[token] - n) ** 2 / n for token, n in wanted.items())
    assert squares < 26  # 8 degrees of freedom: one in a thousand


def test_own_texts_follow_from_the_seed_and_leave_the_random_state(tiny) -> None:
    state = torch.get_rng_state()
    first, again, other = (sample_texts(tiny, 5, max_new_tokens=9, seed=n) for n in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert first == again != other
    assert all(len(text) == 10 for text in first)


def test_a_dialogue_goes_on_behind_a_turn(tiny, monkeypatch) -> None:
    """Made to end a turn at every other token, the model is heard in between; nothing is filled."""
    assert tiny.chat.text_ends == ()
    forward, stop = tiny.model.forward, tiny.chat.stop_id

    def taking_turns(*args, **kwargs):
        out = forward(*args, **kwargs)
        ended = kwargs["input_ids"][:, -1:] == stop
        out.logits[..., stop] = torch.where(ended, -1e4, 1e4)
        return out

    monkeypatch.setattr(tiny.model, "forward", taking_turns)
    for text in sample_texts(tiny, 3, max_new_tokens=6, seed=0):
        assert [token == stop for token in text] == [False, True] * 3 + [False]


def test_a_base_models_texts_end_where_it_ends_them(tiny_base_folder, monkeypatch) -> None:
    from instil.model.load import load_model

    base = load_model(ModelFolder("b", tiny_base_folder, ""), device="cpu", dtype="float32")
    assert base.chat.text_ends == (2,)
    forward = base.model.forward

    def eager(*args, **kwargs):
        out = forward(*args, **kwargs)
        out.logits[..., 2] = 1e4
        return out

    monkeypatch.setattr(base.model, "forward", eager)
    assert sample_texts(base, 3, max_new_tokens=9, seed=0) == [(1, 2)] * 3


def test_no_row_that_is_judged_by_is_replayed(folder, tiny_folder, monkeypatch) -> None:
    """The guard asks about the very texts that validation, test and the replay are drawn from."""
    text = (folder / "echo.yaml").read_text(encoding="utf-8")
    (folder / "echo.yaml").write_text(
        text.replace("target: thing\n", "target: thing\ngroup: review\n")
    )
    monkeypatch.setattr(forgetting, "TEXT_FROM", str(folder / "echo.yaml"))
    recipe = make_recipe(
        folder, tiny_folder, *QUICK, "keep.replay={share: 0.2, of: guard}", "forgetting.rows=4"
    )
    context = prepare(recipe)
    (pool,) = replay_pools(context, needed=500)
    guard = {e.group for item in (*context.guard, *context.choosing_guard) for e in item.examples}
    assert len(guard) >= 10
    groups = {row.group for row in load_rows(load_task(str(folder / "echo.yaml"))).rows}
    replayed = {row.group for row in pool.rows}
    assert replayed
    assert not replayed & guard
    judged = {row.fields["text"] for d in context.data for row in (*d.validation, *d.test)}
    assert not judged & {row.fields["text"] for row in pool.rows}
    assert replayed < groups


def test_check_counts_what_would_be_replayed(folder, tiny_folder) -> None:
    for of, name in (("own", "own"), ("guard", "echo")):
        changes = (f"keep.replay={{share: 0.25, of: {of}}}", "forgetting.text=false")
        recipe = make_recipe(folder, tiny_folder, *QUICK, *changes)
        context = prepare(recipe)
        own, again = add_replay(context, preflight(context)).mix
        assert again.task == f"replay: {name}"
        assert again.examples == replay_count(own.examples, share=0.25)
        if of == "own":
            assert again.tokens == again.examples * (1 + replaying.OWN_TOKENS)


def test_own_texts_in_a_run(folder, tiny_folder, monkeypatch) -> None:
    monkeypatch.setattr(forgetting, "TEXT_FROM", str(folder / "echo.yaml"))
    monkeypatch.setattr(replaying, "OWN_TOKENS", 20)
    changes = ("keep.replay.share=0.1", "keep.kl=0.5", "keep.entropy_weighted=true")
    changes += ("train.num_train_epochs=2", "forgetting.tasks=none")
    recipe = make_recipe(folder, tiny_folder, *QUICK, *changes)
    done = run(recipe, folder / "run")
    texts = json.loads((done / "state" / "replay-own.json").read_text(encoding="utf-8"))
    task, again = load_summary(done).mix
    assert again.task == "replay: own"
    assert again.examples == replay_count(task.examples, share=0.1)
    assert len(texts) == 2 * again.examples
    assert again.supervised_tokens == again.tokens - again.examples == 20 * again.examples
    steps = load_steps(done)
    assert all(s.terms["entropy_weight"] < 1 for s in steps)
    assert steps[0].terms["kl"] == 0
    assert sum("replay_loss" in s.terms for s in steps) >= 4
    means = load_summary(done).training.means
    assert (means.replay_share, means.replay_of) == (0.1, "own")
    assert [term.name for term in means.terms] == ["kl", "entropy_weight"]
    page = (done / "report.html").read_text(encoding="utf-8").replace("\u00a0", " ")
    for said in ("wrote by itself, 10 % of the examples", "Held to the base model", "unsure"):
        assert said in page, said

    # A run that goes on takes the texts as they are.
    monkeypatch.setattr("instil.evaluate.sample.sample_texts", None)
    kept = own_texts(RunContext(recipe, Run(done)), needed=99)
    assert [list(text.ids) for text in kept] == [text["ids"] for text in texts]


@pytest.mark.slow
def test_a_guard_task_that_is_replayed_is_no_longer_an_untouched_witness(folder, tiny_folder):
    recipe = make_recipe(
        folder, tiny_folder, *QUICK, "keep.replay={share: 0.25, of: guard}", "forgetting.text=false"
    )
    done = run(recipe, folder / "run")
    summary = load_summary(done)
    task, again = summary.mix
    assert again.task == "replay: echo"
    assert again.examples == replay_count(task.examples, share=0.25)
    assert summary.training.means.replayed == ("echo",)
    page = (done / "report.html").read_text(encoding="utf-8")
    for said in (
        "seen in replay",
        "Seen in replay: other rows",
        "other rows of echo were replayed",
    ):
        assert said in page, said
    assert "seen in replay" not in said_without_replay(summary, done)


def said_without_replay(summary, done: Path) -> str:
    from instil.report.build import build_report
    from instil.report.html import to_html

    training = replace(summary.training, means=None)
    report = build_report(replace(summary, training=training), steps=load_steps(done), manifest={})
    return to_html(report)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("keep.replay={share: 0.6}",), "0.5"),
        (("keep.replay={share: 0.1, of: [a, a]}",), "given twice"),
        (("keep.kl=1.0", "keep.kl_on=replay"), "nothing is replayed"),
        (("keep.kl=-1",), "more than 0"),
    ],
)
def test_what_cannot_be_is_told(folder, tiny_folder, changes, said) -> None:
    make_recipe(folder, tiny_folder)
    with pytest.raises(RecipeError) as raised:
        load_recipe(folder / "recipe.yaml", overrides=changes)
    assert said in str(raised.value)


def test_a_task_that_is_trained_on_is_not_replayed(folder, tiny_folder) -> None:
    changes = ("keep.replay={share: 0.1, of: [./moods.yaml]}", "forgetting.tasks=none")
    path = folder / "recipe.yaml"
    make_recipe(folder, tiny_folder)
    text = path.read_text(encoding="utf-8") + "keep: {replay: {share: 0.1, of: [./moods.yaml]}}\n"
    path.write_text(text, encoding="utf-8")
    recipe = load_recipe(path, overrides=changes[1:])
    assert recipe.keep.replay.of == (str(folder / "moods.yaml"),)
    with pytest.raises(RecipeError, match="nothing to replay"):
        run(recipe, folder / "run")
    assert not (folder / "run").exists()
