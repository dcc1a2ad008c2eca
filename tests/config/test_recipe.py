from __future__ import annotations

from pathlib import Path

import pytest

from instil.config.recipe import (
    Method,
    Recipe,
    TaskUse,
    load_recipe,
    resolve_learning_rate,
    run_name,
    task_reference,
    to_yaml,
    without_effect,
)
from instil.config.validation import dotted_names
from instil.errors import RecipeError

GOLDEN = Path(__file__).parent / "golden" / "recipe.yaml"
SHORTEST = "model: smollm2-135m-instruct\ntasks:\n  - use: amazon_reviews\n"


@pytest.fixture
def write(tmp_path: Path):
    def write_recipe(text: str, name: str = "r.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write_recipe


def problems(path: Path, *overrides: str):
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides=overrides)
    return caught.value.problems


def test_three_lines_are_a_recipe(write) -> None:
    recipe = load_recipe(write(SHORTEST))
    assert recipe.tasks == (TaskUse(use="amazon_reviews"),)
    assert recipe.method is Method.LORA
    assert recipe.train.learning_rate == "auto"


def test_scientific_notation_is_a_number(write) -> None:
    recipe = load_recipe(write(SHORTEST + "train: {learning_rate: 1e-4}\n"))
    assert recipe.train.learning_rate == 1e-4


def test_a_task_file_is_told_from_a_recipe(write) -> None:
    found = problems(write("id: a\nsource: a.csv\ntext: t\ntemplates: []\n"))
    assert [problem.what for problem in found] == ["this is a task, not a recipe"]
    assert "tasks: [{use: ./" in found[0].fix


def test_an_empty_section_has_its_defaults(write) -> None:
    assert load_recipe(write(SHORTEST + "train:\nlora:\n")) == load_recipe(write(SHORTEST))


def test_all_mistakes_come_at_once_with_their_lines(write) -> None:
    path = write(
        "model: x\n"
        "tasks:\n"
        "  - use: a\n"
        "    trian: 3\n"
        "method: lorra\n"
        "learning_rate: 1e-4\n"
        "train:\n"
        "  num_train_epochs: two\n"
        "  warmup_ratio: 1.5\n"
        "baselines: {shots: [0, -1]}\n"
    )
    found = {problem.where.rpartition(":")[2]: problem for problem in problems(path)}
    assert sorted(found, key=int) == ["4", "5", "6", "8", "9", "10"]
    assert found["4"].nearest == "train"
    assert found["5"].nearest == "lora"
    assert found["6"].nearest == "train.learning_rate"
    assert found["8"].found == '"two"'
    assert found["9"].allowed == "less than 1.0"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("# nothing\n", "empty"),
        ("- a\n", "not a recipe"),
        ("just text\n", "not a recipe"),
        ("model: x\n", "'tasks' is missing"),
        ("model: x\ntasks: []\n", "tasks has a value"),
        (SHORTEST + "seed: true\n", "seed has a value"),
        (SHORTEST + "seed: 1\nseed: 2\n", "'seed' is given twice"),
        (SHORTEST + "test: yes\n", "test has a value"),
        (SHORTEST + "train: {learning_rate: .nan}\n", "train.learning_rate has a value"),
        (SHORTEST + "  - use: amazon_reviews\n", "given twice"),
        (SHORTEST + "train: {max_length: 4096}\n", "must fit into one micro-batch"),
        (SHORTEST + "baselines: {shots: [1, 1]}\n", "given twice"),
        (SHORTEST + "quantize: nf4\nmethod: full\n", "cannot be trained"),
        (SHORTEST + "quantize: int8\n", "quantize has a value"),
    ],
)
def test_what_is_no_recipe_says_why(write, text: str, said: str) -> None:
    assert any(said in problem.what for problem in problems(write(text)))


def test_a_missing_recipe_is_told(tmp_path: Path) -> None:
    assert "no such file" in problems(tmp_path / "none.yaml")[0].what


def test_overrides_are_yaml_values(write) -> None:
    recipe = load_recipe(
        write(SHORTEST),
        overrides=[
            "train.learning_rate=2e-4",
            "tasks.0.train=100",
            "baselines.shots=[0]",
            "early=1".replace("early", "train.early_stopping_patience"),
            "forgetting.budget=null",
        ],
    )
    assert recipe.train.learning_rate == 2e-4
    assert recipe.tasks[0].train == 100
    assert recipe.baselines.shots == (0,)
    assert recipe.train.early_stopping_patience == 1


@pytest.mark.parametrize(
    ("override", "said", "near"),
    [
        ("trian.learning_rate=1", "unknown key", "train.learning_rate"),
        ("learning_rate=1e-4", "unknown key", "train.learning_rate"),
        ("train.learning_rat=1", "unknown key", "train.learning_rate"),
        ("tasks.3.train=5", "there is no 'tasks.3.train'", ""),
        ("test", "key=value", ""),
        ("test=[1", "not YAML", ""),
        ("test=none", "test has a value", ""),
    ],
)
def test_a_bad_override_is_named(write, override: str, said: str, near: str) -> None:
    (problem,) = problems(write(SHORTEST), override)
    assert problem.where == f"--set {override}"
    assert said in problem.what
    assert problem.nearest == near


