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
