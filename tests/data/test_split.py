from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from instil.data.split import part_rows, save_splits, seeded_key, split_rows
from instil.errors import DataError
from instil.types import Part, Removed, Role, Row, SourceSpec, Split, Task, Template

TASK = Task(
    id="reviews",
    kind="sentiment",
    cluster="sentiment",
    description="Is a review positive?",
    licence="MIT",
    source=SourceSpec("reviews.csv"),
    text="text",
    target="label",
    templates=(Template("plain", "{{ text }}", "{{ label }}", Role.ANSWER),),
    choices=("bad", "good"),
)
FREE = replace(TASK, choices=())


def make_rows(groups: list[list[str]]) -> list[Row]:
    """One row a label; each inner list is a group."""
    return [
        Row("reviews", f"{g}_{i}", str(g), {"text": f"text {g} {i}", "label": label})
        for g, labels in enumerate(groups)
        for i, label in enumerate(labels)
    ]


def groups_of(split: Split, rows: list[Row], part: Part) -> set[str]:
    return {row.group for row in part_rows(split, rows, part)}


label_groups = st.lists(
    st.lists(st.sampled_from(["bad", "good"]), min_size=1, max_size=6), min_size=12, max_size=60
)


@settings(max_examples=150, deadline=None)
@given(label_groups, st.integers(0, 12), st.integers(0, 12), st.integers(), st.data())
def test_groups_stay_whole_and_sizes_hold(groups, test, validation, seed, data):
    rows = make_rows(groups)
    sizes = [len(group) for group in groups]
    most = max(sizes)
    room = len(rows) - test - validation - 2 * most
    assume(room >= 1)
    train = data.draw(st.none() | st.integers(1, room))
    split = split_rows(rows, task=FREE, train=train, validation=validation, test=test, seed=seed)

    parts = [groups_of(split, rows, part) for part in Part]
    assert sum(map(len, parts)) == len(set.union(*parts)), "a group straddles"
    assert len(split.test) == test
    assert len(split.validation) == validation
    assert train is None or len(split.train) == train
    taken = len(split.train) + len(split.validation) + len(split.test)
    assert split.unused == len(rows) - taken
    if train is None:  # then only what was trimmed from two groups is left over
        assert split.unused <= 2 * most


@settings(max_examples=80, deadline=None)
@given(label_groups, st.integers(), st.randoms(use_true_random=False))
def test_seed_reproduces_whatever_the_order_of_rows(groups, seed, rng):
    rows = make_rows([["bad"], ["good"], ["bad"], ["good"], *groups])
    sizes = {"train": None, "validation": 4, "test": 4, "seed": seed}
    split = split_rows(rows, task=FREE, **sizes)
    shuffled = rows[:]
    rng.shuffle(shuffled)
    assert split_rows(shuffled, task=FREE, **sizes) == split
    assert split_rows(rows, task=FREE, **sizes) == split


@settings(max_examples=80, deadline=None)
@given(label_groups, st.integers())
def test_classes_stay_in_train_or_it_says_so(groups, seed):
    rows = make_rows(groups)
    try:
        split = split_rows(rows, task=TASK, train=None, validation=5, test=5, seed=seed)
    except DataError as error:
        assert "missing from train" in str(error) or "too few rows" in str(error)  # noqa: PT017
        return
    assert {row.fields["label"] for row in part_rows(split, rows, Part.TRAIN)} == {"bad", "good"}


def test_another_seed_gives_another_split():
    rows = make_rows([["bad", "good"]] * 60)
    sizes = {"task": TASK, "train": None, "validation": 10, "test": 20}
    assert split_rows(rows, seed=1, **sizes) != split_rows(rows, seed=2, **sizes)


def test_another_seed_for_train_leaves_the_judged_rows_alone():
    rows = make_rows([["x", "x", "x"]] * 40)
    sizes = {"task": FREE, "train": 30, "validation": 12, "test": 24, "seed": 1}
    plain = split_rows(rows, **sizes)
    assert split_rows(rows, **sizes, train_seed=1) == plain
    other = split_rows(rows, **sizes, train_seed=2)
    assert (other.test, other.validation) == (plain.test, plain.validation)
    assert set(other.train) != set(plain.train)
    assert len(other.train) == 30
    group = {each.id: each.group for each in rows}
    judged = {group[name] for name in (*other.test, *other.validation)}
    assert not judged & {group[name] for name in other.train}


def test_order_within_a_part_is_shuffled():
    rows = make_rows([["good"], ["bad"]] * 50)
    split = split_rows(rows, task=TASK, train=None, validation=0, test=10, seed=3)
    assert list(split.train) != sorted(split.train)
    numbers = [int(row_id.split("_")[0]) for row_id in split.train]
    assert numbers != sorted(numbers)


@pytest.mark.parametrize("seed", range(5))
def test_label_shares_follow_the_whole_for_single_rows(seed):
    rows = make_rows([["good"]] * 120 + [["bad"]] * 80)
    split = split_rows(rows, task=TASK, train=None, validation=20, test=50, seed=seed)
    for part, n in ((Part.TEST, 50), (Part.VALIDATION, 20)):
        counts = Counter(row.fields["label"] for row in part_rows(split, rows, part))
        assert counts == {"good": n * 0.6, "bad": n * 0.4}


@pytest.mark.parametrize("seed", range(5))
def test_label_shares_stay_near_when_groups_are_mixed(seed):
    rng = random.Random(seed)
    groups = [
        ["good" if rng.random() < mood else "bad" for _ in range(rng.randint(2, 18))]
        for mood in [rng.random() for _ in range(300)]
    ]
    rows = make_rows(groups)
    whole = sum(row.fields["label"] == "good" for row in rows) / len(rows)
    split = split_rows(rows, task=TASK, train=600, validation=150, test=300, seed=seed)
    for part in Part:
        labels = [row.fields["label"] for row in part_rows(split, rows, part)]
        assert abs(labels.count("good") / len(labels) - whole) < 0.03


