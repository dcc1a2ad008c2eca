"""The made-up runs of `sample.py`, and the same with other texts in them."""

from __future__ import annotations

import importlib.util
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="session")
def sample() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "report_sample", Path(__file__).with_name("sample.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Retext:
    """Puts a text with a running number in place of every text of a value, however nested."""

    def __init__(self, text: str, *, keep: frozenset[str] = frozenset()) -> None:
        self.text = text
        self.keep = keep
        self.count = 0

    def __call__(self, value: Any) -> Any:
        if isinstance(value, Enum):
            return value
        if isinstance(value, str):
            self.count += 1
            return f"{self.text}{self.count}"
        if is_dataclass(value) and not isinstance(value, type):
            names = [each.name for each in fields(value) if each.name not in self.keep]
            return replace(value, **{name: self(getattr(value, name)) for name in names})
        if isinstance(value, dict):
            return {self._key(key): self(each) for key, each in value.items()}
        if isinstance(value, (tuple, list)):
            return type(value)(self(each) for each in value)
        return value

    def _key(self, key: str) -> str:
        # Metric names have to stay where the metrics do, or no arm could be shown.
        known = {"accuracy", "macro_f1", "rougeL", "exact_match", "train", "validation", "test"}
        return key if "metric" in self.keep and key in known else self(key)


@pytest.fixture
def retext() -> type[Retext]:
    return Retext
