"""What a check says of tasks that can hardly be trained on."""

import csv
from pathlib import Path

from instil.config.recipe import load_recipe
from instil.stages.check import check_recipe
from moods import ECHO, lay_out, make_recipe


def test_a_task_of_which_every_example_is_dropped(tmp_path: Path, tiny_folder: Path):
    lay_out(tmp_path)
    long = ECHO.replace("id: echo", "id: long").replace("Which thing?", "Which thing? " * 20)
    long = long.replace(
        'prompt: "{{ text }}\\nThe thing is:"', f'prompt: "{"on " * 100}{{{{ text }}}}"'
    )
    (tmp_path / "long.yaml").write_text(long, encoding="utf-8")
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"""
model: {tiny_folder}
tasks: [{{use: ./moods.yaml}}, {{use: ./long.yaml}}]
train: {{max_length: 96, too_long: drop}}
forgetting: {{tasks: none}}
baselines: {{shots: [0]}}
validation: 24
test: 40
""",
        encoding="utf-8",
    )
    forecast = check_recipe(load_recipe(path))
    moods, long_task = forecast.tasks
    assert min(moods.lengths) > 0
    assert not any("dropped" in warning for warning in moods.warnings), "none of its own is"
    rows = long_task.rows["train"]
    assert f"{rows} of {rows} training examples dropped" in long_task.warnings[0]
    assert [line.dropped for line in forecast.mix] == [0, rows]
    assert long_task.lengths == (0, 0, 0)
    assert long_task.previews == ()


def test_lengths_are_those_of_the_first_epoch(tmp_path: Path, tiny_folder: Path):
    lay_out(tmp_path)
    recipe = make_recipe(tmp_path, tiny_folder, "forgetting.tasks=none", "mix.examples=1")
    forecast = check_recipe(recipe)
    ((line,), (moods,)) = forecast.mix, forecast.tasks
    assert moods.lengths == (line.tokens,) * 3
    assert len(moods.previews) == 3, "others are shown all the same"


def test_every_role_that_is_trained_is_shown(tmp_path: Path, tiny_folder: Path):
    lay_out(tmp_path)
    task, last = tmp_path / "moods.yaml", "  - {id: write"
    third = '  - {id: third, prompt: "Which?\\n{{ text }}", target: "{{ mood }}"}\n'
    said = task.read_text(encoding="utf-8").replace(last, third + last)
    task.write_text(said, encoding="utf-8")
    recipe = make_recipe(tmp_path, tiny_folder, "forgetting.tasks=none", "tasks.0.templates=all")
    (moods,) = check_recipe(recipe).tasks
    shown = ["".join(piece.text for piece in preview) for preview in moods.previews]
    assert "Write a" not in shown[0]
    assert sum("Write a" in text for text in shown) == 1


def test_answers_that_would_be_cut_are_told(tmp_path: Path, tiny_folder: Path):
    lay_out(tmp_path)
    task = tmp_path / "echo.yaml"
    short = ECHO.replace("max_new_tokens: 6", "max_new_tokens: 1")
    found = []
    for said in (ECHO, short):
        task.write_text(said, encoding="utf-8")
        wanted = ("forgetting.tasks=none", f"tasks.0.use={task}")
        (echo,) = check_recipe(make_recipe(tmp_path, tiny_folder, *wanted)).tasks
        found.append([f for f in echo.findings if "max_new_tokens" in f.what])
    none, (told,) = found
    assert not none
    assert "right answers of validation take more tokens than `max_new_tokens`, 1" in told.what
    assert told.fix.startswith("`max_new_tokens: ")


def test_rows_of_few_groups_are_told(tmp_path: Path, tiny_folder: Path):
    lay_out(tmp_path)
    table = tmp_path / "moods.csv"
    head, *rows = csv.reader(table.read_text(encoding="utf-8").splitlines())
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [head, *([row[0], n // 16, *row[2:]] for n, row in enumerate(rows))]
        )
    recipe = make_recipe(tmp_path, tiny_folder, "forgetting.tasks=none", "validation=16", "test=32")
    (moods,) = check_recipe(recipe).tasks
    assert moods.groups["test"] < 10
    assert any(f"test rows are of {moods.groups['test']} groups" in w for w in moods.warnings)
    assert moods.smallest_difference > 0.4, "32 rows without groups show .23"


def test_fewer_rows_than_asked_for_are_told(tmp_path: Path, tiny_folder: Path):
    lay_out(tmp_path)
    recipe = make_recipe(tmp_path, tiny_folder, "forgetting.tasks=none", "tasks.0.train=90")
    (moods,) = check_recipe(recipe).tasks
    assert not any("asked for" in warning for warning in moods.warnings)
    table = tmp_path / "moods.csv"
    head, *rows = table.read_text(encoding="utf-8").splitlines()
    again = [f"again{n},{900 + n},{row.split(',', 2)[2]}" for n, row in enumerate(rows[:60])]
    table.write_text("\n".join([head, *rows[:100], *again]), encoding="utf-8")
    (moods,) = check_recipe(recipe).tasks
    left = moods.rows["train"]
    assert left < 90
    assert any(w.startswith(f"{left} of the 90 train rows asked for") for w in moods.warnings)
