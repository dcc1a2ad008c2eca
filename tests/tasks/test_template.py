from __future__ import annotations

import doctest
from dataclasses import replace

import pytest

from instil.errors import TaskError
from instil.tasks import sandbox
from instil.tasks import template as template_module
from instil.tasks.sandbox import FILTERS
from instil.tasks.template import evaluate, expression_names, flaws, names, render
from instil.types import Role, SourceSpec, Task, Template

FIELDS = {"text": "It works.", "label": "good", "Long Name": "x", "items": [1, 2], "gone": None}

PLAIN = Template(id="plain", prompt="Good? {{ text }}", target="{{ label }}", choices=("yes", "no"))


def make_task(**changes: object) -> Task:
    task = Task(
        id="demo",
        kind="sentiment",
        cluster="sentiment",
        description="",
        licence="",
        source=SourceSpec(uri="a.csv", columns=("text", "label")),
        text="text",
        target="label",
        templates=(PLAIN,),
        choices=("yes", "no"),
    )
    return replace(task, **changes)  # type: ignore[arg-type]


def whats(template: Template, task: Task | None = None) -> list[str]:
    return [flaw.problem.what for flaw in flaws(template, task or make_task())]


def failure(source: str, fields: dict[str, object] | None = None) -> TaskError:
    with pytest.raises(TaskError) as caught:
        render(source, FIELDS if fields is None else fields, where="demo/1/plain")
    return caught.value


def test_docstring_examples() -> None:
    result = doctest.testmod(template_module)
    assert result.attempted == 4
    assert result.failed == 0


# Rendering


def test_render_strips_the_ends_and_drops_lines_that_hold_only_a_tag() -> None:
    source = "\n{% if label == 'good' %}\n  Yes: {{ text }}\n{% endif %}\nEnd \n"
    assert render(source, FIELDS, where="") == "Yes: It works.\nEnd"


def test_render_keeps_the_text_as_it_is() -> None:
    text = 'a <b> & "c" {{ text }} {% x %}'
    assert render("{{ text }}", {"text": text}, where="") == text


def test_render_reaches_columns_that_are_no_jinja_names() -> None:
    assert render('{{ row["Long Name"] }}{{ row.label }}', FIELDS, where="") == "xgood"


def test_a_field_may_be_called_row_or_range() -> None:
    assert render("{{ row }} {{ range }}", {"row": 1, "range": 2}, where="") == "1 2"


def test_an_unknown_field_names_the_place_the_fields_and_the_nearest() -> None:
    error = failure("{{ txet }} {{ lable }}")
    assert [problem.nearest for problem in error.problems] == ["label", "text"]
    assert error.problems[0].where == "demo/1/plain"
    assert "Long Name" in error.problems[0].allowed
    assert "unknown field 'lable'" in str(error)


def test_a_field_without_a_value_is_an_error() -> None:
    assert "None" in str(failure("{{ gone }}"))


def test_a_field_without_a_value_may_be_given_one() -> None:
    assert render("{{ gone or 'nothing' }}", FIELDS, where="") == "nothing"


@pytest.mark.parametrize("source", ["{{ text", "{% if %}", "{{ text | nofilter }}", "{% oops %}"])
def test_syntax_errors_tell_the_line(source: str) -> None:
    error = failure("Line one\n" + source)
    assert error.problems[0].found.startswith(source[:5])


def test_an_unknown_filter_gets_the_nearest() -> None:
    assert failure("{{ text | uper }}").problems[0].nearest == "upper"


# The fence

INTERNALS = [
    "{{ ''.__class__ }}",
    "{{ ''.__class__.__mro__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ text.__init__.__globals__ }}",
    "{{ text.upper.__self__ }}",
    "{{ text['__class__'] }}",
    "{{ text | attr('__class__') }}",
    "{{ [text] | map(attribute='__class__') | list }}",
    "{{ row.__class__ }}",
    "{{ row['__class__'] }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ range.__globals__ }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ lipsum.__globals__ }}",
    "{{ namespace() }}",
    "{{ dict(a=1) }}",
    "{{ '{0.__class__}'.format(text) }}",
    "{{ '{0.__class__}' | format(text) }}",
    "{{ '{a.__class__}'.format_map({'a': text}) }}",
    "{{ text.format }}",
    "{% set f = text.format %}{{ f('x') }}",
    "{{ text.encode('utf-16') }}",
    "{{ items.append(3) }}",
    "{{ row.update({'a': 1}) }}",
    "{% import 'os' as os %}",
    "{% include '/etc/passwd' %}",
    "{% extends 'a' %}",
    "{% from 'a' import b %}",
    "{{ __import__('os') }}",
    "{{ open('/etc/passwd') }}",
    "{% for i in items %}{{ loop.__class__ }}{% endfor %}",
]


