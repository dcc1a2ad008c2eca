from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instil.data.findings import lost_classes
from instil.data.prepare import JUDGED_ELSEWHERE, few_wordings, hold_out, keep_apart, prepare
from instil.data.readers.shapes import UNUSABLE
from instil.data.readers.turns import UNASKED
from instil.errors import DataError, TaskError
from instil.types import Role, SourceSpec, Task, Template


def make_task(name: str, source: Path, **more) -> Task:
    templates = (
        *(Template(f"t{n}", f"{n}? {{{{ text }}}}", "{{ label }}") for n in range(5)),
        Template("write", "Write: {{ label }}", "{{ text }}", Role.INVERTED),
    )
    spec = SourceSpec(str(source))
    return Task(name, "k", name, "", "", spec, "text", "label", templates, metric="rougeL", **more)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    lines = [f"text number {n} about thing {n * 7},answer {n},g{n // 3}" for n in range(120)]
    path.write_text("\n".join(["text,label,who", *lines]), encoding="utf-8")
    return path


def prepared(task: Task, **more):
    return prepare(
        task, train=None, validation=12, test=24, **{"seed": 0, "near_duplicates": 1.0, **more}
    )


@settings(max_examples=30, deadline=None)
@given(st.floats(0.01, 0.99), st.integers(0, 2**31))
def test_a_share_of_the_asking_templates_is_held_out(share, seed):
    task = make_task("a", Path("x.csv"))
    kept, unseen = hold_out(task, task.templates, share, seed=seed)
    assert set(kept) | set(unseen) == set(task.templates)
    assert len(unseen) == min(4, max(1, round(share * 5)))
    assert all(template.role is Role.ANSWER for template in unseen)
    assert any(template.role is Role.ANSWER for template in kept)
    assert hold_out(task, task.templates, share, seed=seed) == (kept, unseen)


@pytest.mark.parametrize(("rows", "count"), [(1, 1), (1999, 1), (2000, 2), (4999, 4)])
def test_few_rows_learn_few_wordings_of_a_task_with_choices(rows, count):
    task = make_task("a", Path("x.csv"), choices=("yes", "no"))
    kept, unseen = few_wordings(task, rows=rows)
    assert [t.id for t in kept] == [f"t{n}" for n in range(count)]
    assert [t.id for t in unseen] == [f"t{n}" for n in range(count, 5)]
    assert few_wordings(task, rows=5000) == (task.templates, ())
    assert few_wordings(replace(task, choices=()), rows=rows) == (task.templates, ())


def test_wordings_are_held_out_for_few_rows_only_where_nothing_else_is_asked(table):
    fields = {"parity": "'even' if label[-1] in '02468' else 'odd'"}
    task = make_task("a", table, choices=("even", "odd"), fields=fields)
    task = replace(task, target="parity")
    auto, every = prepared(task, templates="auto"), prepared(task)
    assert (len(auto.templates), len(auto.held_out), auto.few_rows) == (1, 4, True)
    assert (every.templates, every.held_out, every.few_rows) == (task.templates, (), False)
    asked = prepared(task, templates="auto", held_out=["t1"])
    assert ([t.id for t in asked.held_out], asked.few_rows) == (["t1"], False)


def test_held_out_ids_and_what_cannot_be_held_out():
    task = make_task("a", Path("x.csv"))
    kept, unseen = hold_out(task, task.templates, ["t1", "t3"], seed=0)
    assert [t.id for t in unseen] == ["t1", "t3"]
    assert [t.id for t in kept] == ["t0", "t2", "t4", "write"]
    assert hold_out(task, task.templates, None, seed=0) == (task.templates, ())
    with pytest.raises(TaskError) as caught:
        hold_out(task, task.templates, ["t9", "write"], seed=0)
    assert len(caught.value.problems) == 2
    with pytest.raises(TaskError, match="no template of a would be left"):
        hold_out(task, task.templates, [f"t{n}" for n in range(5)], seed=0)
    with pytest.raises(TaskError, match="would be left"):
        hold_out(task, task.templates[:1], 0.5, seed=0)


def test_a_row_that_one_task_is_judged_on_trains_no_other(table: Path):
    first = prepared(make_task("a", table), held_out=0.4, weight=2)
    second = prepared(replace(make_task("b", table), text="label", target="text"))
    assert (len(first.held_out), first.weight) == (2, 2)
    apart = keep_apart([first, second])
    for here, there in (apart, apart[::-1]):
        judged = {row.place for row in (*there.validation, *there.test)}
        assert not judged & {row.place for row in here.train}
        removed = [r for r in here.split.removed if r.why == JUDGED_ELSEWHERE]
        assert len(here.train) + len(removed) == 84
        assert removed
        assert [row.id for row in here.train] == list(here.split.train)
    assert keep_apart([first]) == (first,)
    judged = replace(second, test=first.train)
    with pytest.raises(
        DataError, match=f"no training row of {first.task.id} would be left: judged"
    ):
        keep_apart([first, judged])


def test_groups_stay_on_one_side_over_all_tasks(table: Path):
    tasks = [make_task(name, table, group="who") for name in ("a", "b", "c")]
    apart = keep_apart([prepared(task) for task in tasks])
    judged = {row.group for d in apart for row in (*d.validation, *d.test)}
    assert judged
    assert not judged & {row.group for d in apart for row in d.train}


def test_turns_that_are_not_trained_on_stand_beside_the_rows_left_out(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"q {n}"},
                {"role": "assistant", "content": f"a {n}"},
            ]
        }
        for n in range(60)
    ]
    for row in rows[:7]:
        row["messages"].insert(0, {"role": "assistant", "content": "Welcome."})
    for row in rows[7:10]:
        row["messages"].append({"role": "assistant", "content": "Again."})
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    task = replace(make_task("talk", path), text="last_message", target="completion")
    templates = (Template("turn", "{{ last_message }}", "{{ completion }}"),)
    data = prepared(replace(task, history="history", templates=templates))
    assert data.split.skipped == {UNASKED: 7, "no text in 'last_message'": 3}
    assert data.notes == {UNUSABLE["follows"]: 3}


def test_a_class_whose_rows_all_repeat_a_test_row_is_told(tmp_path: Path) -> None:
    lines = [f"text number {n} about thing {n * 7},{('ok', 'bad')[n % 2]}" for n in range(120)]
    repeats = ["everything is down again,outage"] * 20
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(["text,label", *lines, *repeats]), encoding="utf-8")
    task = make_task("a", path, choices=("ok", "bad", "outage"))
    task = replace(task, metric="accuracy")
    (found,) = lost_classes(prepared(task))
    assert "'outage' is missing from train" in found.what
    assert "group" in found.fix
    others = tuple(replace(t, choices=task.choices[:2]) for t in task.templates)
    path.write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    whole = prepared(replace(task, choices=("ok", "bad"), templates=others))
    assert not [*lost_classes(whole)]
