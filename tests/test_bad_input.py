"""Bad input through the real command line: one clear message, exit code 2, nothing half-written."""

from __future__ import annotations

import csv
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from instil import pipeline
from instil.cli.main import app

TASK = """
id: moods
kind: sentiment
cluster: sentiment
description: Made-up reviews.
licence: CC0-1.0
source: moods.csv
text: text
target: mood
choices: [positive, negative]
templates:
  - {id: ask, prompt: "Is it positive or negative?\\n{{ text }}", target: "{{ mood }}"}
  - {id: write, role: inverted, prompt: "Write a {{ mood }} review.", target: "{{ text }}"}
"""
RECIPE = """
model: {model}
tasks: [{{use: ./moods.yaml}}]
train: {{num_train_epochs: 0.1}}
validation: 12
test: 12
baselines: {{shots: [0, 1], tfidf: false}}
forgetting: {{tasks: none}}
"""
WORDS = "the a it is was very good bad great poor phone book film plot screen sound".split()


@pytest.fixture
def folder(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    draw = random.Random(3)
    write(tmp_path / "moods.csv", [(" ".join(draw.choices(WORDS, k=9))) for _ in range(80)])
    (tmp_path / "moods.yaml").write_text(TASK, encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(model=tiny_folder), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def write(path: Path, texts: list[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(["text", "mood"])
        out.writerows([text, ("positive", "negative")[n % 2]] for n, text in enumerate(texts))


def instil(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def told(result: Result) -> str:
    assert result.exit_code == 2, (result.output, result.exception)
    assert isinstance(result.exception, SystemExit)
    return result.stderr


@pytest.fixture(params=["check", "run"])
def refused(request: pytest.FixtureRequest, folder: Path) -> Callable[..., str]:
    """Give a command the recipe with changes; return what it says, having left nothing behind."""

    def ask(*changes: str) -> str:
        arguments = [part for change in changes for part in ("--set", change)]
        said = told(instil(request.param, "recipe.yaml", *arguments))
        assert "prompting" not in said, "known before anything is computed"
        assert not (folder / "runs" / "recipe").exists()
        return said

    return ask


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("baselines.templates=[aks]", ["'aks'", "did you mean: ask"]),
        ("baselines.templates=[write]", ["'write'", "allowed: ask"]),
        ("baselines.shots=[0, 64]", ["56 rows for 64 shots"]),
        ("baselines.shots=[0, 40]", ["40-shot", "512", "shots: [0"]),
        ("forgetting.tasks=[bbc_topics]", ["bbc_topics", "did you mean: bbc_topic"]),
        ("forgetting.tasks=[./nope.yaml]", ["nope.yaml: there is no such file"]),
        ("lora.target_modules=[q_prj, v_proj]", ["'q_prj'", "did you mean: q_proj"]),
        ("train.max_length=8", ["too long", "8 allowed"]),
    ],
)
def test_what_a_run_would_stumble_over_late_is_told_first(refused, change: str, says: list[str]):
    said = refused(change)
    assert all(text in said for text in says), said


@pytest.fixture
def state_space(folder: Path, tiny_folder: Path) -> Path:
    """The recipe's model is a Mamba2, of whose layers PEFT refuses some."""
    from transformers import Mamba2Config, Mamba2ForCausalLM

    model = shutil.copytree(tiny_folder, folder / "mamba")
    sizes = {"num_heads": 8, "head_dim": 8, "state_size": 16, "n_groups": 2, "expand": 2}
    config = Mamba2Config(vocab_size=400, hidden_size=32, num_hidden_layers=1, **sizes)
    Mamba2ForCausalLM(config).save_pretrained(model)
    (folder / "recipe.yaml").write_text(RECIPE.format(model=model), encoding="utf-8")
    return folder


def test_a_layer_that_peft_refuses_in_a_family(state_space: Path):
    said = told(instil("check", "recipe.yaml", "--set", "lora.target_modules=[out_proj]"))
    assert "lora.target_modules: the adapter does not fit" in said
    assert "'out_proj' is incompatible with Mamba-based models" in said


def test_check_says_which_layers_all_linear_leaves_out(state_space: Path):
    done = instil("check", "recipe.yaml")
    assert done.exit_code == 0, done.output
    assert "no adapter on mixer.out_proj (" in done.stdout
    assert "PEFT has no adapter for them in this family" in done.stdout


def test_max_length_beyond_the_models_own(refused):
    said = refused("train.max_length=513", "train.micro_batch_tokens=1024")
    assert "train.max_length" in said
    assert "max_position_embeddings is 512" in said


def test_a_validation_or_test_row_longer_than_the_context(refused, folder: Path):
    draw = random.Random(3)
    texts = [" ".join(draw.choices(WORDS, k=9)) for _ in range(80)]
    write(folder / "moods.csv", [text + " film" * 600 for text in texts])
    said = refused("train.too_long=shorten")  # the worked examples are never cut
    assert "baselines.shots" in said
    assert "512" in said


def test_two_tasks_of_one_id(refused, folder: Path):
    shutil.copy("moods.yaml", "other.yaml")
    text = Path("recipe.yaml").read_text(encoding="utf-8")
    two = text.replace("[{use: ./moods.yaml}]", "[{use: ./moods.yaml}, {use: ./other.yaml}]")
    Path("recipe.yaml").write_text(two, encoding="utf-8")
    said = refused()
    assert "two tasks have the id 'moods'" in said


def test_a_mistake_of_a_template_is_told_once(refused, folder: Path):
    Path("moods.yaml").write_text(TASK.replace("?\\n{{ text }}", "?\\n{{ txt }}"), "utf-8")
    said = refused()
    assert said.count("unknown field 'txt'") == 1
    assert "more examples" in said


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("{% for k, v in row.items() %}{{ k }}: {{ v }}{% endfor %}", "whole row"),
        ("{{ text }} {{ hint }}", "template 'ask': the prompt shows the answer (56 of 56 rows)"),
    ],
)
def test_the_label_in_the_prompt(refused, folder: Path, prompt: str, says: str):
    task = TASK.replace("Is it positive or negative?\\n{{ text }}", prompt)
    Path("moods.yaml").write_text(f"{task}fields: {{hint: \"'(' ~ mood ~ ')'\"}}\n", "utf-8")
    assert says in refused()
    assert instil("tasks", "test", "moods.yaml").exit_code == 2


# --- models ------------------------------------------------------------------------------------


@pytest.fixture
def broken(folder: Path, tiny_folder: Path) -> Path:
    path = folder / "model"
    shutil.copytree(tiny_folder, path)
    return path


def edit(path: Path, **changes: object) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**data, **changes}), encoding="utf-8")


