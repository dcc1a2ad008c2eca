"""Arms in processes of their own: order, devices, failure and stopping; no model is involved."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from instil.config.recipe import Recipe, TaskUse
from instil.errors import RunError
from instil.study import execute, local
from instil.study.folder import Job, StudyFolder, Work
from instil.study.local import Local

RECIPE = Recipe(model="m", tasks=(TaskUse(use="t"),))
WORK = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored under some shells
root, name = pathlib.Path(sys.argv[1]), sys.argv[2]
with (root / "order.txt").open("a") as out:
    out.write(f"{name} {os.environ.get('CUDA_VISIBLE_DEVICES', '-')}\\n")
print("hello from", name)
if name.startswith("bad"):
    sys.exit(2)
if name.startswith("long"):
    time.sleep(30)
(root / "arms" / name / "state").mkdir(parents=True)
(root / "arms" / name / "state" / "asked.json").write_text("{}")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyFolder:
    def command(folder: StudyFolder, job: Job) -> list[str]:
        return [sys.executable, "-S", "-E", "-c", WORK, str(folder.path), job.name]

    monkeypatch.setattr(local, "command_of", command)
    monkeypatch.setattr(execute, "_POLL_SECONDS", 0.01)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return StudyFolder(tmp_path)


def quiet(_: str) -> None:
    pass


def jobs(*names: str) -> list[Job]:
    return [Job(name, RECIPE, Work.ASK) for name in names]


def order(folder: StudyFolder) -> list[list[str]]:
    return [line.split() for line in (folder.path / "order.txt").read_text().splitlines()]


def test_one_after_another_and_finished_ones_are_left(folder: StudyFolder, capfd):
    said: list[str] = []
    chains = [jobs("a", "b"), jobs("c")]
    execute.run_apart(folder, chains, engine=Local(()), say=said.append)
    assert order(folder) == [["a", "-"], ["b", "-"], ["c", "-"]]
    assert folder.recipe("a").is_file()
    assert "hello from a" in capfd.readouterr().out
    execute.run_apart(folder, [*chains, jobs("d")], engine=Local(()), say=said.append)
    assert [name for name, _ in order(folder)] == ["a", "b", "c", "d"]


def test_an_arm_a_device_with_logs(folder: StudyFolder):
    execute.run_apart(folder, [jobs("a", "b"), jobs("c", "d")], engine=Local(("2", "5")), say=quiet)
    found = order(folder)
    assert {gpu for _, gpu in found} == {"2", "5"}
    names = [name for name, _ in found]
    assert names.index("a") < names.index("b")
    assert names.index("c") < names.index("d")
    assert folder.log("a").read_text().strip() == "hello from a"


def test_a_failure_ends_its_chain_and_no_other(folder: StudyFolder):
    with pytest.raises(RunError) as bad:
        execute.run_apart(folder, [jobs("bad", "after"), jobs("c")], engine=Local(()), say=quiet)
    assert "bad, after" in str(bad.value)
    assert "the same command does what is missing" in str(bad.value)
    assert [name for name, _ in order(folder)] == ["bad", "c"]


def test_stopping_lets_every_arm_stop(folder: StudyFolder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(execute, "_GRACE_SECONDS", 0.1)
    begun: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def start(*args, **kwargs):
        begun.append(popen(*args, **kwargs))
        return begun[-1]

    def sleep(_: float) -> None:
        while not (folder.path / "order.txt").exists():
            pass
        raise KeyboardInterrupt

    monkeypatch.setattr(local.subprocess, "Popen", start)
    monkeypatch.setattr(execute, "_pause", sleep)
    with pytest.raises(KeyboardInterrupt):
        execute.run_apart(folder, [jobs("long")], engine=Local(()), say=quiet)
    (process,) = begun
    assert process.returncode in (1, -signal.SIGINT), "stopped in order, not killed"
