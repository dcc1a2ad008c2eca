import json

import rows
from common import chunks, peak_bytes, read_rows
from examples import as_example

from instil.types import Example, Message, Row


def test_rows_come_back_as_they_were_written(tmp_path):
    example = Example(
        "id/1", "t", "w", "1", "1", (Message("user", "héllo\nthere"),), "yes", ("yes", "no")
    )
    rows.write(tmp_path / "rows.jsonl", [example, example])
    read = read_rows(tmp_path / "rows.jsonl")
    assert len(read) == 2
    back = as_example(read[0])
    assert (back.id, back.messages, back.target, back.choices) == (
        example.id,
        example.messages,
        example.target,
        example.choices,
    )


def test_repeated_rows_are_unique_and_the_same_each_time():
    few = [Row("t", str(n), f"g{n}", {"text": f"text {n}", "label": "a"}) for n in range(3)]
    made = list(rows.repeated(few, count=50, text="text"))
    assert len({row.id for row in made}) == len({row.fields["text"] for row in made}) == 50
    assert len({row.group for row in made}) == 50
    assert made == list(rows.repeated(few, count=50, text="text"))
    assert all(row.fields["label"] == "a" for row in made)


def test_made_up_rows_have_about_the_length_asked_for(tmp_path):
    rows.made_up_rows(tmp_path / "rows.jsonl", rows=40, words=100, answer=10)
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    lengths = [len(line["messages"][0]["content"].split()) for line in lines]
    assert len(lines) == 40
    assert 50 <= min(lengths) <= max(lengths) <= 150
    assert 85 <= sum(lengths) / 40 <= 115


def test_own_wordings_are_sound():
    from instil.data.build import render_example
    from instil.tasks.task import load_task

    task = load_task("bbc_topic")
    fields = {"opening": "A team won.", "topic": "sports", "headline": "h", "body": "b"}
    row = Row("bbc_topic", "1", "1", fields)
    example = render_example(task, rows.WORDINGS["sentences"], row)
    assert example.target == "It is about a game and its players."
    assert len(example.choices) == 5


def test_chunks_keep_all_items():
    assert chunks([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4], [5]]


def test_peak_memory_is_this_process_s():
    assert 10**7 < peak_bytes() < 10**11
