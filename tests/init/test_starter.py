from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as pq
import pytest

from instil.data.build import render_example
from instil.data.registry import load_rows
from instil.errors import DataError
from instil.init.inspect import Wishes
from instil.init.starter import Starter, plan_sizes, task_id, write_starter
from instil.tasks.task import load_task
from instil.types import Message, Role, ToolCall
from starting import unedited

NASTY = ["yes", "a: b", "{{ label }}", "{% if x %}", 'it\'s "so"', "- no", "# one", "1e-4", "null"]


def write_csv(path: Path, table: Mapping[str, Sequence[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))
    return path


def texts(n: int) -> list[str]:
    return [
        f"the battery of unit {number} lasted for {number % 7} days or so" for number in range(n)
    ]


def cycle(values: Sequence[object], n: int) -> list[object]:
    return [values[index % len(values)] for index in range(n)]


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Starter]:
    def write(table: Mapping[str, Sequence[object]], **wishes: Any) -> Starter:
        data = write_csv(tmp_path / "My rows.csv", table)
        return write_starter(data, folder=tmp_path, wishes=Wishes(**wishes))

    return write


def test_classes_work_unedited(start, golden) -> None:
    starter = start(
        {
            "review": texts(300),
            "sentiment": cycle(["positive", "negative", "mixed"], 300),
            "product": cycle([f"p{number}" for number in range(60)], 300),
        }
    )
    task, rows, split = unedited(starter)
    assert task.id == "My_rows"
    assert task.choices == ("mixed", "negative", "positive")
    assert [template.role for template in task.templates] == [Role.ANSWER] * 3 + [Role.INVERTED]
    assert len({template.prompt for template in task.templates}) == 4
    assert len(rows) == 300
    assert (len(split.validation), len(split.test)) == (45, 75)
    assert rows[61].group == "p1"
    folder = Path(__file__).parent / "golden"
    golden(folder / "classes.task.yaml", starter.task_file.read_text(encoding="utf-8"))
    golden(folder / "classes.recipe.yaml", starter.recipe_file.read_text(encoding="utf-8"))


def test_ratings_work_unedited(start, golden) -> None:
    starter = start({"review": texts(250), "stars": cycle([1, "2.0", 3, 4, 5], 250)})
    task, rows, split = unedited(starter)
    assert task.choices == ("1", "2", "3", "4", "5")
    roles = [template.role for template in task.templates]
    assert roles == [Role.ANSWER] * 3 + [Role.AUXILIARY, Role.INVERTED]
    rough = task.templates[3]
    assert [render_example(task, rough, row).target for row in rows[:5]] == [
        "low", "low", "middle", "high", "high",
    ]  # fmt: skip
    assert len(split.train) > 120
    path = Path(__file__).parent / "golden" / "rating.task.yaml"
    golden(path, starter.task_file.read_text(encoding="utf-8"))


def test_rounded_ratings_with_gaps_work_unedited(start) -> None:
    scores = ["", "n/a", *(number / 10 for number in range(198))]
    task, rows, _ = unedited(start({"text": texts(200), "score": scores}))
    assert task.target == "rating"
    assert task.choices == ("1", "2", "3", "4", "5")
    assert len(rows) == 198


def test_free_text_works_unedited(start, golden) -> None:
    summaries = [f"unit {number} lasted" for number in range(200)]
    starter = start({"article": texts(200), "summary": summaries})
    task, _, _ = unedited(starter)
    assert task.kind == "summary"
    assert task.metric == "token_f1"
    assert task.choices == ()
    assert [template.role for template in task.templates] == [Role.ANSWER] * 3 + [Role.INVERTED]
    path = Path(__file__).parent / "golden" / "summary.task.yaml"
    golden(path, starter.task_file.read_text(encoding="utf-8"))


def test_free_text_with_gaps_works_unedited(start) -> None:
    answers = ["" if number % 10 == 0 else f"answer number {number}" for number in range(100)]
    _, rows, _ = unedited(start({"question": texts(100), "answer": answers}))
    assert len(rows) == 90


