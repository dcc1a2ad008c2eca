"""Predictions of a task whose labels have words: the word, and the value that the data have."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from instil.errors import DataError, RunError
from instil.evaluate import suite
from instil.results.probabilities import Fitted
from instil.ship import predict as module
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
ROWS = b"headline,sarcastic\nMan bites dog,0\nDog bites man,7\n"


@pytest.fixture
def predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Predict with a model that always takes the first choice."""
    asked: list[str] = []

    def answer(loaded, examples, **_):
        asked.extend(each.messages[-1].content for each in examples)
        return [
            Prediction(each.id, each.choices[0] if each.choices else "x", choice_scores=(0.0, -1.0))
            for each in examples
        ]

    monkeypatch.setattr(suite, "answer", answer)
    monkeypatch.setattr(module, "load_run_model", lambda folder: None)
    monkeypatch.setattr(module, "require_room", lambda loaded, asked, **_: None)

    def made(
        template: str,
        *,
        data: bytes = ROWS,
        own: str = "utf-8",
        encoding: str = "",
        name: str = "new.csv",
        fitted: Fitted | None = None,
        max_error: float | None = None,
        task: str = TASK,
    ):
        read = parse_task(task, where="", folder=None)
        source = replace(read.source, encoding=own)
        asking = module._Asking(replace(read, source=source), find_template(read, template), fitted)
        monkeypatch.setattr(module, "_asking", lambda folder, wanted: asking)
        rows, out = tmp_path / name, tmp_path / "out.jsonl"
        rows.write_bytes(data)
        module.predict_file(tmp_path, rows=rows, out=out, encoding=encoding, max_error=max_error)
        return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()], asked

    return made


@pytest.mark.parametrize(("template", "word"), [("plain", "yes"), ("worded", "not meant")])
def test_a_prediction_has_its_word_and_the_value_in_the_data(predict, template, word):
    lines, _ = predict(template)
    assert [line["prediction"] for line in lines] == [word, word]
    assert [line["prediction_value"] for line in lines] == ["1", "1"]
    assert [line["sarcastic"] for line in lines] == ["0", "7"]
    assert word in lines[0]["probabilities"]


PLAIN = """
id: headlines
source: headlines.csv
text: headline
target: sarcastic
choices: [biting, plain]
templates:
  - {id: plain, prompt: "{{ headline }}"}
  - id: worded
    prompt: "{{ headline }} Meant?"
    choices: ["no", "yes"]
    target: "{{ 'no' if sarcastic == 'biting' else 'yes' }}"
  - {id: length, role: auxiliary, prompt: "{{ headline }}", choices: [long, short], target: short}
"""


@pytest.mark.parametrize(
    ("template", "value"), [("plain", None), ("worded", "biting"), ("length", None)]
)
def test_a_template_s_own_words_come_with_the_task_s(predict, template, value):
    lines, _ = predict(template, task=PLAIN)
    assert lines[0].get("prediction_value") == value


def test_an_auxiliary_choice_is_no_value_of_the_label(predict):
    lines, _ = predict("length", task=f"{TASK}{PLAIN.splitlines()[-1]}\n")
    assert "prediction_value" not in lines[0]


def test_a_prompt_from_the_answer_has_the_word(predict):
    lines, asked = predict("back")
    assert asked == ["Sarcastic: no", "Sarcastic: 7"]
    assert "prediction_value" not in lines[0]


CAFE = "headline,note\nCaf\u00e9 shut,a\n"


@pytest.mark.parametrize(
    ("data", "own", "encoding"),
    [
        (CAFE.encode("cp1252"), "cp1252", ""),  # as the rows of the run were
        (CAFE.encode("utf-8"), "cp1252", ""),
        (CAFE.encode("utf-8-sig"), "utf-8, cp1252", ""),
        (CAFE.encode("cp1252"), "utf-8", "cp1252"),
        (CAFE.encode("utf-16"), "utf-16", ""),
        (CAFE.encode("utf-16"), "utf-8", "utf-16"),
    ],
)
def test_the_tasks_own_encoding_is_the_default(predict, data: bytes, own: str, encoding: str):
    lines, asked = predict("plain", data=data, own=own, encoding=encoding)
    assert [line["headline"] for line in lines] == ["Caf\u00e9 shut"]
    assert "Caf\u00e9 shut" in asked[0]


