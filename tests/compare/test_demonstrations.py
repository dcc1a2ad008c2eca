"""Worked examples: nearest by brute force, from train alone, the same from the same seed."""

import math
import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instil.compare import demonstrations as demos
from instil.compare.demonstrations import Neighbours
from instil.results.prompts import Demonstrations
from instil.stages.context import prepare_rows
from instil.types import Row
from moods import lay_out, make_recipe


@pytest.fixture(scope="module")
def data(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("moods")
    tiny = request.getfixturevalue("tiny_folder")
    recipe = make_recipe(lay_out(folder), tiny, "forgetting.text=false")
    (prepared,) = prepare_rows(recipe)
    return prepared


def row(name: str, text: str, *, label: str = "positive", group: str = "") -> Row:
    return Row("moods", name, group or name, {"text": text, "mood": label})


def cosine_of_tfidf(pool: list[str], asked: str) -> list[float]:
    """scikit-learn's smoothed TF-IDF with sublinear counts, by its formulas, in plain Python."""

    def terms(text: str) -> Counter:
        words = text.lower().split()
        pairs = [" ".join(pair) for pair in pairwise(words)]
        return Counter(words + pairs)

    frequency = Counter(term for text in pool for term in terms(text))
    spread = Counter(term for text in pool for term in set(terms(text)))
    assert frequency

    def weighed(text: str) -> dict[str, float]:
        known = {term: n for term, n in terms(text).items() if term in spread}
        idf = {term: math.log((1 + len(pool)) / (1 + spread[term])) + 1 for term in known}
        return {term: (1 + math.log(n)) * idf[term] for term, n in known.items()}

    def norm(vector: dict[str, float]) -> float:
        return math.sqrt(sum(value**2 for value in vector.values())) or 1.0

    mine = weighed(asked)
    return [
        sum(value * other.get(term, 0.0) for term, value in mine.items()) / norm(mine) / norm(other)
        for other in map(weighed, pool)
    ]


def test_nearest_by_words_are_those_of_brute_force(data):
    draw = random.Random(1)
    vocabulary = "good bad phone book slow fast screen sound it is and".split()

    def text() -> str:
        return " ".join(draw.choices(vocabulary, k=draw.randint(2, 9)))

    pool = [row(f"t{n:02}", text()) for n in range(40)]
    asked = [row(f"q{n}", text()) for n in range(12)]
    near = demos.word_neighbours(data.task, pool[::-1], asked)
    assert [each.id for each in near.pool] == sorted(each.id for each in pool)
    for each in asked:
        expected = cosine_of_tfidf([str(t.fields["text"]) for t in pool], str(each.fields["text"]))
        assert near.similar[each.id] == pytest.approx(expected, abs=1e-9)
        shown = demos.nearest(data.task, near, each, shots=5, balanced=False)
        values = dict(zip([t.id for t in pool], near.similar[each.id], strict=True))
        best = sorted(values, key=lambda name: (-values[name], name))[:5]
        assert [each.id for each in shown] == best[::-1], "the nearest stands last"


def test_nearest_balanced_takes_the_nearest_of_each_class_in_turn(data):
    labels = ["positive"] * 5 + ["negative"] * 3
    pool = tuple(row(f"t{n}", "x", label=label) for n, label in enumerate(labels))
    near = Neighbours(pool, {"q": np.array([9, 8, 7, 6, 5, 4, 3, 2.0])})
    shown = demos.nearest(data.task, near, row("q", "x"), shots=5, balanced=True)
    assert [each.id for each in shown] == ["t2", "t6", "t1", "t5", "t0"]
    plain = demos.nearest(data.task, near, row("q", "x"), shots=3, balanced=False)
    assert [each.id for each in plain] == ["t2", "t1", "t0"]


def test_a_training_row_is_never_its_own_neighbour_nor_its_groups(data):
    near = demos.word_neighbours(data.task, data.train, data.train)
    for each in data.train:
        shown = demos.nearest(data.task, near, each, shots=4, balanced=False)
        assert each.group not in {other.group for other in shown}


def test_nearest_by_states_are_those_of_brute_force(tiny, data):
    from instil.compare.ladder import Prompting
    from instil.evaluate.probe import prompt_features, prompts_of

    pool, asked, template = data.train[:20], data.validation[:6], data.answering[0]
    near = demos.state_neighbours(tiny, data.task, template, pool, asked)
    prompts = prompts_of(tiny, Prompting(template).examples(data, [*pool, *asked]))
    skip = next(n for n in range(99) if len({prompt[n] for prompt in prompts[: len(pool)]}) > 1)
    states = np.stack([prompt_features(tiny, [prompt], skip=skip)[0] for prompt in prompts])
    own = states[: len(pool)].astype(float)
    states = (states - own.mean(0)) / own.std(0)
    places = {each.id: n for n, each in enumerate(pool)}
    for n, each in enumerate(asked):
        for other, found in zip(near.pool, near.similar[each.id], strict=True):
            a, b = states[len(pool) + n], states[places[other.id]]
            assert found == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-3)


@given(
    draw=st.sampled_from([demos.RANDOM, demos.BALANCED, demos.HARD, *sorted(demos.PER_ROW)]),
    shots=st.integers(1, 8),
    seed=st.integers(0, 99),
    order=st.integers(0, 4),
)
def test_worked_examples_are_of_train_alone_and_the_same_from_the_same_seed(
    data, draw, shots, seed, order
):
    pool = demos.pool_rows(data, most=30, seed=seed)
    asked = (*data.validation, *data.test[:10])
    near = demos.word_neighbours(data.task, pool, asked)

    def shown():
        if draw in demos.PER_ROW:
            how = Demonstrations(draw, shots, order=order, pool=tuple(r.id for r in near.pool))
        else:
            rows = demos.drawn(data, pool, draw, shots=shots, seed=seed)
            how = Demonstrations(draw, shots, seed, order, rows=tuple(r.id for r in rows))
        return demos.chosen(data, how, asked, neighbours=near)

    made, train = shown(), {each.id for each in data.train}
    judged = {each.id for each in (*data.validation, *data.test)}
    assert made.keys() == {each.id for each in asked}
    for rows in made.values():
        names = [each.id for each in rows]
        assert len({*names}) == len(names) == shots
        assert {*names} <= train
        assert not {*names} & judged
    assert shown() == made
    backwards = replace(data, train=data.train[::-1])
    assert demos.pool_rows(backwards, most=30, seed=seed) == pool


def test_drawn_rows_are_of_different_groups_while_there_are_such(data):
    pool = [row(f"t{n}", "x", group=f"g{n // 4}") for n in range(12)]
    for seed in range(20):
        rows = demos.drawn(data, pool, demos.RANDOM, shots=5, seed=seed)
        assert len({each.group for each in rows[:3]}) == 3
        assert len({each.id for each in rows}) == 5
    draws = [demos.drawn(data, pool, demos.RANDOM, shots=3, seed=seed) for seed in range(20)]
    assert len({tuple(each.id for each in rows) for rows in draws}) > 10


def test_orders():
    rows = [row(str(n), "x") for n in range(6)]
    assert demos.ordered(rows, 0) == tuple(rows)
    assert demos.ordered(rows, 1) == tuple(rows[::-1])
    assert demos.ordered(rows, 2) == demos.ordered(rows, 2) != demos.ordered(rows, 3)
    assert sorted(demos.ordered(rows, 2), key=lambda each: each.id) == rows