@pytest.mark.parametrize("label", ["Final Label", "klasse-für-mich", "class", "choices", "label"])
@pytest.mark.parametrize("text", ["Review Text", "review-text", "text", "1st", 'the "text"'])
def test_columns_and_labels_of_any_spelling_survive(start, text: str, label: str) -> None:
    starter = start(
        {text: texts(270), label: cycle(NASTY, 270), "user id": cycle(range(45), 270)},
        text=text,
        label=label,
        group="user id",
    )
    task, rows, _ = unedited(starter)
    assert set(task.choices) == set(NASTY)
    assert {row.fields[label] for row in rows} == set(NASTY)
    assert rows[46].group == "1"
    inverted = task.templates[-1]
    assert rows[2].fields[label] == "{{ label }}"
    assert "{{ label }}" in render_example(task, inverted, rows[2]).messages[-1].content
    assert render_example(task, inverted, rows[2]).target == texts(3)[2]


def test_labels_in_different_case_become_one(start) -> None:
    starter = start({"text": texts(120), "label": cycle(["Good", "good", "BAD", "bad"], 120)})
    task, rows, _ = unedited(starter)
    assert task.choices == ("bad", "good")
    assert task.target == "label_value"
    assert rows[0].fields["label_value"] == "good"


def test_json_rows_with_missing_keys_work_unedited(tmp_path: Path) -> None:
    rows = [
        {"text": text, **({"label": ["a", "b"][n % 2]} if n % 9 else {}), "user": n % 30}
        for n, text in enumerate(texts(180))
    ]
    for row in rows[10:13]:
        del row["user"]
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    starter = write_starter(data, folder=tmp_path, wishes=Wishes())
    _, loaded, _ = unedited(starter)
    assert len(loaded) == 160


def test_instruction_data_work_unedited(tmp_path: Path) -> None:
    rows = [
        {"instruction": f"Say what {text}.", "input": "", "output": f"Well, {text}."}
        for text in texts(60)
    ]
    data = tmp_path / "alpaca.json"
    data.write_text(json.dumps(rows), encoding="utf-8")
    task, _, _ = unedited(write_starter(data, folder=tmp_path, wishes=Wishes()))
    assert task.kind == "instruction"
    assert task.templates[0].prompt == "{{ prompt }}"


def test_files_are_never_written_over_unasked(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "r.csv", {"text": texts(60), "label": cycle(["a", "b"], 60)})
    (tmp_path / "r.recipe.yaml").write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match="--force"):
        write_starter(data, folder=tmp_path, wishes=Wishes())
    assert (tmp_path / "r.recipe.yaml").read_text(encoding="utf-8") == "mine"
    assert not (tmp_path / "r.task.yaml").exists()
    starter = write_starter(data, folder=tmp_path, wishes=Wishes(), overwrite=True)
    assert starter.recipe_file.read_text(encoding="utf-8") != "mine"


def test_nothing_is_written_for_bad_data(tmp_path: Path) -> None:
    data = tmp_path / "r.csv"
    data.write_text("text,label\n", encoding="utf-8")
    with pytest.raises(DataError):
        write_starter(data, folder=tmp_path, wishes=Wishes())
    assert [path.name for path in tmp_path.iterdir()] == ["r.csv"]


@pytest.mark.parametrize(
    "name",
    ["../x", "/tmp/x", "a/b", "a\\b", "C:x", "", "  ", ".", "..", "...", "a.b", "-x", "con", "NUL",
     "lpt1", "a\0b", "a\x1b[31m", "\u202ea", "x" * 101],
)  # fmt: skip
def test_a_name_that_is_no_name_of_a_file_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    data = write_csv(tmp_path / "r.csv", {"text": texts(60), "label": cycle(["a", "b"], 60)})
    with pytest.raises(DataError, match="--name: this cannot be a task's name"):
        write_starter(data, folder=folder, wishes=Wishes(), name=name)
    assert [path.name for path in tmp_path.rglob("*.yaml")] == []
    starter = write_starter(data, folder=folder, wishes=Wishes(), name="who wrote-it_2")
    assert starter.task_file.name == "who_wrote-it_2.task.yaml"


