from __future__ import annotations

import json
from collections import Counter

import pytest

from instil.data.readers.shapes import LEFT_OVER, UNUSABLE, Shape, normalise_shape, recognise
from instil.data.readers.turns import EMPTY, UNASKED, UNWEIGHTED
from instil.errors import DataError


def gpt(*turns: tuple[str, str], column: str = "conversations") -> dict[str, object]:
    return {column: [{"from": speaker, "value": text} for speaker, text in turns]}


def chat(*turns: tuple[str, object], column: str = "messages") -> dict[str, object]:
    return {column: [{"role": role, "content": content} for role, content in turns]}


def test_empty_columns_take_nothing_from_a_conversation() -> None:
    said = gpt(("system", "In French."), ("human", "a"), ("gpt", "b"), ("human", "c"), ("gpt", "d"))
    wanted = normalise_shape(said, place="x")
    assert wanted["system"] == "In French."
    plain = gpt(("human", "a"), ("gpt", "b"))
    assert normalise_shape({**plain, "system": ""}, place="x")["system"] == ""
    for empty in ({"system": ""}, {"system": None, "history": []}):
        found = normalise_shape({**empty, **said}, place="x")
        assert (found["system"], found["history"]) == (wanted["system"], wanted["history"])


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


def test_a_conversation_that_waits_for_an_answer_is_read_up_to_its_question():
    row = chat(("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"))
    found = normalise_shape(row, waiting=True)
    assert (found["last_message"], found["completion"]) == ("c", "")
    assert [turn["content"] for turn in found["history"]] == ["a", "b"]
    assert normalise_shape(row)["last_message"] == "a", "what is learned ends with an answer"
    ends = chat(("user", "a"), ("assistant", "b"))
    assert normalise_shape(ends, waiting=True) == normalise_shape(ends)
    assert normalise_shape(chat(("user", "a")), waiting=True)["last_message"] == "a"


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


# ---- conversations with tools, and what of them is trained on


CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "stock", "arguments": '{"of": "mugs"}'},
}
READ = {"name": "stock", "arguments": '{"of": "mugs"}'}
SAID = '{"name": "stock", "arguments": {"of": "mugs"}}'


def calling(content: object = None) -> dict[str, object]:
    return {"role": "assistant", "content": content, "tool_calls": [CALL]}


def with_tool(*more: dict[str, object]) -> dict[str, object]:
    asked = {"role": "user", "content": "Are there mugs?"}
    return {
        "messages": [
            asked,
            calling(),
            {"role": "tool", "tool_call_id": "c1", "content": "12"},
            *more,
        ]
    }


def test_an_answer_after_a_tools_answer_is_asked_by_the_tool():
    found = normalise_shape(with_tool({"role": "assistant", "content": "Twelve."}))
    assert found["history"] == [
        {"role": "user", "content": "Are there mugs?"},
        {"role": "assistant", "content": "", "tool_calls": [READ]},
        {"role": "tool", "content": None, "name": "stock"},
    ]
    assert found["last_message"] == "12"
    assert found["completion"] == "Twelve."
    assert found["prompt"] == f"User: Are there mugs?\n\nAssistant: {SAID}\n\nTool: 12"
    assert "completion_calls" not in found


def test_a_conversation_that_ends_with_a_tools_answer_teaches_the_call():
    notes = Counter[str]()
    found = normalise_shape(with_tool(), notes=notes)
    assert found["completion"] == SAID
    assert found["completion_calls"] == [READ]
    assert (found["history"], found["last_message"]) == ([], "Are there mugs?")
    assert notes == {LEFT_OVER: 1}
    both = {"messages": [{"role": "user", "content": "Mugs?"}, calling("Let me look.")]}
    assert normalise_shape(both)["completion"] == f"Let me look.\n{SAID}"


def test_sharegpts_calls_and_observations():
    row = gpt(
        ("human", "Are there mugs?"),
        ("gpt", "Let me look."),
        ("function_call", json.dumps(READ | {"arguments": {"of": "mugs"}})),
        ("observation", "12"),
        ("gpt", "Twelve."),
    )
    found = normalise_shape(row)
    assert found["history"][1] == {
        "role": "assistant",
        "content": "Let me look.",
        "tool_calls": [READ],
    }
    assert found["history"][2] == {"role": "tool", "content": None}
    assert (found["last_message"], found["completion"]) == ("12", "Twelve.")


