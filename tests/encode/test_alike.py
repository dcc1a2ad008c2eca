from __future__ import annotations

from instil.encode.alike import label_findings
from instil.types import SourceSpec, Task, Template


def test_labels_of_the_same_tokens_and_beginnings(tiny_chat):
    def told(*choices: str) -> list[str]:
        template = Template("t", "{{ text }}", "{{ label }}", choices=choices)
        source = SourceSpec("reviews.csv")
        task = Task(
            "reviews", "k", "c", "", "", source, "text", "label", (template, template), choices
        )
        return [finding.what for finding in label_findings(task, tiny_chat)]

    assert told("bad", "good") == []
    assert told("bad", "bad very") == ["template t: a label is the beginning of another one"]
    both = told("<|im_end|>", "< |im_end|>")
    assert both == ["template t: labels that are the same tokens, so that none can be told"]
