from __future__ import annotations

from dataclasses import replace

from instil.data.templatecheck import Level, TemplateFinding, check_templates
from instil.types import Role, Row, SourceSpec, Task, Template

TASK = Task(
    "films", "k", "films", "", "", SourceSpec("films.csv"), "text", "mood",
    (Template("plain", "Good or bad? {{ text }}", "{{ mood }}", choices=("good", "bad")),),
    choices=("good", "bad"),
)  # fmt: skip
ROWS = [
    Row("films", str(n), str(n), {"text": f"Text {n}.", "mood": ("good", "bad")[n % 2],
        "same": ("good", "bad")[n % 2], "hint": f"Text {n}."}, f"films.csv:{n + 2}")
    for n in range(20)
]  # fmt: skip


def findings(*templates: Template, task: Task = TASK, rows=ROWS) -> list[TemplateFinding]:
    return list(check_templates(replace(task, templates=templates), rows))


def test_a_sound_task_has_no_findings():
    assert findings(*TASK.templates) == []


def test_rows_that_cannot_be_rendered_are_counted_with_their_places():
    bad = [replace(r, fields={**r.fields, "mood": "odd"}) if n % 4 == 0 else r
           for n, r in enumerate(ROWS)]  # fmt: skip
    (found,) = findings(*TASK.templates, rows=bad)
    assert (found.level, found.count, found.of) == (Level.ERROR, 5, 20)
    assert found.what == "the target is not among the choices"
    assert found.places == ("films.csv:2", "films.csv:6", "films.csv:10")
    assert (found.found, found.allowed) == ("odd", "good, bad")


def test_unknown_fields_and_empty_prompts():
    template = replace(TASK.templates[0], prompt="{{ txet }}")
    (found,) = findings(template)
    assert found.what == "unknown field 'txet'"
    assert found.count == 20
    empty = replace(TASK.templates[0], prompt="{% if text == 'Text 3.' %}{{ text }}{% endif %}")
    found = findings(empty)[0]
    assert (found.what, found.count) == ("the prompt renders to an empty text", 19)


def test_the_right_choice_alone_in_the_prompt_is_a_leak():
    leaky = replace(TASK.templates[0], prompt="It is {{ same }}, or what? {{ text }}")
    (found,) = findings(leaky)
    assert found.what == "the prompt holds the right choice and none of the others"
    assert (found.level, found.count) == (Level.ERROR, 20)
    part_of_a_word = replace(leaky, prompt="Goodness, badly? {{ text }}")
    assert findings(part_of_a_word) == []


def test_a_copied_answer_is_an_error_as_a_field_and_a_warning_as_text():
    free = replace(TASK, choices=(), target="text", metric="rougeL")
    copied = Template("copied", "Say it: {{ hint }}", "{{ text }}")
    (found,) = findings(copied, task=free)
    assert (found.level, found.count) == (Level.ERROR, 20)
    within = Template("within", "Say it: {{ hint }}", "{{ text | replace('.', '') }}")
    (found,) = findings(within, task=free)
    assert found.level is Level.WARNING
    assert "word for word" in found.what


def test_templates_that_render_alike_and_prompts_without_the_row():
    plain = TASK.templates[0]
    other = replace(plain, id="other", prompt="{{ 'Good or bad?' }} {{ hint }}")
    system = replace(plain, id="system", system="You judge films.")
    fixed = Template("fixed", "Write.", "{{ text }}", Role.AUXILIARY)
    found = findings(plain, system, other, fixed)
    assert [(f.template, f.level) for f in found] == [
        ("fixed", Level.WARNING),
        ("other", Level.WARNING),
    ]
    assert "'plain'" in found[1].what
