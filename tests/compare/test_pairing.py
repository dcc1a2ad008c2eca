from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from instil.compare.pairing import (
    by_row,
    compare,
    compare_scores,
    comparison_notes,
    pair_key,
    row_groups,
)
from instil.errors import RunError
from instil.types import Example


def _arms(b_only: int, a_only: int, both: int) -> tuple[dict[str, float], dict[str, float]]:
    a = [0.0] * b_only + [1.0] * (a_only + both)
    b = [1.0] * b_only + [0.0] * a_only + [1.0] * both
    ids = [f"t/{i}/x" for i in range(len(a))]
    return dict(zip(ids, a, strict=True)), dict(zip(ids, b, strict=True))


def _example(row: int, template: str) -> Example:
    return Example(
        id=f"t/{row}/{template}",
        task="t",
        template=template,
        row=str(row),
        group=f"g{row // 3}",
        messages=(),
        target="x",
    )


def test_compare_pairs_by_id_and_counts_who_alone_is_right() -> None:
    a, b = _arms(40, 20, 240)
    shuffled = dict(reversed(b.items())) | {"only in b": 1.0}
    found = compare(a, shuffled, a="prompting", b="tuned", metric="accuracy", groups=None)
    assert (found.a, found.b, found.n) == ("prompting", "tuned", 300)
    assert (found.b_only, found.a_only) == (40, 20)
    assert found.difference == pytest.approx(20 / 300)
    assert 0 < found.low < found.difference < found.high
    assert found.p_value == pytest.approx(0.0099, abs=1e-4)
    assert found.smallest_detectable == pytest.approx(0.072, abs=0.001)
    assert found == compare(a, b, a="prompting", b="tuned", metric="accuracy", groups=None)


def test_the_other_way_round_mirrors() -> None:
    a, b = _arms(40, 20, 240)
    there = compare(a, b, a="a", b="b", metric="accuracy", groups=None)
    back = compare(b, a, a="b", b="a", metric="accuracy", groups=None)
    assert back.difference == -there.difference
    assert (back.b_only, back.a_only) == (there.a_only, there.b_only)
    assert back.p_value == there.p_value
    assert back.low == pytest.approx(-there.high, abs=0.004)


