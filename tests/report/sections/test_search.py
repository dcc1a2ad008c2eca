"""What the report says of a search, without a run."""

from dataclasses import replace

import pytest

from instil.report.build import build_report
from instil.report.html import to_html
from instil.report.page import Table, Turns
from instil.report.sections.ladder import ladder_blocks
from instil.report.sections.search import SHOWN, search_blocks, search_sentence
from instil.results.prompts import Demonstrations, Search, Searched, Turn
from instil.types import Message, Role, Summary, Template
from report.sample import class_task, run


def score(mean: float, rows: int = 100) -> Summary:
    return Summary("accuracy", mean, mean - 0.1, mean + 0.1, rows, 0)


@pytest.fixture
def search() -> Search:
    ways = tuple(
        Searched(
            "plain+written-1" if n % 2 else "plain", "words" if n else "", 3 if n else 0, 0, n % 3,
            "raw", score(0.5 + n / 100, 100 if n > 20 else 16), 90.0, asked_all=n > 20,
        )
        for n in range(25)
    )  # fmt: skip
    turn = Turn("plain", Role.ANSWER, (Message("user", "Is <it> good?"),), "yes")
    return Search(
        ways, Template("plain", "Is {{ text }} good?", "{{ label }}"),
        Demonstrations("words", 3, pool=("a", "b")), "raw", score(0.74), True,
        {"plain+written-1": "Say which."}, 6000, 5321, 61.0, {"no budget": 7}, turn,
    )  # fmt: skip


def test_the_bar_its_prompt_and_the_effort_are_shown(search):
    task = replace(class_task(), search=search)
    bar, effort, turns, ways, words = search_blocks(task)
    assert "nearest by TF-IDF" in bar.text
    assert "74.0\xa0%" in bar.text
    assert "25 ways" in effort.text
    assert "5,321 prompts of 6,000 allowed" in effort.text
    assert "7 ways not: no budget" in effort.text
    assert isinstance(turns, Turns)
    assert isinstance(ways, Table)
    assert len(ways.rows) == SHOWN
    assert ways.rows[0][0].text == "plain"
    assert ways.rows[0][0].detail == "the bar"
    assert [row[4].text for row in ways.rows][:5] == ["100"] * 4 + ["16"]
    assert words.rows[0][1].text == "Say which."
    page = to_html(build_report(run(task), steps=(), manifest={}))
    assert "Is &lt;it&gt; good?" in page


def test_the_ladder_says_that_its_best_is_not_the_bar(search):
    task = class_task()
    assert "The bar for tuning" in ladder_blocks(task)[0].text
    assert "The bar for tuning" not in ladder_blocks(replace(task, search=search))[0].text
    kept = replace(search, better=False)
    assert "The bar for tuning" in ladder_blocks(replace(task, search=kept))[0].text
    assert "No way" in search_sentence(kept)