def test_surplus_of_the_last_group_is_unused():
    rows = make_rows([["good"] * 4, ["good"] * 4, ["good"] * 4])
    split = split_rows(rows, task=FREE, train=None, validation=0, test=5, seed=0)
    assert len(split.test) == 5
    assert len(split.train) == 4
    assert split.unused == 3
    assert not groups_of(split, rows, Part.TEST) & groups_of(split, rows, Part.TRAIN)


def test_a_giant_group_is_not_wasted_on_a_small_part():
    rows = make_rows([["good"] * 500, *[["good"]] * 40])
    split = split_rows(rows, task=FREE, train=None, validation=10, test=20, seed=0)
    assert split.unused == 0
    assert len(split.train) == 510


def test_a_rare_class_is_kept_for_train():
    rows = make_rows([["bad"], *[["good"]] * 30])
    for seed in range(10):
        split = split_rows(rows, task=TASK, train=5, validation=10, test=15, seed=seed)
        assert "0_0" in split.train


def test_train_none_asked_leaves_no_class_behind():
    rows = make_rows([["bad"]] * 3 + [["good"]] * 3)
    split = split_rows(rows, task=TASK, train=0, validation=0, test=6, seed=0)
    assert len(split.test) == 6
    assert split.train == ()


def test_too_few_rows_for_train_says_how_many_there_are():
    rows = make_rows([["good"], ["bad"]] * 256)
    with pytest.raises(DataError) as caught:
        split_rows(rows, task=TASK, train=600, validation=40, test=60, seed=0)
    (problem,) = caught.value.problems
    assert "train asks for 600 and can have 412" in problem.what
    assert problem.found == "512 rows in 512 groups for test 60, validation 40, train 600"
    assert problem.fix == "train: 412"
    split = split_rows(rows, task=TASK, train=412, validation=40, test=60, seed=0)
    assert len(split.train) == 412


def test_too_few_rows_for_test_suggests_sizes():
    rows = make_rows([["good"], ["bad"]] * 25)
    with pytest.raises(DataError, match="test asks for 300 and can have 48") as caught:
        split_rows(rows, task=TASK, train=600, validation=40, test=300, seed=0)
    assert "test: 10, validation: 5, train: 35" in caught.value.problems[0].fix


def test_groups_that_are_too_coarse_are_named_as_the_cause():
    rows = make_rows([["good"] * 30, ["bad"] * 30])
    with pytest.raises(DataError, match="too few rows") as caught:
        split_rows(rows, task=TASK, train=None, validation=6, test=12, seed=0)
    assert "`group`" in caught.value.problems[0].fix


def test_nothing_left_for_train():
    rows = make_rows([["good"]])
    with pytest.raises(DataError, match="too few rows"):
        split_rows(rows, task=FREE, train=None, validation=1, test=1, seed=0)
    with pytest.raises(DataError, match="train asks for 1 and can have 0"):
        split_rows([], task=FREE, train=None, validation=0, test=0, seed=0)


def test_missing_classes_are_all_named():
    rows = make_rows([["good"]] * 20)
    task = replace(TASK, choices=("bad", "good", "so-so"))
    with pytest.raises(DataError) as caught:
        split_rows(rows, task=task, train=None, validation=2, test=2, seed=0)
    assert [problem.what for problem in caught.value.problems] == [
        "the class 'bad' is missing from train",
        "the class 'so-so' is missing from train",
    ]
    assert caught.value.problems[0].found == "no row has this label"


def test_train_too_small_for_all_classes():
    rows = make_rows([["good"], ["bad"]] * 20)
    with pytest.raises(DataError, match="missing from train") as caught:
        split_rows(rows, task=TASK, train=1, validation=2, test=2, seed=0)
    assert "20 rows of it in all" in caught.value.problems[0].found


def test_part_rows_notices_lost_rows():
    rows = make_rows([["good"], ["bad"]] * 10)
    split = split_rows(rows, task=TASK, train=None, validation=2, test=2, seed=0)
    assert [row.id for row in part_rows(split, rows, Part.TEST)] == list(split.test)
    with pytest.raises(DataError, match="1 of the 2 test rows"):
        part_rows(split, [row for row in rows if row.id != split.test[0]], Part.TEST)


def test_splits_survive_the_file(tmp_path):
    rows = make_rows([["good"], ["bad"]] * 10)
    split = split_rows(rows, task=TASK, train=None, validation=2, test=2, seed=0)
    removed = Removed("ü", Part.TRAIN, "near duplicate", split.test[0], 0.9)
    split = replace(split, removed=(removed,), skipped={"no text": 2})
    path = tmp_path / "split.json"
    save_splits([split, replace(split, task="other")], path)
    first, second = json.loads(path.read_text(encoding="utf-8"))["splits"]
    assert first["removed"][0] == asdict(removed)
    assert first["test"] == list(split.test)
    assert second == {**first, "task": "other"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["split.json"]


def test_nothing_depends_on_the_hash_seed():
    assert seeded_key(1, "a") == 8174930879837200955
    code = "from instil.data.split import seeded_key; print(seeded_key(1, 'a'))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{seeded_key(1, 'a')}\n"}


def test_large_data_sets_split_in_linear_time():
    rows = make_rows([["good", "bad", "good"]] * 5_000 + [["bad"]] * 5_000)
    split = split_rows(rows, task=TASK, train=8_000, validation=1_000, test=2_000, seed=0)
    assert len(split.train) == 8_000
