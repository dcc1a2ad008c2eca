"""What a chat format does to the rows of a task: turns left out or joined, answers cut.

Tests: `tests/test_chat_cases.py`, `tests/stages/test_check.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from instil.data.build import render_example
from instil.data.findings import Finding
from instil.data.prepare import TaskData
from instil.encode.chat_format import ChatFormat
from instil.encode.chat_proof import SystemHeld
from instil.encode.chat_turns import has_thoughts, thoughts_of
from instil.format import plural
from instil.types import Example, Role, SystemTurn, Thinking

_THOUGHTS = "an answer's thoughts are left out"
_FIXES = {
    "the chat template leaves out their system message": "`system: merge` in the recipe puts it "
    "before the user's first text",
    _THOUGHTS: "`thinking: on` in the recipe keeps them",
    "turns before the question are left out by the chat template": "name another one: "
    "`chat_template: FILE.jinja`",
}


def chat_findings(data: TaskData, chat: ChatFormat) -> tuple[Finding, ...]:
    """Count the training rows that the chat format does something to which their file does not say.

    Rows without turns of their own and without a system message can lose thoughts alone, unless the
    template parts turns by plain words.
    """
    templates = [t for t in data.templates if t.role is Role.ANSWER]
    counts: Counter[str] = Counter()
    for template in templates[:1]:
        if data.task.history or template.system or chat.marks.words:
            rows = (render_example(data.task, template, row) for row in data.train)
            counts.update(what for example in rows for what in set(_effects(example, chat)))
        elif chat.rules.thinking is not Thinking.ON:
            counts[_THOUGHTS] += sum(has_thoughts(row, data.task) for row in data.train)
    counted = [
        Finding(f"{plural(count, 'row')}: {what}", count, fix=_FIXES.get(what, ""))
        for what, count in (+counts).items()
    ]
    return (*(Finding(what, 1) for what in chat.findings), *counted)


def cut_answers(data: TaskData, chat: ChatFormat) -> Iterator[Finding]:
    """Count validation rows whose right answer is longer than what may be generated."""
    most = data.task.max_new_tokens
    if data.task.choices or data.task.checks:
        return
    examples = (render_example(data.task, data.answering[0], row) for row in data.validation)
    # The stop token need not be generated for the answer to be whole.
    lengths = [len(chat.target(e).completions[0]) - chat.ending for e in examples if not e.choices]
    if count := sum(length > most for length in lengths):
        what = f"{count} of {plural(len(lengths), 'right answer')} of validation"
        yield Finding(
            f"{what} take more tokens than `max_new_tokens`, {most}: what the model writes ends "
            f"there, and scores less; {max(lengths)} would hold all",
            count,
            fix=f"`max_new_tokens: {max(lengths)}` in the task",
        )


def _effects(example: Example, chat: ChatFormat) -> Iterator[str]:
    """What happens to an example, in words that follow a count of rows."""
    turns = example.messages
    said = [*(turn.content for turn in turns), example.target]
    answers = [*(turn.content for turn in turns if turn.role == "assistant"), example.target]
    system = any(turn.role == "system" for turn in turns)
    if system and chat.rules.system is SystemTurn.KEEP and chat.holds.system is SystemHeld.DROPPED:
        yield "the chat template leaves out their system message"
    others = [turn for turn in turns if turn.role != "system"]
    first = next((turn.role for turn in chat.fitted(turns) if turn.role != "system"), "")
    if others and others[0].role == "assistant" != first:
        yield "the assistant's opening turn is left out: the chat template takes none"
    roles = [turn.role for turn in others]
    if not chat.holds.neighbours and any(a == b for a, b in pairwise(roles)):
        yield "neighbouring turns of one role are joined, as the chat template wants them"
    if not chat.holds.earlier and len(others) > 1:
        yield "turns before the question are left out by the chat template"
    for words in chat.marks.words:
        if any(words in text for text in said):
            yield f"the text holds {words!r}, by which alone the chat template parts turns"
    if chat.rules.thinking is not Thinking.ON and any(map(thoughts_of, answers)):
        yield _THOUGHTS