def test_an_encoder_cannot_write(refused, broken: Path):
    from transformers import BertConfig, BertForMaskedLM

    (broken / "model.safetensors").unlink()
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = BertConfig(**sizes, vocab_size=400, intermediate_size=64, initializer_range=0.3)
    BertForMaskedLM(config).save_pretrained(broken)
    said = refused("model=./model")
    assert "reads a text in both directions" in said
    assert "a causal language model, or an encoder-decoder model" in said


@pytest.mark.parametrize("data", [b"", b"garbage" * 99, b"version https://git-lfs.github.com/spec"])
def test_weights_that_are_none(refused, broken: Path, data: bytes):
    (broken / "model.safetensors").write_bytes(data)
    said = refused("model=./model")
    assert "model.safetensors" in said
    assert "to fix" in said


def test_weights_cut_short(refused, broken: Path):
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "model.safetensors" in refused("model=./model")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_hidden_layers": 4}, "lacks weights"),
        ({"hidden_size": 64}, "another shape"),
        ({"hidden_size": "x"}, "hidden_size"),
        ({"model_type": "nosuch"}, "nosuch"),
    ],
)
def test_a_config_that_does_not_fit_the_weights(folder, broken: Path, changes, says: str):
    edit(broken / "config.json", **changes)
    said = told(instil("run", "recipe.yaml", "--set", "model=./model"))
    assert says in said
    assert not (folder / "runs" / "recipe").exists()


@pytest.mark.parametrize("template", ["{% for x in %}", "{{ raise_exception('no') }}"])
def test_a_chat_template_that_cannot_be_used(refused, broken: Path, template: str):
    (broken / "chat_template.jinja").write_text(template, encoding="utf-8")
    assert "chat template" in refused("model=./model")


def test_a_chat_template_that_takes_no_system_turn(refused, broken: Path):
    refuse = "{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    turns = "{% for m in messages %}" + refuse + "{{ m.content }}<|im_end|>{% endfor %}"
    (broken / "chat_template.jinja").write_text(turns, encoding="utf-8")
    Path("moods.yaml").write_text(TASK.replace("{id: ask,", "{id: ask, system: Be kind.,"), "utf-8")
    said = refused("model=./model")
    assert "takes no system message" in said
    assert "system: merge" in said


@pytest.mark.parametrize(
    ("turn", "what"),
    [
        ("{{ m.content[:20] if m.role == 'user' else m.content }}", "the user's text"),
        ("{{ m.content if m.role == 'user' else m.content[:20] }}", "the answer"),
    ],
)
def test_a_chat_template_that_drops_some_of_a_row(refused, broken: Path, turn: str, what: str):
    turns = "{% for m in messages %}" + turn + "<|im_end|>{% endfor %}"
    (broken / "chat_template.jinja").write_text(turns, encoding="utf-8")
    said = refused("model=./model")
    assert "the model's chat template leaves out some of" in said
    assert what in said


