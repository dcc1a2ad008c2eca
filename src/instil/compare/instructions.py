"""Instructions to search among: more words around a task's templates, and ones the model writes.

A candidate is a template with words added, so that all fields that the template shows stay. Three
kinds: the task's description in front, or as a system message; the allowed answers spelt out behind
(`Answer with one of: good, bad.`); and an instruction in front that the base model itself writes
from a few training rows with their answers (Zhou et al. 2023, "Large language models are
human-level prompt engineers", arXiv:2211.01910, forward generation, but greedily: each request
shows other rows).

Tests: `tests/compare/test_search.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from instil.data.build import pick_exemplars, render_example
from instil.data.prepare import TaskData
from instil.evaluate.choices import OnDone
from instil.evaluate.generate import generate
from instil.model.load import LoadedModel
from instil.types import Example, Message, Template

ROWS = 5
"""Training rows that a request for an instruction shows."""
TOKENS = 64
"""Longest instruction that a model writes."""
SHORTEST, LONGEST = 12, 400
"""Letters of an instruction that is taken."""
SHOWN = 400
"""Letters of a row that a request shows."""
WRITTEN = "written"
_ANSWERS = "\nAnswer with one of: {{ choices | join(', ') }}."
_REQUEST = (
    "Here are some inputs, each with its right answer.\n\n{rows}\n\n"
    "Write one short instruction that tells somebody how to answer such inputs. "
    "Write the instruction alone."
)


@dataclass(frozen=True, slots=True)
class Instruction:
    """A template with words added."""

    template: Template
    """To ask through."""
    words: str
    """What was added."""


def described(data: TaskData, template: Template) -> list[Instruction]:
    """Return a template with the task's description, and with its answers spelt out."""
    made = []
    if (words := data.task.description.strip()) and not re.search(r"[{}]", words):
        made.append(_in_front(template, words, name="description"))
        if not template.system:
            system = replace(template, id=f"{template.id}+system", system=words)
            made.append(Instruction(system, words))
    if template.choices:
        answers = replace(template, id=f"{template.id}+answers", prompt=template.prompt + _ANSWERS)
        made.append(Instruction(answers, _ANSWERS.strip()))
    return made


def written(
    loaded: LoadedModel,
    data: TaskData,
    template: Template,
    *,
    count: int,
    seed: int,
    on_done: OnDone = lambda _: None,
) -> list[Instruction]:
    """Let the model write instructions, and put each in front of a template.

    What is no usable instruction is left out: too short or too long, with signs that cannot be
    printed, or with braces, which are code in a template; so is what was written before.

    Args:
        loaded: The base model.
        data: The task; rows are shown of its train part alone.
        template: To put them in front of.
        count: How many to ask for: as many prompts are asked.
        seed: Draws the rows that requests show.
        on_done: Called with the number of requests answered.
    """
    requests = [request(data, template, seed=seed + n) for n in range(count)]
    answers = generate(loaded, requests, max_new_tokens=TOKENS, on_done=on_done)
    texts = dict.fromkeys(filter(None, (instruction_in(answer.text) for answer in answers)))
    return [
        _in_front(template, words, name=f"{WRITTEN}-{n}") for n, words in enumerate(texts, start=1)
    ]


def request(data: TaskData, template: Template, *, seed: int) -> Example:
    """Return the prompt that asks for an instruction."""
    rows = pick_exemplars(data.task, data.train, shots=min(ROWS, len(data.train)), seed=seed)
    shown = "\n\n".join(
        f"Input: {str(row.fields[data.task.text])[:SHOWN]}\n"
        f"Answer: {render_example(data.task, template, row).target[:SHOWN]}"
        for row in rows
    )
    asked = Message("user", _REQUEST.format(rows=shown))
    name = f"{data.task.id}/instruction-{seed}"
    return Example(name, data.task.id, template.id, name, name, (asked,), target="")


def instruction_in(text: str) -> str:
    """Return the instruction in a model's answer; empty where it has none that can be used.

    >>> instruction_in('Instruction: "Say whether the review is good or bad."')
    'Say whether the review is good or bad.'
    >>> instruction_in("Good.")
    ''
    """
    first = next((part.strip() for part in text.split("\n\n") if part.strip()), "")
    words = re.sub(r"^[*#\s]*instructions?[*\s]*:[*\s]*", "", first, flags=re.IGNORECASE)
    words = " ".join(words.strip().strip("\"'`*").split())
    usable = words.isprintable() and not re.search(r"[{}\ufffd]", words)
    return words if usable and SHORTEST <= len(words) <= LONGEST else ""


def _in_front(template: Template, words: str, *, name: str) -> Instruction:
    origin = "the base model" if name.startswith(WRITTEN) else template.origin
    made = replace(
        template,
        id=f"{template.id}+{name}",
        prompt=f"{words}\n\n{template.prompt}",
        origin=origin,
    )
    return Instruction(made, words)


def by_id(instructions: Sequence[Instruction]) -> dict[str, str]:
    """Return template id -> the words that were added."""
    return {each.template.id: each.words for each in instructions}
