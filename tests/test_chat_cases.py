"""Models whose chat templates are not ChatML, through the whole of instil."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from chat_templates import BLANK, CHATML, GEMMA, NO_SYSTEM, PARTS, QWEN3, THINK_OPEN
from instil.cli.main import app
from instil.config.recipe import load_recipe
from instil.ship.predict import predict_text
from instil.ship.shipped import load_run_model
from instil.stages import context as stages
from instil.stages.check import check_recipe
from instil.stages.preview import preview
from instil.stages.runfiles import load_manifest
from instil.types import Message
from moods import lay_out, make_recipe, run

pytestmark = pytest.mark.slow  # many whole runs


TALKS = """
id: talks
source: talks.jsonl
text: prompt
target: answer
metric: exact_match
history: history
train_on: all
fields: {history: "messages[:-2]", prompt: "messages[-2].content", answer: "messages[-1].content"}
templates: [{id: chat, prompt: "{{ prompt }}", target: "{{ answer }}"}]
"""
RECIPE = """
model: {model}
tasks: [{{use: ./talks.yaml}}]
validation: 4
test: 4
baselines: {{shots: [0]}}
forgetting: {{tasks: none}}
split: {{near_duplicates: 1}}
train: {{too_long: shorten, num_train_epochs: 0.1, max_length: 200}}
"""
DATED = "{%- set d = strftime_now('%d %b %Y %H:%M') -%}<|im_start|>system\n{{ d }}<|im_end|>\n"


@pytest.fixture
def model(tmp_path: Path, tiny_folder: Path) -> Callable[[str], Path]:
    """The tiny model with another chat template."""

    def make(template: str | dict[str, str]) -> Path:
        folder = tmp_path / "model"
        shutil.copytree(tiny_folder, folder)
        if isinstance(template, str):
            (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
            return folder
        (folder / "chat_template.jinja").unlink()
        (folder / "additional_chat_templates").mkdir()
        for name, text in template.items():
            path = folder / "additional_chat_templates" / f"{name}.jinja"
            path.write_text(text, encoding="utf-8")
        return folder

    return make


def talks(folder: Path, model: Path, *turns: tuple[str, str], rows: int = 16) -> Path:
    """A recipe over conversations; the texts' numbers keep the rows apart."""
    lines = (
        json.dumps({"messages": [{"role": r, "content": f"{t} {n}".strip()} for r, t in turns]})
        for n in range(rows)
    )
    (folder / "talks.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (folder / "talks.yaml").write_text(TALKS, encoding="utf-8")
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(model=model), encoding="utf-8")
    return path


