"""Arms in processes of their own: order, devices, failure and stopping; no model is involved."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from instil.config.recipe import Recipe, TaskUse, to_yaml
from instil.errors import RunError
from instil.model.load import fingerprint
from instil.study import collect, execute, local
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


def chain(folder: StudyFolder) -> list[Job]:
    """A training, its questions, the training that goes on from it, and that one's questions."""
    first = Job("one", RECIPE, merge=True)
    asked, second, after = (
        RECIPE.model_copy(update={"model": str(folder.merged(name).resolve())})
        for name in ("one", "one", "two")
    )
    return [
        first,
        Job("one-asked", asked, Work.ASK),
        Job("two", second, merge=True),
        Job("two-asked", after, Work.ASK),
    ]


def finish(folder: StudyFolder, job: Job, *, weights: str = "") -> None:
    """Write what a job that is done leaves; a merged model of these weights."""
    run, model = folder.arm(job.name), Path(job.recipe.model)
    (run / "state").mkdir(parents=True)
    folder.lay_out(job)
    (run / "recipe.yaml").write_text(to_yaml(job.recipe))
    known = {"sha256": fingerprint(model)} if model.is_dir() else {}
    (run / "manifest.json").write_text(json.dumps({"format_version": 1, "model": known}))
    (run / ("state/asked.json" if job.work is Work.ASK else "report.html")).touch()
    if job.merge:
        folder.merged(job.name).mkdir()
        (folder.merged(job.name) / "config.json").write_text(weights)


def test_what_goes_on_from_a_model_that_is_made_anew_is_named_with_it(folder: StudyFolder):
    chained = chain(folder)
    for job in chained:
        finish(folder, job, weights="first")
    folder.check(chained)
    other = RECIPE.model_copy(update={"test": 7})
    with pytest.raises(RunError) as caught:
        folder.check([replace(chained[0], recipe=other), *chained[1:]])
    assert "found: one\n" in str(caught.value)
    assert "(one-asked, two, two-asked)" in str(caught.value)
    # The training alone is removed, as before it was asked to; then it is there again, another one.
    shutil.rmtree(folder.arm("one"))
    with pytest.raises(RunError, match="found: one-asked, two, two-asked"):
        folder.check(chained)
    finish(folder, chained[0], weights="second")
    with pytest.raises(RunError, match="found: one-asked, two, two-asked"):
        folder.check(chained)
    for name in ("one-asked", "two", "two-asked"):
        shutil.rmtree(folder.arm(name))
    folder.check(chained)


def test_a_row_that_is_another_one_than_in_an_earlier_arm_is_refused(tmp_path: Path):
    def scored(name: str, text: str) -> Path:
        line = {"task": "t", "row": "7", "same_by": text, "arm": "tuned"}
        (tmp_path / name / "scores").mkdir(parents=True)
        (tmp_path / name / "scores" / "test-t.jsonl").write_text(json.dumps(line) + "\n")
        return tmp_path / name

    known: collect.Rows = {}
    collect.require_same_rows([scored("a", "x"), scored("b", "x"), scored("old", "")], known=known)
    with pytest.raises(RunError, match="row 7 of t is another one in c than in a"):
        collect.require_same_rows([scored("c", "y")], known=known)


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
