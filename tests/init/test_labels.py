from __future__ import annotations

from collections.abc import Iterable

import pytest

from instil.data.columns import Column
from instil.data.registry import plain
from instil.init.labels import Labels, class_labels, is_filled, rating_labels
from instil.tasks.template import evaluate, quoted, render, spelt


def column(values: Iterable[object], name: str = "the value") -> Column:
    found = Column(name)
    for value in values:
        found.add(value)
    return found


def label_of(labels: Labels, value: object, name: str = "the value") -> str | None:
    """What a row with this value gets by the task file's expressions; None if it is left out."""
    fields: dict[str, object] = {name: value}
    if labels.expression:
        fields["made"] = evaluate(labels.expression, fields, where="")
    condition = " and ".join(f"({each})" for each in labels.where)
    if condition and not evaluate(condition, fields, where=""):
        return None
    return plain(fields["made"] if labels.expression else value)


def test_text_labels_are_in_alphabetical_order() -> None:
    labels = class_labels(column(["b", "a", "C"] * 6), field="made")
    assert labels.choices == ("a", "b", "C")
    assert not labels.expression
    assert not labels.where


def test_labels_that_differ_in_case_are_one() -> None:
    values = ["Good", "good", "BAD", "bad", " bad "] * 5 + [None, ""]
    labels = class_labels(column(values), field="made")
    assert labels.choices == ("bad", "good")
    assert labels.counts == {"bad": 15, "good": 10}
    assert [label_of(labels, value) for value in values[:5]] == [
        "good",
        "good",
        "bad",
        "bad",
        "bad",
    ]
    assert label_of(labels, None) is None
    assert label_of(labels, "  ") is None


def test_labels_that_differ_in_what_cannot_be_seen_are_one() -> None:
    values = ["caf\u00e9", "cafe\u0301", "caf\u00e9\u200b", "tea  room", "tea\u00a0room"] * 5
    labels = class_labels(column(values), field="made")
    assert labels.counts == {"caf\u00e9": 15, "tea room": 10}
    assert labels.notes == (
        "labels that differ in blanks, Unicode form or invisible characters are taken as one",
    )
    assert {label_of(labels, value) for value in values} == {"caf\u00e9", "tea room"}
    both = class_labels(column([*values, "Caf\u00e9"]), field="made")
    assert label_of(both, "CAFE\u0301") == "caf\u00e9"


def test_rare_labels_are_left_out() -> None:
    labels = class_labels(column(["a"] * 9 + ["b"] * 9 + ["'odd' \"one\"\n{{x}}"]), field="made")
    assert labels.choices == ("a", "b")
    assert labels.left_out == {"'odd' \"one\"\n{{x}}": 1}
    assert label_of(labels, "'odd' \"one\"\n{{x}}") is None
    assert label_of(labels, "a") == "a"


def test_no_label_is_left_out_where_all_are_rare() -> None:
    labels = class_labels(column(["a"] * 40 + ["b"] * 2), field="made")
    assert labels.choices == ("a", "b")


@pytest.mark.parametrize("values", [[1, 2, 3], ["1", "2.0", "3"], [1.0, 2.0, 3.0]])
def test_a_short_scale_is_taken_as_it_is(values: list[object]) -> None:
    labels = rating_labels(column(values * 6), field="made")
    assert labels.choices == ("1", "2", "3")
    assert not labels.expression


def test_choices_of_a_scale_are_in_the_order_of_numbers() -> None:
    values = [10, 9, 2, 1, 0.5] * 6
    assert rating_labels(column(values), field="made").choices == ("0.5", "1", "2", "9", "10")


def test_ratings_that_are_empty_rare_or_no_number_are_left_out() -> None:
    values: list[object] = ["4", "5.0"] * 60 + ["", "n/a", "1"]
    labels = rating_labels(column(values), field="made")
    assert labels.choices == ("4", "5")
    assert labels.left_out == {"1": 1, "n/a": 1}
    assert [label_of(labels, each) for each in values[-3:]] == [None, None, None]
    assert label_of(labels, "5.0") == "5.0"  # `load_rows` reads it as the choice 5


def test_many_ratings_are_rounded() -> None:
    values = [number / 10 for number in range(-40, 41)] * 3
    labels = rating_labels(column(values), field="made")
    assert labels.choices == tuple(str(number) for number in range(-4, 5))
    for value in (-4.0, -0.2, 0.0, 1.5, 2.5, 3.49):
        assert label_of(labels, value) == str(round(value))
        assert label_of(labels, str(value)) == str(round(value))


def test_long_scales_are_put_into_five_steps() -> None:
    values: list[object] = [*range(0, 101), *range(0, 101), None, "n/a"]
    labels = rating_labels(column(values), field="made")
    assert labels.choices == ("1", "2", "3", "4", "5")
    found = {
        value: label_of(labels, value) for value in (0, 19, 20, 39.9, 55, 80, 100, None, "n/a")
    }
    assert found == {
        0: "1", 19: "1", 20: "2", 39.9: "2", 55: "3", 80: "5", 100: "5", None: None, "n/a": None,
    }  # fmt: skip


def test_expression_and_counts_agree_on_every_value() -> None:
    values = [round(number * 0.37 - 7, 2) for number in range(200)]
    labels = rating_labels(column(values), field="made")
    made = [label_of(labels, value) for value in values]
    assert {choice: made.count(choice) for choice in labels.choices} == dict(labels.counts)


@pytest.mark.parametrize(
    "name",
    [
        "text",
        "Review Text",
        "a-b",
        "für",
        "class",
        "true",
        "choices",
        "range",
        'a "b" \\ c',
        "}}",
        "1st",
    ],
)
def test_a_column_of_any_name_can_be_reached(name: str) -> None:
    fields = {name: "found"}
    assert evaluate(spelt(name), fields, where="") == "found"
    assert render("{{ " + spelt(name) + " }}", fields, where="") == "found"


@pytest.mark.parametrize(
    "text", ["it's", 'a "b"', "a\\nb", "a\nb", "{{ x }}", "%}", "für 😀", "\u2028"]
)
def test_a_quoted_text_is_that_text(text: str) -> None:
    assert evaluate(quoted(text), {}, where="") == text


def test_a_column_that_rows_lack_is_not_filled() -> None:
    late = Column("note", rows=3, absent=3)
    late.add("x")
    condition = is_filled(late)
    assert not evaluate(condition, {"other": 1}, where="")
    assert not evaluate(condition, {"note": None}, where="")
    assert evaluate(condition, {"note": "x"}, where="")
