"""Rows longer than the model's context, under each length policy (the tiny model takes 512)."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from instil.compare.ladder import prompting
from instil.config.recipe import Recipe
from instil.data.prepare import TaskData, prepare
from instil.errors import DataError
from instil.model.load import ModelFolder
from instil.stages.context import RunContext
from instil.stages.fitting import fit_context
from instil.stages.preflight import _check_conditions, preflight
from instil.tasks.task import load_task
from test_pipeline import lay_out, make_recipe


@pytest.fixture
def data(tmp_path: Path) -> TaskData:
    task = load_task(str(lay_out(tmp_path) / "moods.yaml"))
    made = prepare(task, train=60, validation=20, test=30, seed=0, near_duplicates=0.8)
    long = replace(made.test[0], fields={**made.test[0].fields, "text": "it is good " * 400})
    return replace(made, test=(long, *made.test[1:]))


def fitted(tmp_path: Path, tiny_folder: Path, data: TaskData, policy: str) -> TaskData:
    recipe = make_recipe(tmp_path, tiny_folder, f"train.too_long={policy}", "forgetting.tasks=none")
    context = fit(recipe, tiny_folder, data)
    preflight(context)
    return context.data[0]


def fit(recipe: Recipe, tiny_folder: Path, data: TaskData) -> RunContext:
    context = RunContext(recipe)
    context.model = ModelFolder("tiny", tiny_folder, "")
    context.data = fit_context(
        [data],
        chat=context.chat,
        longest=context.longest,
        too_long=recipe.train.too_long,
        shots=recipe.baselines.shots,
        seed=recipe.seed,
    )
    return context


def test_error_names_the_row_and_the_policies(tmp_path, tiny_folder, data):
    with pytest.raises(DataError, match=r"512[\s\S]*too_long"):
        fitted(tmp_path, tiny_folder, data, "error")


def test_drop_leaves_the_row_out_and_counts_it(tmp_path, tiny_folder, data):
    found = fitted(tmp_path, tiny_folder, data, "drop")
    assert found.test == data.test[1:]
    assert found.split.test == tuple(row.id for row in data.test[1:])
    assert found.split.skipped == {"longer than the model's context: dropped from test": 1}


def test_shorten_keeps_every_row_and_counts_it(tmp_path, tiny_folder, data):
    found = fitted(tmp_path, tiny_folder, data, "shorten")
    assert [row.id for row in found.test] == [row.id for row in data.test]
    assert found.test[1:] == data.test[1:]
    text = str(found.test[0].fields["text"])
    assert text.startswith("it is good it is good")
    assert len(text) < len("it is good " * 400)
    assert found.split.skipped == {
        "longer than the model's context: shortened in test, not left out": 1
    }


def test_worked_examples_take_nothing_from_a_row(tmp_path, tiny_folder, data):
    """The tiny model takes 512 tokens: 300 fit, and 300 behind five examples do not."""
    medium = {**data.test[1].fields, "text": "it is good " * 80}
    row = replace(data.test[1], fields=medium)
    train = tuple(
        replace(each, fields={**each.fields, "text": f"it is good {n} " * 25})
        for n, each in enumerate(data.train)
    )
    data = replace(data, test=(row, *data.test[2:]), train=train)
    for policy in ("shorten", "drop"):
        found = fitted(tmp_path, tiny_folder, data, policy)
        assert found.test[0] == row
        assert not found.split.skipped
        assert any(row.id in ids for ids in found.crowded.values())
        count = next(n for n, ids in found.crowded.items() if row.id in ids)
        way = prompting(found, template="ask", shots=count, seed=0)
        shots = [len(e.messages) for e in way.examples(found, found.test[:2])]
        assert shots == [1, 1 + 2 * count]


def test_a_part_that_loses_every_row_is_an_error(tmp_path, tiny_folder, data):
    long = {"text": "it is good " * 400}
    rows = tuple(replace(row, fields={**row.fields, **long}) for row in data.test)
    with pytest.raises(DataError, match="every test row"):
        fitted(tmp_path, tiny_folder, replace(data, test=rows), "drop")


TALKS = """
id: talks
source: talks.jsonl
text: last_message
target: completion
history: history
metric: rougeL
max_new_tokens: 8
templates: [{id: turn, prompt: "{{ last_message }}"}]
"""


@pytest.mark.parametrize("system", [False, True])
def test_a_long_conversation_loses_its_oldest_turns(tmp_path, tiny_folder, system):
    rule = [{"role": "system", "content": "say it is good"}] if system else []
    with (tmp_path / "talks.jsonl").open("w") as file:
        for n in range(20):
            said = [*rule]
            for turn in range(30):
                said.append({"role": "user", "content": f"turn {turn} of unit {n} is it good"})
                said.append({"role": "assistant", "content": f"it is {n} and {turn}"})
            row: dict[str, object] = {"messages": said}
            if system:  # in a column of its own: of `messages` the reader parts it
                *history, asked, answer = said
                row = {"history": history, "last_message": asked["content"]}
                row["completion"] = answer["content"]
            file.write(json.dumps(row) + "\n")
    (tmp_path / "talks.yaml").write_text(TALKS)
    task = load_task(str(tmp_path / "talks.yaml"))
    made = prepare(task, train=8, validation=4, test=4, seed=0, near_duplicates=0.99)
    lay_out(tmp_path)
    recipe = make_recipe(
        tmp_path,
        tiny_folder,
        "train.too_long=shorten",
        "forgetting.tasks=none",
        "baselines.shots=[0]",
    )
    context = fit(recipe, tiny_folder, made)
    for row, before in zip(context.data[0].test, made.test, strict=True):
        kept, whole = row.fields["history"], before.fields["history"]
        assert 0 < len(kept) < len(whole)
        kept, head = kept[len(rule) :], kept[: len(rule)]
        assert [*head] == rule, "the system message stays"
        assert [*whole[-len(kept) :]] == [*kept]
        assert kept[0]["role"] == "user"
        assert row.fields["last_message"] == before.fields["last_message"]
    training = preflight(context)
    assert set(training.fates) == {"truncated"}
    assert all(sum(pack.mask) > 50 for batch in training.batches for pack in batch)


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        (["words <= 3"], ""),
        (["rhymes"], "there is no condition 'rhymes'"),
        ([], "0 of the 20 validation rows of moods have a condition"),
    ],
)
def test_conditions_are_looked_at_before_anything_is_computed(data, conditions, said):
    free = replace(data.templates[0], choices=(), target="x")
    task = replace(data.task, choices=(), templates=(free,), metric="constraint", checks="checks")

    def checked(rows):
        return tuple(replace(r, fields={**r.fields, "checks": conditions}) for r in rows)

    asked = replace(
        data,
        task=task,
        templates=(free,),
        validation=checked(data.validation),
        test=checked(data.test),
    )
    if not said:
        assert _check_conditions(asked) is None
        return
    with pytest.raises(DataError, match=said):
        _check_conditions(asked)
