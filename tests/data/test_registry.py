from __future__ import annotations

import json
from dataclasses import replace

import pytest

from instil.data import registry
from instil.data.readers.shapes import UNUSABLE
from instil.data.readers.turns import EMPTY, UNASKED
from instil.data.registry import choice_of, load_rows, plain
from instil.errors import DataError, TaskError
from instil.types import OnBadRow, SourceSpec, Task, Template

TASK = Task(
    id="reviews",
    kind="sentiment",
    cluster="sentiment",
    description="",
    licence="MIT",
    source=SourceSpec("reviews.csv"),
    text="text",
    target="label",
    templates=(Template("plain", "{{ text }}", "{{ label }}"),),
    choices=("bad", "good"),
)


@pytest.fixture
def source(monkeypatch):
    """Put records in place of the source."""

    def put(*records: dict[str, object]) -> None:
        placed = [(f"reviews.csv:{n}", record) for n, record in enumerate(records, start=2)]
        monkeypatch.setattr(registry, "read_table", lambda spec, **_: iter(placed))

    return put


def problems(task: Task) -> list[str]:
    with pytest.raises(DataError) as caught:
        load_rows(task)
    return [str(problem) for problem in caught.value.problems]


def test_rows_have_fields_id_group_and_place(source):
    source(
        {"id": "17_3", "rating": "1.5", "text": "I like it."},
        {"id": "18_0", "rating": "0.1", "text": "Hm."},
        {"id": "18_1", "rating": "-2", "text": "Broken."},
    )
    task = replace(
        TASK,
        fields={"score": "rating | float", "label": "'good' if score > 0 else 'bad'"},
        where="score > 0.5 or score < -0.5",
        row_id="id",
        group="id.split('_')[0]",
    )
    loaded = load_rows(task)
    assert [(row.id, row.group, row.place) for row in loaded.rows] == [
        ("17_3", "17", "reviews.csv:2"),
        ("18_1", "18", "reviews.csv:4"),
    ]
    assert loaded.rows[0].task == "reviews"
    assert loaded.rows[0].fields == {
        "id": "17_3",
        "rating": "1.5",
        "text": "I like it.",
        "score": 1.5,
        "label": "good",
    }
    assert loaded.skipped == {"where is false: score > 0.5 or score < -0.5": 1}
    assert loaded.notes == {}


def test_without_row_id_and_group_rows_are_numbered_and_alone(source):
    source({"text": "a", "label": "good"}, {"text": "b", "label": "bad"})
    assert [(row.id, row.group) for row in load_rows(TASK).rows] == [("1", "1"), ("2", "2")]


def test_numbers_of_rows_do_not_depend_on_the_filter(source):
    source({"text": "a", "label": ""}, {"text": "b", "label": "bad"})
    assert [row.id for row in load_rows(replace(TASK, where="label")).rows] == ["2"]


@pytest.mark.parametrize("value", [4, 4.0, "4", "4.0", " 4 "])
def test_ratings_match_their_choice_and_are_reported(source, value):
    source({"text": "a", "label": value})
    loaded = load_rows(replace(TASK, choices=("3", "4")))
    assert loaded.rows[0].fields["label"] == "4"
    expected = {} if str(value) == "4" else {f"label {value} read as 4": 1}
    assert loaded.notes == expected


@pytest.mark.parametrize(
    ("value", "choices", "expected"),
    [
        ("good", ("good",), "good"),
        ("4", ("4.0", "5.0"), "4.0"),
        ("1", ("1", "1.0"), "1"),
        ("1.00", ("1", "1.0"), None),
        (True, ("true", "false"), "true"),
        (False, ("False", "True"), "False"),
        (1.5, ("1.5",), "1.5"),
        ("nan", ("4",), None),
        ("Good", ("good",), None),
        ("-1.0", ("-1", "1"), "-1"),
        ("1_0", ("10",), None),
    ],
)
def test_choice_of(value, choices, expected):
    assert choice_of(value, choices) == expected


def test_plain():
    values = [None, float("nan"), [], {}, 3.0, 3.5, float("inf"), " a "]
    assert [plain(value) for value in values] == ["", "", "", "", "3", "3.5", "inf", "a"]


def test_rows_without_text_are_skipped_and_counted(source):
    source(
        {"text": " ", "label": "good"},
        {"text": None, "label": "good"},
        {"label": "bad", "text": "a"},
        {"label": "bad", "text": ""},
    )
    assert load_rows(TASK).skipped == {"no text in 'text'": 3}


