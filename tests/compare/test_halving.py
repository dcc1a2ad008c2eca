"""Who is asked further, and that halving loses nothing that the figures had shown."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from instil.compare.halving import (
    FEWEST,
    Standing,
    kept_of,
    looks,
    most_asked,
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
    assert sum(asked) <= most_asked(kinds, rows=len(table[0]))


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
