from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instil.data.build import content_free, list_in_cell, pick_exemplars, render_example
from instil.errors import DataError, TaskError
from instil.types import Message, Role, Row, SourceSpec, Task, Template, ToolCall, TrainOn
from rendering import training_examples

PLAIN = Template("plain", " Good or bad? {{ text }}\n", "{{ label }}", choices=("bad", "good"))
YES_NO = Template(
    "yes_no",
    "Is it good ({{ choices | join(' / ') }})? {{ text }}",
    "{{ choices[1] if label == 'good' else choices[0] }}",
    choices=("no", "yes"),
    system="Answer in one word.",
)
WRITE = Template("write", "Write a {{ label }} review.", "{{ text }}", role=Role.INVERTED)
TASK = Task(
    id="reviews",
    kind="sentiment",
    cluster="sentiment",
    description="",
    licence="MIT",
    source=SourceSpec("reviews.csv"),
    text="text",
    target="label",
    templates=(PLAIN, YES_NO, WRITE),
    choices=("bad", "good"),
)


def rendered(task, rows, templates, **draw):
    return tuple(training_examples(task, rows, templates, **draw))


def make_row(row_id: str = "1", **fields: object) -> Row:
    content = {"text": f"Text {row_id}.", "label": "good"} | fields
    return Row("reviews", row_id, f"g{row_id}", content, place=f"reviews.csv:{row_id}")


def make_rows(n: int) -> list[Row]:
    return [make_row(str(i), label=("bad", "good")[i % 2]) for i in range(n)]


def test_an_answer_example_has_everything():
    example = render_example(TASK, PLAIN, make_row())
    assert example.id == "reviews/1/plain"
    assert (example.task, example.template, example.row) == ("reviews", "plain", "1")
    assert example.group == "g1"
    assert example.messages == (Message("user", "Good or bad? Text 1."),)
    assert example.target == "good"
    assert example.choices == ("bad", "good")
    assert example.references == ("good",)
    assert example.shots == 0


@pytest.mark.parametrize("template", ["plain", "write"])
def test_what_a_prompt_is_shortened_by_is_never_the_label(template: str):
    long = ("lost_or_stolen_card", "other")
    listed = replace(PLAIN, prompt="{{ choices | join(', ') }}? {{ text }}", choices=long)
    task = replace(TASK, choices=long, templates=(listed, WRITE))
    row = make_row(text="card gone", label="lost_or_stolen_card")
    asked = {"plain": listed, "write": WRITE}[template]
    assert render_example(task, asked, row).text == {"plain": "card gone", "write": ""}[template]


def test_a_prompt_that_holds_the_free_answer_of_another_question_is_shortened_by_it():
    task = replace(TASK, choices=(), metric="rougeL", target="summary")
    row = make_row(summary="a long summary of it")
    back = Template("back", "Write out: {{ summary }}", "{{ text }}", role=Role.INVERTED)
    assert render_example(task, back, row).text == "a long summary of it"


def test_choices_are_seen_by_the_template_and_system_comes_first():
    example = render_example(TASK, YES_NO, make_row())
    assert example.messages == (
        Message("system", "Answer in one word."),
        Message("user", "Is it good (no / yes)? Text 1."),
    )
    assert example.target == "yes"


def test_an_inverted_template_has_no_choices():
    example = render_example(TASK, WRITE, make_row())
    assert example.choices == ()
    assert example.target == "Text 1."


def test_exemplars_become_turns_of_the_same_template():
    shown = [make_row("2", label="bad"), make_row("3")]
    example = render_example(TASK, YES_NO, make_row(), exemplars=shown)
    assert [(m.role, m.content) for m in example.messages] == [
        ("system", "Answer in one word."),
        ("user", "Is it good (no / yes)? Text 2."),
        ("assistant", "no"),
        ("user", "Is it good (no / yes)? Text 3."),
        ("assistant", "yes"),
        ("user", "Is it good (no / yes)? Text 1."),
    ]
    assert example.shots == 2
    assert example.id == "reviews/1/yes_no"
    with pytest.raises(AssertionError):
        render_example(TASK, PLAIN, make_row(), exemplars=[make_row()])


