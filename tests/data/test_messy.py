"""`instil init` on rows as people have them: it must make a sensible task without being helped."""

from __future__ import annotations

import csv
import json
import sqlite3
import zipfile
from pathlib import Path

import pytest

from instil.data.build import render_example
from instil.data.columns import Column
from instil.errors import DataError
from instil.init.inspect import Wishes
from instil.init.starter import Starter, write_starter
from instil.types import OnBadRow, TrainOn
from starting import unedited

OPENINGS = (
    "I&#039;ve tried a few of them",
    'My doctor said "wait two weeks" and then',
    "Horrible.\r\n\r\nI had a headache for days",
    "Works &amp; costs little, so far",
    "It is &quot;ok&quot;, I guess",
)
MONTHS = ("January", "May", "Sept.", "December")
HEADER = ("", "drugName", "condition", "review", "rating", "date", "usefulCount")


def messy_rows(n: int) -> list[tuple[object, ...]]:
    """Rows after the manner of a well-known table of drug reviews: numbered, quoted, escaped."""
    return [
        (
            1000 + 7 * k,
            f"Drug {k % 40}",
            ("Pain", "Anxiety", "")[k % 3],
            f'"{OPENINGS[k % 5]}, taken for {k} days with {k * 3} pills."',
            float(1 + k % 10),
            f"{MONTHS[k % 4]} {1 + k % 28}, {2008 + k % 10}",
            k * 13 % 101,
        )
        for k in range(n)
    ]


def init(data: object, folder: Path, **options: object) -> Starter:
    return write_starter(str(data), folder=folder, wishes=Wishes(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "delimiter"), [("drugs.tsv", "\t"), ("drugs.csv", ",")])
