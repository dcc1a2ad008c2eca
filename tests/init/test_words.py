from __future__ import annotations

import shlex
from collections.abc import Iterable

import pytest

from instil.data.columns import Column
from instil.errors import DataError
from instil.init.guesses import Kind, is_code
from instil.init.labels import Asks, Labels, class_labels, rating_labels
from instil.init.words import give_words, parse_words, write_words


def labels(name: str, values: Iterable[object], **given: str) -> Labels:
    column = Column(name)
    for value in values:
        column.add(value)
    words = {key.removeprefix("v"): word for key, word in given.items()}
    found = class_labels(column, field="made", as_text=is_code(column))
    return give_words(found, name=name, codes=is_code(column), kind=Kind.CLASSES, given=words)


@pytest.mark.parametrize(
    ("no", "yes"),
    [("0", "1"), (0.0, 1.0), (False, True), ("n", "Y"), ("F", "T"), ("-1", "1"), ("No", "Yes")],
)
def test_two_coded_values_are_yes_and_no(no: object, yes: object) -> None:
    found = labels("toxic", [yes, no, no] * 9)
    assert found.choices == ("yes", "no")
    assert list(found.words.values()) == ["yes", "no"]
    assert found.counts == {"yes": 9, "no": 18}
    assert found.asks is Asks.YES_NO


def test_words_that_change_nothing_are_not_kept() -> None:
    assert labels("toxic", ["yes", "no"] * 9).words == {}


@pytest.mark.parametrize(
    ("name", "values", "warned"),
    [
        ("sentiment", [0, 1], True),
        ("sentiment", [-1, 1], False),
        ("polarity", [0, 4], True),
        ("anything", ["-", "+"], False),
    ],
)
def test_a_guess_of_poles_is_warned_of(name: str, values: list[object], warned: bool) -> None:
    found = labels(name, values * 9)
    assert found.choices == ("negative", "positive")
    assert bool(found.warnings) == warned
    assert all("positive" in note for note in found.notes) or found.warnings
    assert found.notes or found.warnings, "never in silence"


@pytest.mark.parametrize("name", ["label", "y", "target", "gender", "class"])
def test_a_name_that_says_nothing_asks_for_words(name: str) -> None:
    found = labels(name, [0, 1] * 9)
    assert any("--label-names 0=WORD,1=WORD" in warning for warning in found.warnings)


@pytest.mark.parametrize("name", ["zip", "version", "year", "sku"])
def test_codes_are_asked_for_as_they_are(name: str) -> None:
    found = labels(name, ["0123", "1.10", "1.1"] * 9)
    assert set(found.choices) == {"0123", "1.10", "1.1"}
    assert not found.warnings
    assert not found.words


def test_fractions_are_written_short_and_kept_apart() -> None:
    found = labels("score", [1 / 3, 2 / 3, 0, 1] * 9)
    assert found.words == {"0": "0", "0.3333333333333333": "0.33", "0.6666666666666666": "0.67",
                           "1": "1"}  # fmt: skip
    near = labels("score", [0.12345, 0.12344, 0.5] * 9)
    assert near.choices == ("0.1234", "0.1235", "0.5")


def test_given_words_come_in_the_order_of_the_values() -> None:
    found = labels("label", [0, 1, 2] * 9, v2="good", v0="bad", v1="mixed")
    assert found.words == {"0": "bad", "1": "mixed", "2": "good"}
    assert found.asks is Asks.NAME
    assert not found.warnings


def test_given_words_for_values_that_are_left_out_are_passed_over() -> None:
    found = labels("label", [0, 1] * 9 + [2], v0="bad", v1="good", v2="odd")
    assert found.choices == ("bad", "good")


def test_labels_that_are_taken_as_one_are_named_in_any_of_their_forms() -> None:
    values = ["Good", "good ", "Bad", "bad"] * 9
    assert labels("grade", values, Good="fine", bad="poor").choices == ("poor", "fine")
    with pytest.raises(DataError, match="'good', which has two words"):
        labels("grade", values, Good="fine", good="well", bad="poor")


def test_a_label_with_a_comma_gets_its_word_as_the_message_writes_it() -> None:
    values = ["yes, always", "no, never", "other"] * 9
    with pytest.raises(DataError, match="no word for") as caught:
        labels("habit", values, other="third")
    written = shlex.split(str(caught.value).rpartition("--label-names")[2])[0]
    words = parse_words([written.replace("WORD", "w1", 1).replace("WORD", "w2", 1)])
    assert labels("habit", values, **words).choices == ("w1", "w2", "WORD")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"v0": "bad"}, "no word for '1', '2'"),
        ({"v0": "a", "v1": "b", "v2": "c", "v7": "d"}, "no row has the value '7'"),
        ({"v0": "a", "v1": "b", "v2": "a"}, "two values have the same word, 'a'"),
    ],
)
def test_given_words_that_do_not_fit(given: dict[str, str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        labels("label", [0, 1, 2] * 9, **given)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0", "no value with its word"),
        ("=a", "no value"),
        ("0=", "no value"),
        ("0=a,0=b", "two"),
        ('"0=bad,1=good', "cannot be read as values"),
        ('"a, b"=c', "cannot be read as values"),
        ('x="quoted, word"', "quote a pair with a comma as a whole"),
    ],
)
def test_words_that_cannot_be_read(text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        parse_words([text])


@pytest.mark.parametrize("value", ["a, b", 'say "a"', "two\nlines", "a\rb", "0", " x"])
def test_words_are_read_as_they_are_written(value: str) -> None:
    words = {value.strip(): "one", "other": "two, three"}
    assert parse_words([write_words(words)]) == words
    assert parse_words(["0=bad,\n1=good"]) == {"0": "bad", "1": "good"}


def test_a_rating_between_0_and_1_has_more_than_two_steps() -> None:
    column = Column("toxicity")
    for n in range(101):
        column.add(n / 100)
    assert rating_labels(column, field="made").choices == ("1", "2", "3", "4", "5")


def test_labels_with_one_number_each_are_in_its_order() -> None:
    assert labels("rating", ["10 stars", "9 stars", "1 star"] * 9).choices == (
        "1 star",
        "9 stars",
        "10 stars",
    )
