"""One process at a time in a run directory, and the beginning of one: whole, or begun anew."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from instil.cli.folders import place_again
from instil.config.recipe import Recipe, TaskUse
from instil.errors import RefusedError, RunError
from instil.files import sweep
from instil.signals import CTRL_C, ENDING, interrupt, on_signals
from instil.stages.directory import describe, is_vacant, open_run
from instil.stages.lock import HOLDER, LOCK, hold, holder
from instil.stages.runfiles import load_manifest, require_whole

HOLDS = """
import sys
from pathlib import Path
from instil.stages.lock import hold
with hold(Path(sys.argv[1]), since="noon"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def recipe() -> Recipe:
    return Recipe(model="tiny", tasks=(TaskUse(use="trivia"),))


def test_a_second_process_is_told_who_is_at_work(recipe: Recipe, tmp_path: Path) -> None:
    with open_run(recipe, folder=tmp_path / "run", resume=False) as run:
        run.kept("ladder", int, lambda: 1)
        before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
        with pytest.raises(RefusedError, match=f"process {os.getpid()} on .*, since 20"):
            with open_run(recipe, folder=tmp_path / "run", resume=True):
                raise AssertionError("two are in it")
        assert f"process {os.getpid()}" in "\n".join(describe(run.folder).lines)
        assert before == {path: path.read_bytes() for path in before}
    with open_run(recipe, folder=tmp_path / "run", resume=True):
        assert holder(tmp_path / "run")
    assert holder(tmp_path / "run") == ""


def test_a_killed_process_stands_in_nobodys_way(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RefusedError, match=f"process {process.pid} on .*, since noon"):
            with hold(tmp_path, since="later"):
                raise AssertionError("two are in it")
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert json.loads((tmp_path / HOLDER).read_text())["pid"] == process.pid
    with hold(tmp_path, since="later"):
        assert json.loads((tmp_path / HOLDER).read_text())["pid"] == os.getpid()


def test_a_lock_that_says_nothing_yet(tmp_path: Path) -> None:
    with hold(tmp_path, since="noon"):
        (tmp_path / HOLDER).unlink()
        with pytest.raises(RefusedError, match="only just begun"), hold(tmp_path, since="later"):
            raise AssertionError("two are in it")


@pytest.mark.parametrize(
    "left",
    [[], [LOCK], [LOCK, HOLDER], ["ledger.json"], ["ledger.json", ".manifest.json.7.tmp"],
     ["ledger.json", "manifest.json"], ["split.json", "ledger.json"],
     ["ledger.json", "manifest.json", ".recipe.yaml.7.tmp"]],
)  # fmt: skip
def test_a_run_killed_while_it_began_is_begun_anew(
    recipe: Recipe, tmp_path: Path, left: list[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in left:
        (folder / name).write_bytes(b"half")
    assert is_vacant(folder)
    assert place_again(recipe, folder=folder).folder == folder
    with pytest.raises(RunError, match="instil run RECIPE --folder"):
        with open_run(recipe, folder=folder, resume=True):
            raise AssertionError("there is no recipe to go on with")
    with open_run(recipe, folder=folder, resume=False) as run:
        assert not list(folder.glob(".*.tmp"))
        run.kept("ladder", int, lambda: 1)
    require_whole(folder)


@pytest.mark.parametrize("name", ["recipe.yaml", "mine.txt", "state"])
def test_what_is_a_users_own_is_no_beginning(recipe: Recipe, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine", encoding="utf-8")
    with pytest.raises(RunError, match="exists"), open_run(recipe, folder=tmp_path, resume=False):
        raise AssertionError("it is not ours")
    assert (tmp_path / name).read_text(encoding="utf-8") == "mine"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_first_beginning_of_a_run_is_kept(recipe: Recipe, tmp_path: Path) -> None:
    with open_run(recipe, folder=tmp_path / "run", resume=False) as run:
        run.kept("ladder", int, lambda: 1)
        begun = load_manifest(run.folder)
    with open_run(recipe, folder=tmp_path / "run", resume=True) as run:
        again = load_manifest(run.folder)
    assert {**begun, "resumed": again["resumed"]} == again
    assert len(again["resumed"]) == 1


def test_what_killed_runs_leave_half_written_is_removed(recipe: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with open_run(recipe, folder=folder, resume=False) as run:
        run.kept("ladder", int, lambda: 1)
    kept = {path for path in folder.rglob("*") if path.name not in (LOCK, HOLDER)}
    for name in ("checkpoints/.checkpoint-x/s", ".model-x/a/b", "arms/lora/.model.part/c"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(b"half")
    (folder / "state" / ".test.json.7.tmp").write_bytes(b"half")
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "mine").write_bytes(b"mine")
    (folder / ".model-link").symlink_to(tmp_path / "far")
    with open_run(recipe, folder=folder, resume=True):
        pass
    left = {path for path in folder.rglob("*") if path.is_file() and path.name != LOCK}
    assert left == {path for path in kept if path.is_file()}
    assert (tmp_path / "far" / "mine").exists()
    sweep(tmp_path / "nowhere")


@pytest.mark.parametrize("number", [CTRL_C, *ENDING])
def test_signals_interrupt_but_for_those_that_are_ignored(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt), on_signals(interrupt, CTRL_C, *ENDING):
        os.kill(os.getpid(), number)
    if number == CTRL_C:
        return
    before = signal.signal(number, signal.SIG_IGN)  # as nohup does
    try:
        with on_signals(interrupt, CTRL_C, *ENDING):
            os.kill(os.getpid(), number)
    finally:
        signal.signal(number, before)