def test_groups_widen_the_interval() -> None:
    a, b = _arms(40, 20, 240)
    groups = {key: str(i // 5) for i, key in enumerate(a)}
    alone = compare(a, b, a="a", b="b", metric="accuracy", groups=None)
    grouped = compare(a, b, a="a", b="b", metric="accuracy", groups=groups)
    assert grouped.high - grouped.low > 1.5 * (alone.high - alone.low)
    assert grouped.smallest_detectable > 1.5 * alone.smallest_detectable
    assert (grouped.b_only, grouped.a_only) == (40, 20)


def test_free_text_has_no_mcnemar() -> None:
    generator = np.random.default_rng(0)
    a = {str(i): float(x) for i, x in enumerate(generator.random(100))}
    b = {key: min(1.0, value + 0.1) for key, value in a.items()}
    found = compare(a, b, a="a", b="b", metric="rougeL", groups=None)
    assert found.p_value is None
    assert (found.b_only, found.a_only) == (0, 0)
    assert found.low > 0


def test_text_in_nats_has_no_scale_and_lower_is_better() -> None:
    a = {str(i): 3.0 + i % 7 for i in range(50)}
    b = {key: value + 2.0 + (value % 3) / 100 for key, value in a.items()}
    found = compare(a, b, a="before", b="after", metric="nats_per_token", groups=None)
    assert not found.higher_is_better
    assert found.low > 1.0  # not cut at the end of a 0 to 1 scale
    same = compare(a, a, a="before", b="after", metric="nats_per_token", groups=None)
    assert (same.low, same.high, same.smallest_detectable) == (0.0, 0.0, 0.0)


def test_identical_arms_show_no_difference() -> None:
    a, _ = _arms(0, 0, 100)
    found = compare(a, a, a="a", b="b", metric="accuracy", groups=None)
    assert found.p_value == 1.0
    assert found.low < 0 < found.high


def test_scores_averaged_over_templates_have_no_mcnemar() -> None:
    a, b = {"1": 0.5, "2": 1.0, "3": 0.0}, {"1": 1.0, "2": 1.0, "3": 0.0}
    assert compare(a, b, a="a", b="b", metric="accuracy", groups=None).p_value is None


@pytest.mark.parametrize("shared", [0, 1])
def test_too_few_shared_examples(shared: int) -> None:
    a, b = {"1": 1.0, "2": 0.0}, {"1" if shared else "8": 1.0, "9": 0.0}
    with pytest.raises(RunError, match=f"share {shared} scored examples"):
        compare(a, b, a="a", b="b", metric="accuracy", groups=None)


def test_errors_name_the_culprit() -> None:
    a, b = {"1": 1.0, "2": float("nan")}, {"1": 1.0, "2": 0.0}
    with pytest.raises(RunError, match=r"not finite[^\n]*\n  found: 2"):
        compare(a, b, a="a", b="b", metric="accuracy", groups=None)
    with pytest.raises(RunError, match=r"in no group\n  found: 2"):
        compare(b, b, a="a", b="b", metric="accuracy", groups={"1": "g"})
    with pytest.raises(RunError, match="did you mean: accuracy"):
        compare(b, b, a="a", b="b", metric="acuracy", groups=None)


def test_by_row_pairs_arms_with_different_templates() -> None:
    mine = [_example(row, "one") for row in range(6)]
    yours = [_example(row, "two") for row in range(6)]
    a = by_row({x.id: float(i % 2) for i, x in enumerate(mine)}, mine)
    b = by_row({x.id: 1.0 for x in yours}, yours)
    assert a.keys() == b.keys() == {f"t/{row}" for row in range(6)}
    found = compare(a, b, a="a", b="b", metric="accuracy", groups=row_groups(mine))
    assert (found.n, found.b_only, found.a_only) == (6, 3, 0)
    assert row_groups(mine)[pair_key(mine[5])] == "t/g1"


def test_by_row_averages_templates_and_refuses_strangers() -> None:
    examples = [_example(1, "one"), _example(1, "two"), _example(2, "one")]
    assert by_row({"t/1/one": 1.0, "t/1/two": 0.0}, examples) == {"t/1": 0.5}
    with pytest.raises(RunError, match="1 of 1 scores belong to no example"):
        by_row({"t/9/one": 1.0}, examples)


def lines(right: int) -> list[dict[str, Any]]:
    return [
        {
            "arm": "tuned",
            "metric": "accuracy",
            "row": str(number),
            "group": str(number),
            "value": float(number < right),
        }
        for number in range(20)
    ]


def test_one_task_goes_by_the_names_of_the_runs() -> None:
    (found,) = compare_scores({"topic": lines(10)}, {"topic": lines(15)}, a="x", b="y")
    assert (found.a, found.b, found.n) == ("x", "y", 20)


def test_of_several_tasks_each_says_which_it_is() -> None:
    first = {"topic": lines(10), "mood": lines(5), "other": lines(5)}
    second = {"topic": lines(15), "mood": lines(5)}
    found = compare_scores(first, second, a="x", b="y")
    assert [each.b for each in found] == ["topic: y", "mood: y"]


def test_what_a_comparison_leaves_out_is_said() -> None:
    def asked(template: str, rows: int) -> list[dict[str, Any]]:
        return [{**line, "template": template} for line in lines(5)[:rows]]

    first = {"topic": asked("ask", 20), "mood": asked("ask", 20), "other": asked("ask", 20)}
    second = {"topic": asked("say", 20), "mood": asked("ask", 12)}
    assert comparison_notes(first, second, a="x", b="y") == (
        "not compared, as x alone has it: other",
        "topic is asked in other words: ask in x, say in y",
        "mood: 12 rows are in both tests, of 20 in x and 12 in y",
    )
    assert comparison_notes(first, first, a="x", b="y") == ()


def test_rows_of_one_id_that_are_not_the_same_are_refused() -> None:
    first, second = ([{**line, "same_by": side} for line in lines(10)] for side in "ab")
    with pytest.raises(RunError, match="20 of the 20 test rows of topic"):
        compare_scores({"topic": first}, {"topic": second}, a="x", b="y")
    (found,) = compare_scores({"topic": first}, {"topic": lines(15)}, a="x", b="y")
    assert found.n == 20, "scores of earlier versions do not tell"


def test_a_few_corrected_rows_are_left_out_and_told() -> None:
    whole = {"same_by": "as it was", "template": "ask"}
    first, second = ([{**line, **whole} for line in lines(10)] for _ in "ab")
    rows = list(dict.fromkeys(line["row"] for line in second))
    second = [{**line, "same_by": "mended"} if line["row"] == rows[3] else line for line in second]
    (found,) = compare_scores({"topic": first}, {"topic": second}, a="x", b="y")
    assert found.n == len(rows) - 1
    (note,) = comparison_notes({"topic": first}, {"topic": second}, a="x", b="y")
    assert note.startswith("topic: left out are 1 rows of another text or answer in y")