@pytest.mark.parametrize("source", INTERNALS)
def test_python_internals_stay_out_of_reach(source: str) -> None:
    assert failure(source).problems[0].where == "demo/1/plain"
    assert FIELDS["items"] == [1, 2]


BOMBS = [
    "{{ range(10**9) }}",
    "{{ range(1000000000) | sum }}",
    "{{ range(100000000000000000000) | sum }}",
    "{% for i in range(1001) %}x{% endfor %}",
    "{{ 'x' * 1000000000 }}",
    "{{ [1] * 1000000000 }}",
    "{{ 9 ** 9 ** 9 ** 9 }}",
    "{{ '%999999999d' % 1 }}",
    "{{ '{:>999999999}'.format(1) }}",
    "{{ 'x'.ljust(999999999) }}",
    "{{ 'x' | center(999999999) }}",
    "{{ (1).to_bytes(999999999) }}",
    "{{ 1 | round(999999999, 'ceil') }}",
    "{% for a in items %}{% for b in items %}{% for c in items %}{% endfor %}{% endfor %}"
    "{% endfor %}",
    "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "{% for a in [items] recursive %}{{ loop(a) }}{% endfor %}",
    "{% block a %}{% endblock %}",
]


@pytest.mark.parametrize("source", BOMBS)
@pytest.mark.timeout(5)
def test_bombs_do_not_go_off(source: str) -> None:
    failure(source)


@pytest.mark.parametrize("source", [s[3:-3] for s in INTERNALS + BOMBS if s.startswith("{{")])
@pytest.mark.timeout(5)
def test_expressions_stand_behind_the_same_fence(source: str) -> None:
    with pytest.raises(TaskError):
        evaluate(source, FIELDS, where="demo")


def test_short_loops_work() -> None:
    source = "{% for i in range(3) %}{% for j in items %}{{ i * j }}{% endfor %}{% endfor %}"
    assert render(source, FIELDS, where="") == "001224"


# Expressions


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("text | upper", "IT WORKS."),
        ("items | map('string') | list", ["1", "2"]),
        ("items | map('string')", ["1", "2"]),  # lazy results come as lists
        ("gone is none", True),
        ("missing is defined", False),
        ("'a' if label == 'good' else 'b'", "a"),
        ("text.split()[0]", "It"),
        ("[items[-1], 5] | min", 2),
        ("7 // 2 + 7 % 2 + 2 * 3", 10),
        ("'-1.5' | float < 0", True),
        ("' 3.9' | int", 3),
        ("'3.14159' | round(2)", 3.14),
        ("'a \n  b ' | squeeze", "a b"),
        ("'one two  three' | first_words(2)", "one two"),
        ("'one' | first_words(2)", "one"),
        ("'It broke. Twice!' | first_sentence", "It broke."),
        ("'今天很好。明天也好。' | first_sentence", "今天很好。"),
        ("'\u0425\u043e. \u041f\u043b.' | first_sentence", "\u0425\u043e."),
        ("'Das ist gut. Über alles.' | first_sentence", "Das ist gut."),
        ("'यह अच्छा है। वह भी।' | first_sentence", "यह अच्छा है।"),
        ("'3.14 ist pi' | first_sentence", "3.14 ist pi"),
        ("'我爱北京 and you' | first_words(5)", "我爱北京 and"),
        ("'one two three' | first_words(-1)", "one two"),
        ("'He said \"Go.\" Then left' | first_sentence", 'He said "Go."'),
        ("'About 1.5 in. of it' | first_sentence", "About 1.5 in. of it"),
        ("'a &amp;#38; b &lt;' | unescape", "a & b <"),
        (
            "['Al', 'Lee', 'in', 'Oslo', 'EU'] | spans(['B-P', 'I-P', 'O', 'L', 'I-O']) | list",
            [
                {"text": "Al Lee", "type": "P"},
                {"text": "Oslo", "type": "L"},
                {"text": "EU", "type": "O"},
            ],
        ),
        (
            "['Al', 'Bo', 'ran'] | spans([1, 1, 0], ['O', 'B-P']) | map(attribute='text')",
            ["Al", "Bo"],
        ),
        ("'Â£5' | mend_encoding", "£5"),
        ("'£5' | mend_encoding", "£5"),
        ("'日本' | mend_encoding", "日本"),
    ],
)
def test_evaluate(expression: str, value: object) -> None:
    assert evaluate(expression, FIELDS, where="") == value


