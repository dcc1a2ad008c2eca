from __future__ import annotations

from dataclasses import replace

import pytest

from instil.data.findings import Finding, Level
from instil.data.templatecheck import check_templates
from instil.tasks.template import evaluate
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


def findings(*templates: Template, task: Task = TASK, rows=ROWS) -> list[Finding]:
    return list(check_templates(replace(task, templates=templates), rows))


def test_a_sound_task_has_no_findings():
    assert findings(*TASK.templates) == []


def test_rows_that_cannot_be_rendered_are_counted_with_their_places():
    bad = [replace(r, fields={**r.fields, "mood": "odd"}) if n % 4 == 0 else r
           for n, r in enumerate(ROWS)]  # fmt: skip
    (found,) = findings(*TASK.templates, rows=bad)
    assert (found.level, found.count, found.of) == (Level.ERROR, 5, 20)
    assert found.what == "the target is not among the choices"
    assert found.examples == ("films.csv:2", "films.csv:6", "films.csv:10")
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


def test_a_choice_in_a_script_without_blanks_is_a_leak_within_a_sentence():
    words = {"good": "正面", "bad": "负面"}
    prompt = "这是一条{{ {'good': '正面', 'bad': '负面'}[same] }}的评论 {{ text }}"
    target = "{{ {'good': '正面', 'bad': '负面'}[mood] }}"
    template = Template("zh", prompt, target, choices=tuple(words.values()))
    (found,) = findings(template)
    assert found.what == "the prompt holds the right choice and none of the others"


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


def shown(prompt: str, **changes) -> list[tuple[str, Level, int]]:
    """What is found of one template whose rows bring the derived fields with them."""
    task = replace(TASK, **changes)
    rows = [replace(row, fields={**row.fields, **_derived(task, row)}) for row in ROWS]
    template = replace(TASK.templates[0], prompt=prompt)
    found = check_templates(replace(task, templates=(template,)), rows)
    return [(f.what, f.level, f.count) for f in found]


def _derived(task: Task, row: Row) -> dict[str, object]:
    made = dict(row.fields)
    for name, expression in task.fields.items():
        made[name] = evaluate(expression, made, where=name)
    return made


WHOLE = ("the prompt shows the answer", Level.ERROR, 20)
CHANGES = ("the prompt is another one for another label", Level.ERROR, 20)


@pytest.mark.parametrize(
    "prompt",
    [
        "{% for k, v in row.items() if v is string %}{{ k }}: {{ v }}\n{% endfor %}",
        "{{ row.values() | select('string') | join(', ') }}",
        "{% for k in row %}{{ row[k] | upper if k != 'choices' else '' }} {% endfor %}",
        "{{ text }} {{ mood }}",
    ],
)
def test_the_label_in_the_prompt_is_found_by_a_mark_in_its_place(prompt: str):
    assert shown(prompt) == [WHOLE]


def test_the_label_is_found_through_derived_fields_conditions_and_the_system_text():
    fields = {"hint": "'It was ' ~ mood", "more": "hint ~ '!'", "all": "row.values() | join"}
    assert shown("{{ text }} {{ more }}", fields=fields) == [WHOLE]
    assert shown("{{ text }} {{ all }}", fields=fields) == [WHOLE]
    code = {"code": "{'good': 1, 'bad': 0}[mood]"}
    assert shown("{{ text }} {{ code }}", fields=code) == [CHANGES]
    assert shown("{{ text }}{% if mood == 'good' %}!{% endif %}") == [CHANGES]
    assert shown("{{ text }} {{ mood | length }}") == [CHANGES]
    system = replace(TASK.templates[0], system="Say {{ mood[0] }}.")
    assert [f.what for f in findings(system)] == [CHANGES[0]]


def test_a_label_that_some_prompts_depend_on_is_a_warning():
    template = Template("t", "{{ text }}{{ '!' if mood == 'odd' else '' }}", "{{ mood }}",
                        choices=("good", "bad", "odd"))  # fmt: skip
    (found,) = findings(template, task=replace(TASK, choices=template.choices))
    assert (found.what, found.level, found.count) == (CHANGES[0], Level.WARNING, 10)


@pytest.mark.parametrize(
    ("expression", "level"),
    [("same | upper | lower", Level.ERROR), ("'good' if stars | float > 3 else 'bad'", None)],
)
def test_the_column_that_the_label_is_computed_from_tells_it_too(expression: str, level):
    spelling = {"same": ("Good ", "BAD")}
    rows = [
        replace(row, fields={"text": row.fields["text"], "same": spelling["same"][n % 2],
                             "stars": str(2 + 2 * (n % 2 == 0))})
        for n, row in enumerate(ROWS)
    ]  # fmt: skip
    fields = {"mood": f"({expression}) | trim", "more": "'- ' ~ same ~ stars"}
    task = replace(TASK, fields=fields)
    rows = [replace(row, fields=_derived(task, row)) for row in rows]
    column = "same" if level else "stars"
    for prompt in (f"{{{{ text }}}} {{{{ {column} }}}}", "{{ text }} {{ more }}"):
        template = replace(TASK.templates[0], prompt=prompt)
        (found,) = findings(template, task=task, rows=rows)
        assert found.level is (level or Level.WARNING)
        assert found.what == (WHOLE[0] if level else "the prompt shows the column from which the "
                              "label is computed")  # fmt: skip
    own = replace(task, text="stars")  # the text itself is what the label is told by
    template = replace(TASK.templates[0], prompt="{{ stars }}")
    assert level or findings(template, task=own, rows=rows) == []


def test_what_only_looks_like_the_label_in_the_prompt_is_no_finding():
    gap = {"gap": "text | replace(mood, '___')"}
    assert shown("{{ gap }}", fields=gap) == []
    assert shown("{{ row['text'] }} {{ choices | join(' or ') }}") == []
    assert shown("{{ ['Well', 'So'] | choice }}: {{ gap }}", fields=gap) == []
    free = replace(TASK, choices=(), target="line", metric="rougeL", text="small",
                   fields={"small": "line | lower"})  # fmt: skip
    lines = [replace(row, fields={"line": row.fields["text"]}) for row in ROWS]
    rows = [replace(row, fields=_derived(free, row)) for row in lines]
    found = findings(Template("t", "Mend: {{ small }}", "{{ line }}"), task=free, rows=rows)
    assert [f.level for f in found] == [Level.WARNING]  # word for word, but for its capitals


@pytest.mark.parametrize("prompt", ["{{ text }} {{ n }}", "{{ text }} {{ names | join(', ') }}"])
def test_an_answer_that_is_a_number_or_a_list_is_found_too(prompt: str):
    rows = [replace(row, fields={"text": row.fields["text"], "n": n + 0.5, "names": ["a", "d"]})
            for n, row in enumerate(ROWS)]  # fmt: skip
    task = replace(TASK, choices=(), target="n", references="names", metric="exact_match")
    found = findings(Template("t", prompt, "{{ n }}"), task=task, rows=rows)
    assert [f.what for f in found] == [WHOLE[0]]