def test_mistakes_of_file_and_overrides_come_together(write) -> None:
    found = problems(write(SHORTEST + "methot: lora\n"), "tset=3", "test=0")
    assert [problem.where.rpartition("/")[2] for problem in found] == [
        "--set tset=3",
        "--set test=0",
        "r.yaml:4",
    ]


def test_an_override_replaces_a_value_and_keeps_the_others(write) -> None:
    path = write(SHORTEST + "train:\n  max_length: 64\n")
    recipe = load_recipe(path, overrides=["train.max_grad_norm=2"])
    assert recipe.train.max_length == 64
    assert recipe.train.max_grad_norm == 2


def test_paths_count_from_the_recipe(tmp_path: Path, write) -> None:
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    recipe = load_recipe(
        write(
            "model: models/tiny\n"
            "tasks:\n  - use: my.task.yaml\n  - use: sub/other\n  - use: amazon_reviews\n"
            "forgetting: {tasks: [trivia, ./guard.yaml]}\n"
        )
    )
    assert recipe.model == str(tmp_path / "models" / "tiny")
    assert [use.use for use in recipe.tasks] == [
        str(tmp_path / "my.task.yaml"),
        str(tmp_path / "sub" / "other"),
        "amazon_reviews",
    ]
    assert recipe.forgetting.tasks == ("trivia", str(tmp_path / "guard.yaml"))


def test_a_home_folder_is_found_and_that_of_nobody_is_an_ordinary_name(
    tmp_path: Path, write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    text = "model: {0}/m\nchat_template: {0}/t.jinja\ntasks:\n  - use: {0}/t.yaml\n"
    for home, folder in (("~", "home"), ("~nobody-here", "~nobody-here")):
        recipe = load_recipe(write(text.format(home)))
        assert recipe.model == str(tmp_path / folder / "m")
        assert recipe.chat_template == str(tmp_path / folder / "t.jinja")
        assert recipe.tasks[0].use == str(tmp_path / folder / "t.yaml")


def test_a_hub_id_is_no_path(write) -> None:
    text = SHORTEST.replace("smollm2-135m-instruct", "org/name")
    assert load_recipe(write(text)).model == "org/name"


def test_paths_of_overrides_count_from_where_the_user_is(
    tmp_path: Path, write, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    recipe = load_recipe(write(SHORTEST), overrides=["model=./m", "tasks.0.use=t.yaml"])
    assert recipe.model == str(here / "m")
    assert recipe.tasks[0].use == str(here / "t.yaml")


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("tasks=[{use: ./a.yaml}]", lambda r: r.tasks[0].use),
        ("forgetting.tasks=[./a.yaml]", lambda r: r.forgetting.tasks[0]),
        ("forgetting={tasks: [./a.yaml]}", lambda r: r.forgetting.tasks[0]),
        ("keep.replay.of=[./a.yaml]", lambda r: r.keep.replay.of[0]),
        ("split.apart_from=[./a.yaml]", lambda r: r.split.apart_from[0]),
        ('model="./a.yaml"', lambda r: r.model),
        ("model= ./a.yaml", lambda r: r.model),
        ('chat_template="./a.yaml"', lambda r: r.chat_template),
    ],
)
def test_paths_within_values_of_overrides_count_from_there_too(
    write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str, found
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    path = write("model: m\ntasks: [{use: t}]\n")
    assert found(load_recipe(path, overrides=[override])) == str(here / "a.yaml")


@pytest.mark.parametrize(
    "override",
    [
        "forgetting.tasks=[c, c]",
        "forgetting.tasks=[./c.yaml, c.yaml]",
        "keep.replay.of=[c, c]",
        "tasks.0.templates=[a, a]",
        "tasks.0.held_out_templates=[a, a]",
        "baselines.templates=[a, a]",
    ],
)
def test_what_is_given_twice_is_told(write, override: str) -> None:
    path = write("model: m\ntasks: [{use: t}]\n")
    with pytest.raises(RecipeError, match="given twice"):
        load_recipe(path, overrides=[override])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("keep.kl_on=completion", "keep.kl_on does nothing without keep.kl"),
        ("keep.replay.of=guard", "keep.replay.of does nothing without keep.replay.share"),
        ("mix.few_shot=5", "mix.few_shot does nothing without mix.few_shot_share"),
        ("oft.oft_block_size=16", "oft does nothing without method: oft"),
    ],
)
def test_what_does_nothing_is_said(write, override: str, said: str) -> None:
    path = write(SHORTEST)
    assert without_effect(load_recipe(path)) == ()
    assert without_effect(load_recipe(path, overrides=[override])) == (said,)
    lora = load_recipe(path, overrides=["method=full", "lora.r=4"])
    assert without_effect(lora) == ("lora does nothing without method: lora",)