def test_choices_may_come_from_the_row():
    template = Template(
        "pick",
        "{{ text }} {{ choices | join(', ') }}",
        "{{ right }}",
        choices=("{{ a }}", "{{ b }}"),
    )
    task = replace(TASK, choices=())
    row = make_row(a="  iron ", b="gold", right="gold")
    example = render_example(task, template, row)
    assert example.choices == ("iron", "gold")
    assert example.messages[0].content.endswith("iron, gold")
    with pytest.raises(DataError, match="two choices are the same"):
        render_example(task, template, make_row(a="gold", b="gold", right="gold"))


def test_a_column_named_choices_is_seen_where_the_template_has_none():
    template = Template("free", "{{ text }} {{ choices | join('/') }}", "{{ label }}")
    example = render_example(TASK, template, make_row(choices=["x", "y"]))
    assert example.messages[0].content == "Text 1. x/y"
    assert render_example(TASK, template, make_row()).messages[0].content == "Text 1."


def test_conditions_go_with_the_tasks_own_question():
    task = replace(TASK, choices=(), checks="conditions")
    template = Template("ask", "{{ text }}", "{{ label }}")
    row = make_row(conditions=["words = 1", " capitals "])
    assert render_example(task, template, row).checks == ("words = 1", "capitals")
    inverted = replace(template, role=Role.INVERTED)
    assert render_example(task, inverted, row).checks == ()
    assert render_example(TASK, PLAIN, make_row()).checks == ()


def test_references_hold_every_right_answer_once_target_first():
    task = replace(TASK, choices=(), references="answers")
    template = Template("ask", "{{ text }}", "{{ answers[0] }}")
    row = make_row(answers=["Paris", " Paris ", "City of Light", None, ""])
    assert render_example(task, template, row).references == ("Paris", "City of Light")
    other = replace(template, role=Role.AUXILIARY)
    assert render_example(task, other, row).references == ("Paris",)
    single = Template("ask", "{{ text }}", "{{ label }}")
    assert render_example(task, single, make_row(answers="fine")).references == ("good", "fine")
    for cell in ('["fine", "well"]', "['fine', 'well']"):
        found = render_example(task, single, make_row(answers=cell)).references
        assert found == ("good", "fine", "well"), "a list in a cell of a table"
    assert list_in_cell("['Paris' 'New York']") == ["Paris", "New York"], "as NumPy writes it"
    assert list_in_cell("[\"rock 'n' roll caf\\u00e9\"]") == ["rock 'n' roll caf\u00e9"]
    for cell in ("[1] a note", "[fine", '["a"] "b"', "[Music] it's on"):
        assert render_example(task, single, make_row(answers=cell)).references == ("good", cell)


@pytest.mark.parametrize("role", [Role.ANSWER, Role.AUXILIARY])
def test_a_target_outside_the_choices_names_the_row(role):
    template = replace(PLAIN, target="{{ label }}!", role=role)
    with pytest.raises(DataError, match="not among the choices") as caught:
        render_example(TASK, template, make_row())
    (problem,) = caught.value.problems
    assert problem.where == "reviews.csv:1: template reviews/plain"
    assert (problem.found, problem.allowed) == ("good!", "bad, good")


def test_choices_in_another_order_than_the_tasks_are_refused():
    template = replace(
        YES_NO, choices=("yes", "no"), target="{{ 'yes' if label == 'good' else 'no' }}"
    )
    with pytest.raises(TaskError, match="for the label 'good' the target is 'yes', not 'no'"):
        render_example(TASK, template, make_row())


def test_empty_prompt_and_target_are_refused_together():
    template = Template("empty", "{{ text }}", "{{ text }}", role=Role.INVERTED)
    with pytest.raises(DataError) as caught:
        render_example(TASK, template, make_row(text="  "))
    assert [problem.what for problem in caught.value.problems] == [
        "the prompt renders to an empty text",
        "the target renders to an empty text",
    ]


def test_unknown_field_is_a_task_error_with_the_place():
    with pytest.raises(TaskError, match=r"reviews\.csv:1"):
        render_example(TASK, replace(PLAIN, prompt="{{ txt }}"), make_row())


