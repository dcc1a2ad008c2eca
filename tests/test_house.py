"""How the house is kept: every longer module says which test covers it."""

import re
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
