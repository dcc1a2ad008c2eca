from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from instil.config.validation import dotted_names, section_at, validate
from instil.errors import Problem, RecipeError


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"


class Item(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    size: int | None = None


class Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    items: tuple[Item, ...] = Field(min_length=1)
    colour: Colour = Colour.RED
    rate: Literal["auto"] | Annotated[float, Field(gt=0)] = "auto"
    wanted: Literal["all"] | tuple[str, ...] = "all"
    ready: bool = False


def problems(data: object) -> list[Problem]:
    with pytest.raises(RecipeError) as caught:
        validate(Form, data, place=lambda loc: ".".join(map(str, loc)), error=RecipeError)
    return list(caught.value.problems)


def test_good_data_become_a_model() -> None:
    data = {"items": [{"name": "a"}], "colour": "green", "rate": 1, "wanted": ["x"]}
    form = validate(Form, data, place=lambda loc: "", error=RecipeError)
    assert form == Form(items=(Item(name="a"),), colour=Colour.GREEN, rate=1.0, wanted=("x",))


@pytest.mark.parametrize(
    ("data", "where", "allowed"),
    [
        ({"colour": "rde"}, "colour", "red or green"),
        ({"rate": 0}, "rate", "auto or more than 0"),
        ({"rate": "fast"}, "rate", "auto or a number"),
        ({"rate": True}, "rate", "auto or a number"),
        ({"wanted": 3}, "wanted", "all or a list, as in [a, b]"),
        ({"wanted": ["x", 3]}, "wanted.1", "text (in quotes where it looks like a number)"),
        ({"ready": "yes"}, "ready", "true or false"),
        ({"items": []}, "items", "at least 1"),
        ({"items": [{"name": 3}]}, "items.0.name", "text (in quotes where it looks like a number)"),
        ({"items": [{"name": "a", "size": 1.5}]}, "items.0.size", "a whole number"),
        ({"items": "a"}, "items", "a list, as in [a, b]"),
        ({"items": ["a"]}, "items.0", "a section with keys of its own"),
    ],
)
def test_a_bad_value_is_told_once_with_what_is_allowed(
    data: dict[str, object], where: str, allowed: str
) -> None:
    found = problems({"items": [{"name": "a"}], **data})
    at_place = [problem for problem in found if problem.where == where]
    assert len(at_place) == 1
    assert at_place[0].allowed.startswith(allowed)


def test_a_misspelt_value_names_the_nearest() -> None:
    (problem,) = problems({"items": [{"name": "a"}], "colour": "geen"})
    assert problem.nearest == "green"
    assert problem.found == '"geen"'


def test_unknown_and_missing_keys_come_together() -> None:
    found = problems({"items": [{"nam": "a"}], "color": "red"})
    assert {problem.what for problem in found} == {
        "the key 'items.0.name' is missing",
        "unknown key 'items.0.nam'",
        "unknown key 'color'",
    }
    assert [problem.nearest for problem in found if problem.nearest] == ["name", "colour"]


def test_a_key_of_another_section_is_sent_there() -> None:
    found = problems({"items": [{"name": "a"}], "size": 3})
    assert found[0].nearest == "items.0.size"
    assert "`items:`" in found[0].fix


def test_names_of_all_keys() -> None:
    assert dotted_names(Form)[:3] == ["items", "items.0.name", "items.0.size"]
    assert section_at(("items", 4), Form) is Item
    assert section_at(("colour",), Form) is None
