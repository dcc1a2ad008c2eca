from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instil.data.mix import MixRules, Pool, apportion, mix_counts, mixed_examples
from instil.errors import DataError, RecipeError
from instil.types import Role, Row, SourceSpec, Task, Template

ASK = Template("ask", "Good or bad? {{ text }}", "{{ label }}", choices=("bad", "good"))
OTHER = Template("other", "{{ text }} Bad or good?", "{{ label }}", choices=("bad", "good"))
WRITE = Template("write", "Write a {{ label }} text.", "{{ text }}", role=Role.INVERTED)


def mixed(pools, rules, *, epoch):
    return tuple(mixed_examples(pools, rules, epoch=epoch))


def pool(name: str, rows: int, *, groups: int = 0, weight: float | None = None) -> Pool:
    task = Task(
        name, "k", name, "", "", SourceSpec("x.csv"), "text", "label", (ASK, OTHER, WRITE),
        choices=("bad", "good"),
    )  # fmt: skip
    made = tuple(
        Row(
            name,
            f"r{n}",
            f"g{n % groups if groups else n}",
            {"text": f"{name} text {n}", "label": ("bad", "good")[n % 2]},
        )
        for n in range(rows)
    )
    return Pool(task, made, task.templates, weight)


def by_task(examples) -> Counter[str]:
    return Counter(example.task for example in examples)


def plain(per_row: str = "one", **rules) -> MixRules:
    return MixRules(**{"per_row": per_row, "seed": 0, **rules})


sizes = st.lists(st.integers(1, 400), min_size=1, max_size=6)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 5000), st.lists(st.floats(0.01, 1e4), min_size=1, max_size=8))
def test_apportioned_counts_add_up_and_stay_within_one_of_their_share(total, weights):
    counts = apportion(total, weights)
    assert sum(counts) == total
    for count, weight in zip(counts, weights, strict=True):
        assert abs(count - total * weight / sum(weights)) < 1 + 1e-6


@settings(max_examples=100, deadline=None)
@given(sizes, st.integers(1, 300))
def test_caps_hold_and_without_one_every_example_is_taken(sizes, cap):
    pools = [pool(f"t{n}", size) for n, size in enumerate(sizes)]
    assert mix_counts(pools, plain()) == tuple(sizes)
    assert mix_counts(pools, plain(cap=cap)) == tuple(min(size, cap) for size in sizes)
    assert mix_counts(pools, plain("all")) == tuple(3 * size for size in sizes)


@settings(max_examples=100, deadline=None)
@given(sizes, st.integers(600, 4000), st.floats(1, 20))
def test_temperature_evens_out_and_proportions_hold(sizes, total, temperature):
    pools = [pool(f"t{n}", size) for n, size in enumerate(sizes)]
    rules = plain(examples=total, temperature=temperature)
    weights = [size ** (1 / temperature) for size in sizes]
    try:
        counts = mix_counts(pools, rules)
    except RecipeError:
        assert min(weights) * total < sum(weights), "only a share below one example is refused"
        return
    assert sum(counts) == total
    for count, weight in zip(counts, weights, strict=True):
        assert abs(count - total * weight / sum(weights)) < 1


def test_the_worked_example_of_the_docstring():
    pools = [pool("a", 200), pool("b", 1000), pool("c", 9000)]
    by_size = mix_counts(pools, plain(cap=3000))
    evened = mix_counts(pools, plain(cap=3000, temperature=2))
    assert by_size == (200, 1000, 3000)
    assert [round(count / 4200, 3) for count in evened] == [0.141, 0.315, 0.545]


def test_given_weights_are_the_shares():
    pools = [pool("a", 300, weight=3), pool("b", 100, weight=1)]
    counts = by_task(mixed(pools, plain(examples=80), epoch=0))
    assert counts == {"a": 60, "b": 20}


def test_a_task_without_any_example_is_refused():
    with pytest.raises(RecipeError, match="none of b"):
        mix_counts([pool("a", 1000), pool("b", 1)], plain(examples=10))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(3, 40), st.integers(2, 90), st.integers(0, 2**31), st.sampled_from(["one", "all"])
)
def test_every_example_is_seen_before_one_is_seen_again(rows, per_epoch, seed, per_row):
    source = pool("a", rows)
    rules = plain(per_row, seed=seed, examples=per_epoch)
    keys = [
        example.row if per_row == "one" else (example.row, example.template)
        for epoch in range(4)
        for example in mixed([source], rules, epoch=epoch)
    ]
    assert len(keys) == 4 * per_epoch
    counts = Counter(keys)
    size = source.size(per_row)
    assert max(counts.values()) - (min(counts.values()) if len(counts) == size else 0) <= 1
    assert len(counts) == min(size, len(keys))


@settings(max_examples=30, deadline=None)
@given(
    st.integers(8, 60),
    st.integers(5, 8),
    st.integers(1, 4),
    st.floats(0, 1),
    st.integers(0, 2**31),
)
def test_few_shot_examples_by_share_from_other_groups_alone(rows, groups, shots, share, seed):
    source = pool("a", rows, groups=groups)
    group_of = {f"a text {n}": f"g{n % groups}" for n in range(rows)}
    rules = plain(seed=seed, few_shot_share=share, few_shot=shots)
    examples = mixed([source], rules, epoch=0)
    few = [example for example in examples if example.shots]
    assert len(few) == round(share * rows)
    for example in few:
        assert example.shots == shots
        answers = [m.content for m in example.messages[1:-1:2]]
        asked = [m.content for m in example.messages[:-1:2]]
        texts = answers if example.template == "write" else asked
        shown = [next(g for t, g in group_of.items() if text_in(t, text)) for text in texts]
        assert example.group not in shown
        assert len(set(shown)) == shots
    assert examples == mixed([source], rules, epoch=0)


def text_in(text: str, prompt: str) -> bool:
    return f" {text} " in f" {prompt.replace('?', ' ')} "


def test_few_shot_turns_go_through_the_same_template():
    source = pool("a", 9)
    rules = plain(few_shot_share=1, few_shot=2)
    for example in mixed([replace(source, templates=(OTHER,))], rules, epoch=0):
        assert [m.role for m in example.messages] == ["user", "assistant"] * 2 + ["user"]
        assert all(m.content.endswith("Bad or good?") for m in example.messages[::2])
        assert {m.content for m in example.messages[1::2]} <= {"bad", "good"}


def test_seeds_reproduce_and_change_the_draw():
    pools = [pool("a", 60), pool("b", 90)]
    rules = [plain(seed=seed, examples=40, few_shot_share=0.5) for seed in (1, 1, 2)]
    first, again, other = (mixed(pools, each, epoch=0) for each in rules)
    assert first == again
    assert first != other
    assert first != mixed(pools, rules[0], epoch=1)


def test_the_order_of_the_tasks_changes_no_draw():
    a, b = pool("a", 60), pool("b", 60)
    rules = plain(examples=40, few_shot_share=0.5)
    one, two = mixed([a, b], rules, epoch=0), mixed([b, a], rules, epoch=0)
    assert set(map(str, one)) == set(map(str, two))


def test_too_few_groups_for_worked_examples_are_refused():
    rules = plain(few_shot_share=0.5, few_shot=3)
    with pytest.raises(DataError, match="too few groups") as caught:
        mixed([pool("a", 30, groups=3)], rules, epoch=0)
    assert caught.value.problems[0].fix == "mix: {few_shot: 2}"
