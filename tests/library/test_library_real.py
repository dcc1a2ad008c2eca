"""Every task of the library on ten real rows, with the real tokenizer: all but the model itself."""

from __future__ import annotations

import pytest

from instil.tasks.task import library, load_task
from instil.types import Example, Fate, Prediction, Role

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LONGEST = 1024
"""Tokens of the longest example; the recipes' `max_length` is of this size."""


@pytest.fixture(autouse=True)
def private_cache() -> None:
    """Slow tests use the user's cache: packages are fetched once."""


@pytest.fixture(scope="module")
def chat():
    from instil.model.load import load_tokenizer, resolve_model

    return load_tokenizer(resolve_model("smollm2-135m-instruct"))


@pytest.mark.parametrize("name", library())
def test_ten_real_rows_render_encode_and_score(name: str, chat) -> None:
    from instil.data.build import render_example
    from instil.data.registry import load_rows
    from instil.data.split import seeded_key
    from instil.encode.mask import encode

    task = load_task(name)
    rows = load_rows(task).rows
    assert len(rows) == task.rows, "the task file says how many rows there are"
    drawn = sorted(rows, key=lambda row: seeded_key(0, "ten", name, row.id))[:10]
    for template in task.templates:
        for row in drawn:
            example = render_example(task, template, row)
            encoded = encode(example, chat, max_length=LONGEST)
            assert encoded.fate is Fate.KEPT, encoded.why
            trained = [i for i, m in zip(encoded.ids, encoded.mask, strict=True) if m]
            assert chat.tokenizer.decode(trained).startswith(example.target)
            check_choices(example, chat)
            if template.role is Role.ANSWER:
                check_scores(example, task.metric)


def check_scores(example: Example, metric: str) -> None:
    from instil.evaluate.metrics import score

    def value(text: str) -> float | None:
        return score(example, Prediction(example.id, text), metric=metric).value

    assert value(example.target) == pytest.approx(1)
    wrong = [choice for choice in example.choices if choice != example.target]
    for text in wrong or ["qx zv", ""]:
        found = value(text)
        assert found is not None
        assert 0 <= found < 1


def check_choices(example: Example, chat) -> None:
    from instil.evaluate.choices import choice_request

    if example.choices:
        request = choice_request(example, chat)
        assert len(set(request.completions)) == len(example.choices), "no two read alike"