def test_the_rows_are_found_from_the_task_file(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "work").mkdir()
    table = {"text": texts(60), "label": cycle(["a", "b"], 60)}
    data = write_csv(tmp_path / "data" / "r.csv", table)
    inside = write_starter(data, folder=tmp_path, wishes=Wishes())
    assert "source: data/r.csv" in inside.task_file.read_text(encoding="utf-8")
    unedited(inside)
    unedited(write_starter(data, folder=tmp_path / "work", wishes=Wishes()))


def test_another_encoding_is_kept_in_the_task(tmp_path: Path) -> None:
    data = tmp_path / "r.csv"
    lines = [f"{text} café,{'ab'[n % 2]}" for n, text in enumerate(texts(60))]
    data.write_bytes("\n".join(["text,label", *lines]).encode("latin-1"))
    with pytest.raises(DataError, match="encoding"):
        write_starter(data, folder=tmp_path, wishes=Wishes())
    starter = write_starter(data, folder=tmp_path, wishes=Wishes(), encoding="latin-1")
    _, rows, _ = unedited(starter)
    assert str(rows[0].fields["text"]).endswith("café")


@pytest.mark.parametrize("rows", [24, 30, 60, 100, 300, 1000, 5000, 10**6])
@pytest.mark.parametrize("classes", [2, 5, 20])
def test_sizes_leave_most_rows_to_train(rows: int, classes: int) -> None:
    sizes = plan_sizes(rows, classes=classes)
    assert sizes.validation >= 2
    assert sizes.test >= max(2, min(300, rows // 5))
    left = rows - sizes.validation - sizes.test
    assert left >= rows / 2
    assert sizes.train is None or sizes.train <= left


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("reviews.csv", "reviews"),
        ("Überblick 2024.xlsx.csv", "berblick_2024"),
        (".hidden", "hidden"),
        ("-x.csv", "x"),
        ("___.csv", "task"),
        ("a/b", "a_b"),
        ("n" * 250 + ".csv", "n" * 100),
    ],
)
def test_ids_are_made_of_letters_digits_and_dashes(name: str, id: str) -> None:
    assert task_id(name) == id


def test_the_prompts_are_english(start) -> None:
    starter = start({"article": texts(60), "is_spam": cycle(["yes", "no"], 60)})
    prompts = {each.id: each.prompt for each in unedited(starter)[0].templates}
    assert prompts["question"].startswith("Is this article spam?")
    assert "write_it" not in prompts


def test_conversations_with_tools_are_asked_with_them(tmp_path: Path) -> None:
    said = "says how many of a unit are left in the shop " * 5
    tool = {"type": "function", "function": {"name": "stock", "description": said}}
    lines = []
    for n, text in enumerate(texts(40)):
        call = {"id": "c", "function": {"name": "stock", "arguments": {"unit": n}}}
        turns: list[dict[str, object]] = [
            {"role": "user", "content": text},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": f"{n} left"},
            {"role": "assistant", "content": f"There are {n} of unit {n}."},
        ]
        kept = turns[: 2 if n % 2 else 4]
        lines.append(json.dumps({"messages": kept, "tools": [tool]}))
    data = tmp_path / "shop.jsonl"
    data.write_text("\n".join(lines), encoding="utf-8")
    starter = write_starter(data, folder=tmp_path, wishes=Wishes())
    task = load_task(str(starter.task_file))
    assert (task.tools, task.calls, task.history) == ("tools", "completion_calls", "history")
    rows = load_rows(task).rows
    assert len(rows) == 40
    answered, called = (render_example(task, task.templates[0], row) for row in rows[:2])
    assert [m.role for m in answered.messages] == ["user", "assistant", "tool"]
    assert answered.messages[2] == Message("tool", "0 left", name="stock")
    assert answered.target == "There are 0 of unit 0."
    assert (called.target, called.target_calls) == ("", (ToolCall("stock", '{"unit": 1}'),))
    assert [json.loads(each) for each in called.tools] == [tool]
    assert task.max_new_tokens == 38
    assert "max_length: 1024" in starter.recipe_file.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("label", [float("nan"), 0.0, 1.0]),
        ("stars", [float("nan"), *(number / 10 for number in range(10, 50))]),
        ("stars", [float("nan"), 1.0, 5.0, 1.0, 5.0]),
        ("summary", [float("nan"), *(f"it lasted {number} days" for number in range(50))]),
    ],
)
def test_not_a_number_is_missing_everywhere(
    tmp_path: Path, kind: str, name: str, values: list[object]
) -> None:
    if kind == "parquet" and name == "summary":
        values = [None, *values[1:]]  # a column has one type there
    rows = [{"review": text, name: values[n % len(values)]} for n, text in enumerate(texts(160))]
    data = tmp_path / f"r.{kind}"
    if kind == "parquet":
        pq.write_table(pyarrow.Table.from_pylist(rows), data)
    else:
        data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    task, loaded, _ = unedited(write_starter(data, folder=tmp_path, wishes=Wishes()))
    without = sum(n % len(values) == 0 for n in range(160))
    assert len(loaded) == 160 - without
    assert "nan" not in {str(row.fields[task.target]) for row in loaded}


