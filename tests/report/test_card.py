from __future__ import annotations

import re
from dataclasses import replace
from types import ModuleType

import pytest
from huggingface_hub import ModelCard

from instil.report.card import converted_card, model_card, plain
from instil.results.guard import Margins
from instil.results.training import LeftOut
from instil.types import Message

HOSTILE = "</a>\n---\nlicense: mit\n---\n# x | <script>alert(1)</script> `code` [a](b) \x00\u202e"


def card_of(sample: ModuleType, **changes: object) -> str:
    return model_card(replace(sample.run(), **changes), manifest=sample.manifest())


def test_the_hub_reads_the_front_matter(sample: ModuleType) -> None:
    data = ModelCard(card_of(sample, model="org/small-1b")).data.to_dict()
    assert data["license"] == "apache-2.0"
    assert data["base_model"] == "org/small-1b"
    assert data["library_name"] == "peft"
    assert data["pipeline_tag"] == "text-generation"
    assert data["tags"] == ["instil", "instruct", "lora", "sentiment"]
    assert "model-index" not in data


@pytest.mark.parametrize(
    ("stated", "fields"),
    [
        ("MIT", {"license": "mit"}),
        ("Gemma Terms of Use", {"license": "gemma"}),
        ("Acme Model Licence: v2", {"license": "other", "license_name": "Acme Model Licence: v2"}),
        ("", {"license": "other", "license_name": "not stated"}),
    ],
)
def test_licences(stated: str, fields: dict[str, str], sample: ModuleType) -> None:
    data = ModelCard(card_of(sample, model_licence=stated)).data.to_dict()
    assert {key: value for key, value in data.items() if key.startswith("license")} == fields


@pytest.mark.parametrize("path", ["./models/mine", "/data/m", "a/b/c", "C:\\m", "../m"])
def test_a_path_is_no_base_model_of_the_hub(path: str, sample: ModuleType) -> None:
    assert "base_model" not in ModelCard(card_of(sample, model=path)).data.to_dict()


def test_verdict_figures_data_and_training_are_there(sample: ModuleType) -> None:
    run = sample.run(sample.class_task(), sample.text_task())
    text = model_card(run, manifest=sample.manifest())
    assert all(plain(sentence) in text for sentence in run.verdict)
    assert "| tuned, zero-shot | 81.5 % (77.1\u201385.9) |" in text
    assert "+8.9 points (+4.6 to +13.2)" in text
    assert "| amazon_reviews | sentiment | 600 | 200 | 300 | MIT | pypi:vaderSentiment==0.5" in text
    assert "| headlines | headline | 500 | 100 | 150 | not stated | not stated |" in text
    assert "after is worse" in text
    assert "step 60" in text


def test_layers_without_an_adapter_are_named(sample: ModuleType) -> None:
    left_out = (LeftOut(("mixer.out_proj",), 0.169, linear=True),)
    text = card_of(sample, training=replace(sample.run().training, left_out=left_out))
    assert "- no adapter on mixer.out_proj (16.9 % of the base model's weights): PEFT" in text


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_code_is_python_and_asks_in_the_template(method: str, sample: ModuleType) -> None:
    text = card_of(sample, training=replace(sample.run().training, method=method))
    (code,) = re.findall(r"```python\n(.*?)\n```", text, flags=re.DOTALL)
    compile(code, "card", "exec")
    assert ("peft" in code) == (method == "lora")
    assert ModelCard(text).data.library_name == ("peft" if method == "lora" else "transformers")
    said = re.search(r"messages = (\[.*?\n\])", code, flags=re.DOTALL)
    assert said is not None
    asked = [{"role": m.role, "content": m.content} for m in sample.turns()[0].wording]
    assert eval(said.group(1), {}) == asked  # our own text, and plain literals


def test_every_task_is_asked_in_its_own_words(sample: ModuleType) -> None:
    turn = sample.turns()[0]
    topic = (Message("user", "Which topic? {{ text }}"),)
    turns = (replace(turn, task="reviews"), replace(turn, task="bbc_topic", wording=topic))
    text = card_of(sample, turns=turns)
    assert f"For {plain('bbc_topic')} the messages are:" in text
    assert text.count("Which topic? {{ text }}") == 1
    assert text.index("Is this review") < text.index("Which topic?")
    served = converted_card(
        text, replace(sample.run(), turns=turns), library="gguf", commands=["serve it"]
    )
    assert served.count("Which topic? {{ text }}") == 1


