from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from instil.data.readers.shapes import Shape
from instil.data.readers.turns import UNASKED
from instil.errors import DataError
from instil.init.guesses import Kind
from instil.init.inspect import Guess, Wishes, inspect_table
from instil.types import SourceSpec

WORDS = "good bad nice works broken cheap love hate slow fast battery screen box late".split()
Table = Mapping[str, Sequence[object]]


def sentences(n: int = 120, *, words: int = 9, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=words)) for _ in range(n)]


def cycle(values: Sequence[object], n: int = 120) -> list[object]:
    return [values[index % len(values)] for index in range(n)]


@pytest.fixture
def look(tmp_path: Path) -> Callable[..., Guess]:
    """Write a table as CSV and look at it."""

    def inspect(table: Table, **wishes: str) -> Guess:
        path = tmp_path / "rows.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(table)
            writer.writerows(zip(*table.values(), strict=True))
        return inspect_table(SourceSpec(uri=str(path)), wishes=Wishes(**wishes))

    return inspect


def names(guess: Guess) -> tuple[str, str, str]:
    return guess.text.name, guess.target.name, guess.group.name if guess.group else ""


def test_text_label_and_group_are_found(look) -> None:
    guess = look(
        {
            "": range(120),
            "title": sentences(words=3, seed=1),
            "Review Text": sentences(),
            "date": ["2024-05-01"] * 120,
            "helpful": cycle([0, 1, 2]),
            "sentiment": cycle(["positive", "negative"]),
            "product_id": cycle([f"B{number}" for number in range(30)]),
        }
    )
    assert names(guess) == ("Review Text", "sentiment", "product_id")
    assert guess.kind is Kind.CLASSES
    assert guess.labels.choices == ("negative", "positive")
    assert guess.rows == 120
    assert not guess.warnings


@pytest.mark.parametrize(
    "name",
    ["label", "Label", "sentiment", "category", "rating", "stars", "score", "class", "topic"],
)
def test_a_name_for_labels_goes_before_other_columns_of_few_values(look, name: str) -> None:
    table = {"country": cycle(["UK", "US"]), "text": sentences(), name: cycle(["a", "b", "c"])}
    assert look(table).target.name == name


def test_a_column_of_few_values_is_the_label_whatever_its_name(look) -> None:
    guess = look({"id": range(120), "body": sentences(), "verdict": cycle(["up", "down"])})
    assert names(guess) == ("body", "verdict", "")


def test_zero_and_one_are_rather_the_label_than_names_of_things(look) -> None:
    products = {"product": cycle([f"p{number}" for number in range(40)], 400)}
    table = {"review": sentences(400), "sarcastic": cycle([0, 1], 400), **products}
    assert names(look(table)) == ("review", "sarcastic", "product")
    assert look({"review": sentences(400), **products}).target.name == "product"


@pytest.mark.parametrize(
    ("values", "choices"),
    [
        (["1", "2", "3", "4", "5"], ("1", "2", "3", "4", "5")),
        (["10.0", "9.0", "1.0"], ("1", "9", "10")),
        ([number / 10 for number in range(10, 51)], ("1", "2", "3", "4", "5")),
    ],
)
def test_numbers_are_a_rating_in_order(
    look, values: list[object], choices: tuple[str, ...]
) -> None:
    guess = look({"text": sentences(400), "stars": cycle(values, 400)})
    assert guess.kind is Kind.RATING
    assert guess.labels.choices == choices


@pytest.mark.parametrize("values", [["0", "1"], ["0", "1", "2"]])
def test_numbered_classes_are_no_rating(look, values: list[str]) -> None:
    guess = look({"text": sentences(), "label": cycle(values)})
    assert guess.kind is Kind.CLASSES
    assert any("words" in warning for warning in guess.warnings)


@pytest.mark.parametrize(
    "target", ["summary", "answer", "output", "completion", "headline", "title"]
)
def test_a_text_to_write_is_found_by_its_name(look, target: str) -> None:
    guess = look({"article": sentences(words=30), target: sentences(words=6, seed=1)})
    assert names(guess)[:2] == ("article", target)
    assert guess.kind is Kind.FREE_TEXT
    assert guess.labels is None


