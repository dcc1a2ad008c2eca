"""Answers in the rendering of the whole conversation, through templates of many families."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from chat_templates import CHATML, FAMILIES, R1, byte_level, sentencepiece
from instil.encode.chat_format import Asked, ChatFormat, chat_format
from instil.encode.chat_proof import SystemHeld
from instil.encode.chat_template import ChatRules
from instil.encode.mask import by_turn, encode_all
from instil.errors import ModelError
from instil.types import Encoded, Example, Message, SystemTurn, Thinking, ToolCall, TrainOn

DAY = "2026-03-04T05:06:07+00:00"
KINDS = {"bytes": byte_level, "sentencepiece": sentencepiece}
BOTH = pytest.mark.parametrize("kind", KINDS)


def made(kind: str, family: str, **rules: Any) -> ChatFormat:
    return chat_format(KINDS[kind](family), ChatRules(**{"date": DAY, **rules}))


def talk(*texts: str, system: str = "", **more: Any) -> Example:
    roles = ("user", "assistant")
    said = [Message(roles[n % 2], text) for n, text in enumerate(texts)]
    opening = [Message("system", system)] if system else []
    messages = (*opening, *said[:-1])
    return Example("t/1/a", "t", "a", "1", "g", messages, texts[-1], text=texts[-2], **more)


def whole(chat: ChatFormat, example: Example) -> str:
    """What transformers itself renders, with no argument of ours."""
    turns: list[dict[str, Any]] = [{"role": m.role, "content": m.content} for m in example.messages]
    turns.append({"role": "assistant", "content": example.target})
    if chat.holds.parts:
        turns = [{**t, "content": [{"type": "text", "text": t["content"]}]} for t in turns]
    return str(chat.tokenizer.apply_chat_template(turns, tokenize=False))


def trained(encoded: Encoded, chat: ChatFormat) -> str:
    ids = [i for i, m in zip(encoded.ids, encoded.mask, strict=True) if m]
    return str(chat.tokenizer.decode(ids)).strip()


# What stands between an answer and the end of its turn.
ENDS = {"llama2": " </s>"}


@BOTH
@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_those_of_the_whole_text_and_the_mask_is_the_answer(kind: str, family: str):
    chat = made(kind, family)
    for example in (talk("is it good", "bad"), talk("is it", "1 2", "and now?", "yes it is")):
        encoded = encode_all([example], chat, max_length=10_000)[-1]
        text = whole(chat, example)
        stop = chat.tokenizer.convert_ids_to_tokens(chat.stop_id)
        assert list(encoded.ids) == chat.tokens(text[: text.rindex(stop) + len(stop)])
        assert trained(encoded, chat) == example.target + ENDS.get(family, stop)
        assert encoded.mask.index(True) == len(encoded.mask) - sum(encoded.mask), "one run"


@BOTH
@pytest.mark.parametrize("family", FAMILIES)
def test_generation_starts_where_training_did(kind: str, family: str):
    chat = made(kind, family)
    for example in (talk("is it good", "bad"), talk("is it", "1 2", "and now?", "10")):
        encoded = encode_all([example], chat, max_length=10_000)[-1]
        prompt = chat.prompt(example.messages)
        assert list(encoded.ids[: encoded.mask.index(True)]) == prompt
        turns = [{"role": m.role, "content": m.content} for m in example.messages]
        if chat.holds.parts:
            turns = [{**t, "content": [{"type": "text", "text": t["content"]}]} for t in turns]
        served = chat.tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True
        )
        assert chat.tokens(served) == prompt, "whoever serves the model prompts it as it was taught"
        assert chat.findings == ()


@BOTH
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("stop", [True, False])
def test_choices_are_cut_from_the_whole_text_too(kind: str, family: str, stop: bool):
    chat = made(kind, family)
    choices = ["bad", "very good", "10", "\u2764 yes", "bad."]
    question = talk("is it good", "bad").messages
    asked = chat.answered(question, choices, stop=stop)
    for choice, completion in zip(choices, asked.completions, strict=True):
        (encoded,) = encode_all([talk("is it good", choice)], chat, max_length=10_000)
        both = (*asked.prompt, *completion)
        assert both == encoded.ids[: len(both)]
        if stop:
            assert both == encoded.ids
        else:
            assert chat.tokenizer.decode(list(completion)).strip() == choice
    assert list(asked.prompt) == chat.prompt(question)


@pytest.mark.parametrize("template", [CHATML, None])
def test_choices_behind_a_long_prompt_are_not_tokenized_with_it(
    template: str | None, monkeypatch: pytest.MonkeyPatch
):
    tokenizer, lengths = byte_level("chatml"), list[int]()
    tokenizer.chat_template = template
    chat = chat_format(tokenizer)
    call = type(chat.tokenizer).__call__

    def counted(self: Any, text: str, **more: Any) -> Any:
        lengths.append(len(text))
        return call(self, text, **more)

    monkeypatch.setattr(type(chat.tokenizer), "__call__", counted)
    question = [Message("user", "good " * 400 + "\nis it good?")]
    choices = [f"choice {n}" for n in range(6)]
    asked = chat.answered(question, choices)
    assert sum(length > 2000 for length in lengths) == 1
    assert len(lengths) == 7
    for choice, completion in zip(choices, asked.completions, strict=True):
        assert (asked.prompt, (completion,)) == _fields(chat.answered(question, [choice]))


def _fields(asked: Asked) -> tuple[Any, ...]:
    return asked.prompt, asked.completions


# ---- what stands before an answer


def test_an_empty_think_block_belongs_to_the_prompt():
    for family in ("qwen3", "think_open"):
        chat = made("bytes", family)
        asked = chat.answered([Message("user", "good?")], ["bad"])
        prompt = chat.tokenizer.decode(list(asked.prompt))
        assert prompt.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
        assert chat.tokenizer.decode(list(asked.completions[0])) == "bad<|im_end|>"


def test_no_think_block_is_opened_for_a_model_that_is_not_to_think():
    chat = made("bytes", "r1")
    prompt = chat.tokenizer.decode(chat.prompt([Message("user", "good?")]))
    assert prompt.endswith("<|User|>good?<|Assistant|>")


def test_the_channel_of_an_answer_belongs_to_the_prompt():
    chat = made("bytes", "gpt_oss")
    prompt = chat.tokenizer.decode(chat.prompt([Message("user", "good?")]))
    assert prompt.endswith("<|start|>assistant<|channel|>final<|message|>")


def test_a_blank_before_the_answer_goes_into_its_first_token():
    chat = made("bytes", "blank")
    asked = chat.answered([Message("user", "good?")], ["bad", "10"])
    assert chat.tokenizer.decode(list(asked.prompt)).endswith("Assistant:")
    first = [chat.tokenizer.decode([completion[0]]) for completion in asked.completions]
    assert first == [" bad", " 10"]


def test_sentencepiece_puts_no_blank_of_its_own_before_an_answer():
    chat = made("sentencepiece", "zephyr")
    asked = chat.answered([Message("user", "good?")], ["bad"])
    pieces = chat.tokenizer.convert_ids_to_tokens(list(asked.completions[0]))
    assert not pieces[0].startswith("\u2581")
    assert pieces[-1] == "</s>"
    assert chat.tokenizer("bad", add_special_tokens=False).tokens()[0].startswith("\u2581")


def test_a_tokenizer_without_offsets_is_cut_where_its_tokens_part():
    fast, slow = made("bytes", "blank"), made("bytes", "blank")

    class Slow:
        """The same tokens, and no more than that."""

        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def __call__(self, text: str, **more: Any) -> Any:
            from transformers import BatchEncoding

            return BatchEncoding({"input_ids": self.inner(text, **more)["input_ids"]})

    slow = replace(slow, tokenizer=Slow(slow.tokenizer))
    question = [Message("user", "is it good")]
    for stop in (True, False):
        assert slow.answered(question, ["bad", "yes"], stop=stop) == fast.answered(
            question, ["bad", "yes"], stop=stop
        )


# ---- reasoning models

THOUGHT = "<think>\nit was not good\n</think>\n\nbad"


@BOTH
@pytest.mark.parametrize("family", ["qwen3", "think_open", "r1", "chatml", "gpt_oss"])
def test_thoughts_are_trained_on_once_behind_the_generation_prompt(kind: str, family: str):
    chat = made(kind, family, thinking=Thinking.ON)
    example = talk("is it good", THOUGHT)
    (encoded,) = encode_all([example], chat, max_length=10_000)
    text = chat.tokenizer.decode(list(encoded.ids))
    assert text.count("it was not good") == 1
    assert text.count("</think>") == (family != "gpt_oss")
    turns = [{"role": "user", "content": "is it good"}]
    served = chat.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    prompt = chat.prompt(example.messages)
    assert chat.tokens(served) == prompt == list(encoded.ids[: len(prompt)])
    assert encoded.mask == (False,) * len(prompt) + (True,) * (len(encoded.ids) - len(prompt))


def test_each_answers_thoughts_are_trained_on_though_the_template_drops_them_later():
    chat = made("bytes", "qwen3", thinking=Thinking.ON)
    example = talk("is it good", THOUGHT, "and now?", THOUGHT, train_on=TrainOn.ALL)
    parts = encode_all([example], chat, max_length=10_000)
    said = "<think>\nit was not good\n</think>\n\nbad<|im_end|>"
    assert [trained(part, chat) for part in parts] == [said, said]


def test_a_think_block_of_special_tokens_stays_one_in_the_turns_before():
    tokenizer = byte_level("chatml")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    chat = chat_format(tokenizer, ChatRules(thinking=Thinking.ON))
    evil = THOUGHT.replace("bad", "bad <think>")
    example = talk("is it good", evil, "and now?", THOUGHT, train_on=TrainOn.ALL)
    (encoded,) = encode_all([example], chat, max_length=10_000)
    opened, closed = tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    assert (encoded.ids.count(opened), encoded.ids.count(closed)) == (2, 2)
    assert trained(encoded, chat).count("it was not good") == 2


def test_thoughts_are_left_out_of_answers_where_the_model_is_not_to_think():
    chat = made("bytes", "qwen3")
    (encoded,) = encode_all([talk("is it good", THOUGHT)], chat, max_length=10_000)
    assert trained(encoded, chat) == "bad<|im_end|>"
    (plain,) = encode_all([talk("is it good", "bad")], chat, max_length=10_000)
    assert encoded.ids == plain.ids


# ---- conversations


@BOTH
@pytest.mark.parametrize("family", ["chatml", "llama3", "gemma", "mistral", "zephyr", "granite"])
def test_all_answers_are_trained_on_in_one_text(kind: str, family: str):
    chat = made(kind, family)
    example = talk("is it", "1 2", "and now?", "yes it is", "no?", "no", train_on=TrainOn.ALL)
    assert by_turn(example, chat) == (example,)
    (encoded,) = encode_all([example], chat, max_length=10_000)
    union = [False] * len(encoded.ids)
    for end in (2, 4, 6):
        texts = ["is it", "1 2", "and now?", "yes it is", "no?", "no"][:end]
        (one,) = encode_all([talk(*texts)], chat, max_length=10_000)
        assert encoded.ids[: len(one.ids)] == one.ids
        union[: len(one.mask)] = [
            a or b for a, b in zip(union[: len(one.mask)], one.mask, strict=True)
        ]
    assert list(encoded.mask) == union


@pytest.mark.parametrize("family", ["qwen3", "gpt_oss", "think_open"])
def test_answers_that_are_written_otherwise_later_are_parted_by_turn(family: str):
    chat = made("bytes", family)
    example = talk("is it", "1 2", "and now?", "yes it is", train_on=TrainOn.ALL)
    parts = encode_all([example], chat, max_length=10_000)
    stop = chat.stop_text
    assert [trained(part, chat) for part in parts] == [f"1 2{stop}", f"yes it is{stop}"]


def test_empty_and_untrained_answers_are_context():
    chat = made("bytes", "chatml")
    example = talk("is it", " ", "and now?", "1", "no?", "yes", train_on=TrainOn.ALL)
    weightless = replace(example.messages[3], trained=False)
    for messages, said in (
        (example.messages, "1<|im_end|>yes<|im_end|>"),
        ((*example.messages[:3], weightless, example.messages[4]), "yes<|im_end|>"),
    ):
        (encoded,) = encode_all([replace(example, messages=messages)], chat, max_length=10_000)
        assert trained(encoded, chat) == said


def test_an_answer_with_nothing_before_it_is_not_trained_on():
    example = talk("is it", "1 2", train_on=TrainOn.ALL)
    example = replace(example, messages=(Message("assistant", "Hello"), *example.messages))
    (encoded,) = encode_all([example], made("bytes", "chatml"), max_length=10_000)
    chat = made("bytes", "chatml")
    assert trained(encoded, chat) == "1 2<|im_end|>"
    assert "Hello" in chat.tokenizer.decode(list(encoded.ids))
    gemma = made("bytes", "gemma")
    (left,) = encode_all([example], gemma, max_length=10_000)
    assert trained(left, gemma) == "1 2<end_of_turn>"
    assert "Hello" not in gemma.tokenizer.decode(list(left.ids))


def test_neighbours_of_one_role_are_joined_where_the_template_raises():
    example = talk("is it", "yes")
    example = replace(example, messages=(Message("user", "Hello"), *example.messages))
    gemma, chatml = made("bytes", "gemma"), made("bytes", "chatml")
    (joined,) = encode_all([example], gemma, max_length=10_000)
    assert "user\nHello\n\nis it<end_of_turn>" in gemma.tokenizer.decode(list(joined.ids))
    (apart,) = encode_all([example], chatml, max_length=10_000)
    assert chatml.tokenizer.decode(list(apart.ids)).count("<|im_start|>user") == 2


# ---- system messages


def test_a_template_that_takes_no_system_message_says_what_to_do():
    chat = made("bytes", "gemma")
    assert chat.holds.system is SystemHeld.REFUSED
    example = talk("is it", "yes", system="Be kind.")
    for ask in (
        lambda: chat.prompt(example.messages),
        lambda: encode_all([example], chat, max_length=100),
        lambda: chat.answered(example.messages, ["yes", "no"]),
    ):
        with pytest.raises(ModelError, match="takes no system message") as caught:
            ask()
        assert "system: merge" in caught.value.problems[0].fix


@pytest.mark.parametrize("family", ["gemma", "no_system", "chatml"])
def test_a_system_message_is_merged_into_the_first_text_of_the_user(family: str):
    chat = made("bytes", family, system=SystemTurn.MERGE)
    example = talk("is it", "1", "and now?", "yes", system="Be kind.")
    (encoded,) = encode_all([example], chat, max_length=10_000)
    text = chat.tokenizer.decode(list(encoded.ids))
    assert "user\nBe kind.\n\nis it<" in text
    assert text.count("Be kind.") == 1


def test_a_template_that_leaves_the_system_message_out_is_noticed():
    assert made("bytes", "no_system").holds.system is SystemHeld.DROPPED


# ---- templates


def test_content_is_given_in_parts_where_the_template_wants_it():
    chat = made("bytes", "parts")
    assert chat.holds.parts
    assert "is it good" in chat.tokenizer.decode(chat.prompt([Message("user", "is it good")]))


def test_parts_are_given_where_text_would_lose_the_system_message():
    tokenizer = byte_level("chatml")
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.content is string and m.role != 'system' %}{{ m.content }}"
        "{% else %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endif %}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    chat = chat_format(tokenizer)
    prompt = chat.prompt([Message("system", "Be kind."), Message("user", "is it good")])
    assert "Be kind." in chat.tokenizer.decode(prompt)
    assert chat.holds.system is SystemHeld.KEPT


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "leaves out the user's text"),
        (
            "{% for m in messages %}{{ m.content if m.role == 'user' }}{% endfor %}",
            "leaves out the assistant's answer",
        ),
        ("{{ raise_exception('not today') }}", "not today"),
        ("{% for m in messages %}", "Unexpected end"),
    ],
)
def test_a_template_that_cannot_hold_a_question_and_its_answer_is_refused(template: str, why: str):
    tokenizer = byte_level("chatml")
    tokenizer.chat_template = template
    with pytest.raises(ModelError, match=why):
        chat_format(tokenizer)


def test_of_several_templates_one_is_named(tmp_path):
    def several() -> Any:
        tokenizer = byte_level("chatml")
        tokenizer.chat_template = {"plain": CHATML, "tool_use": CHATML.replace("user", "USER")}
        return tokenizer

    with pytest.raises(ModelError, match="none of them is called default") as caught:
        chat_format(several())
    assert caught.value.problems[0].allowed == "plain, tool_use"
    assert chat_format(several(), ChatRules(template="plain")).tokenizer.chat_template == CHATML
    with pytest.raises(ModelError, match="no chat template 'plian'") as caught:
        chat_format(several(), ChatRules(template="plian"))
    assert caught.value.problems[0].nearest == "plain"
    tokenizer = several()
    tokenizer.chat_template["default"] = CHATML
    assert chat_format(tokenizer).tokenizer.chat_template == CHATML
    file = tmp_path / "own.jinja"
    file.write_text(CHATML.replace("<|im_end|>", " OVER<|im_end|>"), encoding="utf-8")
    chat = chat_format(several(), ChatRules(template=str(file)))
    asked = chat.answered([Message("user", "good?")], ["yes"])
    assert chat.tokenizer.decode(list(asked.completions[0])) == "yes OVER<|im_end|>"


@pytest.mark.parametrize(
    ("family", "day"),
    [("llama3", "04 Mar 2026"), ("gpt_oss", "2026-03-04"), ("granite", "March 04, 2026")],
)
def test_the_date_is_the_runs_and_not_todays(family: str, day: str):
    chat = made("bytes", family)
    assert day in chat.tokenizer.decode(chat.prompt([Message("user", "good?")]))
    other = made("bytes", family, date="2025-01-01")
    assert day not in other.tokenizer.decode(other.prompt([Message("user", "good?")]))


def test_what_was_settled_is_not_settled_again():
    first = made("bytes", "r1")
    tokenizer = byte_level("r1")
    tokenizer.chat_template = first.tokenizer.chat_template
    assert tokenizer.chat_template != R1
    again = chat_format(tokenizer, ChatRules(date=DAY))
    assert again.tokenizer.chat_template == first.tokenizer.chat_template


# ---- calls of functions

TOOL = json.dumps(
    {
        "type": "function",
        "function": {"name": "weather", "description": "Says it.", "parameters": {}},
    }
)
CALL = ToolCall("weather", json.dumps({"city": "Ulm<|im_end|>"}))


def calling(**more: Any) -> Example:
    messages = (
        Message("user", "is it good"),
        Message("assistant", "", tool_calls=(CALL,)),
        Message("tool", "not very", name="weather"),
    )
    example = talk("is it good", "it is bad", tools=(TOOL,), train_on=TrainOn.ALL)
    return replace(example, messages=messages, text="not very", **more)


@pytest.mark.parametrize(
    ("family", "call", "answer"),
    [
        (
            "qwen3",
            '<tool_call>\n{"name": "weather", "arguments": {"city": "Ulm< |im_end|>"}}\n'
            "</tool_call><|im_end|>",
            "it is bad<|im_end|>",
        ),
        (
            "llama3",
            '{"name": "weather", "parameters": {"city": "Ulm<|im_end|>"}}<|eot_id|>',
            "it is bad<|eot_id|>",
        ),
    ],
)
def test_calls_are_trained_on_as_the_template_writes_them(family: str, call: str, answer: str):
    chat = made("bytes", family)
    parts = encode_all([calling()], chat, max_length=10_000)
    assert "".join(trained(part, chat) for part in parts) == call + answer
    text = chat.tokenizer.decode(list(parts[-1].ids))
    assert text.count("not very") == 1
    asked = chat.prompt(calling().messages[:1], tools=(TOOL,))
    assert '"weather"' in chat.tokenizer.decode(asked)


def test_calls_that_begin_where_no_prompt_ends_are_refused():
    """They would be trained on behind one prompt, and asked for behind another."""
    tokenizer = KINDS["bytes"]("gpt_oss")
    tokenizer.chat_template = (
        "{{ tools | tojson }}{% for m in messages %}<|start|>{{ m.role }}{% if m.tool_calls %}"
        " to={{ m.tool_calls[0].function.name }}<|message|>"
        "{{ m.tool_calls[0].function.arguments | tojson }}<|call|>{% else %}"
        "{% if m.role == 'assistant' %}<|channel|>final{% endif %}<|message|>{{ m.content }}"
        "{{ '<|return|>' if m.role == 'assistant' else '<|end|>' }}{% endif %}{% endfor %}"
    )
    chat = chat_format(tokenizer, ChatRules(date=DAY))
    with pytest.raises(ModelError, match="elsewhere than an answer in words") as told:
        encode_all([calling()], chat, max_length=10_000)
    assert "<|channel|>final" in told.value.problems[0].found


def test_a_call_can_be_the_right_answer():
    chat = made("bytes", "qwen3")
    example = replace(calling(), messages=calling().messages[:1], target="", target_calls=(CALL,))
    (encoded,) = encode_all([example], chat, max_length=10_000)
    assert trained(encoded, chat).endswith("</tool_call><|im_end|>")
    assert trained(encoded, chat).startswith("<tool_call>")
    target = chat.target(example)
    assert (*target.prompt, *target.completions[0]) == encoded.ids


@pytest.mark.parametrize(
    ("example", "what"),
    [(calling(), "functions that a row lets the model call"), (calling(tools=()), "calls of")],
)
def test_a_template_that_leaves_functions_out_is_an_error(example: Example, what: str):
    with pytest.raises(ModelError, match=what):
        encode_all([example], made("bytes", "chatml"), max_length=10_000)


# ---- encoder-decoder models


def test_an_encoder_decoder_model_has_no_form_for_functions():
    with pytest.raises(ModelError, match="no form for"):
        seq2seq().prompt([Message("user", "is it")], tools=(TOOL,))
    assert seq2seq().tokenizer.chat_template is None


def seq2seq(**more: Any) -> ChatFormat:
    from tokenizers.processors import TemplateProcessing

    tokenizer = byte_level("blank")
    tokenizer.chat_template = None
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", tokenizer.eos_token_id)]
    )
    return chat_format(tokenizer, encoder_decoder=True, **more)


def test_an_encoder_decoder_model_reads_the_prompt_and_writes_the_answer():
    chat = seq2seq()
    example = talk("is it", "1 2", "and now?", "yes", system="Be kind.", train_on=TrainOn.ALL)
    parts = encode_all([example], chat, max_length=10_000)
    texts = [chat.tokenizer.decode(list(part.ids)) for part in parts]
    assert texts == ["Be kind.\nis it</s>1 2</s>", "Be kind.\nis it\n1 2\n\nand now?</s>yes</s>"]
    assert [trained(part, chat) for part in parts] == ["1 2</s>", "yes</s>"]
    asked = chat.answered(example.messages, ["yes", "no"], stop=False)
    assert list(asked.prompt) == chat.prompt(example.messages)
    assert [chat.tokenizer.decode(list(c)) for c in asked.completions] == ["yes", "no"]


def test_what_a_decoder_begins_with_is_no_part_of_an_answer():
    from tokenizers.processors import TemplateProcessing

    chat = seq2seq(decoder_start=0)
    chat.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    (ids,) = chat.answered([Message("user", "is it")], ["yes"]).completions
    assert chat.tokenizer.decode(list(ids)) == "yes</s>"


DOUBLED = (
    "{% set n = namespace(x='ab') %}"
    "{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}"
)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (
            "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
            "steps",
        ),
        (DOUBLED, "characters"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{% include 'x' %}", "loader"),
        ("{% import 'x' as y %}", "loader"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "calls itself"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ '%1000000000d' % 1 }}", "format"),
        ("constant", "leaves out the user's text"),
    ],
)
def test_a_hostile_chat_template_is_refused_in_a_line(tiny_folder, template: str, says: str):
    from transformers import AutoTokenizer

    from instil.encode.chat_proof import prove

    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    tokenizer.chat_template = template
    with pytest.raises(ModelError, match=says) as caught:
        prove(tokenizer)
    assert len(str(caught.value).splitlines()) <= 3


ASK_OTHERWISE = {"gpt_oss", "mistral", "r1"}
"""What these write before an answer to come is not what they write before one that is there."""


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - ASK_OTHERWISE))
@pytest.mark.parametrize("system", [SystemTurn.KEEP, SystemTurn.MERGE])
def test_whoever_renders_a_conversation_elsewhere_makes_the_same_prompt(family, system):
    chat = chat_format(byte_level(family), ChatRules(system=system))
    talk = [
        Message("assistant", "What is it?"),
        Message("user", "It is"),
        Message("user", "this."),
        Message("assistant", "Fine."),
        Message("user", "Why?"),
    ]
    told = (
        []
        if chat.holds.system is SystemHeld.REFUSED and system is SystemTurn.KEEP
        else [Message("system", "Be kind.")]
    )
    for messages in (talk[1:2], [*told, *talk]):
        text = chat.tokenizer.apply_chat_template(
            list(chat.conversation(messages)), add_generation_prompt=True, return_dict=True
        )
        assert text["input_ids"] == chat.prompt(messages)
