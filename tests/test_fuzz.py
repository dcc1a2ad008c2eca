"""A result or an InstilError, in time, whatever the bytes: see `fuzzing`."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzzing import CORPUS, TARGETS, ends_well, made
from instil.tasks import budget

FILES = [(target, file) for target in TARGETS for file in sorted((CORPUS / target).iterdir())]
CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
FUZZED = pytest.mark.parametrize("target", TARGETS)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop templates early, so that many can be tried."""
    monkeypatch.setattr(budget, "SECONDS", 0.05)


def test_each_target_has_a_corpus() -> None:
    assert {target for target, _ in FILES} == TARGETS.keys() == {f.name for f in CORPUS.iterdir()}


@pytest.mark.parametrize(("target", "file"), FILES, ids=lambda each: getattr(each, "name", each))
def test_what_broke_it_once(target: str, file: Path, tmp_path: Path) -> None:
    ends_well(target, file.read_bytes(), tmp_path)


@FUZZED
@settings(max_examples=15, deadline=None, suppress_health_check=CHECKS)
@given(data=st.data())
def test_a_few_changed_files(target: str, data: st.DataObject, tmp_path: Path) -> None:
    ends_well(target, data.draw(made(target)), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@FUZZED
@settings(max_examples=1000, deadline=None, print_blob=True, suppress_health_check=CHECKS)
@given(data=st.data())
def test_many_changed_files(target: str, data: st.DataObject, tmp_path: Path) -> None:
    ends_well(target, data.draw(made(target)), tmp_path)