def test_a_field_is_looked_up_unless_its_name_means_something_else():
    assert evaluate("words", {"words": ("a",)}, where="") == ("a",)
    assert evaluate("true", {"true": "no"}, where="") is True
    with pytest.raises(TaskError, match="syntax"):
        evaluate("not", {"not": "a"}, where="")


@pytest.mark.parametrize(
    ("expression", "part"),
    [
        ("'four' | float", "'four' is not a number"),
        ("'' | int", "'' is not a number"),
        ("'nan' | float", "not a finite number"),
        ("1 / 0", "division by zero"),
        ("text + 1", "cannot be computed"),
        ("missing", "unknown field 'missing'"),
        ("items[7]", "no element 7"),
        ("text }} {{ label", "syntax"),
        ("", "syntax"),
    ],
)
def test_evaluate_tells_what_went_wrong(expression: str, part: str) -> None:
    with pytest.raises(TaskError, match="demo") as caught:
        evaluate(expression, FIELDS, where="demo")
    assert part in str(caught.value)


NESTED = {"turns": [{"role": "user"}], "meta": {"a": "<b>"}, "raw": b"x", "words": ["a", "b"]}


@pytest.mark.parametrize(
    ("source", "field", "kind"),
    [
        ("{{ turns }}", "turns", "list"),
        ("{{ meta }}", "meta", "mapping"),
        ("{{ raw }}", "raw", "bytes"),
        ("{{ 'a: ' ~ turns }}", "turns", "list"),
        ("{{ turns | string }}", "turns", "list"),
        ("{{ turns | trim }}", "turns", "list"),
        ("{{ meta | squeeze }}", "meta", "mapping"),
        ("{{ row['turns'] }}", "turns", "list"),
    ],
)
def test_a_list_or_a_mapping_is_no_text(source: str, field: str, kind: str) -> None:
    with pytest.raises(TaskError) as caught:
        render(source, NESTED, where="rows.jsonl:3")
    (problem,) = caught.value.problems
    assert f"the field {field!r} is a " in problem.what
    assert kind in problem.what
    assert f"{field} | tojson" in problem.fix
    assert problem.where == "rows.jsonl:3"


@pytest.mark.parametrize(
    "source", ["{{ [[1]] | join }}", "{{ words | map('upper') }}", "{{ {'a': 1} ~ '' }}"]
)
def test_no_expression_is_written_as_python_writes_it(source: str) -> None:
    with pytest.raises(TaskError, match=r"an expression is a (list|mapping)"):
        render(source, NESTED, where="")


def test_an_expression_of_a_derived_field_joins_no_list_to_a_text() -> None:
    with pytest.raises(TaskError, match="'turns' is a list"):
        evaluate("'a' ~ turns", NESTED, where="")
    assert evaluate("turns", NESTED, where="") == NESTED["turns"]


def test_lists_are_written_as_json_or_joined() -> None:
    with pytest.raises(TaskError, match=r'words \| join\(", "\)'):
        render("{{ words }}", NESTED, where="")
    assert render("{{ meta | tojson }}", NESTED, where="") == '{"a": "<b>"}'
    assert render("{{ turns | tojson }}", NESTED, where="") == '[{"role": "user"}]'
    assert render("{{ words | join(', ') ~ '.' }}", NESTED, where="") == "a, b."
    assert render("{{ turns | join(attribute='role') }}", NESTED, where="") == "user"
    assert render("{{ words | length }} {{ words[0] | upper }}", NESTED, where="") == "2 A"


def test_names() -> None:
    source = '{% for x in items %}{{ x }}{{ loop.index }}{% endfor %}{{ row["A b"] }}{{ row.c }}'
    assert names(source) == {"items", "A b", "c"}
    assert names("{{ row }}{{ row.c }}") == {"row", "c"}
    assert names("{{ range(3) | list }}") == frozenset()


def test_expression_names() -> None:
    assert expression_names('-score > 0 and {"a": x}["a"]') == {"score", "x"}


def test_filters_that_reach_too_far_are_not_there() -> None:
    assert not {"attr", "format", "random", "center", "indent", "pprint"} & {*FILTERS}


# Checks


def test_a_good_template_has_no_problem() -> None:
    assert flaws(PLAIN, make_task()) == []


def test_a_flaw_names_its_part() -> None:
    flaw = flaws(replace(PLAIN, prompt=""), make_task())[0]
    assert (flaw.part, flaw.problem.what) == ("prompt", "empty prompt")