def test_a_first_turn_without_a_text_is_a_turn_all_the_same():
    assert (
        recognise(
            {
                "messages": [
                    {"role": "assistant", "tool_calls": []},
                    *chat(("user", "a"))["messages"],
                ]
            }
        )
        is Shape.MESSAGES
    )


def test_a_conversation_as_json_text():
    row = {"messages": json.dumps(with_tool()["messages"])}
    assert recognise(row) is Shape.MESSAGES
    assert normalise_shape(row)["completion"] == SAID
    assert recognise({"messages": "[no turns"}) is Shape.PLAIN


def test_weights_lead_to_the_last_answer_that_is_trained_on():
    turns = chat(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))["messages"]
    turns[3]["weight"] = 0
    notes = Counter[str]()
    found = normalise_shape({"messages": turns}, notes=notes)
    assert (found["last_message"], found["completion"], found["history"]) == ("a", "b", [])
    assert notes == {LEFT_OVER: 1}
    turns[3]["weight"], turns[1]["weight"] = 1, 0
    notes.clear()
    found = normalise_shape({"messages": turns}, notes=notes)
    assert found["completion"] == "d"
    assert found["history"][1] == {"role": "assistant", "content": "b", "weight": 0}
    assert notes == {UNWEIGHTED: 1}


def test_empty_and_unasked_answers_stay_in_the_history_and_are_counted():
    notes = Counter[str]()
    row = chat(("assistant", "Welcome."), ("user", "a"), ("assistant", "b"))
    found = normalise_shape(row, notes=notes)
    assert found["history"] == [{"role": "assistant", "content": "Welcome."}]
    assert (found["last_message"], found["completion"]) == ("a", "b")
    normalise_shape(
        chat(("user", "a"), ("assistant", ""), ("user", "b"), ("assistant", "c")), notes=notes
    )
    assert notes == {UNASKED: 1, EMPTY: 1}


@pytest.mark.parametrize(
    ("turns", "why"),
    [
        ([("user", "a")], ""),
        ([("system", "s"), ("assistant", "a")], UNASKED),
        ([("tool", "a"), ("assistant", "b")], UNASKED),
        ([("user", "a"), ("assistant", " ")], EMPTY),
        ([("user", "a"), ("assistant", "b"), ("assistant", "c")], "follows"),
    ],
)
def test_conversations_that_teach_nothing_are_counted_with_the_reason(turns, why):
    notes = Counter[str]()
    found = normalise_shape(chat(*turns), notes=notes)
    assert notes == {UNUSABLE[why]: 1}
    assert not found["completion"] or not found["last_message"]


def test_neighbours_of_one_role_are_left_as_they_are():
    found = normalise_shape(chat(("user", "Hello."), ("user", "Is it?"), ("assistant", "Yes.")))
    assert found["history"] == [{"role": "user", "content": "Hello."}]
    assert found["last_message"] == "Is it?"


# ---- TRL's columns of turns


def halves(prompt: object, completion: object) -> dict[str, object]:
    return {"prompt": prompt, "completion": completion}


def test_prompt_and_completion_that_are_lists_of_turns():
    asked = [{"role": "user", "content": "a"}]
    row = halves(asked, [{"role": "assistant", "content": "b"}])
    assert recognise(row) is Shape.MESSAGES
    found = normalise_shape(row)
    assert found == {
        "prompt": "a",
        "completion": "b",
        "history": [],
        "last_message": "a",
    }
    assert normalise_shape(halves(asked, "b")) == found
    assert normalise_shape(halves("a", row["completion"])) == found
    assert normalise_shape(halves(asked, None))["last_message"] == "a"


def test_answers_in_a_prompt_of_turns_are_not_trained_on():
    notes = Counter[str]()
    asked = chat(("user", "a"), ("assistant", "b"), ("user", "c"))["messages"]
    found = normalise_shape(halves(asked, chat(("assistant", "d"))["messages"]), notes=notes)
    assert found["history"][1] == {"role": "assistant", "content": "b", "weight": 0}
    assert notes == {UNWEIGHTED: 1}


def test_lists_of_other_things_are_no_turns():
    assert recognise(halves([1], [2])) is Shape.PLAIN
    assert recognise(halves([{"a": 1}], [{"b": 2}])) is Shape.PLAIN
    assert recognise(halves([], [])) is Shape.PLAIN
