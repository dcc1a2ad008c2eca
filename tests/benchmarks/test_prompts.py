"""The benchmark of what a search for the prompt is worth: its table, and how answers are read."""

import prompts
import pytest

ROWS = [str(n) for n in range(20)]


def line(what, right):
    """The first `right` of 20 rows are right."""
    values = {row: float(n < right) for n, row in enumerate(ROWS)}
    return {
        "task": "moods",
        "seed": 0,
        "what": what,
        "prompts": {what: 300},
        "seconds": {what: 2.0},
        "validation": {what: 0.5},
        "test": {what: values},
        "groups": {row: row for row in ROWS},
    }


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("Positive. I like it", "positive"),
        ("it is positive, not negative", "positive"),
        ("unpositive", ""),
        ("very positive", "very positive"),
        ("", ""),
    ],
)
def test_an_answer_is_the_choice_named_first_and_of_those_the_longest(text, choice):
    assert prompts.named(text, ["positive", "negative", "very positive"]) == choice


def test_ways_of_one_task_and_seed_are_paired_by_row():
    searched = line("quick", 10)
    for key in ("prompts", "seconds", "validation", "test"):
        searched[key] = {"search": searched[key]["quick"], "ladder": line("l", 8)[key]["l"]}
    rows = prompts.table([searched, line("mipro", 12)]).splitlines()
    assert [row.split("|")[2].strip() for row in rows[2:]] == ["search quick", "ladder", "mipro"]
    peer = [cell.strip() for cell in rows[-1].split("|")]
    assert peer[6] == "60.0"
    assert peer[7].startswith("+20.0 (")
    assert peer[8].startswith("+10.0 (")
