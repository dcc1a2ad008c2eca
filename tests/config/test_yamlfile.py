from __future__ import annotations

import os
from pathlib import Path

import pytest

from instil.config.yamlfile import parse_scalar, parse_yaml, read_text, read_yaml
from instil.errors import InstilError, RecipeError, TaskError


def parse(text: str) -> object:
    return parse_yaml(text, where="f.yaml", error=RecipeError).data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("2E3", 2000.0),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("null", None),
        ("~", None),
        ("'1'", "1"),
        ("012", 12),
        ("1_000", 1000),
        ("2024-01-02", "2024-01-02"),
        ("[0, 1e-1]", [0, 0.1]),
        ("{a: 1}", {"a": 1}),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = parse_scalar(text, where="--set", error=RecipeError)
    assert found == value
    assert type(found) is type(value)


def test_every_value_has_its_line() -> None:
    file = parse_yaml("a:\n  b: 1\n  c:\n    - x\n    - y: 2\n", where="f.yaml", error=RecipeError)
    assert file.data == {"a": {"b": 1, "c": ["x", {"y": 2}]}}
    assert file.place(("a", "b")) == "f.yaml:2"
    assert file.place(("a", "c", 1, "y")) == "f.yaml:5"
    assert file.place(("a", "nothing", "below")) == "f.yaml:1"
    assert file.place(("nothing",)) == "f.yaml"


def test_a_key_given_twice_is_an_error_with_both_lines() -> None:
    with pytest.raises(TaskError) as caught:
        parse_yaml("b: 1\na: 2\nc: {a: 0}\na: 3\n", where="t.yaml", error=TaskError)
    problem = caught.value.problems[0]
    assert problem.where == "t.yaml:4"
    assert "'a'" in problem.what
    assert "line 2" in problem.what


def test_a_second_document_is_told_in_words() -> None:
    with pytest.raises(TaskError, match="more than one YAML document"):
        parse_yaml("a: 1\n---\nb: 2\n", where="t.yaml", error=TaskError)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: [1\nb: 2\n", "f.yaml:2"),
        ("a: 1\n\tb: 2\n", "f.yaml:2"),
        ("a: !!python/object:os.system ls\n", "f.yaml:1"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2"),
        ("a: \x00\n", "f.yaml"),
    ],
)
def test_what_is_not_plain_yaml_is_told_with_its_line(text: str, place: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(text)
    assert caught.value.problems[0].where.startswith(place)


def test_an_alias_is_read_as_what_it_stands_for() -> None:
    assert parse("a: &x {k: [1]}\nb: *x\nc: {<<: *x, d: 2}\n") == {
        "a": {"k": [1]},
        "b": {"k": [1]},
        "c": {"d": 2, "k": [1]},
    }


def test_bytes_that_are_not_utf8_are_placed(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(b"model: x\nname: caf\xe9\n")
    with pytest.raises(RecipeError, match=r"r\.yaml:2.*\n.*0xe9 at position 18"):
        read_yaml(path, error=RecipeError)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\xef\xbb\xbfmodel: x\n")
    assert read_yaml(path, error=RecipeError).data == {"model": "x"}


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "reviews.recipe.yaml").touch()
    with pytest.raises(InstilError) as caught:
        read_yaml(tmp_path / "review.recipe.yaml", error=RecipeError)
    assert caught.value.problems[0].nearest.endswith("reviews.recipe.yaml")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="folder"):
        read_yaml(tmp_path, error=RecipeError)


LAUGHS = "a: &a [x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 1500 + "]" * 1500, "100 deep"),
        ("\n".join(" " * level + "a:" for level in range(400)), "100 deep"),
        ("&a [*a]", "within itself"),
        ("&a {b: *a}", "within itself"),
        ("a: &a {b: &b [*a, *b]}", "within itself"),
        ("\n".join(f"k{number}: v" for number in range(100_000)), "keys and values"),
        (LAUGHS, "keys and values"),
        ("a: " + "x" * 2_000_000, "characters"),
        ("a: " + "9" * 9999, "not YAML"),
        ("a: !!int x", "not YAML"),
        ("a: 9999-99-99 23:59:59", "not YAML"),
        (r'a: "\U11111111"', "not YAML"),
        ("a: \ud800", "not YAML"),
        ("a: !!binary abc", "not YAML"),
    ],
    ids=range(14),
)
def test_what_is_too_much_is_refused_soon(text: str, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_yaml(text, where="r.yaml", error=RecipeError)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 500


def test_an_alias_may_repeat_what_stands_once() -> None:
    text = "a: &a [1, 2]\nb: [*a, *a]\nc: &a 3\nd: *a\n"
    data = parse_yaml(text, where="r.yaml", error=RecipeError).data
    assert data == {"a": [1, 2], "b": [[1, 2], [1, 2]], "c": 3, "d": 3}


@pytest.mark.parametrize("name", ["a\0b", "loop", "pipe", "/dev/zero", "/proc/self/mem", "x/y"])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "x").write_text("no folder", encoding="utf-8")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RecipeError) as caught:
        read_text(tmp_path / name, error=RecipeError)
    assert "\n" not in str(caught.value).strip() or "to fix" in str(caught.value)
