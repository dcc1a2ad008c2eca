"""What the runs of a study share: templates, thinking, and keys that an arm may not change."""

import csv
from pathlib import Path

import pytest

from instil.config.recipe import load_recipe
from instil.errors import RecipeError
from instil.stages.context import chat_rules, prepare_rows
from instil.study import methods
from instil.study.alike import think_alike
from instil.study.folder import StudyFolder
from instil.study.generalise import plan_generalise
from instil.study.methods import ARMS, plan_methods
from instil.study.sequence import later_jobs, plan_sequence
from instil.types import Thinking
from moods import ECHO

TASKS = ["tasks=[{use: ./moods.yaml, train: 40}, {use: ./thoughts.yaml, train: 24}]"]


@pytest.fixture
def path(recipe_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe beside which a task lies whose answers have thoughts."""
    folder = recipe_path.parent
    monkeypatch.chdir(folder)
    task = ECHO.replace("id: echo", "id: thoughts").replace("cluster: extraction", "cluster: why")
    (folder / "thoughts.yaml").write_text(task.replace("moods.csv", "thoughts.csv"))
    with (folder / "moods.csv").open(newline="") as rows:
        lines = list(csv.DictReader(rows))
    with (folder / "thoughts.csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, [*lines[0]])
        writer.writeheader()
        for line in lines:
            thing = f"<think>It is named first.</think>{line['thing']}"
            text = line["text"].replace("it is", "we find it")
            writer.writerow(line | {"thing": thing, "text": text})
    return folder / "recipe.yaml"


def test_a_stage_with_replay_trains_through_the_templates_of_the_one_without(path: Path):
    turned = ["tasks=[{use: ./echo.yaml, train: 24}, {use: ./moods.yaml, train: 40}]"]
    plan = plan_sequence([path], changes=turned, seeds=[0], replay=0.25)
    plain, replay = (chain[0] for chain in later_jobs(plan, StudyFolder(Path("s"))))
    assert [d.task.id for d in prepare_rows(replay.recipe)] == ["moods", "echo"]
    (alone,), (own, _) = prepare_rows(plain.recipe), prepare_rows(replay.recipe)
    assert [t.id for t in alone.templates] == [t.id for t in own.templates] == ["ask"]
    # But for rows that the other task is judged on, which the plan counts.
    assert {row.id for row in own.train} <= {row.id for row in alone.train}
    assert plan.overlap["moods"] == len(alone.train) - len(own.train)


def test_other_tasks_leave_templates_and_rows_of_the_recipe_s_own(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(methods, "rows_to_train", lambda *_: 1000)
    planned = plan_methods(
        path,
        changes=["tasks.0.train=null"],
        arms={"lora": ["method=lora"], "more": ["tasks=[{use: ./moods.yaml}, {use: arithmetic}]"]},
    )
    assert len(planned[1].recipe.tasks) == 2, "an arm may add tasks"
    alone, joined = plan_methods(
        path,
        changes=["tasks.0.train=null"],
        arms={"lora": ARMS["lora"], "multitask": ARMS["multitask"]},
    )
    own, *others = joined.recipe.tasks
    (data,) = prepare_rows(alone.recipe)
    assert own.templates == tuple(template.id for template in data.templates)
    assert sum(use.train for use in others) == len(data.train), "half and half"


def test_all_jobs_think_where_a_task_of_the_study_has_thoughts(path: Path):
    quiet = ["forgetting.tasks=none", "forgetting.text=false"]
    plan = plan_sequence([path], changes=[*TASKS, *quiet], seeds=[0], replay=0)
    recipes = [*plan.stages, plan.everything]
    assert {chat_rules(r, prepare_rows(r)).thinking for r in recipes} == {Thinking.ON}
    folds = plan_generalise(
        path, changes=[*TASKS, "forgetting.text=false"], arms={}, sizes=[], seeds=[0], alone=False
    )
    jobs = [job for chain in folds.chains(StudyFolder(Path("s"))) for job in chain]
    assert {chat_rules(j.recipe, prepare_rows(j.recipe)).thinking for j in jobs} == {Thinking.ON}


def test_where_no_task_has_thoughts_recipes_stay_as_they_are(path: Path):
    recipe = load_recipe(path)
    assert think_alike([recipe], prepare_rows(recipe)) == [recipe]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("seed=9", "changes seed"),
        ("test=20", "changes test"),
        ("split.seed=4", "changes split.seed"),
        ("forgetting.rows=20", "changes forgetting.rows"),
        ("tasks=[{use: ./echo.yaml}]", "leaves out what the others are judged on"),
    ],
)
def test_an_arm_may_not_change_what_is_judged(path: Path, change: str, said: str):
    with pytest.raises(RecipeError, match=said):
        plan_methods(path, changes=[], arms={"lora": ["method=lora"], "odd": [change]})


def test_recipes_of_a_sequence_ask_in_one_way(path: Path):
    other = path.parent / "other.yaml"
    other.write_text(path.read_text().replace("moods.yaml", "echo.yaml") + "system: merge\n")
    with pytest.raises(RecipeError, match="the recipes differ in system"):
        plan_sequence([path, other], changes=[], seeds=[0], replay=0)


def test_recipes_of_other_seeds_are_no_leak(path: Path):
    other = path.parent / "other.yaml"
    other.write_text(path.read_text().replace("moods.yaml", "echo.yaml") + "seed: 5\n")
    changes = ["tasks.0.train=30", "forgetting.tasks=none", "forgetting.text=false"]
    one = plan_sequence([path, other], changes=[*changes, "seed=0"], seeds=[0], replay=0)
    assert plan_sequence([path, other], changes=changes, seeds=[0], replay=0).overlap == one.overlap