def test_fractions_and_small_floats_work_unedited(tmp_path: Path) -> None:
    for number, values in enumerate(([1 / 3, 2 / 3, 0.0, 1.0], [0.1, 0.9])):
        table = pyarrow.table(
            {
                "review": texts(120),
                "score": pyarrow.array(cycle(values, 120), pyarrow.float32()),
            }
        )
        data = tmp_path / f"r{number}.parquet"
        pq.write_table(table, data)
        task, rows, _ = unedited(write_starter(data, folder=tmp_path, wishes=Wishes()))
        assert len(rows) == 120
        assert max(map(len, task.choices)) <= 4


def test_words_of_the_user_are_in_the_task(start) -> None:
    table = {"headline": texts(120), "sarcastic": cycle([0, 1], 120)}
    starter = start(table, label_names={"0": "serious", "1": "sarcastic"})
    assert "labels:\n  0: serious\n  1: sarcastic\n" in starter.task_file.read_text("utf-8")
    task, rows, _ = unedited(starter)
    assert task.choices == ("serious", "sarcastic")
    assert [row.fields["sarcastic"] for row in rows[:2]] == ["serious", "sarcastic"]


def test_a_column_called_zip_can_be_used(start) -> None:
    task, rows, _ = unedited(start({"text": texts(120), "zip": cycle(["01234", "12"], 120)},
                                   label="zip"))  # fmt: skip
    assert set(task.choices) == {"01234", "12"}
    assert rows[0].fields["zip"] == "01234"


def test_labels_that_are_written_work_unedited(start) -> None:
    intents = cycle([f"intent_{n}" for n in range(77)], 120)
    task, rows, _ = unedited(start({"utterance": texts(120), "intent": intents}))
    assert (task.kind, task.metric, task.choices) == ("classes", "exact_match", ())
    assert task.templates[0].prompt.startswith("What is the intent of this utterance? Answer with")
    assert len(rows) == 120


@pytest.mark.parametrize(
    ("answer", "least"),
    [
        ("이 제품의 배터리는 하루 종일 사용할 수 있을 만큼 오래 갑니다 그리고 가벼워요", 90),
        ('["billing","refund","card_not_working","lost_card","card_arrival"]', 25),
        ("Action|Adventure|Science_Fiction|Comedy|Documentary|Film_Noir", 19),
        ("the battery lasts for a whole day and a night and one more day", 30),
    ],
)
def test_an_answer_of_any_script_and_form_has_room(start, answer: str, least: int) -> None:
    answers = [f"{answer} {number}" for number in range(100)]
    task, *_ = unedited(start({"text": texts(100), "reply": answers}, target="reply"))
    assert task.max_new_tokens >= least


def test_choices_that_prompts_list_count_for_the_length(start) -> None:
    intents = [f"lost_or_stolen_card_{number}" for number in range(24)]
    long = [f"{text} and {' '.join(['so on'] * 12)}" for text in texts(480)]
    starter = start({"text": long, "intent": cycle(intents, 480)})
    assert "max_length: 512" in starter.recipe_file.read_text(encoding="utf-8")


def test_numbers_of_kinds_are_no_rating(start) -> None:
    kinds = cycle([str(n) for n in range(8)], 400)
    task, *_ = unedited(start({"text": texts(400), "emotion": kinds}, label="emotion"))
    assert task.kind == "classes"
    assert len(task.choices) == 8


