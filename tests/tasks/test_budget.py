"""Templates that would run for ever or fill the memory: stopped, and soon."""

from __future__ import annotations

import time

import pytest
from jinja2 import UndefinedError

from instil.errors import TaskError
from instil.tasks import budget as budget_module
from instil.tasks.budget import BudgetedEnvironment, BudgetError, budget
from instil.tasks.template import evaluate, render

MANY = "{% for i in range(1000) %}{% for j in range(1000) %}x{% endfor %}{% endfor %}"
DOUBLED = "{{% set ns = a %}}{{% for i in range(60) %}}{{% set ns = {} %}}{{% endfor %}}"
FIELDS = {"a": "ab" * 50, "n": 10, "items": ["a", "b"], "long": "x" * 300_000, "many": list("ab")}

TASK_BOMBS = [
    MANY,
    "{% for i in range(1000) %}{% for j in range(1000) %}{{ a | upper }}{% endfor %}{% endfor %}",
    "{% for i in range(999) %}{% for j in range(9) %}" + "y" * 9000 + "{% endfor %}{% endfor %}",
    "{{ long | replace('x', long) }}",
    "{{ long | replace('', long) }}",
    "{{ long.replace('x', long) }}",
    "{{ long | list | join(long) }}",
    "{{ long.join(long | list) }}",
    "{{ long.translate({120: long}) }}",
    "{{ a.center(10 ** 9) }}",
    "{{ a.zfill(1000000000) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ a * 1000000000 }}",
    "{{ items * 1000000000 }}",
    "{{ (n).to_bytes(1000000000) }}",
    "{{ 10 ** 10 ** 10 }}",
    "{{ long | squeeze | upper | lower | title" + " | upper" * 400 + " }}",
    "{% set b = [items] %}" + "{% set b = [b, b] %}" * 40 + "{{ b | tojson }}",
    "{% set b = [items] %}" + "{% set b = b + b %}" * 40 + "{{ b | length }}",
    "{% set b = (1,) %}" + "{% set b = zip(b, b) + b %}" * 40 + "{{ b == b }}",
    "{% set b = n %}" + "{% set b = b * b %}" * 40 + "{{ b }}",
    "{% set b = a %}" + "{% set b = b ~ b %}" * 40 + "{{ b | length }}",
    "{% set b = a %}" + "{% set b = b + b %}" * 40 + "{{ b | length }}",
    "{% set b = a %}" + "{% set b %}{{ b }}{{ b }}{% endset %}" * 40 + "{{ b | length }}",
    "{% set b = {'a': 1} %}" + "{% set b = {'a': b, 'b': b} %}" * 40 + "{{ b | tojson }}",
    "{{ " + "(" * 3000 + "a" + ")" * 3000 + " }}",
    "{% if a %}" * 300 + "x" + "{% endif %}" * 300,
    "x" * 2_000_000,
]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the budget, so that the tests are quick; what is in it is the same."""
    for name in ("STEPS", "CHARACTERS", "_MOST_ITEMS"):
        monkeypatch.setattr(budget_module, name, getattr(budget_module, name) // 10)


def quickly(action):
    began = time.thread_time()
    try:
        return action()
    finally:
        assert time.thread_time() - began < 5


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("source", TASK_BOMBS, ids=lambda source: source[:40])
def test_a_template_of_a_task_is_stopped(source: str) -> None:
    with pytest.raises(TaskError) as caught:
        quickly(lambda: render(source, FIELDS, where="demo"))
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    "expression",
    [
        "long | replace('x', long)",
        "[items] | map('replace', 'a', long) | list | map('replace', 'x', long) | list",
        "a | list | map('replace', '', long * 2) | list",
        "10 ** 10 ** 10",
        "[[long] * 1000] * 1000 * 1000",
    ],
)
def test_an_expression_of_a_task_is_stopped(expression: str) -> None:
    with pytest.raises(TaskError):
        quickly(lambda: evaluate(expression, FIELDS, where="demo"))


CHAT_BOMBS = [
    "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
    "{% for i in range(9) %}{% for j in range(99999) %}" + "z" * 999 + "{% endfor %}{% endfor %}",
    "{% macro f(n) %}{{ f(n - 1) }}{{ f(n - 1) }}{% endmacro %}{{ f(20) }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
    "{% for a in [[[1]]] recursive %}{{ loop([a, a]) }}{% endfor %}",
    "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}"
    "{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x=['a']) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}"
    "{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x=9) %}{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}"
    "{% endfor %}{{ ns.x }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (1000000000, 1) }}",
    "{{ '%1000000000d' | format(1) }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ '{:{}}'.format(1, 1000000000) }}",
    "{{ '{a:{b}}'.format_map({'a': 1, 'b': 1000000000}) }}",
    "{{ 'a' * 1000000000 }}",
    "{{ 'a' | center(1000000000) }}",
    "{{ 'a' | indent(1000000000, true) }}",
    "{{ 'a'.ljust(1000000000) }}",
    "{{ [1] | batch(1000000000, 'x') | list }}",
    "{{ [1] | tojson(indent=1000000000) }}",
    "{{ lipsum(1000000000) }}",
    "{{ 2 ** 1000000000 }}",
    "{{ range(99999) | list | join('x' * 99999) }}",
]


@pytest.fixture
def environment() -> BudgetedEnvironment:
    made = BudgetedEnvironment(trim_blocks=True, lstrip_blocks=True)
    made.count_filters()
    return made


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("source", CHAT_BOMBS, ids=lambda source: source[:40])
def test_a_template_with_all_of_jinja_is_stopped(environment, source: str) -> None:
    def run() -> str:
        with budget():
            return environment.from_string(source).render()

    with pytest.raises((BudgetError, RecursionError, UndefinedError)):
        quickly(run)


def test_what_templates_do_is_not_changed(environment) -> None:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    source = (
        "{% for x in items %}{{ loop.index }}/{{ loop.length }}{{ loop.last }}{{ x ~ 1 }}"
        "{% else %}none{% endfor %}{% set a, b = 1, 'two' %}{{ [a, b] }}"
        "{{ {'k': (a, b)} | tojson }}{{ 'b' in items }}"
        "{{ '-' * 5 }}{{ items[::-1] | join(', ') }}{{ '%05d' % 7 }}{{ '{:>4}'.format(a) }}"
        "{{ items | map('upper') | list }}{% for k, v in {'z': 1}.items() %}{{ k }}{{ v }}"
        "{% endfor %}{% for x in items if x != 'a' recursive %}{{ x }}{% endfor %}"
        "{% macro m(x) %}<{{ x }}{{ caller() if caller }}>{% endmacro %}{{ m(1) }}"
        "{% call m(2) %}!{% endcall %}{% filter upper %}f{% endfilter %}{{ nope }}{{ 2 ** 10 }}"
    )
    with budget():
        made = environment.from_string(source).render(items=["a", "b"])
    assert made == ImmutableSandboxedEnvironment().from_string(source).render(items=["a", "b"])


def test_a_long_conversation_fits_the_budget(environment) -> None:
    turns = [{"role": "user", "content": "word " * 200} for _ in range(3000)]
    source = "{% for m in turns %}{{ '<' + m.role + '>' + m.content | trim + '</s>' }}{% endfor %}"
    with budget():
        made = environment.from_string(source).render(turns=turns)
    assert made.count("</s>") == 3000


def test_time_is_part_of_the_budget(environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_module, "SECONDS", 0.0)
    source = "{% for i in range(1000) %}{{ i }}{% endfor %}"
    with budget(), pytest.raises(BudgetError, match="longer than 0 seconds"):
        environment.from_string(source).render()
