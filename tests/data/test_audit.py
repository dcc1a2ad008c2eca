from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instil.data.audit import (
    EXACT,
    NEAR,
    conflicting_labels,
    jaccard,
    label_counts,
    normalise,
    remove_duplicates,
    repeats_within,
    shingles,
)
from instil.errors import DataError
from instil.types import Part, Removed, Row, SourceSpec, Split, Task, Template

TASK = Task(
    id="reviews",
    kind="sentiment",
    cluster="sentiment",
    description="",
    licence="MIT",
    source=SourceSpec("reviews.csv"),
    text="text",
    target="label",
    templates=(Template("plain", "{{ text }}", "{{ label }}"),),
    choices=("bad", "good"),
)
LONG = "the battery of this camera lasts for a whole day of walking through the old town with it"


def make_split(**parts: list[str]) -> tuple[Split, list[Row]]:
    """Texts a part; ids are `train_0`, `train_1` ..."""
    rows = [
        Row("reviews", f"{part}_{i}", f"{part}_{i}", {"text": text, "label": "good"})
        for part, texts in parts.items()
        for i, text in enumerate(texts)
    ]
    ids = {
        part.value: tuple(row.id for row in rows if row.id.startswith(part.value)) for part in Part
    }
    return Split("reviews", 0, **ids), rows


def distinct(n: int, seed: int = 0, words: int = 15) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(f"w{rng.randrange(2000)}" for _ in range(words)) for _ in range(n)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  Good,   SOLID\nfilm!", "good solid film"),
        ("don\u2019t", "dont"),
        ("don't", "dont"),
        ("good\u2014bad", "good bad"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("\uff27ood", "good"),
        ("?!", "?!"),
        ("great 👍", "great 👍"),
        ("well-made, isn't it? (50 %)", "well made isnt it 50 %"),
        ("covid-19", "covid 19"),
        ("", ""),
    ],
)
def test_normalise(text, expected):
    assert normalise(text) == expected


@given(st.text(alphabet=st.characters(codec="ascii")))
def test_normalise_ignores_case_and_spaces(text):
    assert normalise(f"  {text.upper()}\n") == normalise(text.lower())
    assert normalise(normalise(text)) == normalise(text)


def test_shingles_are_three_words_or_the_whole_text():
    assert shingles("One two. Three four") == {"one two three", "two three four"}
    assert shingles("Good film") == {"good film"}
    assert jaccard(shingles("a b c d"), shingles("a b c e")) == 1 / 3


def test_exact_duplicates_leave_train_and_validation_never_test():
    split, rows = make_split(
        test=["Good film.", "Good film.", "other one here"],
        validation=["good FILM", "fresh words", "shared by both"],
        train=["Good film", "own text", "Shared by both!"],
    )
    result = remove_duplicates(split, rows, task=TASK)
    assert result.test == split.test
    assert result.validation == ("validation_1", "validation_2")
    assert result.train == ("train_1",)
    assert result.removed == (
        Removed("validation_0", Part.VALIDATION, EXACT, "test_0", 1.0),
        Removed("train_0", Part.TRAIN, EXACT, "test_0", 1.0),
        Removed("train_2", Part.TRAIN, EXACT, "validation_2", 1.0),
    )


def test_near_duplicates_are_removed_with_their_true_similarity():
    near = LONG.replace("with it", "with me")
    split, rows = make_split(test=[LONG], validation=["fresh words"], train=[near, "own text"])
    result = remove_duplicates(split, rows, task=TASK, threshold=0.8)
    (removed,) = result.removed
    assert (removed.row, removed.part, removed.why) == ("train_0", Part.TRAIN, NEAR)
    assert removed.of == "test_0"
    assert removed.similarity == jaccard(shingles(LONG), shingles(near)) > 0.8
    assert result.train == ("train_1",)


def test_near_duplicates_are_found_where_no_blanks_part_words():
    words = "今天天气很好我们去公园散步然后吃了一顿丰盛的晚餐回家看电影"
    assert jaccard(shingles(words), shingles(words + "吧")) > 0.9
    assert jaccard(shingles(words), shingles("明天他要在图书馆里读三本关于历史和地理的旧书")) == 0


def test_a_repeat_among_texts_that_share_a_frame_is_found():
    draw, frame = random.Random(0), " ".join(f"frame{n}" for n in range(29))
    texts = [
        f"{frame} {' '.join(f'w{draw.randrange(5000)}' for _ in range(12))}" for _ in range(500)
    ]
    texts.append(texts[7] + " indeed")
    (repeat,) = repeats_within(
        [Row("t", str(n), str(n), {"text": t}) for n, t in enumerate(texts)], task=TASK
    )
    assert (repeat.row, repeat.of) == ("500", "7")


def test_the_threshold_is_held_exactly():
    near = LONG.replace("with it", "with me")
    split, rows = make_split(test=[LONG], validation=[], train=[near])
    assert remove_duplicates(split, rows, task=TASK, threshold=0.95).removed == ()
    assert remove_duplicates(split, rows, task=TASK, threshold=1.0).removed == ()


def test_short_texts_that_differ_in_one_word_stay():
    split, rows = make_split(test=["not a good film"], validation=[], train=["not a bad film"])
    assert remove_duplicates(split, rows, task=TASK).removed == ()


