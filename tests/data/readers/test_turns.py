from __future__ import annotations

import json

import pytest

from instil.data.readers.turns import (
    EMPTY,
    UNASKED,
    UNWEIGHTED,
    Keys,
    read_calls,
    read_tools,
    read_turn,
    untrained,
)
from instil.errors import DataError
from instil.types import Message, ToolCall

STOCK = ToolCall("stock", '{"of": "mugs"}')


def read(turn: dict[str, object], **called: str) -> Message:
    return read_turn(turn, keys=Keys(), where="talk.jsonl:3, messages[2]", called=called)


def refused(turn: dict[str, object]) -> str:
    with pytest.raises(DataError) as caught:
        read(turn)
    assert "talk.jsonl:3, messages[2]" in str(caught.value)
    return str(caught.value)


# ---- calls


@pytest.mark.parametrize(
    "call",
    [
        {"name": "stock", "arguments": {"of": "mugs"}},
        {"name": "stock", "arguments": '{"of":"mugs"}'},
        {"type": "function", "function": {"name": "stock", "arguments": {"of": "mugs"}}},
        {
            "id": "c1",
            "type": "function",
            "function": {"name": "stock", "arguments": '{"of":"mugs"}'},
        },
    ],
)
def test_every_way_to_write_a_call_is_the_same_call(call):
    turn = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert read(turn) == Message("assistant", "", tool_calls=(STOCK,))
    without = {"role": "assistant", "tool_calls": [call]}
    assert read(without).tool_calls == (STOCK,)
    assert read_calls(json.dumps([call]), where="") == (STOCK,)


def test_a_call_goes_with_a_text_and_the_older_key_is_read():
    calls = [{"name": "stock", "arguments": None}, {"name": "price", "arguments": ""}]
    turn = read({"role": "assistant", "content": "Let me look.", "tool_calls": calls})
    assert turn.content == "Let me look."
    assert turn.tool_calls == (ToolCall("stock", "{}"), ToolCall("price", "{}"))
    older = {"role": "assistant", "content": None, "function_call": {"name": "a", "arguments": {}}}
    assert read(older).tool_calls == (ToolCall("a", "{}"),)


def test_keys_that_a_table_fills_with_nothing_say_nothing():
    turn = {"role": "user", "content": "Hi", "tool_calls": None, "name": None, "weight": None}
    assert read(turn) == Message("user", "Hi")


@pytest.mark.parametrize(
    ("calls", "why"),
    [
        ([{"arguments": {}}], "names no function"),
        (["stock"], "names no function"),
        ([{"name": "stock", "arguments": [1]}], "are no object"),
        ([{"name": "stock", "arguments": "{of: mugs}"}], "is no JSON"),
        ({"name": "stock"}, "are no list"),
    ],
)
def test_calls_that_cannot_be_read_name_their_place(calls, why):
    assert why in refused({"role": "assistant", "content": "", "tool_calls": calls})


def test_only_the_assistant_calls():
    said = refused({"role": "user", "content": "Hi", "tool_calls": [{"name": "a"}]})
    assert "only the assistant" in said


def test_the_speaker_that_makes_calls_alone():
    keys = Keys("from", "value")
    turn = {"from": "function_call", "value": '{"name": "stock", "arguments": {"of": "mugs"}}'}
    assert read_turn(turn, keys=keys, where="", called={}).tool_calls == (STOCK,)
    with pytest.raises(DataError, match="no JSON"):
        read_turn({"from": "function_call", "value": "stock"}, keys=keys, where="", called={})


# ---- a tool's answer


def test_a_tool_answers_under_its_name_or_the_id_of_the_call():
    called: dict[str, str] = {}
    call = {"id": "c1", "function": {"name": "stock", "arguments": "{}"}}
    read_turn({"role": "assistant", "tool_calls": [call]}, keys=Keys(), where="", called=called)
    answer = {"role": "tool", "tool_call_id": "c1", "content": "12"}
    assert read_turn(answer, keys=Keys(), where="", called=called) == Message(
        "tool", "12", name="stock"
    )
    assert read({"role": "function", "name": "price", "content": "12"}).name == "price"
    assert read({"role": "tool", "tool_call_id": "c9", "content": "12"}).name == ""


def test_a_tools_answer_may_be_an_object():
    assert read({"role": "tool", "content": {"left": 3}}).content == '{"left": 3}'
    assert read({"role": "tool", "content": [1, 2]}).content == "[1, 2]"
    assert "no text" in refused({"role": "tool", "content": [{"type": "image_url"}]})


# ---- content


def test_parts_of_text_are_a_text_and_an_image_is_an_error():
    parts: list[dict[str, object]] = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert read({"role": "user", "content": parts}).content == "a\nb"
    image = {"type": "image_url", "image_url": {"url": "x.png"}, "text": None}
    said = refused({"role": "user", "content": [*parts, image]})
    assert "no text" in said
    assert "on_bad_row: skip" in said
    assert "no text" in refused({"role": "user", "content": [{"type": "image", "text": ""}]})


def test_an_answer_without_a_text_is_empty_and_a_question_without_one_is_an_error():
    assert read({"role": "assistant", "content": None}) == Message("assistant", "")
    assert "no text" in refused({"role": "user", "content": None})
    assert "no text" in refused({"role": "assistant"})


# ---- what is trained on


def test_weights():
    assert not read({"role": "assistant", "content": "a", "weight": 0}).trained
    assert read({"role": "assistant", "content": "a", "weight": 1.0}).trained
    for weight in (0.5, 2, -1, "0"):
        said = refused({"role": "assistant", "content": "a", "weight": weight})
        assert "weight" in said
        assert repr(weight) in said


def test_answers_that_nobody_learns_are_told_apart():
    turns = [
        Message("assistant", "Welcome."),
        Message("user", "Hi"),
        Message("assistant", " "),
        Message("assistant", "", tool_calls=(STOCK,)),
        Message("tool", "12"),
        Message("assistant", "Twelve.", trained=False),
        Message("assistant", "Twelve."),
    ]
    assert untrained(turns) == {0: UNASKED, 2: EMPTY, 5: UNWEIGHTED}
    assert untrained([Message("tool", "12"), Message("assistant", "12")]) == {1: UNASKED}


# ---- tools


def test_tools_come_in_the_form_of_chat_templates():
    bare = {"name": "stock", "parameters": {"type": "object"}}
    whole = {"type": "function", "function": bare}
    for value in ([bare], [whole], json.dumps([bare]), json.dumps(whole), [{"function": bare}]):
        assert [json.loads(each) for each in read_tools(value, where="")] == [whole]
    assert read_tools(None, where="") == read_tools("", where="") == read_tools([], where="") == ()


@pytest.mark.parametrize("value", [["stock"], "stock", 3, [{"description": "?"}], "[{]"])
def test_tools_that_cannot_be_read(value):
    with pytest.raises(DataError, match=r"x\.jsonl:1"):
        read_tools(value, where="x.jsonl:1")
