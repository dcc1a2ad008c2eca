"""`instil preview`: what training sees, as data and as a page."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from instil.cli.main import app
from instil.compare.forgetting import guard_rows
from instil.config.recipe import load_recipe
from instil.stages.preview import preview, preview_page

TASK = """
id: moods
source: moods.csv
text: text
target: mood
choices: [good, bad]
templates:
  - {id: ask, prompt: "Good or bad? {{ text }}"}
  - {id: words, prompt: "{{ text }} Nice?", choices: ["yes", "no"]}
  - {id: write, role: inverted, prompt: "Write: {{ mood }}", target: "{{ text }}"}
"""


@pytest.fixture
def recipe(tmp_path: Path, tiny_folder: Path) -> Path:
    rows = [f"<b>it</b> is {n} {'great' if n % 2 else 'awful'},{'good' if n % 2 else 'bad'}"
            for n in range(80)]  # fmt: skip
    (tmp_path / "moods.csv").write_text("\n".join(["text,mood", *rows]), encoding="utf-8")
    (tmp_path / "moods.yaml").write_text(TASK, encoding="utf-8")
    path = tmp_path / "r.yaml"
    path.write_text(
        f"model: {tiny_folder}\ntasks: [{{use: ./moods.yaml, train: 40, templates: all}}]\n"
        "validation: 10\ntest: 20\nsplit: {near_duplicates: 1}\n"
        "mix: {few_shot_share: 0.3, few_shot: 1}\nforgetting: {tasks: none}\n",
        encoding="utf-8",
    )
    return path


def test_each_template_is_shown_with_the_completion_alone_trained_on(recipe: Path) -> None:
    found = preview(load_recipe(recipe), each=2)
    assert {each.template for each in found} == {"ask", "words", "write"}
    assert any(each.shots for each in found)
    for each in found:
        said = "".join(piece.text for piece in each.pieces if piece.trained)
        asked = "".join(piece.text for piece in each.pieces if not piece.trained)
        assert said.endswith("<|im_end|>")
        assert asked.endswith("<|im_start|>assistant\n")
        assert asked.count("<|im_start|>assistant") == each.shots + 1
    assert found == preview(load_recipe(recipe), each=2)
    assert len(preview(load_recipe(recipe, overrides=["mix.few_shot_share=0"]), each=1)) == 3


def test_rows_that_are_not_trained_on_are_not_shown(recipe: Path) -> None:
    guard = recipe.parent / "guard.yaml"
    guard.write_text(TASK.replace("id: moods", "id: guard"), encoding="utf-8")
    changes = [f"forgetting.tasks=[{guard}]", "forgetting.rows=8", "forgetting.text=false"]
    loaded = load_recipe(recipe, overrides=changes)
    asked = {row.id for _, row in guard_rows([str(guard)], rows=8, text=False, seed=loaded.seed)}
    without = {each.row for each in preview(load_recipe(recipe), each=100)}
    shown = {each.row for each in preview(loaded, each=100)}
    assert without & asked
    assert shown == without - asked


def test_the_page_escapes_what_rows_hold(recipe: Path) -> None:
    page = preview_page(preview(load_recipe(recipe), each=3), name="<i>r</i>")
    assert "<b>" not in page
    assert "&lt;" in page
    assert "<i>r" not in page
    assert "<mark>" in page


def test_the_command_prints_and_writes_a_page(recipe: Path, tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["preview", str(recipe)])
    assert shown.exit_code == 0, shown.output
    assert "moods / words (answer" in shown.stdout
    assert "tokens are trained on" in shown.stdout
    page = tmp_path / "out" / "seen.html"
    written = CliRunner().invoke(app, ["preview", str(recipe), "--html", str(page)])
    assert written.exit_code == 0, written.output
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_tasks_test_counts_what_is_wrong(recipe: Path) -> None:
    task = recipe.with_name("moods.yaml")
    fine = CliRunner().invoke(app, ["tasks", "test", str(task)])
    assert fine.exit_code == 0, fine.output
    assert "80 rows through 3 templates" in fine.stdout
    assert "0 errors, 0 warnings" in fine.stdout
    broken = TASK.replace("Good or bad? {{ text }}", "Good or bad? {{ txt }}").replace(
        "Write: {{ mood }}", "Write: {% if mood == 'good' %}{{ mood }}{% endif %}"
    )
    task.write_text(broken, encoding="utf-8")
    found = CliRunner().invoke(app, ["tasks", "test", str(task)])
    assert found.exit_code == 2
    assert "error: template 'ask': unknown field 'txt'" in found.stdout
    assert "80 of 80" in found.stdout
    assert "moods.csv:2, " in found.stdout
    nothing = CliRunner().invoke(app, ["tasks", "test"])
    assert nothing.exit_code == 2
