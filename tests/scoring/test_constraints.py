from __future__ import annotations

import pytest

from instil.evaluate.metrics import score
from instil.scoring.constraints import holds
from instil.types import Example, Message, Prediction


@pytest.mark.parametrize(
    ("condition", "right", "wrong"),
    [
        ("words = 3", "Tea is hot.", "Tea is"),
        ("words <= 2", "Tea is", "Tea is hot"),
        ("words >= 3", "Tea - is - hot", "Tea - hot"),
        ("items = 2", "plum, red pear", "plum, , pear"),
        ("items = 1", "plum", "plum, pear"),
        ("lines = 2", "a\n\nb\n", "a b"),
        ("capitals", "TEA, 2 CUPS!", "TEa"),
        ("capitals", "A", "12"),
        ("lower case", "tea é", "Tea"),
        ('starts with "the"', "The tea", "A tea"),
        ('ends with "!"', "Tea! ", "Tea."),
        ('contains "tea"', "Hot Tea", "Hot"),
        ('avoids "e"', "Hot milk", "Hot tea"),
        ('equals "fig fig"', " fig fig\n", "Fig fig"),
        ('each starts with "p"', "plum, Pear.", "plum, fig"),
        ('each starts with "p"', "plum pear", "plum fig"),
        ('each among "fig, red plum"', "Red plum, fig.", "fig, pear"),
        ("all different", "fig, plum", "fig, Fig"),
        ("in order", "fig, plum", "plum, fig"),
        ("json", '{"a": 1}', "{a: 1}"),
        ("json", "[[1]]", "[" * 100_000),
    ],
)
def test_a_condition_tells_right_from_wrong(condition: str, right: str, wrong: str) -> None:
    assert holds(condition, right)
    assert not holds(condition, wrong)


@pytest.mark.parametrize(
    "condition",
    [
        *("words = 1", "items = 1", "words <= 5", "items <= 2", "lines <= 1", "words = 0"),
        *("capitals", 'avoids "e"', "all different", "in order", "json"),
    ],
)
def test_an_empty_answer_meets_nothing(condition: str) -> None:
    assert not holds(condition, "  ")


def test_a_list_with_an_empty_item_has_no_count() -> None:
    assert not holds("items <= 3", "a, b,, c, d, e")
    assert not holds("items <= 2", "a, b,")
    assert not holds("items >= 1", "a, b,")


def test_an_answer_must_meet_all_conditions() -> None:
    assert scored("fig, plum", "items = 2", "in order").value == 1.0
    assert scored("plum, fig", "items = 2", "in order").value == 0.0
    assert scored("Sure! fig, plum", "items = 2", 'each among "fig, plum"').value == 0.0


def test_an_unknown_condition_or_none_is_not_scored_and_says_why() -> None:
    assert scored("x", "rhymes").value is None
    assert "rhymes" in scored("x", "rhymes").why
    assert "no condition" in scored("x").why


def scored(answer: str, *checks: str):
    example = Example(
        "t/r/p", "t", "p", "r", "r", (Message("user", "?"),), "fig, plum", checks=checks
    )
    return score(example, Prediction("t/r/p", answer), metric="constraint")


@pytest.mark.parametrize(
    ("condition", "answer"),
    [
        ("items = 3", "苹果\uff0c梨\u3001香蕉"),
        ("items = 2", "تفاح\u060c موز"),
        ("words = 4", "我爱北京"),
        ("words = 2", "你好。"),
        ("words = 2", "a \u2014  b"),
        ('contains "caf\u00e9"', "un cafe\u0301 noir"),
        ("in order", "\u00e4pfel, birne"),
        ('each among "梨, 苹果"', "苹果\u3001梨。"),
    ],
)
def test_other_scripts(condition: str, answer: str) -> None:
    assert holds(condition, answer)


@pytest.mark.parametrize(
    ("condition", "answer"), [("words <= 3", "我爱北京天安门"), ("all different", "我, 我。")]
)
def test_other_scripts_that_do_not_meet_it(condition: str, answer: str) -> None:
    assert not holds(condition, answer)
