"""Who is asked further, and that halving loses nothing that the figures had shown."""

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from instil.compare.halving import (
    FEWEST,
    Standing,
    affordable,
    doubling,
    kept_of,
    looks,
    planned,
    race,
    survivors,
)

TABLES = st.integers(1, 12).flatmap(
    lambda ways: st.tuples(
        st.lists(st.integers(0, 3), min_size=ways, max_size=ways),
        st.integers(1, 200).flatmap(
            lambda rows: st.lists(
                st.integers(0, 2**rows - 1).map(
                    lambda bits: [float(bits >> n & 1) for n in range(rows)]
                ),
                min_size=ways,
                max_size=ways,
            )
        ),
    )
)
"""The kinds of some ways, and a score of 0 or 1 for each way and row."""


def run_race(kinds, table, *, alone=False):
    """Race over a table of scores; also returns how many prompts were asked."""
    asked = [0] * len(table)

    def ask(way, part):
        assert part.start == asked[way], "rows are asked once, in order"
        asked[way] = part.stop
        return Standing(sum(table[way][: part.stop]), part.stop)

    return race(ask, kinds=kinds, rows=len(table[0]), alone=alone), asked


@given(st.integers(1, 5000))
def test_the_last_look_is_at_all_rows_and_none_at_too_few(rows):
    at = (0, *looks(rows))
    assert at[-1] == rows
    assert all(b - a >= min(FEWEST, rows) for a, b in itertools.pairwise(at))


@given(TABLES)
def test_every_kind_is_known_on_all_rows_at_no_more_than_the_cost_that_was_said(case):
    kinds, table = case
    left, asked = run_race(kinds, table)
    assert {kinds[way] for way in left} == set(kinds)
    assert [way for way, count in enumerate(asked) if count == len(table[0])] == list(left)
    assert sum(asked) <= sum(ways * rows for ways, rows in planned(kinds, rows=len(table[0])))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20)), min_size=1, max_size=12),
    st.integers(1, 300),
    st.booleans(),
)
def test_without_noise_the_best_way_is_left(ways, rows, alone):
    kinds = [0 if alone else kind for kind, _ in ways]
    left, _ = run_race(kinds, [[worth / 20] * rows for _, worth in ways], alone=alone)
    best = max(worth for _, worth in ways)
    assert next(n for n, (_, worth) in enumerate(ways) if worth == best) in left


@given(TABLES, st.data())
def test_a_way_that_is_dropped_though_there_is_room_could_not_have_won(case, data):
    kinds, table = case
    rows = len(table[0])
    seen = data.draw(st.integers(1, rows))
    standings = [Standing(sum(scores[:seen]), seen) for scores in table]
    kept = survivors(standings, kinds=kinds, rows=rows)
    if len(kept) < kept_of(len(table), kinds=len(set(kinds))):
        for way in set(range(len(table))) - set(kept):
            assert sum(table[way]) < max(map(sum, table))


def test_the_exact_rule_drops_who_cannot_reach_the_leader():
    far, near = Standing(10, 75), Standing(50, 75)
    ways = [Standing(70, 75), near, far, far]
    assert survivors(ways, kinds=[0] * 4, rows=100) == (0, 1)
    assert survivors([Standing(70, 75), far, far, far], kinds=[0] * 4, rows=100) == (0,)
    assert survivors([Standing(70, 75), far, far, far], kinds=[0, 0, 0, 1], rows=100) == (0, 3)


def test_rows_that_cannot_be_scored_bear_on_no_bound():
    way = Standing(3, 6, unscored=4)
    assert way.mean == 0.5
    assert (way.at_worst(20), way.at_best(20)) == (3 / 16, 13 / 16)
    assert Standing(0, 0, unscored=4).mean == 0.0


@given(st.integers(1, 300), st.integers(1, 400), st.integers(0, 20_000), st.integers(0, 1))
def test_what_is_affordable_costs_no_more_than_the_budget_and_one_more_would(
    ways, rows, budget, beside
):
    def cost(count):
        plan = planned([0] * count, rows=rows, at=doubling(rows))
        return sum(n * (more + beside) for n, more in plan)

    count = affordable(ways, rows=rows, budget=budget, beside=beside)
    assert 0 <= count <= ways
    assert cost(count) <= budget or count == 0
    assert count == ways or cost(count + 1) > budget


def test_many_ways_at_doubling_looks_keep_the_best_of_a_simulated_landscape():
    """64 ways between 50 and 70 % and one of 85 %: at the end it leads in at least 95 of 100."""
    draw, rows, won, spent = random.Random(5), 150, 0, 0
    for _ in range(100):
        best = draw.randrange(64)
        true = [0.85 if way == best else draw.uniform(0.5, 0.7) for way in range(64)]
        hard = [draw.gauss(0, 0.08) for _ in range(rows)]  # rows are alike for all ways
        table = [[float(draw.random() < p + h) for h in hard] for p in true]
        asked = [0] * 64

        def ask(way, part, table=table, asked=asked):
            asked[way] = part.stop
            return Standing(sum(table[way][: part.stop]), part.stop)

        left = race(ask, kinds=[0] * 64, rows=rows, at=doubling(rows))
        won += max(left, key=lambda way, table=table: sum(table[way])) == best
        spent = max(spent, sum(asked))
    assert won >= 95
    assert spent <= 64 * rows / 3, "at a third of the prompts that all rows would take"
