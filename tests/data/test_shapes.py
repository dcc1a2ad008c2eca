from __future__ import annotations

import pytest

from instil.data.shapes import Shape, normalise_shape, recognise
from instil.errors import DataError


def gpt(*turns: tuple[str, str], column: str = "conversations") -> dict[str, object]:
    return {column: [{"from": speaker, "value": text} for speaker, text in turns]}


def chat(*turns: tuple[str, object], column: str = "messages") -> dict[str, object]:
    return {column: [{"role": role, "content": content} for role, content in turns]}


@pytest.mark.parametrize(
    ("columns", "shape"),
    [
        ({"instruction": "a", "output": "b"}, Shape.ALPACA),
        ({"instruction": "a", "input": "", "output": "b", "system": "s"}, Shape.ALPACA),
        ({"instruction": "a", "input": None, "output": None}, Shape.ALPACA),
        ({"instruction": 3, "output": "b"}, Shape.PLAIN),
        (gpt(("human", "a")), Shape.SHAREGPT),
        (chat(("user", "a")), Shape.MESSAGES),
        (chat(("user", "a"), column="conversations"), Shape.MESSAGES),
        ({"messages": []}, Shape.MESSAGES),
        ({"messages": "a text"}, Shape.PLAIN),
        ({"messages": [{"x": 1}]}, Shape.PLAIN),
        ({"prompt": "a", "completion": "b"}, Shape.PROMPT_COMPLETION),
        ({"prompt": "a", "completion": "b", "instruction": "", "output": ""}, "prompt_completion"),
        ({"text": "a", "label": "b"}, Shape.PLAIN),
        ({}, Shape.PLAIN),
    ],
)
def test_shapes_are_recognised(columns, shape):
    assert recognise(columns) == shape


def test_alpaca_joins_instruction_and_input():
    row = {"instruction": "Translate.", "input": "Hund", "output": "dog", "id": 7}
    assert normalise_shape(row) == {**row, "prompt": "Translate.\n\nHund", "completion": "dog"}
    assert (
        normalise_shape({"instruction": "Sing.", "input": " ", "output": ""})["prompt"] == "Sing."
    )
    assert normalise_shape({"instruction": "a", "input": None, "output": None})["completion"] == ""


@pytest.mark.parametrize("make", [gpt, chat])
def test_one_question_and_its_answer(make):
    row = make(("system", "Be brief."), ("user", "2 + 2?"), ("assistant", "4"))
    assert normalise_shape(row) == {
        **row,
        "system": "Be brief.",
        "prompt": "2 + 2?",
        "completion": "4",
        "history": [],
        "last_message": "2 + 2?",
    }


def test_several_turns_become_a_transcript_up_to_the_last_answer():
    row = gpt(("human", "Hi"), ("gpt", "Hello"), ("human", "Bye"), ("gpt", "Ciao"), ("human", "?"))
    found = normalise_shape(row)
    assert found["prompt"] == "User: Hi\n\nAssistant: Hello\n\nUser: Bye"
    assert found["completion"] == "Ciao"
    assert found["last_message"] == "Bye"
    assert found["history"] == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
    ]


def test_a_conversation_without_an_answer_has_an_empty_completion():
    assert normalise_shape(gpt(("human", "Hi")))["completion"] == ""
    assert normalise_shape({"messages": []})["prompt"] == ""


def test_content_in_parts():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert normalise_shape(chat(("user", parts), ("assistant", "c")))["prompt"] == "a\nb"


def test_columns_of_the_row_itself_are_left_as_they_are():
    row = chat(("user", "a"), ("assistant", "b")) | {"prompt": "mine"}
    assert normalise_shape(row)["prompt"] == "mine"


def test_plain_rows_are_left_alone():
    assert normalise_shape({"text": "a"}) == {"text": "a"}


def test_all_that_is_wrong_with_a_conversation_is_told():
    row = {
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistent", "content": "b"},
            {"content": "c"},
            {"role": "user", "content": [{"type": "image"}]},
            {"role": "user", "content": None},
        ]
    }
    with pytest.raises(DataError) as caught:
        normalise_shape(row, place="d.jsonl:3")
    first, second, third, fourth = caught.value.problems
    assert first.where == "d.jsonl:3, messages[2]"
    assert first.nearest == "assistant"
    assert "does not say 'role'" in second.what
    assert "no text" in third.what
    assert "no text" in fourth.what


# ---- words with tags


def test_a_tagged_row_becomes_a_text_and_its_names():
    row = {"tokens": ["Ada", "Byron", "sat"], "ner_tags": ["B-PER", "I-PER", "O"], "id": 1}
    assert recognise(row) is Shape.TAGGED
    found = normalise_shape(row)
    assert (found["prompt"], found["completion"]) == ("Ada Byron sat", "PER: Ada Byron")
    nobody = {"tokens": ["It", "rains"], "tags": ["O", "O"]}
    assert normalise_shape(nobody)["completion"] == "none"


def test_tags_that_are_numbers_or_too_few():
    assert recognise({"tokens": ["a"], "tags": [0]}) is Shape.PLAIN
    assert recognise({"tokens": "a b", "tags": ["O", "O"]}) is Shape.PLAIN
    with pytest.raises(DataError, match="every token needs one tag"):
        normalise_shape({"tokens": ["a", "b"], "tags": ["O"]}, place="x.jsonl:3")
