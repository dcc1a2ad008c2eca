"""The commands of studies: what they hand on, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from instil.study import studies


class Called(Exception):
    """Carries what a study was called with."""


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch):
    """Run a command up to the call of its study, and return what that was called with."""

    def stand_in(*args, **kwargs):
        raise Called(args, kwargs)

    monkeypatch.setenv("INSTIL_DEBUG", "1")  # which lets exceptions through
    for name in ("methods_study", "curve_study", "sequence_study", "generalise_study"):
        monkeypatch.setattr(studies, name, stand_in)

    def find(result):
        assert isinstance(result.exception, Called), result.output
        return result.exception.args

    return find


def test_methods(instil_command, recipe_file: Path, called) -> None:
    own = "small=lora.r=4,train.learning_rate=1e-3"
    result = instil_command(
        "methods", recipe_file, "--arms", "lora,full", "--arm", own, "--seeds", "0,2", "--set",
        "test=30",
    )  # fmt: skip
    (path,), kwargs = called(result)
    assert path == recipe_file
    assert list(kwargs["arms"]) == ["lora", "full", "small"]
    assert kwargs["arms"]["small"] == ("lora.r=4", "train.learning_rate=1e-3")
    assert kwargs["seeds"] == (0, 2)
    assert kwargs["folder"] == Path("runs/reviews-methods")
    assert kwargs["changes"] == ["test=30"]


def test_curve_leaves_the_guard_out_unless_asked(instil_command, recipe_file: Path, called) -> None:
    _, kwargs = called(instil_command("curve", recipe_file, "--sizes", "50,10,50"))
    assert kwargs["sizes"] == (50, 10)
    assert kwargs["seeds"] == (0, 1, 2)
    assert kwargs["changes"] == ["forgetting.tasks=none"]
    assert kwargs["folder"] == Path("runs/reviews-curve")
    _, kwargs = called(instil_command("curve", recipe_file, "--guard", "--folder", "x"))
    assert kwargs["changes"] == []
    assert kwargs["sizes"] is None
    assert kwargs["folder"] == Path("x")


def test_sequence(instil_command, recipe_file: Path, called) -> None:
    (paths,), kwargs = called(
        instil_command("sequence", recipe_file, recipe_file, "--replay", "0.1")
    )
    assert paths == [recipe_file, recipe_file]
    assert kwargs["replay"] == 0.1
    assert kwargs["folder"] == Path("runs/reviews-sequence")


def test_generalise(instil_command, recipe_file: Path, called) -> None:
    (path,), kwargs = called(
        instil_command(
            "generalise", recipe_file, "--sizes", "50,500", "--alone", "--arm", "cap=mix.cap=30"
        )
    )
    assert path == recipe_file
    assert kwargs["sizes"] == (50, 500)
    assert kwargs["arms"] == {"cap": ("mix.cap=30",)}
    assert kwargs["alone"]
    assert kwargs["folder"] == Path("runs/reviews-generalise")
    _, kwargs = called(instil_command("generalise", recipe_file))
    assert kwargs["arms"] == {}
    assert kwargs["sizes"] == ()
    assert not kwargs["alone"]


@pytest.mark.parametrize("seeds", ["", "a", "1,-2"])
def test_seeds_are_whole_numbers(instil_command, recipe_file: Path, seeds: str) -> None:
    result = instil_command("methods", recipe_file, "--seeds", seeds)
    assert result.exit_code == 2
    assert "whole numbers" in result.stderr
