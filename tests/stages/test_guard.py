"""A whole run on a tiny model that asks the guard's rows until it is decided what was lost."""

from pathlib import Path

import pytest

from instil.compare import forgetting
from instil.compare.verdict import mean_change
from instil.errors import RecipeError
from instil.results.guard import Margins
from instil.stages.check import check_recipe
from instil.stages.runfiles import load_scores, load_summary
from instil.study.studies import methods_study
from moods import lay_out, make_recipe, run

pytestmark = pytest.mark.slow  # many whole runs


QUICK = (
    "dtype=float32",
    "baselines.shots=[0]",
    "baselines.tfidf=false",
    "baselines.probe=false",
    "train.num_train_epochs=1",
    "forgetting.rows=auto",
    "forgetting.margin=60",
    "forgetting.text_margin=20",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = lay_out(tmp_path)
    monkeypatch.setattr(forgetting, "TEXT_FROM", str(folder / "echo.yaml"))
    monkeypatch.setattr(forgetting, "BATCH", 8)
    monkeypatch.setattr(forgetting, "MOST_ROWS", 24)
    return folder


def test_a_run_asks_until_it_is_decided(folder: Path, tiny_folder: Path):
    done = run(make_recipe(folder, tiny_folder, *QUICK), folder / "run")
    summary = load_summary(done)
    assert summary.margins == Margins(points=60, text=20)
    assert [g.task for g in summary.forgetting] == ["echo", "echo", "general text"]
    assert all(g.comparison.anytime_p is not None for g in summary.forgetting)
    assert all(g.comparison.n in (8, 16, 24) for g in summary.forgetting)
    assert summary.mean_change == mean_change(summary.forgetting)
    lines = load_scores(done, "guard")
    assert len(lines) == sum(g.comparison.n for g in summary.forgetting)
    assert len({(x["task"], x["metric"], x["group"]) for x in lines}) == len(lines)
    assert any(said.startswith("Task by task, ") for said in summary.verdict)
    for page in ("report.html", "model/README.md"):
        text = (done / page).read_text(encoding="utf-8")
        assert "kept within" in text or "not shown either way" in text
    assert "hold at any stopping time" in (done / "report.html").read_text(encoding="utf-8")
    # Finished stages are taken as they are, though their results have another form.
    scores = (done / "scores" / "guard.jsonl").read_bytes()
    again = run(make_recipe(folder, tiny_folder, *QUICK), done, resume=True)
    assert (again / "scores" / "guard.jsonl").read_bytes() == scores


def test_a_check_says_what_the_rows_can_show_and_what_a_margin_needs(
    folder: Path, tiny_folder: Path
):
    auto = check_recipe(make_recipe(folder, tiny_folder, *QUICK))
    assert auto.guard[0].startswith("guard: 1 task, 8 rows after 8 until something is shown, 24")
    assert auto.stages["guard after"] > auto.stages["guard before"]
    fixed = check_recipe(
        make_recipe(folder, tiny_folder, *QUICK, "forgetting.rows=12", "forgetting.margin=2")
    )
    assert fixed.guard == (
        "guard: 12 rows a task show a loss of 39.7 points (80 % power, were a fifth of the answers "
        "to turn)",
        "guard: a task that loses nothing is shown to be kept within 2 points with 3,925 rows of "
        "it (80 % power, were a fifth of the answers to turn; fewer where fewer turn)",
    )
    assert fixed.stages["guard after"] == fixed.stages["guard before"]


def test_the_runs_of_a_study_ask_the_same_rows(folder: Path, tiny_folder: Path):
    make_recipe(folder, tiny_folder)
    with pytest.raises(RecipeError, match="on the same guard rows"):
        methods_study(
            folder / "recipe.yaml",
            changes=QUICK,
            arms={"lora": ()},
            seeds=[0],
            folder=folder / "study",
            say=lambda _: None,
        )
