"""Rows that a base model has learnt judge it no more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from instil.data.prepare import TaskData, prepare
from instil.errors import DataError
from instil.stages.lineage import LINEAGE_TYPE, Lineage, lineage_of, set_aside, without_learnt
from instil.tasks.task import load_task
from moods import lay_out


@pytest.fixture
def data(tmp_path: Path) -> TaskData:
    task = load_task(str(lay_out(tmp_path) / "moods.yaml"))
    return prepare(task, train=60, validation=20, test=30, seed=0, near_duplicates=0.8)


def test_another_split_of_the_same_rows_is_asked_nothing_that_was_learnt(data, tmp_path):
    before = Lineage().with_rows([data])
    other = prepare(data.task, train=60, validation=20, test=30, seed=1, near_duplicates=0.8)
    trained = {row.id for row in data.train}
    overlap = [row for row in other.test if row.id in trained]
    assert overlap, "or nothing is tested here"
    kept = without_learnt(other, before)
    assert [row.id for row in kept.test] == [r.id for r in other.test if r.id not in trained]
    assert kept.split.test == tuple(row.id for row in kept.test)
    said = kept.split.skipped["learnt by the base model already: left out of test"]
    assert said == len(overlap)
    assert without_learnt(data, before) == data, "the same split loses nothing"
    assert kept.train == other.train


def test_it_is_handed_on(data, tmp_path):
    first = Lineage().with_rows([data])
    more = replace(data, train=data.validation, test=data.train[:3])
    second = first.with_rows([more])
    assert set(first.trained) < set(second.trained)
    assert set(first.judged) < set(second.judged)
    for place in (tmp_path / "export", tmp_path / "run" / "model"):
        place.mkdir(parents=True)
        home = place.parent if place.name == "model" else place
        (home / "lineage.json").write_bytes(LINEAGE_TYPE.dump_json(second))
        assert lineage_of(str(place)) == second
    assert lineage_of("smollm2-135m-instruct") == Lineage()
    merged = tmp_path / "export"
    set_aside(merged)  # of a study: handed on, and not applied
    assert lineage_of(str(merged)) == Lineage()
    assert lineage_of(str(merged), aside=True) == second


def test_a_part_without_any_other_row_is_refused(data):
    all_of_it = Lineage().with_rows([replace(data, train=data.test)])
    with pytest.raises(DataError, match="has learnt every test row"):
        without_learnt(data, all_of_it)
