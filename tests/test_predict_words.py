"""Predictions of a task whose labels have words: the word, and the value that the data have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from instil import serve
from instil.evaluate import suite
from instil.tasks.task import find_template, parse_task
from instil.types import Prediction

TASK = """
id: headlines
source: headlines.csv
text: headline
target: sarcastic
labels: {1: "yes", 0: "no"}
templates:
  - {id: plain, prompt: "Sarcastic? {{ headline }}"}
  - {id: worded, prompt: "{{ headline }} Meant?", choices: [not meant, meant]}
  - {id: back, role: inverted, prompt: "Sarcastic: {{ sarcastic }}", target: "{{ headline }}"}
"""


@pytest.fixture
def predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Predict with a model that always takes the first choice."""
    task = parse_task(TASK, where="", folder=None)
    asked: list[str] = []

    def answer(loaded, examples, **_):
        asked.extend(each.messages[-1].content for each in examples)
        return [
            Prediction(each.id, each.choices[0] if each.choices else "x", choice_scores=(0.0, -1.0))
            for each in examples
        ]

    monkeypatch.setattr(suite, "answer", answer)
    monkeypatch.setattr(serve, "load_run_model", lambda folder: None)
    monkeypatch.setattr(serve, "require_room", lambda loaded, asked: None)

    def made(template: str):
        asking = serve._Asking(task, find_template(task, template))
        monkeypatch.setattr(serve, "_asking", lambda folder, wanted: asking)
        rows, out = tmp_path / "new.csv", tmp_path / "out.jsonl"
        rows.write_text("headline,sarcastic\nMan bites dog,0\nDog bites man,7\n", encoding="utf-8")
        serve.predict_file(tmp_path, rows=rows, out=out)
        return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()], asked

    return made


@pytest.mark.parametrize(("template", "word"), [("plain", "yes"), ("worded", "not meant")])
def test_a_prediction_has_its_word_and_the_value_in_the_data(predict, template, word):
    lines, _ = predict(template)
    assert [line["prediction"] for line in lines] == [word, word]
    assert [line["prediction_value"] for line in lines] == ["1", "1"]
    assert [line["sarcastic"] for line in lines] == ["0", "7"]
    assert word in lines[0]["probabilities"]


def test_a_prompt_from_the_answer_has_the_word(predict):
    lines, asked = predict("back")
    assert asked == ["Sarcastic: no", "Sarcastic: 7"]
    assert "prediction_value" not in lines[0]
