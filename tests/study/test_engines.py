"""Studies on Ray and through submitit, for real: a cluster of processes, and one that is killed."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from instil.cli import arm
from instil.cli.studies import Where, engine_of
from instil.errors import RunError
from instil.stages.lock import HOLDER
from instil.stages.runfiles import load_scores
from instil.study.engine import MakeEngine
from instil.study.folder import StudyFolder
from instil.study.onray import OnRay
from instil.study.onslurm import OnSlurm
from instil.study.studies import curve_study
from instil.studyresults import CurveStudy

# Ray reads it once: all its servers on loopback.
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
QUICK = ("forgetting.tasks=none", "dtype=float32")


def study(recipe: Path, folder: Path, engine: MakeEngine, *, said: list[str]) -> CurveStudy:
    return curve_study(
        recipe, changes=QUICK, sizes=[16, 40], seeds=[0], folder=folder, say=said.append,
        engine=engine,
    )  # fmt: skip


def scores(folder: Path) -> list[list[object]]:
    arms = [folder / "arms" / f"rows{size}-seed0" for size in (16, 40)]
    return [[line["choice_scores"] for line in load_scores(each, "test-moods")] for each in arms]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Two nodes of one processor each, all of them on loopback."""
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    node = {"num_cpus": 1, "object_store_memory": 80_000_000}
    there = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    there.add_node(**node)
    monkeypatch.setenv("RAY_ADDRESS", there.address)
    yield there.address
    ray.shutdown()
    there.shutdown()


def kill_when_it_trains(arm_folder: Path, killed: list[int]) -> None:
    """Kill the process that works in an arm, once, as soon as its ladder is there."""
    until = time.monotonic() + 100
    while time.monotonic() < until:
        if (arm_folder / "state" / "ladder.json").exists():
            pid = int(json.loads((arm_folder / HOLDER).read_text())["pid"])
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
            return
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_study_on_ray_is_the_same_though_a_process_of_it_is_killed(
    recipe_path: Path, tmp_path: Path, cluster: str
) -> None:
    said: list[str] = []
    here = study(recipe_path, tmp_path / "here", engine_of(Where.LOCAL, ()), said=said)
    killed: list[int] = []
    first = tmp_path / "there" / "arms" / "rows40-seed0"
    killer = Thread(target=kill_when_it_trains, args=(first, killed))
    killer.start()
    there = study(recipe_path, tmp_path / "there", engine_of(Where.RAY, ["num_cpus=1"]), said=said)
    killer.join()
    assert len(killed) == 1, "a process was killed while it was at work"
    assert scores(tmp_path / "there") == scores(tmp_path / "here")
    assert [p.by_seed for p in there.points] == [p.by_seed for p in here.points]
    assert sum("handed to Ray" in line for line in said) == 2
    assert any("2 at a time" in line for line in said)
    assert (tmp_path / "there" / "logs" / "rows40-seed0.txt").stat().st_size > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_more_than_the_cluster_has_is_told_before_anything_runs(
    recipe_path: Path, tmp_path: Path, cluster: str
) -> None:
    with pytest.raises(RunError, match="less than one job asks for"):
        study(recipe_path, tmp_path / "x", engine_of(Where.RAY, ["num_gpus=8"]), said=[])
    assert not (tmp_path / "x" / "arms").exists()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore")
def test_a_study_through_submitit_is_the_same(recipe_path: Path, tmp_path: Path) -> None:
    said: list[str] = []
    study(recipe_path, tmp_path / "here", engine_of(Where.LOCAL, ()), said=said)
    queued = engine_of(Where.SUBMITIT, ["timeout_min=5"])
    study(recipe_path, tmp_path / "there", queued, said=said)
    assert scores(tmp_path / "there") == scores(tmp_path / "here")
    assert sum("queued as" in line for line in said) == 2


def test_what_cannot_be_asked_for_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match="no such resource"):
        OnRay(arm.main, resources={"gpus": "1"})
    with pytest.raises(RunError, match="a resource is a number"):
        OnRay(arm.main, resources={"num_gpus": "all"})
    monkeypatch.setenv("PATH", str(tmp_path))  # where no Slurm is
    with pytest.raises(RunError, match="cannot start jobs so"):
        OnSlurm(arm.main, folder=StudyFolder(tmp_path), resources={}, cluster="slurm")
    with pytest.raises(RunError, match="cannot start jobs so"):
        OnSlurm(arm.main, folder=StudyFolder(tmp_path), resources={"gpu": "1"}, cluster="local")
