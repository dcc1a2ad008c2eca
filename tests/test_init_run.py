"""`instil init` + `instil run`, unedited, on the three kinds of data that users bring first."""

import csv
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from instil.cli.main import app
from instil.stages.runfiles import load_scores, load_summary

pytestmark = pytest.mark.slow  # many whole runs


DRAW = random.Random(11)
GOOD = ["good", "great", "lovely", "fast", "happy"]
BAD = ["bad", "poor", "awful", "slow", "sad"]
THINGS = ["phone", "book", "film", "plot", "actor", "battery", "screen", "sound", "camera"]


def table(path: Path, header: list[str], rows: list[list[object]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def sentence(n: int, mood: list[str]) -> str:
    return f"the {DRAW.choice(THINGS)} number {n} is {DRAW.choice(mood)} and {DRAW.choice(mood)}"


def text_labels(folder: Path) -> Path:
    rows = [
        [n, sentence(n, [GOOD, BAD][n % 2]), ["love it", "hate: it"][n % 2]] for n in range(160)
    ]
    return table(folder / "labels.csv", ["", "comment", "verdict"], rows)


def numeric_ratings(folder: Path) -> Path:
    rows = [[sentence(n, GOOD if n % 5 > 2 else BAD), n % 5 + 1, f"p{n // 3}"] for n in range(300)]
    return table(folder / "ratings.csv", ["Review Text", "stars", "product_id"], rows)


def free_text_target(folder: Path) -> Path:
    rows = []
    for n in range(120):
        text = sentence(n, [GOOD, BAD][n % 2])
        rows.append([f"{text}. It is not the price, it is the quality.", text.split(" is ")[0]])
    return table(folder / "summaries.csv", ["article", "summary"], rows)


def instil(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(
    "make",
    [
        text_labels,
        pytest.param(numeric_ratings, marks=pytest.mark.slow),
        pytest.param(free_text_target, marks=pytest.mark.slow),
    ],
)
def test_init_and_run_work_unedited(make, tmp_path, tiny_folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = make(tmp_path)
    said = instil("init", data)
    recipe = tmp_path / f"{data.stem}.recipe.yaml"
    assert recipe.name in said
    # The real model and the guard's data come from a package source; tests have no network.
    small = ["--set", f"model={tiny_folder}", "--set", "forgetting.tasks=none"]
    small += ["--set", "train.num_train_epochs=1", "--set", "baselines.shots=[0]"]

    checked = instil("check", recipe, *small)
    assert "\u27e6" in checked, "the masks are shown"
    done = instil("run", recipe, *small)

    folder = tmp_path / "runs" / data.stem
    assert str(Path("runs") / data.stem / "report.html") in done
    (task,) = load_summary(folder).tasks
    assert task.rows["test"] >= 30
    assert task.rows["train"] > task.rows["test"]
    lines = load_scores(folder, f"test-{task.task}")
    assert {line["arm"] for line in lines} >= {"tuned", "prompting", "zero_shot"}
    assert all(line["value"] is not None for line in lines)
    assert bool(task.balance) == (make is not free_text_target)