def test_written_recipe_has_every_key_and_reads_back_the_same(write, golden) -> None:
    recipe = load_recipe(write(SHORTEST + "train: {learning_rate: 1e-5}\noutput: 'yes'\n"))
    text = to_yaml(recipe)
    golden(GOLDEN, text)
    assert load_recipe(write(text, "again.yaml")) == recipe
    for name in dotted_names(Recipe):
        assert f"{name.rsplit('.', 1)[-1]}:" in text


def test_the_recipe_stays_small_and_explained() -> None:
    assert len(dotted_names(Recipe)) <= 84
    sections = [Recipe, *(f.annotation for f in Recipe.model_fields.values())]
    fields = [
        field
        for section in sections
        if isinstance(section, type) and hasattr(section, "model_fields")
        for field in section.model_fields.values()
    ]
    assert len(fields) > 30
    assert all(field.description for field in fields)


@pytest.mark.parametrize(
    ("method", "width", "rate"),
    [
        ("lora", 576, 1.3e-3),
        ("lora", 2000, 5e-4),
        ("full", 576, 1.3e-4),
        (Method.FULL, 4096, 2.9e-5),
    ],
)
def test_the_automatic_learning_rate(method: str, width: int, rate: float) -> None:
    assert resolve_learning_rate("auto", method=method, width=width) == rate
    assert resolve_learning_rate("rule", method=method, width=width) == rate
    assert resolve_learning_rate(3e-3, method=method, width=width) == 3e-3


@pytest.mark.parametrize(
    ("path", "name"),
    [("reviews.recipe.yaml", "reviews"), ("a/quickstart.yaml", "quickstart"), ("v1.2.yml", "v1.2")],
)
def test_a_run_is_named_after_its_recipe(path: str, name: str) -> None:
    assert run_name(Path(path)) == name


@pytest.mark.parametrize(
    ("use", "absolute"),
    [("trivia", False), ("hub/imdb", False), ("hub/mine.yaml", True), ("./mugs.yaml", True)],
)
def test_library_tasks_keep_their_names_and_files_get_a_full_path(
    use: str, absolute: bool, tmp_path: Path
) -> None:
    found = task_reference(use, folder=tmp_path)
    assert (found != use) == absolute == Path(found).is_absolute()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (["keep.prune=0.1", "keep.interpolate=0.5"], "both say what is exported"),
        (["keep.prune=0.1", "method=auto"], "leave out keep.prune"),
        (["keep.prune=0.1", "quantize=nf4"], "packs the base"),
        (["keep.prune=1"], "less than 1"),
        (["keep.distil=0"], "more than 0"),
    ],
)
def test_what_cannot_be_pruned_or_distilled_is_refused(tmp_path, changes, why):
    path = tmp_path / "r.yaml"
    path.write_text("model: ./m\ntasks:\n  - use: t.yaml\n")
    with pytest.raises(RecipeError, match=why):
        load_recipe(path, overrides=changes)


def test_a_pruned_adapter_is_exported_whole(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("model: ./m\ntasks:\n  - use: t.yaml\n")
    ways = {"method=lora": True, "method=full": False, "keep.prune=0.1": False}
    assert {way: load_recipe(path, overrides=[way]).exports_adapter for way in ways} == ways


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("at_most=0.02", "text=false"), "loss on general text"),
        (("at_most=0.02", "tasks=none"), "loss on general text"),
        (("at_most=0.02", "keep.interpolate=auto"), "interpolation weight by itself"),
        (("at_most=0.02", "keep.prune=0.1"), "interpolation weight by itself"),
        (("at_most=0.02", "method=auto"), "interpolation weight by itself"),
        (("at_most=0.02", "method=oft"), "use another method"),
        (("gate_checkpoints=true",), "needs a limit"),
        (("gate_checkpoints=true", "budget=2", "tasks=none"), "needs guard rows"),
    ],
)
def test_limits_of_forgetting_that_cannot_be_kept_are_refused(write, changes, said) -> None:
    outer = ("keep.", "method=")
    full = [each if each.startswith(outer) else f"forgetting.{each}" for each in changes]
    (problem,) = problems(write(SHORTEST), *full)
    assert said in str(problem)


def test_limits_of_forgetting_are_taken(write) -> None:
    changes = ["forgetting.at_most=0.02", "forgetting.gate_checkpoints=true"]
    wanted = load_recipe(write(SHORTEST), overrides=changes).forgetting
    assert (wanted.at_most, wanted.gate_checkpoints) == (0.02, True)


@pytest.mark.parametrize("name", ["mails.xlsx", "rows.jsonl", "ROWS.CSV"])
def test_rows_in_place_of_a_recipe_are_pointed_to_init(tmp_path, name) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04\xff")
    (problem,) = problems(tmp_path / name)
    assert problem.fix == f"write one for them: instil init {name}"