def test_a_tokenizer_of_another_model(folder: Path, broken: Path):
    tokenizer = json.loads((broken / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["model"]["vocab"]["zzz"] = 4000
    (broken / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    said = told(instil("run", "recipe.yaml", "--set", "model=./model"))
    assert "tokenizer" in said
    assert "4,000" in said or "4000" in said


# --- run directories ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    base = tmp_path_factory.mktemp("finished")
    draw = random.Random(3)
    write(base / "moods.csv", [(" ".join(draw.choices(WORDS, k=9))) for _ in range(80)])
    (base / "moods.yaml").write_text(TASK, encoding="utf-8")
    (base / "recipe.yaml").write_text(RECIPE.format(model=tiny_folder), encoding="utf-8")
    result = instil("run", base / "recipe.yaml", "--folder", base / "run")
    assert result.exit_code == 0, result.output
    return base / "run"


@pytest.fixture
def run(finished: Path, folder: Path) -> Path:
    shutil.copytree(finished, folder / "run")
    return Path("run")


def test_a_recipe_changed_since_the_run_began(run: Path):
    before = (run / "split.json").read_bytes()
    text = (run / "recipe.yaml").read_text(encoding="utf-8")
    (run / "recipe.yaml").write_text(text.replace("\nseed: 0", "\nseed: 5"), encoding="utf-8")
    said = told(instil("run", "--resume", run))
    assert "recipe.yaml" in said
    assert "changed" in said
    assert (run / "split.json").read_bytes() == before


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("manifest.json", ["report"]),
        ("manifest.json", ["run", "--resume"]),
        ("steps.jsonl", ["report"]),
        ("summary.json", ["report"]),
        ("state/ladder.json", ["run", "--resume"]),
    ],
)
def test_a_damaged_file_of_a_run(run: Path, file: str, command: list[str]):
    (run / file).write_text('{"x":\n\n', encoding="utf-8")
    said = told(instil(*command, run))
    assert str(Path(file).name) in said


def test_a_damaged_or_missing_model_of_a_run(run: Path):
    (run / "model" / "adapter_model.safetensors").write_bytes(b"garbage")
    assert "model/adapter_model.safetensors" in told(instil("predict", run, "hi"))
    shutil.rmtree(run / "model")
    assert "run/model is gone" in told(instil("export", run, "out"))
    assert not Path("out").exists()


@pytest.mark.parametrize("merge", [(), ("--merge",)])
def test_a_link_in_a_model_is_not_exported(run: Path, merge: tuple[str, ...]):
    Path("secret.txt").write_text("secret", encoding="utf-8")
    (run / "model" / "notes.txt").symlink_to(Path("secret.txt").resolve())
    said = told(instil("export", run, "out", *merge))
    assert "run/model/notes.txt: a link in a run's model is not exported" in said
    assert not Path("out").exists()


def test_prediction_says_which_line_lacks_what(run: Path):
    Path("new.csv").write_text("txt\nhello\n", encoding="utf-8")
    said = told(instil("predict", run, "--rows", "new.csv"))
    assert "new.csv:2" in said
    assert "did you mean" in said


def test_prompts_longer_than_the_context_are_not_answered(run: Path):
    Path("new.csv").write_text("text\nok\n" + "film " * 600 + "\n", encoding="utf-8")
    assert "new.csv:3" in told(instil("predict", run, "--rows", "new.csv"))
    assert not Path("new.predictions.jsonl").exists()
    assert "512" in told(instil("predict", run, "film " * 600))


def test_predictions_do_not_go_where_a_folder_is(run: Path):
    Path("new.csv").write_text("text\nok\n", encoding="utf-8")
    Path("there").mkdir()
    said = told(instil("predict", run, "--rows", "new.csv", "--out", "there", "--force"))
    assert "there" in said
    assert not list(Path().glob(".*.tmp"))


def test_an_output_folder_that_cannot_be_made(folder: Path):
    said = told(instil("run", "recipe.yaml", "--folder", "moods.csv/run"))
    assert "moods.csv" in said
    assert "to fix" in said


def test_a_run_that_fails_late_says_where_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch):
    from instil.errors import TrainError

    def fail(recipe, *, folder: Path, **_: object) -> Path:
        (folder / "state").mkdir(parents=True)
        raise TrainError("the gradient is not finite")

    monkeypatch.setattr(pipeline, "run_recipe", fail)
    said = told(instil("run", "recipe.yaml"))
    assert "runs/recipe" in said
    assert "--resume" in said


# --- files -------------------------------------------------------------------------------------


def test_a_binary_file_is_not_taken_for_text_of_another_encoding(refused):
    Path("moods.csv").write_bytes(b"PK\x03\x04" + bytes(range(256)) * 20)
    said = refused()
    assert "not a text file" in said
    assert "cp1252" not in said


def test_an_address_in_the_web_is_no_path(refused):
    Path("moods.yaml").write_text(TASK.replace("moods.csv", "http://example.invalid/x.csv"))
    assert "download" in refused()


def test_json_that_ends_too_soon_names_the_right_column(refused):
    Path("moods.yaml").write_text(TASK.replace("moods.csv", "moods.jsonl"), encoding="utf-8")
    Path("moods.jsonl").write_text('{"text": "a", "mood": "positive"}\n{"text": \n')
    said = refused()
    assert "moods.jsonl:2" in said
    assert "column 9" in said
