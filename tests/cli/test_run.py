from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from instil.cli.folders import place_again
from instil.config.recipe import load_recipe, to_yaml
from instil.results.run import RunSummary
from instil.results.tasks import Arm, TaskResult
from instil.results.training import TrainingSummary
from instil.types import Comparison, Summary


def summary(mean: float) -> Summary:
    return Summary("accuracy", mean, low=mean - 0.04, high=mean + 0.04, scored=300)


def arm(name: str, label: str, mean: float) -> Arm:
    return Arm(name, label, "t", 0, "raw", summaries={"accuracy": summary(mean)})


def run_summary(name: str = "reviews") -> RunSummary:
    comparison = Comparison(
        "prompting", "tuned", "accuracy", 300, 0.093, 0.051, 0.135, p_value=0.0004
    )  # fmt: skip
    task = TaskResult(
        task="amazon_reviews",
        kind="sentiment",
        metric="accuracy",
        rows={"train": 600, "test": 300},
        groups={},
        removed={},
        skipped={},
        balance={},
        ladder=(),
        arms=(arm("prompting", "5-shot [calibrated]", 0.71), arm("tuned", "tuned", 0.803)),
        comparisons=(comparison,),
        templates=(),
        mistakes=(),
    )
    training = TrainingSummary(
        method="lora", steps=10, best_step=10, epochs=1, stopped_early=False, learning_rate=5e-4,
        seconds=1, tokens_per_second=1, supervised_tokens=1, fates={}, trainable_parameters=1,
        trainable_share=0.1, peak_memory_bytes=1, dtype="float32",
    )  # fmt: skip
    return RunSummary(
        name=name, model="m", model_parameters=1, model_bytes=1, model_licence="x", tasks=(task,),
        training=training, forgetting=(), verdict=("Tuning beat prompting.", "It cost little."),
        turns=(), token_view=(), stage_seconds={}, test_opened="", seed=0,
    )  # fmt: skip