def test_texts_cannot_break_out(sample: ModuleType, retext: type) -> None:
    keep = frozenset({"metric", "a", "b", "name", "arm", "method", "role"})
    harmless, hostile = (
        model_card(retext(text, keep=keep)(sample.run()), manifest=retext(text)(sample.manifest()))
        for text in ("harmless", HOSTILE)
    )
    assert set(ModelCard(hostile).data.to_dict()) <= {
        "license", "license_name", "base_model", "library_name", "pipeline_tag", "tags",
    }  # fmt: skip
    assert ModelCard(hostile).data.license == "other"

    def shape(text: str) -> list[int]:
        body = text.split("\n---\n", 1)[1]
        rows = [line for line in body.splitlines() if line.startswith("| ")]
        return [len(re.findall(r"(?<!\\)\|", row)) for row in rows]

    assert shape(hostile) == shape(harmless)
    outside = re.sub(r"^(`{3,})python\n.*?\n\1$", "", hostile, flags=re.DOTALL | re.MULTILINE)
    body = outside.split("\n---\n", 1)[1]
    assert "```" not in body
    assert not re.search(r"(?<!\\)<", body)
    assert not re.search("^(---|# x)", body, flags=re.MULTILINE)
    assert "\x00" not in hostile


def test_a_fence_in_the_prompt_does_not_end_the_code(sample: ModuleType) -> None:
    turn = sample.turns()[0]
    message = replace(turn.messages[0], content="````\nrm\n````")
    text = card_of(sample, turns=(replace(turn, wording=(message,)),))
    assert "\n`````python\n" in text


def test_no_row_is_quoted(sample: ModuleType) -> None:
    text = card_of(sample)
    assert sample.REVIEWS[0] not in text
    assert "Is this review positive, negative or mixed?" in text
    older = tuple(replace(turn, wording=()) for turn in sample.turns())
    assert '"content": "..."' in card_of(sample, turns=older)


@pytest.mark.parametrize(
    ("name", "base"), [("org/small-1b", "org/small-1b"), ("./mine", "PATH/OF")]
)
def test_the_code_names_the_base_where_others_can_have_it(
    name: str, base: str, sample: ModuleType
) -> None:
    assert f'from_pretrained("{base}' in card_of(sample, model=name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("81.5 %", "81.5 %"),
        ("1. one", "1\\. one"),
        ("- one", "\\- one"),
        ("+8.9 points", "+8.9 points"),
        ("amazon_reviews", "amazon_reviews"),
        ("_so_", "\\_so\\_"),
        ("a\n# b", "a # b"),
        ("# b", "\\# b"),
        ("| & <b>", "\\| \\& \\<b\\>"),
    ],
)
def test_plain(text: str, expected: str) -> None:
    assert plain(text) == expected


def test_an_adapter_on_a_packed_base_says_what_to_load(sample: ModuleType) -> None:
    assert "4 bits" not in card_of(sample)
    training = replace(sample.run().training, quantize="nf4")
    text = card_of(sample, training=training)
    assert "base in 4 bits (nf4)" in text
    assert "load it so, or merge it" in text


def test_words_for_values_of_the_data_are_told(sample: ModuleType) -> None:
    task = replace(sample.class_task(), labels={"0": "negative", "a|b": "positive"})
    card = model_card(sample.run(task), manifest=sample.manifest())
    said = "Labels of amazon_reviews in the data: 0 = negative, a\\|b = positive."
    assert said in card


def test_the_card_says_what_is_kept(sample: ModuleType) -> None:
    text = card_of(sample, margins=Margins(points=4))
    assert "| no difference shown; kept within 4 points, shown |" in text
    assert "| after is worse; lost, shown |" in text
    assert text.count("| mean of 4 | each task's own metric | \u2014 | \u2014 | \u22121.2") == 1


def test_a_converted_model_says_how_it_is_loaded_and_keeps_what_was_written_by_hand(
    sample: ModuleType,
) -> None:
    run = sample.run()
    card = model_card(run, manifest=sample.manifest()) + "\n## Whom to ask\n\nThe third floor.\n"
    whole = converted_card(card, run, library="transformers")
    assert ModelCard(whole).data.to_dict()["library_name"] == "transformers"
    assert "PeftModel" not in whole
    assert "--merge" not in whole
    assert "from_pretrained(folder)" in whole
    served = converted_card(card, run, library="gguf", commands=["llama-server -m x.gguf"])
    assert "```bash\nllama-server -m x.gguf\n```" in served
    assert "from_pretrained" not in served
    for text in (whole, served):
        assert text.endswith("## Whom to ask\n\nThe third floor.\n")
        assert re.findall("^## .*", text, re.M) == re.findall("^## .*", card, re.M)
    without = re.sub(r"(?ms)^## How to use it.*?(?=^## )", "", card)
    assert "How to use" not in converted_card(without, run, library="transformers")
