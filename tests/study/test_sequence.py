"""Two tasks one after another on the tiny model: the matrix, and what replay mixes in."""

import json
from pathlib import Path

import pytest

from instil.compare.transfer import backward_transfer
from instil.config.recipe import load_recipe
from instil.errors import RecipeError, RunError
from instil.report.sequence import sequence_verdict
from instil.stages.runfiles import load_manifest, load_scores, load_summary
from instil.study.folder import StudyFolder
from instil.study.sequence import first_jobs, later_jobs, plan_sequence
from instil.study.studies import sequence_study
from moods import run
from study.conftest import QUICK, here, quiet, studied
from study.pretend import lifted, pretend

TASKS = "tasks=[{use: %s/moods.yaml, train: 40}, {use: %s/echo.yaml, train: 24}]"
CHANGES = [change for change in QUICK if not change.startswith(("tasks.", "forgetting."))]


@pytest.fixture(scope="module")
def changes(recipe_path: Path) -> list[str]:
    folder = recipe_path.parent
    return [*CHANGES, "forgetting.tasks=none", TASKS % (folder, folder)]


@pytest.fixture(scope="module")
def real(recipe_path: Path, changes: list[str]):
    folder = recipe_path.parent / "sequence"
    found = studied(
        sequence_study,
        [recipe_path],
        changes=changes,
        seeds=[0],
        replay=0.25,
        folder=folder,
        say=quiet,
        execute=here(),
    )
    return folder, found


@pytest.mark.slow
def test_the_matrix_is_that_of_the_answers(real):
    folder, found = real
    assert found.tasks == ("moods", "echo")
    for arm in found.arms:
        assert [len(line) for line in arm.matrix] == [2, 2, 2]
        means = [[cell.mean for cell in line] for line in arm.matrix[1:]]
        assert arm.backward.difference == pytest.approx(backward_transfer(means))
        assert arm.average.mean == pytest.approx(sum(means[-1]) / 2)
    name = "plain-2-echo-seed0-asked"
    lines = load_scores(folder / "arms" / name, "test-moods")
    values = [line["value"] for line in lines]
    assert found.arms[0].matrix[2][0].mean == pytest.approx(sum(values) / len(values))
    assert found.arms[0].matrix[0] == found.arms[1].matrix[0]
    assert found.arms[1].backward_against is not None


@pytest.mark.slow
def test_what_was_asked_alone_is_no_run_to_resume(real):
    folder, _ = real
    with pytest.raises(RunError, match="a study asked this model its test rows"):
        load_summary(folder / "arms" / "untouched")
    recipe = load_recipe(folder / "arms" / "untouched" / "recipe.yaml")
    with pytest.raises(RunError, match="nothing is trained here"):
        run(recipe, folder / "arms" / "untouched", resume=True)


@pytest.mark.slow
def test_a_stage_starts_from_the_model_before(real):
    folder, _ = real
    second = load_manifest(folder / "arms" / "plain-2-echo-seed0")
    assert second["model"]["name"] == "./merged", "not where it lies"
    from instil.model.load import fingerprint

    merged = folder / "arms" / "plain-1-moods-seed0" / "merged"
    assert second["model"]["sha256"] == fingerprint(merged)


@pytest.mark.slow
def test_replay_is_a_share_of_what_earlier_stages_were_trained_on(real):
    folder, _ = real
    arms = folder / "arms"
    splits = json.loads((arms / "replay-2-echo-seed0" / "split.json").read_text())
    own, replayed = splits["splits"]
    assert (own["task"], replayed["task"]) == ("echo", "moods")
    (before,) = json.loads((arms / "plain-1-moods-seed0" / "split.json").read_text())["splits"]
    assert set(replayed["train"]) <= set(before["train"])
    mix = {line.task: line.examples for line in load_summary(arms / "replay-2-echo-seed0").mix}
    assert mix == {"echo": 24, "moods": 8}, "a quarter, beside as many own ones as without"
    asked = json.loads((arms / "untouched" / "split.json").read_text())
    tested = {split["task"]: set(split["test"]) for split in asked["splits"]}
    assert not tested["moods"] & set(replayed["train"])
    assert set(replayed["test"]) == tested["moods"]


