"""Two arms on the tiny model: what they share, what they are compared by, going on."""

import shutil
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from instil.config.recipe import load_recipe
from instil.errors import RecipeError, RunError
from instil.report.methods import methods_report, methods_verdict
from instil.stages.runfiles import load_manifest, load_scores, load_summary
from instil.study import methods
from instil.study.folder import STUDY, StudyFolder
from instil.study.methods import ARMS, choose_arms, other_tasks, plan_methods
from instil.study.studies import methods_study, rebuild_study
from instil.studyresults import MethodsStudy
from study.conftest import QUICK, here, quiet, studied
from study.pretend import lifted, plain_recipe, pretend

pytestmark = pytest.mark.slow  # many whole runs


SEEDS = (1,)
RECIPE = "model: m\ntasks: [{use: sarcasm, train: 100}]\n"


@pytest.fixture(scope="module")
def study(recipe_path: Path) -> tuple[Path, MethodsStudy]:
    folder = recipe_path.parent / "study"
    arms = choose_arms(["lora"], own=["little=lora.r=1"])
    found = studied(
        methods_study,
        recipe_path,
        changes=QUICK,
        arms=arms,
        seeds=SEEDS,
        folder=folder,
        say=quiet,
        execute=here(),
    )
    return folder, found


def test_arms_meet_the_same_rows_and_prompting_comes_along(study):
    folder, found = study
    assert [arm.name for arm in found.arms] == ["prompting", "lora", "little"]
    assert found.reference == "lora"
    assert found.rows["test"] == 16
    tested = [
        {line["row"] for line in load_scores(folder / "arms" / f"{arm}-seed{seed}", "test-moods")}
        for arm in ("lora", "little")
        for seed in SEEDS
    ]
    assert all(rows == tested[0] for rows in tested)


def test_figures_are_those_of_the_runs(study):
    folder, found = study
    lora = found.arms[1]
    means = [
        load_summary(folder / "arms" / f"lora-seed{s}").tasks[0].arms[0].summaries["accuracy"].mean
        for s in SEEDS
    ]
    assert lora.by_seed == pytest.approx(means)
    assert lora.score.mean == pytest.approx(sum(means) / len(means))
    little = found.arms[2]
    assert little.score_against.difference == pytest.approx(little.score.mean - lora.score.mean)
    text = [
        next(
            g
            for g in load_summary(folder / "arms" / f"lora-seed{s}").forgetting
            if g.task == "general text"
        )
        for s in SEEDS
    ]
    changes = [g.comparison.difference for g in text]
    assert lora.text.difference == pytest.approx(sum(changes) / len(changes))
    assert little.text_against.difference == pytest.approx(
        little.text.difference - lora.text.difference
    )
    assert lora.costs.bytes_on_disk > 0
    assert found.arms[0].costs.trainable_parameters == 0


def test_what_the_untouched_model_says_is_asked_once(study):
    folder, _ = study
    first, second = (load_manifest(folder / "arms" / f"{a}-seed1") for a in ("lora", "little"))
    assert "taken_over" not in first
    names = [name.rpartition("-")[0] for name in second["taken_over"]]
    assert names[:2] == ["ladder", "guard"]
    assert {"prompting", "zero_shot", "probe"} <= {*names}
    assert "prompting moods" in first["stage_seconds"]
    assert "prompting moods" not in second["stage_seconds"]
    a, b = (
        [
            s
            for s in load_scores(folder / "arms" / f"{arm}-seed1", "test-moods")
            if s["arm"] == "prompting"
        ]
        for arm in ("lora", "little")
    )
    assert a == b


def test_study_file_and_report(study):
    folder, found = study
    kept = TypeAdapter(MethodsStudy).validate_json((folder / STUDY).read_bytes())
    assert kept == found
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "instil methods" in page
    assert len(methods_report(found).sections) == 5
    assert methods_verdict(found)


def test_a_report_is_rebuilt_from_its_figures(study, tmp_path: Path):
    folder, _ = study
    page = (folder / "report.html").read_bytes()
    shutil.copy(folder / STUDY, tmp_path / STUDY)
    assert rebuild_study(tmp_path).read_bytes() == page
    (tmp_path / STUDY).write_text('{"kind": "methods"}', encoding="utf-8")
    with pytest.raises(RunError, match="cannot be read"):
        rebuild_study(tmp_path)


def test_the_same_command_goes_on_and_may_name_more(recipe_path: Path, study, monkeypatch):
    folder, _ = study
    said: list[str] = []
    again = studied(
        methods_study,
        recipe_path,
        changes=QUICK,
        arms=choose_arms(["lora"], own=[]),
        seeds=SEEDS,
        folder=folder,
        say=said.append,
        execute=here(said),
    )
    assert not said, "everything is there"
    assert [arm.name for arm in again.arms] == ["prompting", "lora"]


def test_a_changed_recipe_is_refused(recipe_path: Path, study):
    folder, _ = study
    with pytest.raises(RunError, match="lora-seed1"):
        studied(
            methods_study,
            recipe_path,
            changes=[*QUICK, "lora.r=2"],
            arms=choose_arms(["lora"], own=[]),
            seeds=SEEDS,
            folder=folder,
            say=quiet,
            execute=here(),
        )


def test_a_folder_of_something_else_is_left_alone(recipe_path: Path, tmp_path: Path):
    (tmp_path / "mine.txt").write_text("keep", encoding="utf-8")
    with pytest.raises(RunError, match="not a study"):
        StudyFolder(tmp_path).check([])


