"""A whole run on two real processes, stopped and resumed, beside the same run on one."""

import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from instil import __version__
from instil.stages.helpers import several_processes
from instil.stages.runfiles import load_manifest, load_scores, load_steps, load_summary
from moods import lay_out, make_recipe, run


def test_the_module_is_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["instil", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("instil", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == f"instil {__version__}"


def test_one_process_joins_nobody(monkeypatch):
    import torch.distributed as dist

    monkeypatch.delenv("WORLD_SIZE", raising=False)
    for said in ({}, {"WORLD_SIZE": "1", "RANK": "0"}):  # alone, or all that torchrun has started
        for name, value in said.items():
            monkeypatch.setenv(name, value)
        with several_processes() as first:
            assert first
            assert not dist.is_initialized()


def launched(folder: Path, *arguments: str, size: int = 2) -> subprocess.Popen[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "instil", "run", *arguments],
        cwd=folder,
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str]) -> str:
    try:
        return process.communicate(timeout=100)[0]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def kill_all(process: subprocess.Popen[str]) -> None:
    """Kill the launcher and its processes, which have sessions of their own, at once."""
    workers = psutil.Process(process.pid).children(recursive=True)
    for each in (*workers, process):
        each.kill()
    process.communicate()


def wait_for_steps(process: subprocess.Popen[str], run: Path, *, more_than: int) -> None:
    steps, until = run / "steps.jsonl", time.monotonic() + 120
    while not (steps.exists() and steps.read_bytes().count(b"\n") > more_than):
        assert process.poll() is None, ended(process)
        assert time.monotonic() < until
        time.sleep(0.01)


def require_same_answers(run: Path, alone: Path) -> None:
    """All but a few answers to the test rows are those of the run of one process."""
    ours, theirs = (
        [line["prediction"] for line in load_scores(where, "test-moods")] for where in (run, alone)
    )
    assert sum(a == b for a, b in zip(ours, theirs, strict=True)) >= 0.97 * len(theirs)
    assert load_summary(run).training.steps == load_summary(alone).training.steps


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_processes_stopped_and_resumed_get_what_one_gets(tmp_path, tiny_folder):
    folder = lay_out(tmp_path)
    changes = (
        "forgetting.tasks=none",
        "baselines.shots=[0]",
        "dtype=float32",
        "train.num_train_epochs=2",
    )
    alone = run(make_recipe(folder, tiny_folder, *changes), folder / "alone")

    sets = [part for change in changes for part in ("--set", change)]
    process = launched(folder, "recipe.yaml", "--folder", "two", *sets)
    wait_for_steps(process, folder / "two", more_than=2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the launcher and both processes
    said = ended(process)
    assert "to resume: instil run --resume two" in said
    assert not (folder / "two" / "summary.json").exists()

    process = launched(folder, "--resume", "two")
    said = ended(process)
    assert process.returncode == 0, said
    assert said.count("report: two/report.html") == 1, "one process speaks"

    one, two = load_steps(alone), load_steps(folder / "two")
    assert [s.step for s in two] == [s.step for s in one]
    for a, b in zip(one, two, strict=True):
        assert (b.loss, b.grad_norm) == pytest.approx((a.loss, a.grad_norm), rel=1e-2)
        assert (b.tokens, b.supervised_tokens) == (a.tokens, a.supervised_tokens)
    require_same_answers(folder / "two", alone)
    assert len(load_manifest(folder / "two")["test_opened"]) == 1


def killed_by_two(folder: Path, changes: tuple[str, ...]) -> None:
    sets = [part for change in changes for part in ("--set", change)]
    process = launched(folder, "recipe.yaml", "--folder", "dealt", *sets)
    wait_for_steps(process, folder / "dealt", more_than=3)
    kill_all(process)


def resumed_by_three(folder: Path) -> None:
    process = launched(folder, "--resume", "dealt", size=3)
    said = ended(process)
    assert process.returncode == 0, said


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_weights_dealt_out_over_two_killed_and_resumed_by_three(tmp_path, tiny_folder):
    """Full fine-tuning by FSDP gets what one process gets, however many end what others began."""
    folder = lay_out(tmp_path)
    changes = (
        "method=full",
        "train.fsdp=true",
        "train.learning_rate=0.001",  # at .02 rounding grows to a thousandth within thirty steps
        "train.eval_steps=1",
        "train.early_stopping_patience=null",
        "forgetting.tasks=none",
        "baselines.shots=[0]",
        "dtype=float32",
        "train.num_train_epochs=2",
    )
    alone = run(make_recipe(folder, tiny_folder, *changes), folder / "alone")

    killed_by_two(folder, changes)
    assert len([*(folder / "dealt").glob("**/state-*/*.safetensors")]) == 2
    resumed_by_three(folder)

    one, dealt = load_steps(alone), load_steps(folder / "dealt")
    assert [s.step for s in dealt] == [s.step for s in one]
    for a, b in zip(one, dealt, strict=True):
        assert b.loss == pytest.approx(a.loss, rel=2e-3)
        assert b.grad_norm == pytest.approx(a.grad_norm, rel=1e-2)
        assert b.validation_loss == pytest.approx(a.validation_loss, rel=1e-2)
    require_same_answers(folder / "dealt", alone)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_base_model_dealt_out_over_two_killed_and_resumed_by_three(tmp_path, tiny_folder):
    """LoRA on a base of which no process holds all gets what one process gets, guard included."""
    folder = lay_out(tmp_path)
    changes = (
        "train.fsdp=true",
        "train.eval_steps=1",
        "train.early_stopping_patience=null",
        "forgetting.text=false",
        "baselines.shots=[0]",
        "dtype=float32",
        "train.num_train_epochs=2",
    )
    alone = run(make_recipe(folder, tiny_folder, *changes), folder / "alone")

    killed_by_two(folder, changes)
    resumed_by_three(folder)

    one, dealt = load_steps(alone), load_steps(folder / "dealt")
    assert [s.step for s in dealt] == [s.step for s in one]
    for a, b in zip(one, dealt, strict=True):
        assert b.loss == pytest.approx(a.loss, rel=2e-3)
        assert b.validation_loss == pytest.approx(a.validation_loss, rel=1e-2)
    require_same_answers(folder / "dealt", alone)
    before, after = (load_summary(where).forgetting for where in (alone, folder / "dealt"))
    assert [guard.task for guard in after] == [guard.task for guard in before] != []
