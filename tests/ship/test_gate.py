"""Gates decide on intervals, not on means."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from instil.cli.main import app
from instil.errors import RunError
from instil.results.names import TUNED
from instil.ship import gate as module
from instil.ship.certificate import certificate
from instil.ship.gate import gate
from instil.stages.runfiles import load_manifest, load_summary

pytestmark = pytest.mark.slow  # whole runs


def tuned(run: Path):
    (task,) = load_summary(run).tasks
    return task, next(arm for arm in task.arms if arm.name == TUNED).summaries["accuracy"]


def test_a_mean_is_not_enough(done: Path):
    _, found = tuned(done)
    assert found.low < found.mean
    assert gate(done, least={"accuracy": found.low}).passed
    assert not gate(done, least={"accuracy": found.mean}).passed
    (check,) = gate(done, least={"accuracy": found.mean}).checks
    assert (check.low, check.value, check.high) == (found.low, found.mean, found.high)


def test_an_arm_is_beaten_where_the_whole_interval_says_so(done: Path, monkeypatch):
    task, _ = tuned(done)
    pair = task.against("tfidf")
    for low, passed in ((0.01, True), (0.0, False), (-0.2, False)):
        moved = replace(pair, low=low, difference=0.2, high=0.4)
        comparisons = tuple(moved if c.a == "tfidf" else c for c in task.comparisons)
        summary = replace(load_summary(done), tasks=(replace(task, comparisons=comparisons),))
        monkeypatch.setattr(module, "load_summary", lambda folder, summary=summary: summary)
        assert gate(done, beats=["tfidf"]).passed == passed


def test_forgetting_is_held_as_a_budget_is(done: Path):
    (check,) = gate(done, forgets=0).checks
    assert check.passed == (check.high >= 0)
    assert gate(done, forgets=100).passed


def test_a_run_is_not_worse_than_itself(done: Path, done_lora: Path):
    assert gate(done, against=done).passed
    (check,) = gate(done, against=done_lora).checks
    assert check.passed == (check.high >= 0)


def test_what_cannot_be_compared_does_not_pass(done: Path, monkeypatch):
    summary = load_summary(done)
    gone = replace(summary, tasks=(*summary.tasks, replace(summary.tasks[0], task="more")))
    summaries = {"production": gone, done.name: summary}
    other = done.parent / "production"
    pairs = module.compare_runs(done, done)
    monkeypatch.setattr(module, "load_summary", lambda folder: summaries[folder.name])
    monkeypatch.setattr(module, "compare_runs", lambda a, b: pairs)
    task = summary.tasks[0].task
    notes = (f"{task}: left out are 2 rows of another text or answer in x", "other: not this")
    monkeypatch.setattr(module, "comparison_notes", lambda a, b: notes)
    same, lost = gate(done, against=other).checks
    assert (same.passed, lost.passed, lost.task) == (True, False, "more")
    assert same.said.endswith("left out are 2 rows of another text or answer in x")
    few = [replace(pair, n=pair.n // 3) for pair in pairs]
    monkeypatch.setattr(module, "compare_runs", lambda a, b: few)
    check, _ = gate(done, against=other).checks
    assert not check.passed
    assert "test rows are in both" in check.said


def test_a_run_of_format_1_has_nothing_to_be_held_against(done: Path, tmp_path: Path):
    old = Path(shutil.copytree(done, tmp_path / "old"))
    (old / "manifest.json").write_text('{"format_version": 1, "test_opened": ["2026-01-01"]}')
    for ask in (lambda: gate(old, forgets=0), lambda: certificate(old)):
        with pytest.raises(RunError, match="earlier version"):
            ask()


def test_the_recipe_that_made_it(done: Path, done_lora: Path):
    assert gate(done, forgets=100, recipe=done / "recipe.yaml").passed
    with pytest.raises(RunError, match="not made from this recipe"):
        gate(done, forgets=100, recipe=done_lora / "recipe.yaml")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({}, "nothing is asked"),
        ({"least": {"acuracy": 0.5}}, "no metric"),
        ({"least": {"accuracy": 85}}, "as a share of 1: --min accuracy=0.85"),
        ({"beats": ["promptng"]}, "no arm"),
    ],
)
def test_what_cannot_be_asked(asked, told, done: Path):
    with pytest.raises(RunError, match=told):
        gate(done, **asked)


def test_the_command_and_its_file(done: Path, tmp_path: Path):
    run = CliRunner().invoke
    file = tmp_path / "gate.json"
    arguments = ["gate", str(done), "--min", "accuracy=0.0", "--forgets", "100"]
    found = run(app, [*arguments, "--json", str(file)])
    assert found.exit_code == 0, found.output
    known = json.loads(file.read_text())
    assert known["passed"] is True
    assert known["recipe_sha256"] == load_manifest(done)["recipe_sha256"]
    assert [check["asked"] for check in known["checks"]] == ["--min accuracy=0", "--forgets 100"]
    found = run(app, ["gate", str(done), "--min", "accuracy=1", "--json", str(file)])
    assert found.exit_code == 4
    assert json.loads(file.read_text())["passed"] is False
    twice = run(app, ["gate", str(done), "--min", "accuracy=1.01", "--min", "accuracy=0.0"])
    assert twice.exit_code == 2, "the first is not dropped in silence"
    for wrong in ("accuracy", "accuracy=much", "=3", "accuracy=nan"):
        assert run(app, ["gate", str(done), "--min", wrong]).exit_code == 2
