"""Folds over clusters on the tiny model: what is trained on, what is asked, and the differences."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from instil.data.audit import jaccard, read_text, shingles
from instil.errors import RecipeError
from instil.report.generalise import generalise_verdict
from instil.stages.context import OF_UNSEEN, prepare_rows
from instil.stages.runfiles import load_scores
from instil.stats.intervals import DIFFERENCE, bootstrap_mean
from instil.study.folder import StudyFolder, Work
from instil.study.generalise import _word, plan_generalise
from instil.study.studies import generalise_study, rebuild_study
from moods import ECHO, SENTIMENT, make_recipe, write_rows
from study.conftest import QUICK, here, quiet, studied
from study.pretend import ROWS, pretend

pytestmark = pytest.mark.slow  # many whole runs


CHANGES = [change for change in QUICK if not change.startswith(("tasks.", "forgetting."))]
GOLDEN = Path(__file__).parents[1] / "report" / "golden" / "generalise.html"
NAMES = ("moods", "feelings", "echo", "other")


@pytest.fixture(scope="module")
def path(recipe_path: Path, tiny_folder: Path) -> Path:
    """A recipe with two tasks of one cluster and one each of two others; sources of their own."""
    folder = recipe_path.parent / "clusters"
    folder.mkdir()
    write_rows(folder / "moods.csv")
    # A word more leaves a near duplicate: 5 of 6 runs of three words are the same.
    words = {
        "feelings": (": it", ": this"),
        "echo": ("it is", "we found"),
        "other": (",positive", " indeed,positive"),
    }
    text = (folder / "moods.csv").read_text(encoding="utf-8")
    for name, (old, new) in words.items():
        (folder / f"{name}.csv").write_text(text.replace(old, new), encoding="utf-8")
    made = {
        "moods": SENTIMENT,
        "feelings": SENTIMENT.replace("id: moods", "id: feelings"),
        "echo": ECHO,
        "other": ECHO.replace("id: echo", "id: other").replace(
            "cluster: extraction", "cluster: other"
        ),
    }
    for name, task in made.items():
        source = task.replace("source: moods.csv", f"source: {name}.csv")
        (folder / f"{name}.yaml").write_text(source, encoding="utf-8")
    make_recipe(folder, tiny_folder)
    return folder / "recipe.yaml"


@pytest.fixture(scope="module")
def changes(path: Path) -> list[str]:
    uses = ", ".join(f"{{use: {path.parent}/{name}.yaml, train: 24}}" for name in NAMES)
    return [*CHANGES, f"tasks=[{uses}]"]


def plan(path: Path, changes: list[str], **options):
    given = {"arms": {}, "sizes": (), "seeds": [0], "alone": False, **options}
    return plan_generalise(path, changes=changes, **given)


def names_of(recipe) -> list[str]:
    return [Path(use.use).stem for use in recipe.tasks]


def test_folds_are_the_clusters(path: Path, changes: list[str]):
    made = plan(path, changes, seeds=[0, 1], alone=True)
    chains = made.chains(StudyFolder(Path("s")))
    base, *rest = chains
    assert [job.work for job in base] == [Work.ASK]
    assert names_of(base[0].recipe) == [*NAMES]
    folds = [chain for chain in rest if "-without-" in chain[0].name]
    assert len(folds) == 2 * 3
    for run, ask in folds:
        trained, asked = names_of(run.recipe), names_of(ask.recipe)
        assert sorted([*trained, *asked]) == sorted(NAMES), "each task on one side"
        clusters = {made.tasks[use.use].cluster for use in ask.recipe.tasks}
        assert len(clusters) == 1, "a cluster and all of it"
        assert not clusters & {made.tasks[use.use].cluster for use in run.recipe.tasks}
        assert [Path(name).stem for name in run.recipe.split.apart_from] == asked
        assert ask.recipe.model.endswith(f"arms/{run.name}/merged")
        assert run.recipe.forgetting.tasks == "none"
    alone = [chain for chain in rest if chain[0].name.startswith("alone-")]
    assert [names_of(run.recipe) for run, _ in alone] == [[name] for name in NAMES] * 2


def test_every_model_is_asked_in_the_same_way(path: Path, changes: list[str]):
    own = ("tasks.0.held_out_templates=[ask]", "mix.few_shot_share=0.5", "mix.cap=10")
    made = plan(path, changes, arms={"flan": own}, sizes=[40, 80], alone=True)
    assert [way.name for way in made.ways] == ["mixed-40", "mixed-80", "flan-40", "flan-80"]
    assert [way.recipe.mix.examples for way in made.ways] == [40, 80, 40, 80]
    asked: dict[str, set[str]] = {}
    for chain in made.chains(StudyFolder(Path("s"))):
        recipe = chain[-1].recipe
        for use in recipe.tasks:
            fixed = recipe.model_copy(update={"tasks": (use,), "model": "", "seed": 0})
            asked.setdefault(use.use, set()).add(fixed.model_dump_json())
    assert [len(ways) for ways in asked.values()] == [1, 1, 1, 1]


def test_no_row_that_a_fold_is_asked_is_trained_on(path: Path, changes: list[str]):
    """By brute force over all pairs of texts; without the rule there are some."""
    uses = ", ".join(
        f"{{use: {path.parent}/{name}.yaml, train: 100}}" for name in ("moods", "other")
    )
    made = plan(path, [*changes[:-1], f"tasks=[{uses}]"])

    def closest(run, ask) -> float:
        judged = [
            shingles(read_text(d.task, row.fields))
            for d in prepare_rows(ask)
            for row in (*d.validation, *d.test)
        ]
        return max(
            jaccard(shingles(read_text(d.task, row.fields)), other)
            for d in prepare_rows(run)
            for row in d.train
            for other in judged
        )

    for cluster in made.clusters:
        run, ask = made.fold(StudyFolder(Path("s")), made.ways[0], cluster, 0)
        bare = run.recipe.split.model_copy(update={"apart_from": None})
        careless = run.recipe.model_copy(update={"split": bare})
        threshold = run.recipe.split.near_duplicates
        assert closest(run.recipe, ask.recipe) < threshold <= closest(careless, ask.recipe)


@pytest.fixture
def study(path: Path, changes: list[str], tmp_path: Path, no_forecast):
    """Run a study of made-up scores."""

    def made(score, execute=None, **options):
        given = {"arms": {}, "sizes": (), "seeds": [0, 1], "alone": True, **options}
        return studied(
            generalise_study,
            path,
            changes=changes,
            folder=tmp_path / "s",
            say=quiet,
            execute=execute or pretend(score),
            **given,
        )

    return made


LEVELS = {
    "base": {"moods": 0.5, "feelings": 0.5, "echo": 0.5, "other": 0.25},
    "mixed": {"moods": 0.75, "feelings": 0.5, "echo": 0.125, "other": 0.25},
    "few": {"moods": 0.75, "feelings": 0.75, "echo": 0.5, "other": 0.5},
    "alone": {"moods": 1.0, "feelings": 1.0, "echo": 1.0, "other": 1.0},
}


def place(row: int) -> float:
    """From which level on a row is answered; all seeds answer alike."""
    return row * 37 % ROWS / ROWS


def score(job, of: str, row: int) -> float:
    levels = LEVELS[job.name.split("-")[0]]
    return float(place(row) < levels.get(of.split("/")[0], 0.5))


def test_known_differences(study, tmp_path: Path):
    result = study(score, arms={"few": ("mix.few_shot_share=0.5",)})
    assert [task.task for task in result.tasks] == [*NAMES]
    assert [task.base.mean for task in result.tasks] == pytest.approx([*LEVELS["base"].values()])
    mixed, few = result.arms
    assert [c.difference for c in mixed.against_base] == pytest.approx([0.25, 0, -0.375, 0])
    assert mixed.gain.difference == pytest.approx((0.25 - 0.375) / 4)
    assert mixed.gain.low < mixed.gain.difference < mixed.gain.high
    assert mixed.short_of.difference == pytest.approx(mixed.average.mean - 1)
    assert few.against_first.difference == pytest.approx((0.25 + 0.375 + 0.25) / 4)
    assert mixed.against_first is None
    first, second, *rest = generalise_verdict(result)
    assert "echo got worse" in first
    assert "moods got better" in first
    assert "no difference is shown for feelings, other" in first
    assert "Against all other clusters: it is better" in second
    assert sum("tuning on each task alone" in line for line in rest) == 2
    page = (tmp_path / "s" / "report.html").read_bytes()
    (tmp_path / "s" / "report.html").unlink()
    rebuild_study(tmp_path / "s")
    assert (tmp_path / "s" / "report.html").read_bytes() == page


def test_the_report(study, tmp_path: Path, tiny_folder: Path, golden):
    study(score, arms={"few": ("mix.few_shot_share=0.5",)})
    page = (tmp_path / "s" / "report.html").read_text(encoding="utf-8")
    page = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    golden(GOLDEN, page.replace(str(tiny_folder), "tiny"))


def test_an_interval_is_that_of_the_rows_own_differences(study):
    """Rows between the two levels lost one answer each; groups are pairs of rows."""
    echo = study(score).arms[0].against_base[2]
    lost = np.array([-float(0.125 <= place(row) < 0.5) for row in range(ROWS)])
    groups = [f"echo/{row // 2}" for row in range(ROWS)]
    order = sorted(range(ROWS), key=lambda row: f"echo/{row}")
    ends = bootstrap_mean(lost[order], groups=[groups[n] for n in order], span=DIFFERENCE)
    assert (echo.low, echo.high) == pytest.approx((ends.low, ends.high))
    assert echo.high < 0
    assert echo.n == ROWS


def test_without_the_upper_mark(study):
    result = study(score, alone=False, seeds=[0])
    assert result.alone is None
    assert result.arms[0].short_of is None
    assert result.arms[0].against_alone == ()
    assert "about test rows alone" in generalise_verdict(result)[-1]


def test_a_killed_study_goes_on_with_what_is_missing(study, tmp_path: Path):
    begun: list[str] = []
    finish = pretend(score)

    def killed(folder, chains):
        for n, chain in enumerate(chains):
            if n == 3:
                raise KeyboardInterrupt
            finish(folder, [chain])

    with pytest.raises(KeyboardInterrupt):
        study(score, execute=killed, seeds=[0], alone=False)

    def rest(folder, chains):
        begun.extend(job.name for c in chains for job in c if not folder.finished(job))
        finish(folder, chains)

    result = study(score, execute=rest, seeds=[0], alone=False)
    assert begun == ["mixed-without-other-seed0", "mixed-without-other-seed0-asked"]
    assert result.arms[0].against_base[2].difference == pytest.approx(-0.375)


def test_mistakes_come_at_once(path: Path, changes: list[str]):
    with pytest.raises(RecipeError, match="of one cluster"):
        plan(path, [*changes[:-1], f"tasks=[{{use: {path.parent}/moods.yaml}}]"])
    arms = {"a": ("test=20",), "b": ("keep.replay={share: 0.1, of: guard}",)}
    with pytest.raises(RecipeError) as bad:
        plan(path, changes, arms={**arms, "c": ("forgetting.tasks=[trivia]",)})
    text = str(bad.value)
    assert "the arm a changes test" in text
    assert "a replay of other tasks' rows" in text
    assert "forgetting is not measured here" in text


@pytest.mark.slow
def test_a_real_study(path: Path, changes: list[str], tmp_path: Path):
    """Two clusters of the tiny model: the differences are those of the answers."""
    uses = ", ".join(
        f"{{use: {path.parent}/{name}.yaml, train: 24}}" for name in ("feelings", "other")
    )
    folder = tmp_path / "s"
    result = studied(
        generalise_study,
        path,
        changes=[*changes[:-1], f"tasks=[{uses}]"],
        arms={},
        sizes=(),
        seeds=[0],
        alone=False,
        folder=folder,
        say=quiet,
        execute=here(),
    )
    for task, change in zip(result.tasks, result.arms[0].against_base, strict=True):
        fold = f"mixed-without-{task.cluster}-seed0"
        scores = [
            {line["row"]: line["value"] for line in load_scores(folder / "arms" / name, file)}
            for file in [f"test-{task.task}"]
            for name in ("base-asked", f"{fold}-asked")
        ]
        assert scores[0].keys() == scores[1].keys()
        mean = sum(scores[1][row] - scores[0][row] for row in scores[0]) / len(scores[0])
        assert change.difference == pytest.approx(mean)
        split = json.loads((folder / "arms" / fold / "split.json").read_text())["splits"]
        assert task.task not in {each["task"] for each in split}
        removed = [r for each in split for r in each["removed"] if r["why"].endswith(OF_UNSEEN)]
        assert {r["of"].split("/")[0] for r in removed} <= {task.task}


def test_clusters_of_any_script_have_folders_of_their_own():
    words = [_word(cluster) for cluster in ("情感", "翻译", "a b", "a-b", "topics")]
    assert len(set(words)) == 5
    assert words[-2:] == ["a-b", "topics"]
    assert all(re.fullmatch("[A-Za-z0-9-]+", word) for word in words)
