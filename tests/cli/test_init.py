from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    path = tmp_path / "reviews.csv"
    lines = [
        f"unit {n} lasted for {n % 7} days,{'good bad'.split()[n % 2]},u{n % 20}" for n in range(80)
    ]
    path.write_text("\n".join(["review,label,user_id", *lines]), encoding="utf-8")
    return path


def test_init_says_what_it_guessed_and_what_comes_next(
    instil_command, reviews: Path, tmp_path: Path
) -> None:
    result = instil_command("init", "reviews.csv")
    assert result.exit_code == 0, result.output
    for text in (
        "text    review (the longest text, 6 words on average)",
        "answer  label, classes (a name for labels): bad, good",
        "group   user_id (20 values, 4.0 rows each on average)",
        "wrote reviews.task.yaml",
        "next: instil check reviews.recipe.yaml",
        "instil run reviews.recipe.yaml",
    ):
        assert text in result.stdout
    assert (tmp_path / "reviews.task.yaml").is_file()


def test_options_overrule_the_guess(instil_command, reviews: Path, tmp_path: Path) -> None:
    result = instil_command(
        "init", reviews, "--label", "user_id", "--group", "none", "--name", "who wrote it",
        "--model", "./mine", "--folder", "sub",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    task = (tmp_path / "sub" / "who_wrote_it.task.yaml").read_text(encoding="utf-8")
    assert "target: user_id" in task
    assert "group:" not in task
    recipe = (tmp_path / "sub" / "who_wrote_it.recipe.yaml").read_text(encoding="utf-8")
    assert "model: ./mine" in recipe


def test_init_writes_over_nothing_unasked(instil_command, reviews: Path) -> None:
    assert instil_command("init", reviews).exit_code == 0
    result = instil_command("init", reviews)
    assert result.exit_code == 2
    assert "reviews.task.yaml: this exists already" in result.stderr
    assert "reviews.recipe.yaml: this exists already" in result.stderr
    assert instil_command("init", reviews, "--force").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["revews.csv"], "did you mean: reviews.csv"),
        (["reviews.csv", "--label", "lable"], "did you mean: label"),
        (["reviews.csv", "--encoding", "utf-9"], "encoding"),
    ],
)
def test_mistakes_are_told(instil_command, reviews: Path, arguments: list[str], said: str) -> None:
    result = instil_command("init", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output


def test_warnings_go_to_stderr(instil_command, reviews: Path) -> None:
    text = reviews.read_text(encoding="utf-8")
    reviews.write_text(text.replace("user_id", "email"), encoding="utf-8")
    result = instil_command("init", reviews)
    assert "personal data" in result.stderr


@pytest.mark.parametrize("names", [["0=serious,1=sarcastic"], ["0=serious", "1=sarcastic"]])
def test_words_for_the_values_of_the_label(instil_command, tmp_path: Path, names) -> None:
    lines = [f"the council met for {n} hours,{n % 2}" for n in range(80)]
    text = "\n".join(["headline,sarcastic", *lines])
    (tmp_path / "news.csv").write_text(text, encoding="utf-8")
    options = [option for each in names for option in ("--label-names", each)]
    result = instil_command("init", "news.csv", *options)
    assert result.exit_code == 0, result.output
    assert "answer  sarcastic, classes (a few numbers): serious, sarcastic" in result.stdout
    task = (tmp_path / "news.task.yaml").read_text(encoding="utf-8")
    assert "labels:\n  0: serious\n  1: sarcastic\n" in task


def test_without_words_init_says_how_values_are_read(instil_command, tmp_path: Path) -> None:
    lines = [f"the council met for {n} hours,{n % 2}" for n in range(80)]
    text = "\n".join(["headline,sarcastic", *lines])
    (tmp_path / "news.csv").write_text(text, encoding="utf-8")
    result = instil_command("init", "news.csv")
    assert "1 is read as yes, 0 is read as no" in result.stdout
    assert "--label-names 0=WORD,1=WORD" in result.stdout
    for names, said in (("0=a", "no word for '1'"), ("0", "no value with its word")):
        wrong = instil_command("init", "news.csv", "--force", "--label-names", names)
        assert wrong.exit_code == 2
        assert said in wrong.stderr
        assert "Traceback" not in wrong.output
