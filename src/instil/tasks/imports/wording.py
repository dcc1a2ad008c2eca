"""A phrasing out of another project's collection, before it is fitted to a task of ours."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wording:
    """One phrasing, its texts turned into Jinja2 where they were not."""

    name: str
    """As the collection calls it."""
    prompt: str
    """Jinja2 of what is asked; fields by the collection's own names."""
    target: str
    """Jinja2 of the answer; empty: the task's own."""
    answers: str = ""
    """Jinja2 of all answers, separated by `|||`, which `target` sees as `answer_choices`."""
    judged: bool = True
    """Whether it asks the collection's own question (and not another one about the row)."""
    origin: str = ""
    """Who wrote it."""
    licence: str = "not stated"
    """Under which licence."""


def literal(text: str) -> str:
    """Return Jinja2 that renders to `text`, whatever braces are in it.

    >>> literal("Good or bad?"), literal("a {{ b }}")
    ('Good or bad?', '{{ "a {{ b }}" }}')
    """
    return "{{ " + json.dumps(text, ensure_ascii=False) + " }}" if "{" in text else text