def test_all_templates_give_an_example_each():
    examples = rendered(TASK, make_rows(2), TASK.templates, per_row="all", seed=0, epoch=0)
    assert [example.id for example in examples] == [
        f"reviews/{row}/{template}" for row in "01" for template in ("plain", "yes_no", "write")
    ]


@settings(max_examples=30, deadline=None)
@given(st.integers(), st.integers(0, 9), st.randoms(use_true_random=False))
def test_the_draw_depends_on_seed_epoch_and_row_alone(seed, epoch, rng):
    rows = make_rows(12)
    options = {"per_row": "one", "seed": seed, "epoch": epoch}
    examples = rendered(TASK, rows, TASK.templates, **options)
    assert [example.row for example in examples] == [row.id for row in rows]
    shuffled = rng.sample(rows, k=8)
    again = rendered(TASK, shuffled, TASK.templates, **options)
    assert set(again) <= set(examples)


def test_templates_are_drawn_equally_and_anew_each_epoch():
    rows = make_rows(900)
    epochs = [
        rendered(TASK, rows, TASK.templates, per_row="one", seed=1, epoch=epoch) for epoch in (0, 1)
    ]
    for examples in epochs:
        counts = Counter(example.template for example in examples)
        assert all(240 < counts[name] < 360 for name in ("plain", "yes_no", "write"))
    same = sum(a.template == b.template for a, b in zip(*epochs, strict=True))
    assert 240 < same < 360
    other = rendered(TASK, rows, TASK.templates, per_row="one", seed=2, epoch=0)
    assert other != epochs[0]


def test_the_same_fault_of_several_rows_is_told_once():
    rows = [make_row(str(i), label="odd") for i in range(8)]
    with pytest.raises(DataError) as caught:
        rendered(TASK, rows, [PLAIN], per_row="one", seed=0, epoch=0)
    assert len(caught.value.problems) == 2
    assert caught.value.problems[-1].what == "and 7 more examples that cannot be rendered"


def test_per_row_is_one_or_all():
    with pytest.raises(ValueError, match="some"):
        rendered(TASK, make_rows(1), [PLAIN], per_row="some", seed=0, epoch=0)


@settings(max_examples=60, deadline=None)
@given(st.integers(4, 30), st.integers(0, 4), st.integers(), st.randoms(use_true_random=False))
def test_exemplars_are_balanced_and_independent_of_row_order(n, shots, seed, rng):
    rows = make_rows(n)
    picked = pick_exemplars(TASK, rows, shots=shots, seed=seed)
    assert len({row.id for row in picked}) == shots
    counts = Counter(row.fields["label"] for row in picked)
    assert abs(counts["bad"] - counts["good"]) <= 1
    shuffled = rng.sample(rows, k=n)
    assert pick_exemplars(TASK, shuffled, shots=shots, seed=seed) == picked


def test_exemplars_change_with_the_seed():
    rows = make_rows(50)
    picks = {tuple(r.id for r in pick_exemplars(TASK, rows, shots=5, seed=s)) for s in range(20)}
    assert len(picks) == 20


def test_short_exemplars_are_preferred():
    rows = [make_row(str(i), text="x" * (i + 1), label=("bad", "good")[i % 2]) for i in range(100)]
    for seed in range(10):
        picked = pick_exemplars(TASK, rows, shots=6, seed=seed)
        assert all(len(row.fields["text"]) <= 60 for row in picked)


def test_a_class_of_long_rows_shows_its_shortest():
    rows = [make_row(str(i), label="bad") for i in range(20)]
    rows += [make_row(f"long{i}", text="x" * (500 + i)) for i in range(3)]
    picked = pick_exemplars(TASK, rows, shots=2, seed=0)
    assert "long0" in {row.id for row in picked}