def test_arms_are_told_with_all_mistakes_at_once(recipe_path: Path):
    with pytest.raises(RecipeError) as bad:
        choose_arms(["lora", "ful"], own=["x", "y=lora.r"])
    assert "did you mean: full" in str(bad.value)
    assert str(bad.value).count("not of the form") == 2
    with pytest.raises(RecipeError) as bad:
        plan_methods(recipe_path, changes=[], arms={"a": ["lora.rank=3"], "b": ["tran=1"]})
    assert "lora.rank" in str(bad.value)
    assert "tran" in str(bad.value)


def test_every_arm_is_a_recipe(recipe_path: Path, companions):
    methods = plan_methods(recipe_path, changes=[], arms=ARMS)
    assert [method.name for method in methods] == list(ARMS)
    assert len({method.recipe.model_dump_json() for method in methods}) == len(ARMS)
    assert all(method.label != method.name for method in methods)


@pytest.fixture
def companions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for the rows of the library's tasks, which are fetched."""
    has = {"social_iqa": 20, "arithmetic": 1000}
    monkeypatch.setattr(methods, "rows_to_train", lambda _, name: has[name])


def test_multitask_adds_tasks_that_are_no_relatives(recipe_path: Path, companions):
    recipe = load_recipe(recipe_path, overrides=["tasks.0.train=60"])
    more = load_recipe(recipe_path, overrides=other_tasks(recipe))
    assert [(Path(use.use).stem, use.train) for use in more.tasks] == [
        ("moods", 60),
        ("social_iqa", 20),  # all that it has
        ("arithmetic", 24),  # half of 48: 12 of the 60 repeat rows of the guard
    ]


def test_seeds_rows_and_another_model(tmp_path: Path, no_forecast):
    """Made-up scores: full is better and forgets; the other model, prompted, is worse."""
    path = plain_recipe(tmp_path / "r.yaml", RECIPE)

    def score(job, of: str, row: int) -> float:
        if of.startswith(("general", "trivia")):
            lost = 0.3 * of.endswith("after") * (2 if "full" in job.name else 1)
            return 3.0 + 0.01 * row + lost + 0.01 * ((row + job.recipe.seed) % 3)
        return lifted(0.5, full=0.3, prompting=-0.2)(job, of, row)

    found = studied(
        methods_study,
        path,
        changes=[],
        arms=choose_arms(["lora", "full", "interpolate"], own=[]),
        seeds=[0, 1, 2],
        folder=tmp_path / "s",
        model="large",
        say=quiet,
        execute=pretend(score),
    )
    arms = {arm.name: arm for arm in found.arms}
    assert list(arms) == ["prompting", "lora", "full", "interpolate", "prompted-large"]
    assert arms["full"].score.mean == pytest.approx(0.8)
    assert arms["full"].score_against.difference == pytest.approx(0.3)
    assert arms["full"].score_against.low > 0
    assert arms["full"].text.difference == pytest.approx(0.6)
    assert arms["full"].text_against.difference == pytest.approx(0.3)
    assert arms["interpolate"].score_against.difference == 0
    first, forgot, recovery, size = methods_verdict(found)
    assert "full fine-tuning is better than that by 30.0\u00a0points" in first
    assert "no difference from it is shown for LoRA + interpolation" in first
    assert "full fine-tuning lost 0.600\u00a0nats per token" in forgot
    assert recovery.startswith("No arm is shown to give back most")
    assert "is worse than m tuned (LoRA)" in size
    assert "a thousand predictions take 4 min 10 s against 2 min 05 s" in size
    page = (tmp_path / "s" / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 2


@pytest.mark.parametrize(
    ("arms", "first"), [(["prompted", "lora"], -0.4), (["lora", "prompted"], 0.4)]
)
def test_the_reference_is_judged_by_its_own_prompt(tmp_path: Path, no_forecast, arms, first):
    def score(job, of: str, row: int) -> float:
        level = 0.9 if of.endswith("tuned_prompted") else 0.5
        return 1.0 if of.startswith("general") else float(row * 37 % 40 / 40 < level)

    found = studied(
        methods_study,
        plain_recipe(tmp_path / "r.yaml", RECIPE),
        changes=[],
        arms=choose_arms(arms, own=[]),
        seeds=[0],
        folder=tmp_path / "s",
        say=quiet,
        execute=pretend(score),
    )
    known = {arm.name: arm for arm in found.arms}
    assert known["prompted"].score.mean == pytest.approx(0.9)
    assert known[arms[1]].score_against.difference == pytest.approx(first)


@pytest.mark.parametrize(
    ("lost", "said"), [(0.02, "gives back 80\u00a0% of what"), (-0.05, "gives back more than what")]
)
def test_an_arm_that_gives_back_most_is_named(
    tmp_path: Path, no_forecast: None, lost: float, said: str
):
    path = plain_recipe(tmp_path / "r.yaml", RECIPE)

    def score(job, of: str, row: int) -> float:
        if of.startswith("general"):
            more = lost if "interpolate" in job.name else 0.1
            return 3.0 + 0.01 * row + more * of.endswith("after") * (1 + 0.1 * (row % 3))
        return lifted(0.5)(job, of, row)

    found = studied(
        methods_study,
        path,
        changes=[],
        arms=choose_arms(["lora", "interpolate"], own=[]),
        seeds=[0],
        folder=tmp_path / "s",
        say=quiet,
        execute=pretend(score),
    )
    recovery = methods_verdict(found)[2]
    assert recovery.startswith(f"LoRA + interpolation {said} LoRA lost")
    assert "points of score" in recovery
