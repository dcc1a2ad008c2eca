from __future__ import annotations

from typing import Any

from instil.compare.pairing import compare_scores


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
