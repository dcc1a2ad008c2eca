"""A command line whose library functions are stand-ins that note what they were called with."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from instil.cli.main import app

RECIPE = "model: smollm2-135m-instruct\ntasks:\n  - use: amazon_reviews\n"


@dataclass
class Library:
    """Stands in for the modules that commands call."""

    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)

    def function(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs))
            answer = self.answers.get(name)
            if isinstance(answer, BaseException):
                raise answer
            return answer(*args, **kwargs) if callable(answer) else answer

        return call


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    """Replace what the commands call, so that nothing heavy is imported or run."""
    stand_in = Library()
    modules = {
        "pipeline": ("run_recipe", "rebuild_report", "compare_runs", "comparison_notes"),
        "stages.check": ("check_recipe",),
        "ship.predict": ("predict_text", "predict_file"),
        "ship.chat": ("chat",),
        "ship.export": ("export",),
    }
    for name, functions in modules.items():
        module = ModuleType(f"instil.{name}")
        for function in functions:
            setattr(module, function, stand_in.function(function))
        monkeypatch.setitem(sys.modules, f"instil.{name}", module)
        *folders, last = f"instil.{name}".split(".")
        parent = import_module(".".join(folders))
        monkeypatch.setattr(parent, last, module, raising=False)
    return stand_in


@pytest.fixture
def instil_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a command line in a folder of its own, on a terminal 100 columns wide."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments: object, **options: Any) -> Result:
        return CliRunner().invoke(app, [str(each) for each in arguments], **options)

    return run


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "reviews.recipe.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path