def instil(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def seen(recipe: Path, *changes: str) -> str:
    """All of one training example, the trained parts in brackets."""
    found = preview(load_recipe(recipe, overrides=changes), each=1)
    return "\n".join(
        "".join(f"[{piece.text}]" if piece.trained else piece.text for piece in item.pieces)
        for item in found
    ).replace("][", "")


SYSTEM, ASK, SAY = ("system", "Be kind."), ("user", "is it good"), ("assistant", "very good")


@pytest.mark.parametrize("command", ["check", "preview", "run"])
def test_a_system_message_that_the_template_refuses_is_one_error(command, tmp_path, model):
    path = talks(tmp_path, model(GEMMA), SYSTEM, ASK, SAY)
    result = instil(command, path)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert "system: the model's chat template takes no system message" in result.stderr
    assert "`system: merge`" in result.stderr
    shown = seen(path, "system=merge")
    assert "user\nBe kind." in shown
    assert "is it good" in shown


def test_neighbours_and_opening_turns_that_the_template_refuses_are_counted(tmp_path, model):
    hello = ("assistant", "Welcome"), ("user", "Hello")
    path = talks(tmp_path, model(GEMMA), *hello, ASK, SAY)
    assert "Welcome" not in seen(path)
    told = [f.what for task in check_recipe(load_recipe(path)).tasks for f in task.findings]
    assert "8 rows: the assistant's opening turn is left out: the chat template takes none" in told
    assert "8 rows: neighbouring turns of one role are joined, as the chat template wants them" in (
        told
    )


def test_a_greeting_is_read_and_the_answer_behind_it_trained_on(tmp_path, model):
    shown = seen(talks(tmp_path, model(CHATML), ("assistant", "Welcome"), ASK, SAY))
    assert "Welcome" in shown
    assert shown.count("[") == 1
    assert "[very good" in shown


def test_a_system_message_that_the_template_leaves_out_is_counted(tmp_path, model):
    path = talks(tmp_path, model(NO_SYSTEM), SYSTEM, ("assistant", "Welcome"), ASK, SAY)
    (task,) = check_recipe(load_recipe(path)).tasks
    (found,) = [f for f in task.findings if "template" in f.what]
    assert found.what == "8 rows: the chat template leaves out their system message"
    assert found.count == 8
    assert "system: merge" in found.fix
    assert not any(
        "system" in f.what
        for f in check_recipe(load_recipe(path, overrides=["system=merge"])).tasks[0].findings
    )


def test_plain_words_that_part_turns_are_counted_in_the_rows(tmp_path, model):
    recipe = make_recipe(lay_out(tmp_path), model(BLANK), "forgetting.tasks=none")
    text = (tmp_path / "moods.csv").read_text(encoding="utf-8")
    assert "Assistant" not in str(check_recipe(recipe).tasks[0].findings)
    (tmp_path / "moods.csv").write_text(text.replace(": it is good", "Assistant: good"), "utf-8")
    (finding,) = (f for f in check_recipe(recipe).tasks[0].findings if "'Assistant:'" in f.what)
    assert finding.what.endswith("by which alone the chat template parts turns")


def test_content_is_given_in_parts_where_the_template_wants_parts(tmp_path, model):
    assert "is it good" in seen(talks(tmp_path, model(PARTS), ASK, SAY))


def test_named_templates_need_a_name(tmp_path, model):
    path = talks(tmp_path, model({"plain": CHATML, "other": QWEN3}), ASK, SAY)
    result = instil("check", path)
    assert result.exit_code == 2
    assert "none of them is called default" in result.stderr
    assert "chat_template: " in result.stderr
    assert "[very good" in seen(path, "chat_template=plain")
    own = tmp_path / "own.jinja"
    own.write_text(CHATML.replace("<|im_end|>", " OVER<|im_end|>"), encoding="utf-8")
    path.write_text(path.read_text() + "chat_template: own.jinja\n", encoding="utf-8")
    assert " OVER<|im_end|>]" in seen(path)


def test_thinking_is_what_the_rows_do_unless_the_recipe_says_otherwise(tmp_path, model):
    thought = ("assistant", "<think>\nhm hm\n</think>\n\nvery good")
    folder = model(THINK_OPEN)
    plain = seen(talks(tmp_path, folder, ASK, SAY))
    assert "assistant\n<think>\n\n</think>\n\n[very good" in plain
    path = talks(tmp_path, folder, ASK, thought)
    assert "assistant\n<think>\n[hm hm\n</think>\n\nvery good" in seen(path)
    assert "assistant\n<think>\n\n</think>\n\n[very good" in seen(path, "thinking=off")
    forecast = check_recipe(load_recipe(path, overrides=["thinking=off"]))
    told = {f.what: f.fix for f in forecast.tasks[0].findings}
    assert "`thinking: on`" in told["8 rows: an answer's thoughts are left out"]


def test_every_answer_of_a_conversation_is_previewed_as_it_is_trained_on(tmp_path, model):
    path = talks(tmp_path, model(QWEN3), ASK, SAY, ("user", "and now"), ("assistant", "bad"))
    found = preview(load_recipe(path), each=1)
    assert [item.row.partition("#")[2] for item in found] == ["1", ""]
    said = ["".join(p.text for p in item.pieces if p.trained) for item in found]
    assert [text.split()[0] for text in said] == ["very", "bad"]


def test_calls_of_functions_are_trained_on_and_their_answers_are_not(tmp_path, model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    function = {"name": "stock", "description": "Counts.", "parameters": {"type": "object"}}
    rows = []
    for n in range(40):
        call = {"name": "stock", "arguments": json.dumps({"of": f"mug {n}"})}
        turns = [
            {"role": "user", "content": f"is it good {n}"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": call}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": f"film {n}"},
            {"role": "assistant", "content": f"very good {n}"},
        ]
        rows.append({"messages": turns, "tools": [{"type": "function", "function": function}]})
    Path("shop.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert instil("init", "shop.jsonl").exit_code == 0
    changes = (f"model={model(QWEN3)}", "forgetting.tasks=none", "train.max_length=500")
    items = seen(Path("shop.recipe.yaml"), *changes).split("<tools>")[1:]
    assert len(items) == 2
    call, answer = (item.split("[")[-1] for item in items)
    assert call.startswith('<tool_call>\n{"name": "stock", "arguments": {"of": "mug ')
    assert call.partition("]")[0].endswith("</tool_call><|im_end|>")
    assert answer.startswith("very good")
    assert all('"description": "Counts."' in item for item in items)
    assert "film" in items[1].partition("[")[0]
    Path("plain.jinja").write_text(CHATML, encoding="utf-8")
    changes = (f"model={tmp_path / 'model'}", "forgetting.tasks=none", "chat_template=plain.jinja")
    refused = instil("check", "shop.recipe.yaml", *(f"--set={change}" for change in changes))
    assert refused.exit_code == 2
    assert "leaves out the functions that a row lets the model call" in refused.stderr


def test_the_day_and_the_prompt_of_a_run_are_kept_wherever_its_model_is_used(
    tmp_path: Path, model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = lay_out(tmp_path)
    changes = ("forgetting.tasks=none", "train.num_train_epochs=1", "baselines.shots=[0]")
    recipe = make_recipe(folder, model(DATED + THINK_OPEN), *changes)
    days = iter(["2026-03-04T05:06:07+00:00"])
    monkeypatch.setattr(stages, "now", lambda: next(days, "2027-01-01T00:00:00+00:00"))

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr("instil.pipeline.train", stop)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, folder / "run")
    done = run(recipe, folder / "run", resume=True)

    chat = load_manifest(done)["chat"]
    assert chat == {
        "date": "2026-03-04T05:06:07+00:00",
        "system": "keep",
        "template": "",
        "thinking": "off",
    }
    loaded = load_run_model(done)
    question = [Message("user", "is it good")]
    prompt = loaded.chat.prompt(question)
    text = loaded.chat.tokenizer.decode(prompt)
    assert "04 Mar 2026 05:06" in text
    assert text.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")

    from transformers import AutoTokenizer

    shipped = AutoTokenizer.from_pretrained(done / "model")
    turns = [{"role": "user", "content": "is it good"}]
    served = shipped.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert shipped(served, add_special_tokens=False)["input_ids"] == prompt
    made = predict_text(done, "the phone is good")
    assert made.prompt_tokens == len(loaded.chat.prompt([Message("user", _asked(done))]))


def _asked(done: Path) -> str:
    from instil.ship.predict import _ask, _asking

    asked = _asking(done, "")
    return _ask(asked, {"text": "the phone is good"}, 1, where="").messages[-1].content