def test_a_long_answer_is_still_the_answer(look) -> None:
    guess = look({"question": sentences(words=6), "answer": sentences(words=40, seed=1)})
    assert names(guess)[:2] == ("question", "answer")


def test_wishes_overrule_the_guess(look) -> None:
    table = {
        "text": sentences(words=20),
        "subject": sentences(words=4, seed=1),
        "label": cycle(["a", "b"]),
        "mood": cycle(["x", "y", "z"]),
        "shop": cycle(list(range(20))),
    }
    guess = look(table, text="subject", label="mood", group="shop")
    assert names(guess) == ("subject", "mood", "shop")
    free = look(table, target="subject", group="none")
    assert names(free) == ("text", "subject", "")
    assert free.kind is Kind.FREE_TEXT


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ({"label": "lable"}, "did you mean: label"),
        ({"text": "nope", "group": "no"}, "there is no column 'no'"),
        ({"label": "label", "target": "text"}, "either --label"),
        ({"text": "label", "label": "label"}, "two things"),
        ({"label": "text", "text": "label"}, "--target text"),
    ],
)
def test_wishes_that_cannot_be_had(look, wishes: dict[str, str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        look({"text": sentences(), "label": cycle(["a", "b"])}, **wishes)


def test_ids_dates_indices_and_links_are_no_labels(look) -> None:
    table = {
        "column_1": range(120),
        "id": cycle([1, 2, 3, 4]),
        "date": cycle(["2024-05-01", "2024-05-02"]),
        "link": cycle(["https://a.example/x", "https://b.example/y"]),
        "text": sentences(),
    }
    with pytest.raises(DataError, match="--label COLUMN or --target COLUMN"):
        look(table)


def test_a_table_without_text_says_so(look) -> None:
    with pytest.raises(DataError, match="--text COLUMN"):
        look({"a": range(120), "label": cycle(["x", "y"])})


def test_too_few_rows(look) -> None:
    with pytest.raises(DataError, match="5 rows are too few"):
        look({"text": sentences(5), "label": cycle(["a", "b"], 5)})


@pytest.mark.parametrize(
    "values",
    [
        list(range(120)),  # every row its own
        cycle(["p1", "p2", "p3"]),  # too few to split
        ["p0"] * 60 + list(range(60)),  # half of the rows in one
    ],
)
def test_what_keeps_no_rows_together_is_no_group(look, values: list[object]) -> None:
    table = {"text": sentences(), "label": cycle(["a", "b"]), "product_id": values}
    assert look(table).group is None


def test_rows_of_a_review_go_before_rows_of_a_user(look) -> None:
    table = {
        "user_id": cycle(list(range(20))),
        "review_id": cycle(list(range(40))),
        "sentence": sentences(),
        "label": cycle(["a", "b"]),
    }
    guess = look(table)
    assert names(guess) == ("sentence", "label", "review_id")
    assert any("user_id" in reason for reason in guess.reasons)


def test_personal_data_are_warned_of(look) -> None:
    texts = sentences()
    texts[7] += " write to ann.lee+shop@example.co.uk today"
    table = {
        "email": [f"u{number}@example.org" for number in range(120)],
        "contact": [f"u{number}@example.org" for number in range(120)],
        "text": texts,
        "label": cycle(["a", "b"]),
    }
    warnings = look(table).warnings
    assert sum("looks like personal data" in warning for warning in warnings) == 2
    assert any("1 cells of 'text' hold an e-mail address" in warning for warning in warnings)


def test_what_is_left_out_is_told(look) -> None:
    texts = sentences()
    texts[3] = " "
    guess = look({"text": texts, "label": ["", *cycle(["a", "b"], 118), "c"]})
    assert guess.rows == 118
    assert set(guess.warnings) == {
        "1 row without 'label' left out",
        "1 row without 'text' left out",
        "1 row with 'label' 'c' left out: too few to learn",
    }


def test_customers_are_a_group_and_0_and_1_the_label(look) -> None:
    customers = [f"C{100 + n // 9}" for n in range(120)]
    guess = look({"text": sentences(), "customer": customers, "churned": cycle("01")})
    assert guess.target.name == "churned"
    assert guess.group.name == "customer"


def test_values_too_few_to_learn_share_one_line(look) -> None:
    labels = [f"rare{n}" if n < 12 else "ab"[n % 2] for n in range(120)]
    guess = look({"text": sentences(), "label": labels})
    (line,) = (warning for warning in guess.warnings if "too few to learn" in warning)
    assert line.startswith("12 rows with 'label' 'rare0', 'rare1'")
    assert line.endswith("and 4 more left out: too few to learn")


ALPACA = {"instruction": "Say a word {}.", "input": "", "output": "word number {} it is"}
SHAREGPT = {
    "conversations": [{"from": "human", "value": "Say {}."}, {"from": "gpt", "value": "It is {}."}]
}
MESSAGES = {
    "messages": [
        {"role": "user", "content": "Say {}."},
        {"role": "assistant", "content": "It is {}."},
    ]
}
PROMPT = {"prompt": "Say {}.", "completion": "It is {}."}


@pytest.mark.parametrize(
    ("shape", "row"),
    [
        (Shape.ALPACA, ALPACA),
        (Shape.SHAREGPT, SHAREGPT),
        (Shape.MESSAGES, MESSAGES),
        (Shape.PROMPT_COMPLETION, PROMPT),
    ],
)
def test_known_shapes_are_recognised(tmp_path: Path, shape: Shape, row: dict[str, object]) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps(row).replace("{}", str(number)) for number in range(40)]
    path.write_text("\n".join(lines), encoding="utf-8")
    guess = inspect_table(SourceSpec(uri=str(path)), wishes=Wishes())
    assert guess.shape is shape
    assert names(guess) == ("prompt", "completion", "")
    assert guess.kind is Kind.FREE_TEXT


def test_answers_of_few_values_are_classes_in_a_known_shape_too(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    rows = [{"prompt": f"Is {n} even?", "completion": ["yes", "no"][n % 2]} for n in range(60)]
    path.write_text(json.dumps(rows), encoding="utf-8")
    guess = inspect_table(SourceSpec(uri=str(path)), wishes=Wishes())
    assert guess.kind is Kind.CLASSES
    assert guess.labels.choices == ("yes", "no")


def test_numbers_that_answer_instructions_are_no_rating(tmp_path: Path) -> None:
    file = tmp_path / "sums.jsonl"
    rows = [
        {"instruction": f"{text} What is the sum?", "output": str(17 * n % 67)}
        for n, text in enumerate(sentences(200))
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    guess = inspect_table(SourceSpec(uri=str(file)), wishes=Wishes())
    assert guess.shape is Shape.ALPACA
    assert guess.kind is Kind.FREE_TEXT


def test_decimal_commas_are_told(look) -> None:
    found = look({"text": sentences(), "rating": cycle(["1,0", "2,5", "4,5"])})
    assert any("decimal commas" in warning for warning in found.warnings)
    names = look({"text": sentences(), "label": cycle(["1,0", "a", "b"])})
    assert not any("decimal commas" in warning for warning in names.warnings)


def test_files_of_one_name_in_two_folders_are_no_group(tmp_path: Path) -> None:
    for folder, number in product(("good", "bad"), range(60)):
        file = tmp_path / folder / f"{number}.txt"
        file.parent.mkdir(exist_ok=True)
        file.write_text(sentences(120, seed=len(folder))[number])
    guess = inspect_table(SourceSpec(uri=str(tmp_path)), wishes=Wishes())
    assert guess.target.name == "folder"
    assert guess.group is None


def test_a_second_text_is_told_of(look) -> None:
    table = {
        "premise": sentences(),
        "hypothesis": sentences(words=4, seed=1),
        "gold": cycle([0, 1, 2]),
    }
    guess = look(table)
    assert guess.kind is Kind.CLASSES
    assert "          not read: hypothesis; to ask with it: {{ hypothesis }} in a prompt" in (
        guess.reasons
    )
    one_text = look({"text": sentences(), "label": cycle(["a", "b"])})
    assert not any("not read" in line for line in one_text.reasons)


def test_system_prompts_are_told_of_and_used(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    turns = [
        [{"from": "human", "value": question}, {"from": "gpt", "value": f"{question} {n} it is"}]
        for n, question in enumerate(sentences())
    ]
    turns[3].insert(0, {"from": "system", "value": "Be kind."})
    lines = (json.dumps({"conversations": each}) + "\n" for each in turns)
    path.write_text("".join(lines), encoding="utf-8")
    guess = inspect_table(SourceSpec(uri=str(path)), wishes=Wishes())
    assert "  system  system (in 1 row)" in guess.reasons
    assert guess.fields == {"system_prompt": 'system | default("", true)'}


# ---- conversations


def talks(path: Path, turns: list[list[dict[str, object]]], **more: object) -> Guess:
    rows = [{"messages": each, **more} for each in turns]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return inspect_table(SourceSpec(uri=str(path)), wishes=Wishes())


def turn(role: str, content: str | None, **more: object) -> dict[str, object]:
    return {"role": role, "content": content, **more}


def test_two_answers_a_row_teach_nothing_and_the_reason_is_told(tmp_path: Path) -> None:
    rows = [
        [turn("user", text), turn("assistant", "One moment."), turn("assistant", f"It is {text}")]
        for text in sentences()
    ]
    with pytest.raises(DataError) as caught:
        talks(tmp_path / "talk.jsonl", rows)
    (problem,) = caught.value.problems
    assert problem.what == f"there is nothing to learn: none of {len(rows)} rows can be used"
    assert "follows an answer" in problem.found
    assert f"{len(rows)} rows" in problem.found
    assert "join answers" in problem.fix


@pytest.mark.parametrize(
    ("before", "why"),
    [([], "no user asks"), ([turn("tool", "in stock")], "no user asks")],
)
def test_answers_or_tools_alone_teach_nothing(tmp_path: Path, before: list[Any], why: str) -> None:
    rows = [[*before, turn("assistant", text)] for text in sentences()]
    with pytest.raises(DataError, match="nothing to learn") as caught:
        talks(tmp_path / "talk.jsonl", rows)
    assert why in caught.value.problems[0].found


def test_a_few_conversations_that_can_be_used_are_too_few(tmp_path: Path) -> None:
    rows = [[turn("assistant", text)] for text in sentences()]
    rows[0].insert(0, turn("user", "Hi"))
    with pytest.raises(DataError, match="too little to learn: 1 of"):
        talks(tmp_path / "talk.jsonl", rows)


def test_what_is_read_and_never_trained_on_is_told(tmp_path: Path) -> None:
    rows = [
        [turn("assistant", "Welcome."), turn("user", text), turn("assistant", f"It is {text}")]
        for text in sentences()
    ]
    guess = talks(tmp_path / "talk.jsonl", rows)
    assert guess.text.name == "last_message"
    assert f"{UNASKED}: {len(rows)} rows" in guess.warnings


def test_tools_and_calls_are_found_without_any_earlier_turn(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "stock", "parameters": {}}}
    call = {"type": "function", "function": {"name": "stock", "arguments": {"of": "mugs"}}}
    rows = [
        [turn("user", text), turn("assistant", None, tool_calls=[call])] for text in sentences()
    ]
    guess = talks(tmp_path / "talk.jsonl", rows, tools=[tool])
    assert (guess.history, guess.calls) == ("history", "completion_calls")
    assert guess.tools is not None
    assert guess.tools.name == "tools"
    assert guess.kind is Kind.FREE_TEXT  # though all answers are the same call
    assert any(line.startswith("  tools   tools (in ") for line in guess.reasons)
    assert any(line.startswith("  calls   completion_calls (in ") for line in guess.reasons)


def test_a_column_of_other_tools_is_not_used_and_told(tmp_path: Path) -> None:
    rows = [[turn("user", text), turn("assistant", f"It is {text}")] for text in sentences()]
    guess = talks(tmp_path / "talk.jsonl", rows, tools=["hammer"])
    assert guess.tools is None
    assert "the column 'tools' holds no JSON schemas: not used" in guess.warnings


def test_conversations_that_are_left_out_bring_no_history(tmp_path: Path) -> None:
    rows = [[turn("user", text), turn("assistant", f"It is {text}")] for text in sentences()]
    rows[3].append(turn("assistant", "Again."))
    guess = talks(tmp_path / "talk.jsonl", rows)
    assert guess.history == ""
    assert guess.text.name == "prompt"


@pytest.mark.parametrize("flag", ["text", "label", "target"])
def test_a_column_of_lists_cannot_be_named(tmp_path: Path, flag: str) -> None:
    path = tmp_path / "rows.json"
    rows = [{"text": text, "label": "ab"[len(text) % 2], "tags": ["x"]} for text in sentences()]
    path.write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(DataError, match="'tags' holds lists or mappings"):
        inspect_table(SourceSpec(uri=str(path)), wishes=Wishes(**{flag: "tags"}))


def test_columns_of_turns_are_a_conversation(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [
        {"prompt": [turn("user", text)], "completion": [turn("assistant", f"It is {text}")]}
        for text in sentences()
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    guess = inspect_table(SourceSpec(uri=str(path)), wishes=Wishes())
    assert guess.shape is Shape.MESSAGES
    assert names(guess) == ("prompt", "completion", "")


# ---- texts and labels of other kinds


def test_texts_without_blanks_are_measured_in_characters(look) -> None:
    rng = random.Random(3)
    texts = ["".join(rng.choices("会颜用声好很个壶不对买太再大音", k=40)) for _ in range(120)]
    guess = look({"评论": texts, "label": cycle(["好", "坏"])})
    assert names(guess) == ("评论", "label", "")
    assert any("40 characters on average" in reason for reason in guess.reasons)
    assert guess.text.words_at(0.5) == 40


def test_more_than_fifty_classes_are_a_label_by_their_name(look) -> None:
    table = {"text": sentences(462), "intent": cycle([f"intent_{n:02}" for n in range(77)], 462)}
    guess = look(table)
    assert names(guess) == ("text", "intent", "")
    assert len(guess.labels.choices) == 77
    assert any("77 labels are too many to list" in reason for reason in guess.reasons)


def test_labels_of_a_hundred_characters_are_labels(look) -> None:
    long = [f"This is a description that goes on and on until it is {end}" * 2 for end in "ab"]
    guess = look({"text": sentences(), "label": cycle(long)})
    assert guess.kind is Kind.CLASSES
    assert set(guess.labels.choices) == set(long)


def test_labels_too_many_to_score_each_are_written(look) -> None:
    many = [f"the name of the thing number {n}" for n in range(700)]
    guess = look({"text": sentences(2100), "label": cycle(many, 2100)})
    assert guess.kind is Kind.WRITTEN
    assert any(
        "700 values in 2100 rows, too many to choose among" in reason for reason in guess.reasons
    )


def test_labels_too_rare_to_choose_among_are_written(look) -> None:
    guess = look({"text": sentences(), "intent": cycle([f"intent_{n}" for n in range(77)])})
    assert (guess.kind, guess.labels) == (Kind.WRITTEN, None)
    distinct = look({"text": sentences(), "intent": [f"intent {n}" for n in range(120)],
                     "shop": cycle(["a", "b"])})  # fmt: skip
    assert distinct.target.name == "shop"


def test_several_columns_of_labels_are_named(look) -> None:
    guess = look({"comment": sentences(), "toxic": cycle([0, 1]), "insult": cycle([0, 0, 1])})
    assert guess.target.name == "toxic"
    assert any("could also be insult: --label" in reason for reason in guess.reasons)


def test_words_for_a_text_to_write_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"article": text, "summary": f"{n} {text}"} for n, text in enumerate(sentences())]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(DataError, match="free text, whose values have no words"):
        inspect_table(SourceSpec(uri=str(path)), wishes=Wishes(label_names={"0": "a"}))


def test_a_text_column_called_email_is_not_said_to_be_unused(look) -> None:
    guess = look({"email": sentences(), "label": cycle(["a", "b"])})
    assert not guess.warnings


def test_of_two_columns_of_one_label_the_words_are_taken(look) -> None:
    table = {"text": sentences(), "label": cycle([0, 1]), "label_text": cycle(["bad", "good"])}
    guess = look(table)
    assert guess.target.name == "label_text"
    assert any("it could also be label:" in reason for reason in guess.reasons)


def test_a_first_row_that_was_taken_for_a_header_is_told(look) -> None:
    guess = look({"a nice thing": sentences(), "bad": cycle(["good", "bad"])})
    assert any("no header line" in warning for warning in guess.warnings)
    guess = look({"text": sentences(), "label": cycle(["good", "bad"])})
    assert not any("no header line" in warning for warning in guess.warnings)
