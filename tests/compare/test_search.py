"""The search for a prompt on a tiny model."""

import pytest

from instil.compare.ladder import climb
from instil.compare.search import EXTENTS, search
from instil.stages.context import prepare_rows
from moods import lay_out, make_recipe


@pytest.fixture
def data(tmp_path, tiny_folder):
    recipe = make_recipe(
        lay_out(tmp_path), tiny_folder, "forgetting.tasks=none", "tasks.0.templates=all"
    )
    (prepared,) = prepare_rows(recipe)
    return prepared


def searched(tiny, data, *, extent="full", budget=1440, longest=512, on_done=lambda _: None):
    rows = data.validation
    rungs = climb(tiny, data, templates=data.answering, shots=(0, 2), rows=rows, seed=3)
    return search(
        tiny, data, rungs=rungs, extent=EXTENTS[extent], rows=rows, budget=budget,
        longest=longest, seed=3, on_done=on_done,
    )  # fmt: skip


def test_it_runs(tiny, data):
    made = searched(tiny, data)
    assert made.ways
    assert made.prompts <= made.budget