def test_columns_that_later_rows_lack_are_told_with_places(source):
    good = {"text": "a", "label": "good"}
    source(good, {"label": "bad"}, good, {"text": "b"}, {"label": "bad"})
    first, second = problems(TASK)
    assert first.startswith("reviews.csv:3: 2 rows of 5 without the column 'text'")
    assert "also at reviews.csv:6" in first
    assert second.startswith("reviews.csv:5: 1 row of 5 without the column 'label'")
    assert "on_bad_row: skip" in second


def test_bad_rows_can_be_skipped_and_are_kept_with_their_places(source):
    good = {"text": "a", "label": "good", "n": "1"}
    source(
        good,
        {"label": "bad", "n": "2"},
        {"text": "b", "label": "ugly", "n": "3"},
        {"text": "b", "label": None, "n": "4"},
        {"text": "c", "label": "bad", "n": "1"},
        {"text": "c", "label": "bad", "n": "x"},
        {"text": "d", "label": "bad", "n": ""},
        {"text": "", "label": "bad", "n": "6"},
    )
    skipping = replace(TASK.source, on_bad_row=OnBadRow.SKIP)
    fields = {"half": "n | float / 2 if n else 0"}
    loaded = load_rows(replace(TASK, source=skipping, row_id="n", fields=fields))
    assert [row.place for row in loaded.rows] == ["reviews.csv:2"]
    assert loaded.skipped == {"no text in 'text'": 1, registry.BAD_ROWS: 6}
    places = [line.partition(": ")[0] for line in loaded.bad]
    assert places[:4] == [f"reviews.csv:{n}" for n in (3, 4, 5, 6)]
    assert "no column 'text'" in loaded.bad[0]
    assert "'ugly' is not among the choices" in loaded.bad[1]
    assert "reviews.csv:2 has too" in loaded.bad[3]
    assert "'x' is not a number" in loaded.bad[4]


def test_wrong_columns_in_the_first_row_are_an_error_all_the_same(source):
    source({"txt": "a", "label": "good"})
    skipping = replace(TASK.source, on_bad_row=OnBadRow.SKIP)
    assert "did you mean: txt" in problems(replace(TASK, source=skipping))[0]


def test_rows_without_label_are_told_with_places_and_a_fix(source):
    source({"text": "a", "label": "good"}, *[{"text": "b", "label": None}] * 7)
    (problem,) = problems(TASK)
    assert "7 rows of 8 without a label in 'label'" in problem
    assert problem.startswith("reviews.csv:3: ")
    assert (
        "also at reviews.csv:4, reviews.csv:5, reviews.csv:6, reviews.csv:7 and 2 more" in problem
    )
    assert "where: label is not none and label | string | trim" in problem


@pytest.mark.parametrize("empty", [None, "", "  "])
@pytest.mark.parametrize("where", ["", "text != 'x'"])
def test_the_fix_for_missing_labels_works(source, empty, where):
    source({"text": "a", "label": "good"}, {"text": "b", "label": empty})
    task = replace(TASK, where=where)
    with pytest.raises(DataError) as caught:
        load_rows(task)
    fix = caught.value.problems[0].fix.split("where: ", 1)[1]
    assert [row.id for row in load_rows(replace(task, where=fix)).rows] == ["1"]


def test_free_text_needs_an_answer_too(source):
    source({"text": "a", "label": ""}, {"text": "b", "label": "An answer."})
    (problem,) = problems(replace(TASK, choices=()))
    assert "1 row of 2 without a label" in problem


def test_unknown_labels_come_with_the_nearest_choice_all_at_once(source):
    source(
        {"text": "a", "label": "goood"},
        {"text": "b", "label": "Bad"},
        {"text": "c", "label": "Bad"},
        {"text": "d", "label": ""},
    )
    empty, upper, misspelt = problems(TASK)
    assert "1 row of 4" in empty
    assert "the label 'Bad' of 2 rows" in upper
    assert upper.startswith("reviews.csv:3: ")
    assert "also at reviews.csv:4\n" in upper
    assert "label: label | lower" in upper
    assert "did you mean: good" in misspelt
    assert "allowed: bad, good" in misspelt


@pytest.mark.parametrize(
    ("label", "fix"),
    [("go\u200bod", "label | tidy"), ("\uff27OOD", "label | tidy | lower")],
)
def test_a_label_that_only_looks_like_a_choice_comes_with_the_expression_that_makes_it_one(
    source, label, fix
):
    source({"text": "a", "label": label})
    (told,) = problems(TASK)
    assert told.endswith(f"under `fields` in the task file: label: {fix}")
    task = replace(TASK, fields={"label": fix})
    assert load_rows(task).rows[0].fields["label"] == "good"


