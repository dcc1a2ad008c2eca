from __future__ import annotations

from dataclasses import replace

from instil.compare.average import averages
from instil.report.sections.average import average_numbers, average_table
from instil.report.sections.mix import mix_table, mix_text
from instil.report.sections.phrasings import phrasing_blocks, phrasing_sentence
from instil.results.tasks import Phrasings, TaskResult
from instil.results.training import MixLine
from report.sample import TEMPLATES, class_task, difference, run, summary, text_task


def with_held_out() -> TaskResult:
    task = class_task()
    scores = tuple(replace(s, held_out=s.template in TEMPLATES[3:]) for s in task.templates)
    found = Phrasings(
        "tuned",
        summary(0.8, n=900),
        summary(0.7, n=600),
        difference("seen phrasings", "unseen phrasings", by=-0.1, half=0.03),
    )
    return replace(task, templates=scores, phrasings=(found,))


def test_seen_against_held_out_with_worst_and_spread() -> None:
    task = with_held_out()
    (table,) = phrasing_blocks(task)
    (row,) = table.rows
    texts = [cell.text.replace("\u00a0", " ") for cell in row]
    assert texts[0] == "tuned, zero-shot"
    assert texts[1].startswith("80.0 %")
    assert texts[2].startswith("70.0 %")
    assert row[3].detail == "held out is worse"
    tuned = [s for s in task.templates if s.arm == "tuned" and s.held_out]
    worst = min(tuned, key=lambda s: s.summary.mean)
    assert row[4].detail == worst.template
    assert "one_word" in table.note
    assert phrasing_blocks(class_task()) == ()
    line = phrasing_sentence(task, task.phrasings[0])
    assert line.startswith("tuned, zero-shot: seen phrasings 80.0")
    assert worst.template in line


def test_every_task_and_the_averages_stand_in_one_table() -> None:
    tasks = (class_task("a"), class_task("b"), text_task("c"))
    found = replace(run(*tasks), averages=averages(tasks))
    table = average_table(found)
    rows = table.rows
    assert [row[0].text for row in rows] == [
        "a",
        "b",
        "c",
        "mean of 3 tasks: each in its own metric",
        "mean of 2 tasks: accuracy",
    ]
    assert {len(row) for row in rows} == {len(table.titles)}
    (number,) = average_numbers(found)
    assert number.label == "Mean of 3 tasks: tuned minus prompting"
    assert number.value.replace("\u00a0", " ") == "+5.6 points"
    assert average_numbers(run()) == []
    assert rows[-1][1].text.replace("\u00a0", " ").startswith("81.5 %")


def test_the_mix_adds_up_and_is_of_one_width() -> None:
    mix = (MixLine("a", 100, 150, 30, 9000, 300), MixLine("long_name", 50, 50, 0, 1000, 700))
    lines = mix_text(mix)
    assert len({len(line) for line in lines}) == 1
    assert lines[-1].split()[:6] == ["all", "150", "200", "30", "10,000", "1,000"]
    assert "75.0" in lines[1]
    assert "70.0" in lines[2]
    assert len(mix_table(mix).rows) == 3
    assert len(mix_text(mix[:1])) == 2