def test_with_replay_a_stage_has_its_own_rows_and_a_share_of_earlier_ones(
    recipe_path: Path, changes: list[str]
):
    plan = plan_sequence([recipe_path], changes=changes, seeds=[3], replay=0.2)
    (chain,) = [c for c in later_jobs(plan, StudyFolder(Path("s"))) if "replay" in c[0].name]
    recipe = chain[0].recipe
    assert [(use.weight, use.train) for use in recipe.tasks] == [(0.8, 24), (0.2, 40)]
    assert recipe.mix.examples == round(plan.examples["echo"] / 0.8)
    assert recipe.model.endswith("s/arms/plain-1-moods-seed3/merged")
    assert recipe.seed == 3
    assert recipe.judging_seed == 0


def test_a_share_that_is_no_example_is_refused_with_one_that_is(
    recipe_path: Path, changes: list[str]
):
    with pytest.raises(RecipeError, match="no example of each earlier task") as refused:
        plan_sequence([recipe_path], changes=changes, seeds=[3], replay=0.01)
    (problem,) = refused.value.problems
    enough = float(problem.fix.split()[1].rstrip(","))
    assert plan_sequence([recipe_path], changes=changes, seeds=[3], replay=enough)


def test_arms_share_the_first_stage(recipe_path: Path, changes: list[str]):
    plan = plan_sequence([recipe_path], changes=changes, seeds=[0, 1], replay=0.1)
    folder = StudyFolder(Path("s"))
    first = [job.name for chain in first_jobs(plan, folder) for job in chain]
    assert first == [
        "untouched",
        "plain-1-moods-seed0",
        "plain-1-moods-seed0-asked",
        "plain-1-moods-seed1",
        "plain-1-moods-seed1-asked",
    ]
    later = [chain[0].name for chain in later_jobs(plan, folder)]
    assert sorted(later) == [
        "plain-2-echo-seed0",
        "plain-2-echo-seed1",
        "replay-2-echo-seed0",
        "replay-2-echo-seed1",
    ]


def test_the_matrix_and_what_replay_changes(
    recipe_path: Path, changes, tmp_path: Path, no_forecast
):
    """Made-up scores: the second stage costs the first task, less so with replay."""
    levels = {"plain-2": 0.4, "replay-2": 0.7, "plain-1": 0.9, "untouched": 0.3}

    def score(job, of: str, row: int) -> float:
        if of.startswith("moods"):
            level = next(level for name, level in levels.items() if name in job.name)
        else:
            level = 0.8 if "-2-" in job.name else 0.1
        return lifted(level)(job, of, row)

    found = studied(
        sequence_study,
        [recipe_path],
        changes=changes,
        seeds=[0, 1],
        replay=0.25,
        folder=tmp_path / "s",
        say=quiet,
        execute=pretend(score),
    )
    plain, replay = found.arms
    means = [[round(cell.mean, 3) for cell in line] for line in plain.matrix]
    assert means == [[0.3, 0.1], [0.9, 0.1], [0.4, 0.8]]
    assert plain.backward.difference == pytest.approx(backward_transfer(means[1:]))
    assert plain.average.mean == pytest.approx(0.6)
    assert plain.backward_by_seed == pytest.approx((-0.5, -0.5))
    assert replay.backward.difference == pytest.approx(-0.2)
    assert replay.backward_against.difference == pytest.approx(0.3)
    assert replay.average_against.difference == pytest.approx(0.15)
    first, second, overlap = sequence_verdict(found)
    assert first.startswith("Through moods, then echo: later tasks cost earlier ones")
    assert "moods got worse" in first
    assert "With a replay of 25" in second
    assert "it is better" in second
    assert "repeat a row which another task is judged on: moods" in overlap
    page = (tmp_path / "s" / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 2


def test_mistakes_come_at_once(recipe_path: Path, changes: list[str], tmp_path: Path):
    with pytest.raises(RecipeError, match="two tasks or more"):
        plan_sequence([recipe_path], changes=CHANGES, seeds=[0], replay=0)
    other = tmp_path / "other.yaml"
    text = recipe_path.read_text(encoding="utf-8").replace("./moods", f"{recipe_path.parent}/moods")
    other.write_text(text.replace("test: 40", "test: 41"), encoding="utf-8")
    with pytest.raises(RecipeError) as bad:
        plan_sequence([recipe_path, other], changes=[], seeds=[0], replay=0)
    assert "comes twice" in str(bad.value)
    assert "differ in test" in str(bad.value)