def test_the_fix_for_a_column_in_another_script_is_a_field_that_a_task_takes(source):
    source({"text": "a", "标签": "GOOD"})
    task = replace(TASK, target="标签")
    (told,) = problems(task)
    assert told.endswith('label: row["标签"] | lower, and `target: label`')
    mended = replace(TASK, fields={"label": 'row["标签"] | lower'})
    assert load_rows(mended).rows[0].fields["label"] == "good"


def test_the_fix_for_upper_case_works(source):
    source({"text": "a", "label": "GOOD"})
    task = replace(TASK, fields={"label": "label | lower"})
    assert load_rows(task).rows[0].fields["label"] == "good"


def test_many_unknown_labels_are_summed_up(source):
    source(*[{"text": "a", "label": f"label {i}"} for i in range(30)])
    found = problems(TASK)
    assert len(found) == 6
    assert found[-1] == "and 25 other unknown labels on 25 rows"


def test_missing_columns_are_told_with_the_nearest(source):
    source({"txt": "a", "lable": "good"})
    text, target = problems(TASK)
    assert "reviews.csv:2: there is no column 'text', which the task names as its text" in text
    assert "did you mean: txt" in text
    assert "the columns txt, lable" in text
    assert "did you mean: lable" in target


def test_missing_references_column(source):
    source({"text": "a", "label": "b"})
    (problem,) = problems(replace(TASK, choices=(), references="answers"))
    assert "no column 'answers', which the task names as its references" in problem


def test_an_expression_over_an_unknown_column_is_a_task_error(source):
    source({"text": "a", "label": "good"})
    with pytest.raises(TaskError, match=r"reviews\.csv:2: group of task reviews"):
        load_rows(replace(TASK, group="revew"))


def test_duplicate_ids_are_told_with_all_their_places(source):
    source(*[{"text": "a", "label": "good", "n": n} for n in ("7", "8", "7", "7")])
    (problem,) = problems(replace(TASK, row_id="n"))
    assert "3 rows have the id '7'" in problem
    assert problem.startswith("reviews.csv:2: ")
    assert "also at reviews.csv:4, reviews.csv:5\n" in problem


def test_empty_ids_are_told(source):
    source({"text": "a", "label": "good", "n": ""})
    (problem,) = problems(replace(TASK, row_id="n"))
    assert "1 row with an empty id" in problem


def test_rows_without_group_stand_alone_and_are_noted(source):
    source(*[{"text": "a", "label": "good", "g": g} for g in (1.0, 1, None, None)])
    loaded = load_rows(replace(TASK, group="g"))
    assert [row.group for row in loaded.rows] == ["1", "1", "row 3", "row 4"]
    assert loaded.notes == {"no group, so the row is a group of its own": 2}


def test_no_row_left_says_why(source):
    source({"text": "a", "label": "good"})
    (problem,) = problems(replace(TASK, where="false"))
    assert "none is left" in problem
    assert "where is false: false (1)" in problem
    source()
    (problem,) = problems(TASK)
    assert "the source has no rows" in problem


def test_limit_reads_no_further(monkeypatch):
    def endless(spec, **_):
        n = 0
        while True:
            n += 1
            yield f"row {n}", {"text": "a", "label": "good" if n % 2 else "bad"}

    monkeypatch.setattr(registry, "read_table", endless)
    assert [row.id for row in load_rows(TASK, limit=3).rows] == ["1", "2", "3"]


def test_a_real_file_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "reviews.csv"
    path.write_text('text,label\n"A joy, really.",good\nNo.,bad\n', encoding="utf-8")
    loaded = load_rows(TASK)
    assert [row.fields["text"] for row in loaded.rows] == ["A joy, really.", "No."]
    assert loaded.rows[0].place.endswith("reviews.csv:2")


# ---- conversations

TALK = replace(
    TASK,
    source=SourceSpec("talk.jsonl"),
    text="last_message",
    target="completion",
    history="history",
    templates=(Template("turn", "{{ last_message }}", "{{ completion }}"),),
    choices=(),
)


def said(*turns: tuple[str, object]) -> dict[str, object]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


@pytest.fixture
def talk(tmp_path):
    """Write rows of conversations; a task that reads them."""

    def put(*rows: dict[str, object], **changes: object) -> Task:
        path = tmp_path / "talk.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        on_bad_row = changes.pop("on_bad_row", OnBadRow.ERROR)
        return replace(TALK, source=SourceSpec(str(path), on_bad_row=on_bad_row), **changes)

    return put