def test_all_broken_parts_are_told_at_once() -> None:
    template = replace(PLAIN, prompt="{{ txet }}", target="{{ label", system="{{ sys }}")
    assert len(flaws(template, make_task())) == 3


def test_unknown_fields_are_found_where_the_columns_are_known() -> None:
    template = replace(PLAIN, prompt="{{ txet }}")
    assert flaws(template, make_task())[0].problem.nearest == "text"
    unknown_columns = make_task(source=SourceSpec(uri="a.csv"))
    assert flaws(template, unknown_columns) == []
    folder = make_task(source=SourceSpec(uri="a/", format="folder"), fields={"label": "folder"})
    assert whats(template, folder) == ["unknown field 'txet'"]


@pytest.mark.parametrize("prompt", ["{{ text }} {{ label }}", '{{ text }} {{ row["label"] }}'])
def test_a_prompt_that_shows_the_answer_is_refused(prompt: str) -> None:
    assert whats(replace(PLAIN, prompt=prompt)) == ["the prompt shows 'label', which is the answer"]


def test_an_auxiliary_prompt_shows_neither_its_own_answer_nor_the_tasks() -> None:
    task = make_task(fields={"stars": "3"})
    template = replace(PLAIN, role=Role.AUXILIARY, target="{{ stars }}", choices=())
    assert whats(replace(template, prompt="{{ text }}{{ stars }}"), task) == [
        "the prompt shows 'stars', which is the answer"
    ]
    assert len(whats(replace(template, prompt="{{ text }}{{ label }}"), task)) == 1


def test_an_inverted_prompt_may_show_the_label() -> None:
    template = Template("back", prompt="{{ label }}", target="{{ text }}", role=Role.INVERTED)
    assert whats(template) == []


def test_a_prompt_without_a_field_is_refused() -> None:
    assert "uses no field" in whats(replace(PLAIN, prompt="Good or bad?"))[0]


def test_the_whole_row_is_refused() -> None:
    assert "whole row" in whats(replace(PLAIN, prompt="{{ text }} {{ row }}"))[0]
    for whole in (
        "{% for k, v in row.items() %}{{ k }}: {{ v }}{% endfor %}",
        "{{ row.values() | join }}",
        '{% set key = "label" %}{{ row[key] }}',
        "{% for k in row.keys() %}{{ row.get(k) }}{% endfor %}",
        "{% set all = row %}{{ all.label }}",
    ):
        for task in (make_task(), make_task(source=SourceSpec("a.csv"))):
            assert any("whole row" in what for what in whats(replace(PLAIN, prompt=whole), task))
    assert whats(replace(PLAIN, prompt='{{ row.get("text", "") }}')) == []
    assert "shows 'label'" in whats(replace(PLAIN, prompt='{{ text }}{{ row.get("label") }}'))[0]


def test_choices_match_the_tasks_in_number_and_differ() -> None:
    assert whats(replace(PLAIN, choices=("a", "b", "c"))) == ["3 choices for a task with 2"]
    assert whats(replace(PLAIN, choices=())) == ["0 choices for a task with 2"]
    assert "each different" in whats(replace(PLAIN, choices=("yes", "yes")))[0]


def test_the_target_of_each_label_is_the_choice_in_its_place() -> None:
    swapped = replace(PLAIN, choices=("no", "yes"))
    assert whats(swapped) == [
        "for 'yes' the target is 'yes', but its choice is 'no'",
        "for 'no' the target is 'no', but its choice is 'yes'",
    ]
    worded = replace(PLAIN, target="{{ 'good' if label == 'yes' else 'bad' }}")
    assert whats(replace(worded, choices=("good", "bad"))) == []
    assert len(whats(replace(worded, choices=("bad", "good")))) == 2


def test_choices_may_come_from_the_row() -> None:
    task = make_task(source=SourceSpec(uri="a.csv", columns=("text", "label", "a", "b")))
    target = "{{ choices[['yes', 'no'].index(label)] }}"
    assert whats(replace(PLAIN, target=target, choices=("{{ a }}", "{{ b }}")), task) == []
    nested = replace(PLAIN, target=target, choices=("{{ choices }}", "{{ b }}"))
    assert whats(nested, task) == ["unknown field 'choices'"]


def test_a_text_without_expressions_renders_as_jinja_would():
    for source in ("positive", " two  blanks \n", "a\r\nb\n\n", "50 % } #}"):
        assert sandbox.rendered(source, {}) == sandbox._ENV.from_string(source).render()
