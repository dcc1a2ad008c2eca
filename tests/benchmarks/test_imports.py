"""What the benchmarks import of instil is there, in functions that no test calls as well."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_every_name_that_benchmarks_import_exists() -> None:
    names = [
        (node.module, alias.name)
        for path in BENCHMARKS.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("instil")
        for alias in node.names
    ]
    assert len(names) > 50
    missing = [n for n in names if not hasattr(importlib.import_module(n[0]), n[1])]
    assert missing == []
