"""Labels that a model can hardly tell apart, or not at all: what only their tokens show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from instil.data.findings import EXAMPLES, Finding
from instil.types import Message, Task

if TYPE_CHECKING:
    from instil.encode.chat_format import ChatFormat


def label_findings(task: Task, chat: ChatFormat) -> tuple[Finding, ...]:
    """Look at the tokens of every template's choices."""
    findings: list[Finding] = []
    told: set[tuple[str, ...]] = set()
    for template in task.templates:
        plain_choices = tuple(choice for choice in template.choices if "{" not in choice)
        if not plain_choices or plain_choices in told:
            continue
        told.add(plain_choices)
        asked = chat.answered([Message("user", task.text)], plain_choices, stop=False)
        tokens = dict(zip(plain_choices, asked.completions, strict=True))
        pairs = [(a, b) for a in tokens for b in tokens if a != b]
        same = [(a, b) for a, b in pairs if tokens[a] == tokens[b] and a < b]
        where = f"template {template.id}"
        if same:
            examples = tuple(f"{a!r} and {b!r}" for a, b in same[:EXAMPLES])
            fix = "word them apart, with `choices` in the template"
            what = f"{where}: labels that are the same tokens, so that none can be told"
            findings.append(Finding(what, len(same), examples, fix))
        starts = [(a, b) for a, b in pairs if len(tokens[a]) < len(tokens[b])]
        starts = [(a, b) for a, b in starts if tokens[b][: len(tokens[a])] == tokens[a]]
        if starts:
            examples = tuple(f"{a!r} of {b!r}" for a, b in starts[:EXAMPLES])
            fix = "none needed: each is scored with its end; words that begin apart are surer still"
            what = f"{where}: a label is the beginning of another one"
            findings.append(Finding(what, len(starts), examples, fix))
    return tuple(findings)