def test_a_column_in_another_script_keeps_its_name_whole(start) -> None:
    name = "\u092d\u093e\u0935\u0928\u093e"
    labels = cycle(["good", "bad"], 200)
    task, *_ = unedited(start({"text": texts(200), name: labels}, label=name))
    assert any(name in template.prompt for template in task.templates)


def test_a_correction_goes_from_the_original_and_is_judged_by_its_letters(start) -> None:
    rows = texts(100)
    corrected = [f"{text}, as it says" for text in rows]
    task, *_ = unedited(start({"original": rows, "corrected": corrected}))
    assert (task.text, task.target, task.metric, task.kind) == (
        "original", "corrected", "chrf", "correction",
    )  # fmt: skip
    assert all(template.role is Role.ANSWER for template in task.templates)


def test_of_two_texts_of_one_length_the_first_is_read(start) -> None:
    rows = texts(100)
    starter = start({"german": rows, "english": [f"{text} too" for text in rows]})
    task, *_ = unedited(starter)
    assert (task.text, task.target) == ("german", "english")


def test_json_objects_are_right_or_wrong(start) -> None:
    fields = [json.dumps({"name": f"Bob {n}", "age": n, "town": "Bonn"}) for n in range(100)]
    task, *_ = unedited(start({"text": texts(100), "fields": fields}, target="fields"))
    assert task.metric == "exact_match"
    assert task.max_new_tokens >= 28


@pytest.mark.parametrize("name", ["product_quality", "emotion_intensity", "source_reliability"])
def test_a_quality_of_a_thing_is_a_rating(start, name: str) -> None:
    stars = cycle([1, 2, 3, 4, 5], 300)
    task, *_ = unedited(start({"text": texts(300), name: stars}, label=name))
    assert task.kind == "rating"


def test_prices_are_still_numbers_in_an_order(start) -> None:
    prices = [f"{n}.99" for n in range(300)]
    task, *_ = unedited(start({"text": texts(300), "product_price": prices}))
    assert task.kind == "rating"


@pytest.mark.parametrize("flag", ["fixed", "chosen"])
def test_flags_are_no_corrections(start, flag: str) -> None:
    table = {"description": texts(300), "severity": cycle(["low", "mid", "high"], 300)}
    task, *_ = unedited(start({**table, flag: cycle([0, 1], 300)}))
    assert task.target == "severity"


def test_the_rejected_of_two_answers_is_never_learnt(start) -> None:
    rows = texts(100)
    columns = {
        "prompt": [f"what of {text}" for text in rows],
        "chosen": [f"{text}, which is good to know" for text in rows],
        "rejected": [f"{text}, and I do not care at all" for text in rows],
    }
    task, *_ = unedited(start(columns))
    assert (task.text, task.target) == ("prompt", "chosen")


def test_kinds_that_a_table_made_fractions_are_kinds(start) -> None:
    kinds = cycle([f"{n}.0" for n in range(6)], 300)
    task, *_ = unedited(start({"text": texts(300), "emotion": kinds}, label="emotion"))
    assert task.kind == "classes"


def test_long_json_objects_are_json(start) -> None:
    objects = [
        json.dumps({"name": f"Bob {n}", "towns": [f"town {k}" for k in range(4 + 40 * (n % 2))]})
        for n in range(100)
    ]
    task, *_ = unedited(start({"text": texts(100), "fields": objects}, target="fields"))
    assert task.metric == "exact_match"


def test_a_named_text_is_read_before_one_that_comes_first(start) -> None:
    rows = texts(120)
    notes = [f"{text} as noted" for text in rows]
    labels = cycle(["true", "false"], 120)
    task, *_ = unedited(start({"explanation": notes, "claim": rows, "verdict": labels}))
    assert task.text == "claim"


def test_prose_with_a_few_empty_objects_is_no_json(start) -> None:
    prose = [" ".join([text] * 8) for text in texts(95)]
    outputs = [*prose, *["{}"] * 5]
    task, *_ = unedited(start({"text": texts(100), "output": outputs}))
    assert task.metric == "rougeL"