GOOD = said(("user", "Hi"), ("assistant", "Hello"))


def test_what_of_conversations_is_not_trained_on_is_counted(talk):
    loaded = load_rows(
        talk(
            GOOD,
            said(("assistant", "Welcome"), ("user", "Hi"), ("assistant", "Hello")),
            said(("user", "Hi"), ("assistant", ""), ("user", "Hi?"), ("assistant", "Hello")),
            said(("user", "Hi"), ("assistant", "Hello"), ("assistant", "Again")),
        )
    )
    assert len(loaded.rows) == 3
    assert loaded.skipped == {"no text in 'last_message'": 1}
    assert loaded.notes == {UNASKED: 1, EMPTY: 1, UNUSABLE["follows"]: 1}


def test_a_source_without_a_usable_conversation_says_why(talk):
    (told,) = problems(
        talk(said(("assistant", "Welcome")), said(("tool", "x"), ("assistant", "y")))
    )
    assert "none is left" in told
    assert f"{UNUSABLE[UNASKED]} (2)" in told


def test_an_image_is_an_error_with_its_place_or_a_bad_row(talk):
    image = said(("user", [{"type": "image_url", "image_url": "x.png"}]), ("assistant", "A mug."))
    (told,) = problems(talk(GOOD, image))
    assert "talk.jsonl:2, messages[1]: this turn has no text" in told
    loaded = load_rows(talk(GOOD, image, on_bad_row=OnBadRow.SKIP))
    assert len(loaded.rows) == len(loaded.bad) == 1
    assert "talk.jsonl:2, messages[1]" in loaded.bad[0]


def test_tools_that_cannot_be_read_are_an_error_where_the_task_uses_them(talk):
    names = GOOD | {"tools": ["hammer"]}
    assert len(load_rows(talk(names)).rows) == 1
    (told,) = problems(talk(names, tools="tools"))
    assert "talk.jsonl:1, tools: these tools cannot be read" in told
    loaded = load_rows(talk(GOOD, names, tools="tools", on_bad_row=OnBadRow.SKIP))
    assert len(loaded.rows) == len(loaded.bad) == 1


@pytest.mark.parametrize("use", ["tools", "calls"])
def test_columns_of_tools_and_calls_may_lack_in_some_rows_but_not_in_all(talk, use):
    tools = [{"name": "stock", "parameters": {}}]
    some = GOOD | {use: tools}
    assert len(load_rows(talk(GOOD, some, **{use: use})).rows) == 2
    (told,) = problems(talk(GOOD, GOOD, **{use: use}))
    assert f"no row has the column {use!r}" in told


NAMED = replace(TASK, choices=("yes", "no"), labels={"1": "yes", "0": "no"})


def test_rows_have_the_words_of_their_values(source):
    source(*({"text": "Hm.", "label": value} for value in ("1", 0, 1.0, "0.0", True)))
    loaded = load_rows(replace(NAMED, where="label | string != 'True'"))
    assert [row.fields["label"] for row in loaded.rows] == ["yes", "no", "yes", "no"]
    assert loaded.notes == {"label 0.0 read as no": 1}, "as a text it is another"


def test_values_match_whatever_their_case(source):
    source(*({"text": "Hm.", "label": value} for value in (True, "TRUE", "false", False)))
    loaded = load_rows(replace(NAMED, labels={"True": "yes", "False": "no"}))
    assert [row.fields["label"] for row in loaded.rows] == ["yes", "yes", "no", "no"]


def test_values_without_a_word_are_told_all_at_once(source):
    source(*({"text": "Hm.", "label": value} for value in ("1", "2", "2", "yes", "0")))
    first, second = problems(NAMED)
    assert "the label '2' of 2 rows has no word in `labels`" in first
    assert "the label 'yes' of 1 row has no word in `labels`" in second
    assert "1, 0" in first


def test_the_rows_of_a_file_are_read_once_until_it_changes(tmp_path, monkeypatch):
    path = tmp_path / "rows.csv"
    path.write_text("text,label\nfine,good\n")
    task = replace(TASK, source=SourceSpec(str(path)))
    first = registry.load_rows(task)
    assert registry.load_rows(task) is first
    assert registry.load_rows(task, limit=1) is not first
    path.write_text("text,label\nfine,good\npoor,bad\n")
    assert len(registry.load_rows(task).rows) == 2
    monkeypatch.setattr(registry, "MOST_KEPT", 1)
    monkeypatch.setattr(registry, "_KEPT", {})
    assert registry.load_rows(task) is not registry.load_rows(task), "too many rows to keep"