def test_nearest_of_several_is_named():
    others = [LONG.replace("with it", "with me"), LONG, LONG.replace("day", "week")]
    split, rows = make_split(test=others, validation=[], train=[LONG + " too", "x y"])
    (removed,) = remove_duplicates(split, rows, task=TASK, threshold=0.5).removed
    assert removed.of == "test_1"


def test_nearly_all_pairs_at_the_threshold_are_found():
    rng = random.Random(1)
    originals = distinct(300, words=30)
    copies = []
    for text in originals:
        words = text.split()
        words[-rng.choice([1, 2, 3])] = "changed"
        copies.append(" ".join(words))
    split, rows = make_split(test=originals, validation=[], train=[*copies, "own text"])
    result = remove_duplicates(split, rows, task=TASK, threshold=0.8)
    pairs = zip(originals, copies, strict=True)
    alike = [jaccard(shingles(a), shingles(b)) >= 0.8 for a, b in pairs]
    assert sum(alike) > 250
    assert len(result.removed) >= 0.97 * sum(alike)
    assert all(entry.similarity >= 0.8 for entry in result.removed)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "b c", "d e f", "D e, f!", LONG, LONG + " too"]), min_size=1),
    st.lists(st.sampled_from(["a", "g", "h i j", LONG]), min_size=1),
)
def test_no_text_of_train_is_left_in_test(train, test):
    split, rows = make_split(train=[*train, "never in test"], validation=[], test=test)
    result = remove_duplicates(split, rows, task=TASK)
    texts = {row.id: normalise(row.fields["text"]) for row in rows}
    assert not {texts[i] for i in result.train} & {texts[i] for i in result.test}
    assert len(result.train) + len(result.removed) == len(split.train)
    assert remove_duplicates(result, rows, task=TASK) == result


def test_rows_of_a_part_keep_their_order_and_earlier_removals_stay():
    earlier = Removed("gone", Part.TRAIN, EXACT, "test_0", 1.0)
    split, rows = make_split(test=["a"], validation=["b"], train=["a", "c", "d", "c"])
    result = remove_duplicates(replace(split, removed=(earlier,)), rows, task=TASK)
    assert result.train == ("train_1", "train_2", "train_3")
    assert result.removed[0] == earlier


def test_a_part_that_would_be_empty_is_an_error():
    split, rows = make_split(test=["a"], validation=["A"], train=["a", "a!"])
    with pytest.raises(DataError) as caught:
        remove_duplicates(split, rows, task=TASK)
    assert [problem.what for problem in caught.value.problems] == [
        "every row of validation repeats a text that must stay unseen",
        "every row of train repeats a text that must stay unseen",
    ]


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.1])
def test_threshold_out_of_range(threshold):
    split, rows = make_split(test=["a"], validation=[], train=["b"])
    with pytest.raises(DataError, match="out of range"):
        remove_duplicates(split, rows, task=TASK, threshold=threshold)


@pytest.mark.parametrize("threshold", [0.01, 0.3, 0.5, 0.8, 0.9, 0.99, 0.999])
def test_every_threshold_makes_an_index(threshold):
    split, rows = make_split(test=[LONG], validation=[], train=[LONG.upper(), "other words here"])
    assert len(remove_duplicates(split, rows, task=TASK, threshold=threshold).removed) == 1


def test_three_thousand_texts_take_seconds():
    texts = distinct(3000, words=20)
    split, rows = make_split(test=texts[:600], validation=texts[600:900], train=texts[900:])
    start = time.process_time()
    assert remove_duplicates(split, rows, task=TASK).removed == ()
    assert time.process_time() - start < 5


def test_result_does_not_depend_on_the_hash_seed():
    code = f"""
from instil.data.audit import remove_duplicates
from instil.types import Row, SourceSpec, Split, Task
words = {LONG!r}.split()
texts = [" ".join([*words[:i], "x", *words[i:]]) for i in range(16)] + ["own text"]
rows = [Row("t", str(i), str(i), {{"text": text}}) for i, text in enumerate(texts)]
ids = tuple(row.id for row in rows)
split = Split("t", 0, train=ids[8:], validation=(), test=ids[:8])
task = Task("t", "k", "c", "", "", SourceSpec("x"), "text", "label", ())
result = remove_duplicates(split, rows, task=task, threshold=0.6)
assert len(result.removed) > 3
print(result)
"""
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
    assert len(outputs) == 1


def labelled(*pairs: tuple[str, str]) -> list[Row]:
    return [
        Row("reviews", str(i), str(i), {"text": text, "label": label})
        for i, (text, label) in enumerate(pairs)
    ]


def test_label_counts_name_every_choice():
    rows = labelled(("a", "good"), ("b", "good"))
    assert label_counts(rows, TASK) == {"bad": 0, "good": 2}
    assert list(label_counts(rows, TASK)) == ["bad", "good"]
    assert label_counts(rows, replace(TASK, choices=())) == {}


def test_conflicting_labels_pairs_each_with_the_first_that_differs():
    rows = labelled(
        ("Fine.", "good"), ("fine", "bad"), ("fine!", "good"), ("FINE", "bad"), ("other", "bad")
    )
    assert conflicting_labels(rows, TASK) == [("0", "1"), ("1", "2"), ("0", "3")]
    assert conflicting_labels(rows, replace(TASK, choices=())) == []
    assert conflicting_labels(rows[4:], TASK) == []
