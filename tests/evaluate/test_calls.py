"""A generated call is compared with the data's, not with a template's marks."""

import pytest

from instil.evaluate import generate as module
from instil.evaluate.calls import as_in_data
from instil.types import Example, Message, ToolCall

CALL = ToolCall("stock", '{"of": "mugs"}')
BARE = Message("assistant", "", tool_calls=(CALL,)).shown


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ('<tool_call>\n{"name": "stock", "arguments": {"of": "mugs"}}\n</tool_call>', BARE),
        ('[TOOL_CALLS] [{"name": "stock", "arguments": {"of": "mugs"}}]', BARE),
        ('{"name": "stock", "parameters": {"of": "mugs"}}', BARE),
        ('{"function": {"name": "stock", "arguments": "{\\"of\\": \\"mugs\\"}"}}', BARE),
        (
            'Let me see.\n<tool_call>\n{"name": "stock", "arguments": {"of": "mugs"}}',
            f"Let me see.\n{BARE}",
        ),
        (
            '<tool_call>{"name": "stock", "arguments": {"of": "mugs"}}</tool_call>\n'
            '<tool_call>{"name": "stock", "arguments": {"of": "mugs"}}</tool_call>',
            f"{BARE}\n{BARE}",
        ),
        (f"<think>Hm.</think>\n\n<tool_call>{BARE}", f"<think>Hm.</think>\n\n{BARE}"),
        (f"<think>Hm.</think><tool_call>\n{BARE}", f"<think>Hm.</think>{BARE}"),
        (f"<think>Not {BARE}.</think> No call.", f"<think>Not {BARE}.</think> No call."),
        ("We have 3 {mugs} [left].", "We have 3 {mugs} [left]."),
        ('{"colour": "red"}', '{"colour": "red"}'),
        pytest.param("[" * 50_000, "[" * 50_000, id="nested without end"),
        pytest.param(
            '{"name": "f", "arguments": "' + "[" * 50_000 + '"}',
            '{"name": "f", "arguments": "' + "[" * 50_000 + '"}',
            id="arguments nested without end",
        ),
        ('<tool_call>\n{"name": "stock", "argu', '<tool_call>\n{"name": "stock", "argu'),
        ('{"name": "stock", "arguments": 3}', '{"name": "stock", "arguments": 3}'),
        ("[" * 5000, "[" * 5000),
    ],
)
def test_marks_are_taken_off_and_other_text_stays(written, wanted):
    assert as_in_data(written) == wanted


@pytest.mark.parametrize("calling", [True, False])
def test_only_answers_that_may_call_are_read_so(tiny, monkeypatch, calling):
    said = '<tool_call>{"name": "stock", "arguments": {"of": "mugs"}}</tool_call>'
    ids = tiny.chat.tokens(said)
    monkeypatch.setattr(module, "_in_memory", lambda *a, **how: iter([([0], [ids])]))
    tools = ('{"name": "stock"}',) if calling else ()
    example = Example("1", "t", "a", "1", "1", (Message("user", "Mugs?"),), BARE, tools=tools)
    monkeypatch.setattr(type(tiny.chat), "prompt", lambda chat, messages, **how: [3, 4])
    (made,) = module.generate(tiny, [example], max_new_tokens=99)
    assert made.text == (BARE if calling else said)