def test_bytes_of_another_encoding_are_an_error(predict):
    with pytest.raises(DataError, match="0xE9"):
        predict("plain", data=CAFE.encode("cp1252"))


@pytest.mark.parametrize("name", ["prediction", "prediction_value", "probabilities", "stopped"])
def test_no_column_of_the_rows_is_replaced(predict, name: str, tmp_path: Path):
    with pytest.raises(DataError, match=f"a column '{name}' already"):
        predict("plain", data=f"headline,{name}\nMan bites dog,mine\n".encode())
    assert not (tmp_path / "out.jsonl").exists()


def test_no_column_that_only_a_later_row_has_is_replaced(predict, tmp_path: Path):
    data = b'{"headline": "Man bites dog"}\n{"headline": "Dog bites man", "prediction": "mine"}\n'
    with pytest.raises(DataError, match="a column 'prediction' already"):
        predict("plain", data=data, name="new.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_no_rows_have_no_answers(predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    predict("plain")
    monkeypatch.setattr(module, "load_run_model", None)  # nothing is loaded for them
    assert module.predict_rows(tmp_path, []) == []


def test_what_a_table_holds_is_written_as_it_is(predict):
    escapes = "\x1b[31m\u202e[red]"
    lines, _ = predict("plain", data=f"headline,note\n{escapes},{escapes}\n".encode())
    assert lines[0]["headline"] == lines[0]["note"] == escapes


def test_a_text_that_is_not_utf_8_is_refused(tmp_path: Path):
    with pytest.raises(RunError, match="not UTF-8"):
        module.predict_text(tmp_path, b"caf\xe9".decode("utf-8", "surrogateescape"))


def fitted(*, sure: float, rows: int = 100, temperature: float = 1.0) -> Fitted:
    return Fitted("plain", temperature, (sure,) * rows, (True,) * rows)


def test_a_temperature_changes_probabilities_and_no_answer(predict):
    (plain, _), _ = predict("plain")
    (warm, _), _ = predict("plain", fitted=fitted(sure=0.7, temperature=2.0))
    assert list(plain["probabilities"].values()) == [0.7311, 0.2689]
    assert list(warm["probabilities"].values()) == [0.6225, 0.3775]
    assert warm["prediction"] == plain["prediction"]
    assert "unanswered" not in warm


def test_rows_that_are_not_sure_enough_stay_empty_and_say_why(predict):
    (answered, _), _ = predict("plain", fitted=fitted(sure=0.73), max_error=0.05)
    assert (answered["prediction"], answered["unanswered"]) == ("yes", "")
    (left, _), _ = predict("plain", fitted=fitted(sure=0.9), max_error=0.05)
    assert (left["prediction"], left["prediction_value"]) == ("", "")
    assert left["unanswered"] == "probability 0.7311, answered from 0.9000 on"
    assert left["probabilities"]


@pytest.mark.parametrize(
    ("given", "max_error", "said"),
    [
        (fitted(sure=0.9, rows=40), 0.05, "about 59 validation rows would do"),
        (fitted(sure=0.9, rows=40), 0.05, "0.08 is the least that these rows show"),
        (fitted(sure=0.9), 5.0, "0.05 is 5 %"),
        (None, 0.05, "earlier version"),
    ],
)
def test_an_error_that_cannot_be_promised_is_refused(predict, given, max_error, said: str):
    with pytest.raises(RunError, match=said):
        predict("plain", fitted=given, max_error=max_error)


def test_a_column_unanswered_is_not_replaced(predict):
    data = b"headline,unanswered\nMan bites dog,mine\n"
    lines, _ = predict("plain", data=data)
    assert lines[0]["unanswered"] == "mine"
    with pytest.raises(DataError, match="a column 'unanswered' already"):
        predict("plain", data=data, fitted=fitted(sure=0.7), max_error=0.05)


def test_many_rows_are_kept_part_by_part_and_gone_on_with(predict, tmp_path, monkeypatch):
    many = "headline,n\n" + "".join(f"Man bites dog {n},{n}\n" for n in range(7))
    whole, _ = predict("plain", data=many.encode())
    monkeypatch.setattr(module, "PART", 3)
    monkeypatch.setattr(module, "load_manifest", lambda folder: {"run_id": "one"})
    (tmp_path / "summary.json").write_text("{}")
    answer, calls = suite.answer, []

    def broken(loaded, examples, **how):
        calls.append(len(examples))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return answer(loaded, examples, **how)

    monkeypatch.setattr(suite, "answer", broken)
    part = tmp_path / "out.jsonl.part"
    with pytest.raises(KeyboardInterrupt):
        predict("plain", data=many.encode())
    assert len(part.read_text().splitlines()) == 1 + 3
    with part.open("a") as file:
        file.write('{"place": "broken o')
    assert predict("plain", data=many.encode())[0] == whole
    assert calls == [3, 3, 3, 1], "the first three are not asked again"
    assert not part.exists()
    calls[:] = []
    with pytest.raises(KeyboardInterrupt):
        predict("plain", data=many.encode())
    head, *kept = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(head + kept[0])  # a full disk took the others
    assert predict("plain", data=many.encode())[0] == whole
    assert calls == [3, 3, 3, 3], "it goes on behind the last row that is answered"
    calls[:] = []
    with pytest.raises(KeyboardInterrupt):
        predict("plain", data=many.encode())
    part.write_bytes(head + kept[1] + kept[0])  # of another row
    assert predict("plain", data=many.encode())[0] == whole
    assert calls == [3, 3, 3, 3, 1], "none of them is this row's"
    calls[:] = []
    with pytest.raises(KeyboardInterrupt):
        predict("plain", data=many.encode())
    (tmp_path / "summary.json").write_text('{"another": "model"}')
    assert predict("plain", data=many.encode())[0] == whole
    assert calls == [3, 3, 3, 3, 1], "another model's answers are not taken"
    calls[:] = []
    with pytest.raises(KeyboardInterrupt):
        predict("plain", data=many.encode())
    other = many.replace("dog 1,", "dog one,").encode()
    assert len(predict("plain", data=other)[0]) == 7
    assert calls == [3, 3, 3, 3, 1], "answers to other rows are not taken"


def test_a_bad_row_far_behind_is_told_before_any_is_answered(predict, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PART", 2)
    monkeypatch.setattr(module, "load_manifest", lambda folder: {"run_id": "one"})
    (tmp_path / "summary.json").write_text("{}")
    lines = [{"headline": "a"}, {"headline": "b"}, {"other": "c"}]
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    with pytest.raises(DataError, match="no column 'headline'"):
        predict("plain", data=data, name="new.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.jsonl", "summary.json"]


def test_a_row_beyond_the_context_is_shortened_as_in_the_run(tiny_chat, tiny_folder):
    task = parse_task(PLAIN, where="", folder=None)
    loaded = SimpleNamespace(chat=tiny_chat, folder=SimpleNamespace(path=tiny_folder))
    asked = module._Asking(task, find_template(task, "plain"), None, shortens=True)
    columns = [{"headline": "good " * 2000}, {"headline": "good"}]
    _, examples = module._examples(asked, columns, ["a", "b"])
    long, short = module._fitted(asked, examples, loaded)
    assert short is examples[1]
    assert sum(tiny_chat.answer_room(long, max_new_tokens=task.max_new_tokens)) <= 512
    assert long.text.startswith("good good")
    as_before = module._fitted(replace(asked, shortens=False), examples, loaded)
    assert as_before == examples
