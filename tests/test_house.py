"""How the house is kept: longer modules say which test covers them, small functions are few."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "instil"
TESTS = Path(__file__).parent
LONG = 100
MODULES = [
    path
    for path in sorted(SOURCE.rglob("*.py"))
    if len(path.read_text(encoding="utf-8").splitlines()) > LONG and path.stem != "__init__"
]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_long_module_has_a_test_of_its_name_or_names_one(path: Path):
    if list(TESTS.rglob(f"test_{path.stem.strip('_')}.py")):
        return
    docstring = path.read_text(encoding="utf-8").split('"""')[1]
    (named,) = re.findall(r"^Tests: `tests/(\S+)`\.$", docstring, re.MULTILINE)
    assert (TESTS / named).is_file()


def test_few_private_functions_are_called_in_one_place_alone():
    """Each of them is a jump for who reads; those in tables, or passed on, are not counted."""
    functions, once = 0, []
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        used: dict[str, list[bool]] = defaultdict(list)
        for node in ast.walk(tree):
            if isinstance(node, ast.Name | ast.Attribute):
                name = node.id if isinstance(node, ast.Name) else node.attr
                used[name].append(id(node) in called)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                functions += 1
                private = node.name.startswith("_") and not node.name.startswith("__")
                if private and used[node.name] == [True]:
                    once.append(f"{path.relative_to(SOURCE)}: {node.name}")
    assert len(once) <= 0.12 * functions, once