def test_exemplars_come_from_different_groups_where_they_can():
    rows = [replace(row, group=str(i // 4)) for i, row in enumerate(make_rows(40))]
    picked = pick_exemplars(TASK, rows, shots=5, seed=0)
    assert len({row.group for row in picked}) == 5


def test_exemplars_for_free_text_and_too_many_shots():
    free = replace(TASK, choices=())
    assert len(pick_exemplars(free, make_rows(5), shots=3, seed=0)) == 3
    with pytest.raises(DataError, match="too few training rows") as caught:
        pick_exemplars(free, make_rows(2), shots=5, seed=0)
    assert caught.value.problems[0].fix == "shots: [0, 2]"
    assert pick_exemplars(TASK, [], shots=0, seed=0) == ()


def test_content_free_replaces_the_text_alone():
    shown = [make_row("2", label="bad")]
    example = render_example(TASK, YES_NO, make_row(), exemplars=shown)
    blank = content_free(TASK, YES_NO, make_row(), exemplars=shown)
    assert blank.messages[:-1] == example.messages[:-1]
    assert blank.messages[-1].content == "Is it good (no / yes)? N/A"
    assert replace(blank, messages=example.messages) == example


def test_content_free_reaches_fields_derived_from_the_text():
    fields = {
        "opening": "text.split()[0]",
        "third": "text.split()[2]",
        "echo": "opening | upper",
        "label": "'good' if 'Text' in text else 'bad'",
    }
    task = replace(TASK, fields=fields)
    template = replace(PLAIN, prompt="{{ text }}|{{ opening }}|{{ echo }}|{{ third }}|{{ title }}")
    row = make_row(text="Text is here", opening="Text", third="here", echo="TEXT", title="Kept")
    blank = content_free(task, template, row)
    assert blank.messages[0].content == "N/A|N/A|N/A|N/A|Kept"
    assert blank.target == "good"


def test_draws_do_not_depend_on_the_hash_seed():
    code = """
from instil.data.build import pick_exemplars
from rendering import training_examples
from instil.types import Role, Row, SourceSpec, Task, Template
templates = tuple(Template(f"t{i}", "{{ text }}", "{{ label }}", Role.AUXILIARY) for i in range(5))
task = Task("t", "k", "c", "", "", SourceSpec("x"), "text", "label", templates, choices=("a", "b"))
rows = [Row("t", str(i), str(i), {"text": f"x {i}", "label": "ab"[i % 2]}) for i in range(30)]
print([e.id for e in training_examples(task, rows, templates, per_row="one", seed=3, epoch=1)])
print([row.id for row in pick_exemplars(task, rows, shots=5, seed=3)])
"""
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert len(outputs.pop()) > 100


# ---- conversations

TALK = Task(
    id="talk",
    kind="dialogue",
    cluster="dialogue",
    description="",
    licence="MIT",
    source=SourceSpec("talk.jsonl"),
    text="last_message",
    target="completion",
    templates=(
        Template("reply", "{{ last_message }}", "{{ completion }}", system="{{ system }}"),
        Template("back", "{{ completion }}", "{{ last_message }}", role=Role.INVERTED),
    ),
    metric="rougeL",
    history="history",
)


def talk(id: str = "1", **fields: object) -> Row:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": " Hello "}]
    base = {"last_message": "Bye", "completion": "Ciao", "history": turns, "system": "Be brief."}
    return Row("talk", id, id, {**base, **fields}, place=f"talk.jsonl:{id}")


def test_a_conversation_is_asked_with_its_turns():
    example = render_example(TALK, TALK.templates[0], talk())
    assert [(m.role, m.content) for m in example.messages] == [
        ("system", "Be brief."),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "Bye"),
    ]
    assert example.target == "Ciao"
    assert example.train_on is TrainOn.ALL
    last = replace(TALK, train_on=TrainOn.LAST)
    assert render_example(last, TALK.templates[0], talk()).train_on is TrainOn.LAST


def test_worked_examples_bring_their_turns_and_are_not_trained_on():
    shown = talk("2", last_message="And?", completion="Then.")
    example = render_example(TALK, TALK.templates[0], talk(), exemplars=[shown])
    said = [m.content for m in example.messages]
    assert said == ["Be brief.", "Hi", "Hello", "And?", "Then.", "Hi", "Hello", "Bye"]
    assert example.train_on is TrainOn.LAST


def test_the_way_back_has_no_history_and_an_empty_system_is_left_out():
    assert len(render_example(TALK, TALK.templates[1], talk()).messages) == 1
    example = render_example(TALK, TALK.templates[0], talk(system="", history=[]))
    assert [m.role for m in example.messages] == ["user"]
    assert example.train_on is TrainOn.LAST


@pytest.mark.parametrize("turns", ["Hi", [1], [{"role": "user"}], [{"role": 1, "content": "a"}]])
def test_a_history_that_is_no_list_of_turns(turns):
    with pytest.raises(DataError, match="not a list of turns"):
        render_example(TALK, TALK.templates[0], talk(history=turns))


@pytest.mark.parametrize("answers", [{"text": ["iron"]}, [["iron"]], [{"text": "iron"}]])
def test_references_that_are_no_texts(answers):
    task = replace(TASK, choices=(), references="answers", metric="token_f1")
    template = Template("free", "{{ text }}", "{{ label }}")
    with pytest.raises(DataError, match=r"reviews\.csv:1: task reviews: 'answers' is not a list"):
        render_example(task, template, make_row(answers=answers))


# ---- tools, calls, and answers that are context alone

CALLS = [{"name": "stock", "arguments": '{"of": "mugs"}'}]
STOCK = ToolCall("stock", '{"of": "mugs"}')
SAID = '{"name": "stock", "arguments": {"of": "mugs"}}'
SCHEMA = {"type": "function", "function": {"name": "stock", "parameters": {"type": "object"}}}
TOOLS = replace(TALK, tools="tools", calls="completion_calls")
ASKED = [
    {"role": "user", "content": "Mugs?"},
    {"role": "assistant", "content": "", "tool_calls": CALLS},
    {"role": "tool", "content": None, "name": "stock"},
]


def test_a_call_is_the_answer_and_its_text_the_reference():
    row = talk(history=[], completion=SAID, completion_calls=CALLS, tools=[SCHEMA])
    example = render_example(TOOLS, TOOLS.templates[0], row)
    assert (example.target, example.target_calls) == ("", (STOCK,))
    assert example.references == (SAID,)
    assert [json.loads(each) for each in example.tools] == [SCHEMA]
    both = talk(completion=f"Let me look.\n{SAID}", completion_calls=CALLS, tools="")
    example = render_example(TOOLS, TOOLS.templates[0], both)
    assert (example.target, example.target_calls) == ("Let me look.", (STOCK,))
    assert example.tools == ()


def test_an_answer_that_calls_nothing_has_no_calls():
    example = render_example(TOOLS, TOOLS.templates[0], talk())
    assert (example.target, example.target_calls, example.tools) == ("Ciao", (), ())


def test_a_prompt_stands_in_the_tools_turn_that_the_history_ends_with():
    row = talk(history=ASKED, last_message="12", completion="Twelve.")
    example = render_example(TOOLS, TOOLS.templates[0], row)
    assert example.messages[1:] == (
        Message("user", "Mugs?"),
        Message("assistant", "", tool_calls=(STOCK,)),
        Message("tool", "12", name="stock"),
    )
    assert content_free(TOOLS, TOOLS.templates[0], row).messages[-1] == Message(
        "tool", "N/A", name="stock"
    )


def test_worked_examples_bring_their_calls():
    shown = talk("2", history=[], completion=SAID, completion_calls=CALLS)
    example = render_example(TOOLS, TOOLS.templates[0], talk(history=[]), exemplars=[shown])
    assert example.messages[2] == Message("assistant", "", tool_calls=(STOCK,))


def test_the_way_back_has_no_tools():
    row = talk(completion=SAID, completion_calls=CALLS, tools=[SCHEMA])
    example = render_example(TOOLS, TOOLS.templates[1], row)
    assert (example.tools, example.target_calls) == ((), ())
    assert example.messages[-1].content == SAID


def test_answers_that_are_empty_unasked_or_of_weight_0_are_not_trained_on():
    turns = [
        {"role": "assistant", "content": "Welcome."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": " "},
        {"role": "assistant", "content": "Hello", "weight": 0},
        {"role": "assistant", "content": "Hello"},
    ]
    example = render_example(TALK, TALK.templates[0], talk(history=turns, system=""))
    trained = [m.trained for m in example.messages if m.role == "assistant"]
    assert trained == [False, False, False, True]


def test_tools_that_are_no_schemas_name_the_row():
    with pytest.raises(DataError, match=r"talk\.jsonl:1"):
        render_example(TOOLS, TOOLS.templates[0], talk(tools=["stock"]))
