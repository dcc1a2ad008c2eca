"""The benchmark of how often the band of a predicted loss holds."""

import json

import law
import numpy as np

from instil.config.recipe import load_recipe


def line(predicted, came_out, *, weight=0.5, limit=0.01):
    points = [[0.0, 0.0, 0.5], [0.5, 0.01, 0.75], [1.0, 0.1, 0.875]]
    told = {"predicted": predicted, "came_out": [came_out], "weight": weight, "limit": limit}
    return {**told, "task": "quartz", "points": points}


def test_every_recipe_of_thirty_is_another_and_reads(tmp_path):
    texts = [law.recipe_of(number, rows=8, texts=6) for number in range(30)]
    assert len(set(texts)) == 30
    path = tmp_path / "recipe.yaml"
    pairs = set()
    for text in texts[:12]:
        path.write_text(text)
        recipe = load_recipe(path)
        pairs.add((recipe.tasks[0].use, recipe.forgetting.at_most))
    assert len(pairs) == 12


def test_coverage_is_counted_on_all_runs_and_on_those_held_back():
    lines = [
        line([0.01, 0.0, 0.02], 0.015),
        line([0.01, 0.0, 0.02], 0.005),
        line([0.01, 0.0, 0.02], 0.03),
        line([0.002, 0.0, 0.004], 0.002, weight=1.0),
    ]
    rows = law.table(lines).splitlines()
    assert rows[2].startswith("| all | 4 | 3 (")
    assert rows[3].startswith("| held back | 3 | 2 (")
    assert rows[3].endswith("| 1 | -12.5 ± 0.0 |")
    assert any(row.startswith("| held back, quartz | 3 |") for row in rows)


def test_what_is_done_is_not_done_again(tmp_path, monkeypatch, capsys):
    file, asked = tmp_path / "law.jsonl", []

    def one(text):
        asked.append(text)
        return line([0.01, 0.0, 0.02], 0.015)

    monkeypatch.setattr(law, "train_one", one)
    monkeypatch.setattr(law, "FILE", file)
    monkeypatch.setattr(law, "TEXTS", tmp_path / "texts.jsonl")
    for runs in (2, 3):
        monkeypatch.setattr("sys.argv", ["law.py", "train", "--runs", str(runs)])
        law.main()
    assert len(asked) == len(set(asked)) == 3
    assert [json.loads(each)["recipe"] for each in file.read_text().splitlines()] == asked
    assert "| all | 3 | 3 (" in capsys.readouterr().out


def test_bands_over_texts_drawn_anew_hold_the_others(monkeypatch):
    monkeypatch.setattr(law, "DRAWS", 200)
    slopes = np.random.default_rng(0).normal(0.05, 0.02, 160)
    losses = [list(3 + weight * slopes) for weight in law.WEIGHTS]
    rows = law.drawn([{"number": 7, "task": "moods", "losses": losses}]).splitlines()
    assert len(rows) == 2 + 6
    for row in rows[2:]:
        cells = [cell.strip() for cell in row.split("|")[1:-1]]
        assert cells[:2] == ["7, moods", "+0.05"]
        assert 88 <= float(cells[4].removesuffix(" %")) <= 100
        limit, weight = float(cells[3]), float(cells[5])
        assert 0.8 * limit / 0.05 <= weight <= 1.2 * limit / 0.05
