"""Corrected labels: written so that the task reads just them, or refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from instil.data.correct import (
    ROW_ID,
    Mark,
    add_mark,
    corrected,
    load_marks,
    marks_file,
    write_rows,
)
from instil.data.readers.rowfile import BadRows
from instil.data.registry import load_rows
from instil.errors import DataError
from instil.tasks.task import load_task

HEAD = "id: moods\nsource: {source}\ntext: text\n"
TEMPLATES = '\ntemplates: [{id: ask, prompt: "Good? {{ text }}"}]\n'


def task_of(folder: Path, labels: str, *, source: str = "rows.csv", rows: str = ""):
    if rows:
        (folder / source).write_text(rows)
    path = folder / "moods.task.yaml"
    path.write_text(HEAD.format(source=source) + labels + TEMPLATES)
    return load_task(str(path)), path


def marks_of(task, *changes: tuple[str, str | None]) -> dict[str, Mark]:
    rows = {row.id: row for row in load_rows(task).rows}
    return {
        id: Mark(id, rows[id].place, str(rows[id].fields[task.target]), now) for id, now in changes
    }


ROWS = "text,mood,more\nfine,good,1\nsad,bad,2\nmeh,good,3\n"


def test_labels_are_corrected_and_rows_left_out(tmp_path):
    task, path = task_of(tmp_path, "target: mood\nchoices: [good, bad]", rows=ROWS)
    rows = list(corrected(task, marks_of(task, ("3", "bad"), ("1", None))))
    assert rows == [
        {"text": "sad", "mood": "bad", "more": "2", ROW_ID: "2"},
        {"text": "meh", "mood": "bad", "more": "3", ROW_ID: "3"},
    ]
    out = tmp_path / "better.csv"
    write_rows(out, rows)
    text = path.read_text().replace("rows.csv", "better.csv")
    path.write_text(f"{text}\nrow_id: {ROW_ID}\n")
    again = load_rows(load_task(str(path))).rows
    assert [row.id for row in again] == ["2", "3"], "as in the file before"
    assert [(row.fields["text"], row.fields["mood"]) for row in again] == [
        ("sad", "bad"),
        ("meh", "bad"),
    ]


def test_words_of_labels_are_written_back_as_values(tmp_path):
    task, _ = task_of(
        tmp_path, "target: mood\nlabels: {0: bad, 1: good}", rows="text,mood\na,0\nb,1\n"
    )
    (row, _) = corrected(task, marks_of(task, ("1", "good")))
    assert row == {"text": "a", "mood": "1"}


@pytest.mark.parametrize(
    "field", ["stars | string | trim", "stars | int", 'stars | default("", true) | string']
)
def test_a_computed_label_is_written_into_its_column(tmp_path, field):
    task, _ = task_of(
        tmp_path,
        f"target: mood\nfields: {{mood: '{field}'}}\nchoices: ['1', '2', '3']",
        rows="text,stars\na, 1 \nb,2\n",
    )
    (first, _) = corrected(task, marks_of(task, ("1", "3")))
    assert first["stars"] == "3"


def test_a_label_that_cannot_be_written_back_is_refused(tmp_path):
    task, _ = task_of(
        tmp_path,
        'target: mood\nfields: {mood: \'"good" if stars | int > 2 else "bad"\'}\n'
        "choices: [good, bad]",
        rows="text,stars\na,1\nb,4\n",
    )
    with pytest.raises(DataError, match="computed") as caught:
        list(corrected(task, marks_of(task, ("1", "good"))))
    assert "rows.csv:2" in str(caught.value)


def test_rows_that_were_changed_since_are_refused(tmp_path):
    task, _ = task_of(tmp_path, "target: mood\nchoices: [good, bad]", rows=ROWS)
    marks = marks_of(task, ("1", "bad"), ("3", "bad"))
    marks |= {"3": Mark("3", "x", "good", "awful"), "9": Mark("9", "gone:1", "good", None)}
    (tmp_path / "rows.csv").write_text(ROWS.replace("fine,good", "fine,bad"))
    with pytest.raises(DataError) as caught:
        list(corrected(task, marks))
    said = str(caught.value)
    assert "another label than when it was marked" in said
    assert "not there any more" in said
    assert "no label of the task" in said


def test_conversations_are_written_as_lines(tmp_path):
    rows = [{"text": "a", "mood": "good", "tags": ["x", None]}, {"text": "b", "mood": "bad"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task, _ = task_of(tmp_path, "target: mood\nchoices: [good, bad]", source="rows.jsonl")
    found = list(corrected(task, marks_of(task, ("2", "good"))))
    with pytest.raises(DataError, match="lists"):
        write_rows(tmp_path / "out.csv", found)
    with pytest.raises(DataError, match="kind of file"):
        write_rows(tmp_path / "out.xlsx", found)
    write_rows(tmp_path / "out.jsonl", found)
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert written[0]["tags"] == ["x", None]
    assert written[1]["mood"] == "good"


def test_the_last_mark_of_a_row_counts(tmp_path):
    path = marks_file(tmp_path / "moods.task.yaml")
    for now in ("bad", None, "", "bad"):
        add_mark(path, Mark("1", "rows.csv:2", "good", now))
    add_mark(path, Mark("2", "rows.csv:3", "good", "bad"))
    add_mark(path, Mark("2", "rows.csv:3", "good", ""))
    assert load_marks(path) == {"1": Mark("1", "rows.csv:2", "good", "bad")}
    path.write_text("{}\n")
    with pytest.raises(DataError, match=r"labels\.jsonl:1: this is not a mark"):
        load_marks(path)
    assert load_marks(tmp_path / "none") == {}


def test_cells_of_csv_come_back_as_they_were(tmp_path):
    rows = [{"text": 'a "b", c\nd', "mood": "good"}, {"text": "", "mood": "bad", "new": "x"}]
    write_rows(tmp_path / "out.csv", rows)
    with (tmp_path / "out.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [{**rows[0], "new": ""}, rows[1]]


def test_a_carriage_return_within_a_cell_comes_back(tmp_path):
    rows = [{"text": "line one\rline two", "mood": "good"}, {"text": "a\r\nb", "mood": "bad"}]
    task, _ = task_of(tmp_path, "target: mood\nchoices: [good, bad]", source="out.csv")
    write_rows(tmp_path / "out.csv", rows)
    assert [row.fields["text"] for row in load_rows(task).rows] == ["line one\rline two", "a\r\nb"]


def test_rows_that_cannot_be_read_are_counted(tmp_path):
    lines = ['{"text": "fine", "mood": "good"}', "{broken", '{"text": "sad", "mood": "good"}']
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    source = "{uri: rows.jsonl, on_bad_row: skip}"
    task, _ = task_of(tmp_path, "target: mood\nchoices: [good, bad]", source=source)
    last = load_rows(task).rows[-1].id
    bad = BadRows()
    rows = list(corrected(task, marks_of(task, (last, "bad")), bad=bad))
    assert [row["mood"] for row in rows] == ["good", "bad"]
    (found,) = bad.found
    assert "rows.jsonl:2: this is not valid JSON" in found