def test_a_table_of_reviews_with_everything_that_goes_wrong(tmp_path, name, delimiter):
    with (tmp_path / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(HEADER)
        writer.writerows(messy_rows(300))
    starter = init(tmp_path / name, tmp_path)
    task, rows, _ = unedited(starter)
    assert (task.kind, task.target) == ("rating", "rating")
    assert task.choices == tuple(str(n) for n in range(1, 11))
    assert len(rows) == 300
    prompt = render_example(task, task.templates[0], rows[0]).messages[-1].content
    assert "I've tried" in prompt
    assert "&#039;" not in prompt
    quoted = render_example(task, task.templates[0], rows[1]).messages[-1].content
    assert 'said "wait two weeks"' in quoted
    assert any("HTML entities in 180 rows" in line for line in starter.guess.reasons)
    assert not any("date" in line for line in starter.guess.reasons[1:])
    assert starter.guess.warnings == ()


@pytest.mark.parametrize(
    "text", ["May 20, 2012", "20 May 2012", "Sept. 3, 2011", "2012-05-20", "5/20/12", "20.5.2012",
             "Sunday, May 20, 2012", "May 3rd, 2012", "2012-05-20T10:00:00Z", "5/20/2012 10:30"],
)  # fmt: skip
def test_dates_of_any_writing(text):
    column = Column("date")
    column.add(text)
    assert column.dates == 1


def test_tags_and_damaged_text_are_mended(tmp_path):
    lines = ["text,label"]
    for n in range(60):
        lines.append(
            f"unit {n} was bought in a cafÃ©<br /><br />and it works,{'good bad'.split()[n % 2]}"
        )
    (tmp_path / "rows.csv").write_text("\n".join(lines), encoding="utf-8")
    task, rows, _ = unedited(init(tmp_path / "rows.csv", tmp_path))
    assert task.fields["input_text"] == 'text | default("", true) | mend_encoding | strip_tags'
    assert rows[0].fields["input_text"] == "unit 0 was bought in a café\n\nand it works"


def conversations(folder: Path, *, turns: int) -> Path:
    path = folder / "chats.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for n in range(60):
            said = [{"role": "system", "content": "Be brief."}] if n % 2 else []
            for turn in range(1 + n % turns):
                said.append({"role": "user", "content": f"Where is parcel {n} of {turn}?"})
                said.append({"role": "assistant", "content": f"At desk {n}."})
            file.write(json.dumps({"id": n, "messages": said}) + "\n")
    return path


def test_conversations_of_several_turns(tmp_path):
    starter = init(conversations(tmp_path, turns=3), tmp_path)
    task, rows, _ = unedited(starter)
    assert (task.kind, task.text, task.history) == ("dialogue", "last_message", "history")
    assert task.train_on is TrainOn.ALL
    example = render_example(task, task.templates[0], rows[5])
    assert [m.role for m in example.messages] == ["system", *["user", "assistant"] * 2, "user"]
    assert example.train_on is TrainOn.ALL
    assert render_example(task, task.templates[0], rows[0]).messages[0].role == "user"
    assert any("40 of 60 with earlier turns" in line for line in starter.guess.reasons)


def test_conversations_of_one_turn_are_instructions(tmp_path):
    task, _, _ = unedited(init(conversations(tmp_path, turns=1), tmp_path))
    assert (task.kind, task.text, task.history) == ("instruction", "prompt", "")


def test_words_with_tags(tmp_path):
    with (tmp_path / "ner.jsonl").open("w") as file:
        for n in range(40):
            tags = ["B-PER", "I-PER", "O", "B-LOC"] if n % 3 else ["O"] * 4
            tokens = ["Ada", f"Byron{n}", "in", "Paris"]
            file.write(json.dumps({"tokens": tokens, "ner_tags": tags}) + "\n")
    task, rows, _ = unedited(init(tmp_path / "ner.jsonl", tmp_path))
    assert (task.kind, task.metric) == ("entities", "token_f1")
    example = render_example(task, task.templates[0], rows[1])
    assert "(LOC, PER)" in example.messages[0].content
    assert example.target == "PER: Ada Byron1; LOC: Paris"
    assert render_example(task, task.templates[0], rows[0]).target == "none"


def reviews(n: int) -> list[tuple[str, str]]:
    return [(f"unit {k} lasted for {k} days or so", "good bad".split()[k % 2]) for k in range(n)]


def test_a_database_an_archive_and_a_hub_copy(tmp_path):
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("CREATE TABLE reviews (text TEXT, label TEXT)")
        connection.executemany("INSERT INTO reviews VALUES (?, ?)", reviews(60))
    connection.close()
    content = "text,label\n" + "".join(f"{text},{label}\n" for text, label in reviews(60))
    with zipfile.ZipFile(tmp_path / "rows.zip", "w") as opened:
        opened.writestr("a/train.csv", content)
        opened.writestr("a/other.csv", content)
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "train.csv").write_text(content)
    for data, id, uri in (
        (f"sqlite:{tmp_path}/shop.db", "shop", "sqlite:shop.db"),
        (f"sqlite:{tmp_path}/shop.db?query=SELECT * FROM reviews", "shop",
         "sqlite:shop.db?query=SELECT * FROM reviews"),
        (f"{tmp_path}/rows.zip!/a/train.csv", "train", "rows.zip!/a/train.csv"),
        (f"hub:{tmp_path}/copy?split=train", "copy", "hub:./copy?split=train"),
    ):  # fmt: skip
        starter = init(data, tmp_path, overwrite=True)
        task, rows, _ = unedited(starter)
        assert task.id == id
        assert f"source: {uri}" in starter.task_file.read_text()
        assert len(rows) == 60


def test_bad_rows_are_skipped_on_request(tmp_path):
    content = "text,label\n" + "".join(f"{text},{label}\n" for text, label in reviews(60))
    (tmp_path / "rows.csv").write_text(content + "a,b,c\n")
    with pytest.raises(DataError, match="3 cells"):
        init(tmp_path / "rows.csv", tmp_path)
    starter = init(tmp_path / "rows.csv", tmp_path, on_bad_row=OnBadRow.SKIP)
    assert any("1 row skipped, such as" in line for line in starter.guess.warnings)
    assert "on_bad_row: skip" in starter.task_file.read_text()
    task, rows, _ = unedited(starter)
    assert len(rows) == 60
    assert task.source.on_bad_row is OnBadRow.SKIP