def finish(folder: Path, recipe_text: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(recipe_text, encoding="utf-8")
    data = TypeAdapter(RunSummary).dump_json(run_summary(folder.name))
    (folder / "summary.json").write_bytes(data)
    return folder


@pytest.fixture
def runs(library, recipe_file: Path):
    """Let `run_recipe` make a finished run."""

    def run_recipe(recipe, *, folder: Path, **_: object) -> Path:
        return finish(folder, to_yaml(recipe))

    library.answers["run_recipe"] = run_recipe
    return library


def only_call(library) -> Mapping[str, object]:
    ((name, args, kwargs),) = library.calls
    assert name == "run_recipe"
    return {"recipe": args[0], **kwargs}


def test_a_run_shows_verdict_arms_and_where_the_report_lies(
    instil_command, runs, recipe_file: Path
) -> None:
    result = instil_command("run", recipe_file)
    assert result.exit_code == 0, result.output
    call = only_call(runs)
    assert call["folder"] == Path("runs/reviews")
    assert call["resume"] is False
    assert call["recipe"] == load_recipe(recipe_file)
    assert "Tuning beat prompting.\nIt cost little.\n" in result.stdout
    assert "5-shot [calibrated]" in result.stdout
    assert "80.3\u00a0%" in result.stdout
    assert "+9.3" in result.stdout
    assert "300 test rows" in result.stdout
    assert "report: runs/reviews/report.html" in result.stdout


def test_overrides_and_folder_are_handed_on(instil_command, runs, recipe_file: Path) -> None:
    instil_command(
        "run",
        recipe_file,
        "--set",
        "train.learning_rate=2e-4",
        "--set",
        "seed=7",
        "--folder",
        "out/x",
    )
    call = only_call(runs)
    assert call["folder"] == Path("out/x")
    assert call["recipe"].train.learning_rate == 2e-4
    assert call["recipe"].seed == 7


def test_mistakes_of_recipe_and_overrides_come_at_once(
    instil_command, library, recipe_file: Path
) -> None:
    recipe_file.write_text("model: x\ntaks: []\n", encoding="utf-8")
    result = instil_command("run", recipe_file, "--set", "tset=1")
    assert result.exit_code == 2
    assert "did you mean: tasks" in result.stderr
    assert "did you mean: test" in result.stderr
    assert not library.calls


def test_ctrl_c_says_how_to_go_on(instil_command, library, recipe_file: Path) -> None:
    def interrupted(recipe, *, folder: Path, **_: object) -> Path:
        folder.mkdir(parents=True)
        raise KeyboardInterrupt

    library.answers["run_recipe"] = interrupted
    result = instil_command("run", recipe_file)
    assert result.exit_code == 130
    assert "instil run --resume runs/reviews" in result.stderr


def test_ctrl_c_before_anything_was_begun_offers_nothing(
    instil_command, library, recipe_file: Path
) -> None:
    library.answers["run_recipe"] = KeyboardInterrupt()
    result = instil_command("run", recipe_file)
    assert result.exit_code == 130
    assert "--resume" not in result.stderr


def test_resume_takes_the_recipe_of_the_run(instil_command, library, recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file, overrides=["seed=3"])
    folder = finish(recipe_file.parent / "runs" / "old", to_yaml(recipe))
    library.answers["run_recipe"] = folder
    result = instil_command("run", "--resume", folder)
    assert result.exit_code == 0, result.output
    assert only_call(library) | {"progress": None} == {
        "recipe": recipe, "folder": folder, "resume": True, "progress": None, "look": "once",
        "restart_from": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [
        ["r.yaml", "--resume", "d"],
        ["--resume", "d", "--set", "seed=1"],
        ["--resume", "d", "--again"],
        [],
    ],
)
def test_what_does_not_go_together(instil_command, library, arguments: list[str]) -> None:
    assert instil_command("run", *arguments).exit_code == 2
    assert not library.calls


def test_resume_of_no_run_says_so(instil_command, library, tmp_path: Path) -> None:
    result = instil_command("run", "--resume", tmp_path)
    assert result.exit_code == 2
    assert "not a run directory" in result.stderr


def test_again_shows_the_same_run_without_running(instil_command, runs, recipe_file: Path) -> None:
    instil_command("run", recipe_file, "--again")
    result = instil_command("run", recipe_file, "--again")
    assert result.exit_code == 0
    assert len(runs.calls) == 1
    assert "Tuning beat prompting." in result.stdout
    assert "run before, in runs/reviews" in result.stderr


def test_again_numbers_a_run_of_another_recipe(instil_command, runs, recipe_file: Path) -> None:
    for seed in (0, 1, 2, 1):
        instil_command("run", recipe_file, "--again", "--set", f"seed={seed}")
    folders = [kwargs["folder"].name for _, _, kwargs in runs.calls]
    assert folders == ["reviews", "reviews-2", "reviews-3"]


def test_a_broken_run_is_passed_over_and_an_unfinished_one_gone_on_with(recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file)
    folder = finish(recipe_file.parent / "runs" / "x", to_yaml(recipe))
    assert place_again(recipe, folder=folder).finished
    (folder / "recipe.yaml").write_text("no: recipe\n", encoding="utf-8")
    assert place_again(recipe, folder=folder).folder.name == "x-2"
    (folder / "recipe.yaml").write_text(to_yaml(recipe), encoding="utf-8")
    (folder / "summary.json").unlink()
    place = place_again(recipe, folder=folder)
    assert (place.folder, place.finished, place.begun) == (folder, False, True)


def test_a_run_without_comparisons_is_shown_too(instil_command, runs, recipe_file: Path) -> None:
    from instil.cli.show import show_run

    whole = run_summary()
    task = replace(whole.tasks[0], comparisons=(), arms=whole.tasks[0].arms[1:])
    show_run(replace(whole, tasks=(task,), verdict=()), folder=Path("runs/x"))


def test_a_second_look_is_asked_for_beside_resume(
    instil_command, library, recipe_file: Path
) -> None:
    folder = finish(recipe_file.parent / "runs" / "old", to_yaml(load_recipe(recipe_file)))
    library.answers["run_recipe"] = folder
    assert instil_command("run", "--resume", folder, "--look-again").exit_code == 0
    assert only_call(library)["look"] == "again"
    refused = instil_command("run", recipe_file, "--look-again")
    assert refused.exit_code == 2
    assert "--resume" in refused.stderr
