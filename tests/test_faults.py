"""Killed at any change of a file, or on a full disk: the same figures after `--resume`."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from faults import FULL, Faults, Killed, injected
from instil.config.recipe import Recipe
from instil.errors import InstilError
from instil.files import is_scratch
from instil.stages.directory import is_vacant
from instil.stages.runfiles import load_manifest, load_scores, load_steps
from moods import lay_out, make_recipe, run

pytestmark = pytest.mark.slow  # many whole runs


BRIEF = (
    "tasks.0.train=16",
    "validation=4",
    "test=8",
    "train.num_train_epochs=1",
    "train.eval_steps=2",
    "baselines.shots=[0]",
    "forgetting.rows=2",
    "forgetting.text=false",
    "keep.interpolate=0.5",
    "dtype=float32",
)
FAULTS = ("killed", "full once", "full for good")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Recipe:
    return make_recipe(lay_out(tmp_path_factory.mktemp("faults")), tiny_folder, *BRIEF)


@dataclass(frozen=True)
class Straight:
    """The run without any fault."""

    folder: Path
    needs_room: list[bool]
    """Of every change of a file in it, at each of which a fault may come."""

    def places(self, kind: str) -> int:
        return len(self.needs_room) if kind == "killed" else sum(self.needs_room)


@pytest.fixture(scope="module")
def straight(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Straight:
    folder = tmp_path_factory.mktemp("straight") / "run"
    with injected(Faults(folder)) as faults:
        run(recipe, folder)
    return Straight(folder, faults.seen)


def figures(folder: Path) -> dict[str, object]:
    return {
        "steps": [(s.step, s.loss, s.validation_loss) for s in load_steps(folder)],
        "test": load_scores(folder, "test-moods"),
        "guard": load_scores(folder, "guard"),
        "adapter": (folder / "model" / "adapter_model.safetensors").read_bytes(),
        "scale": json.loads((folder / "model" / "adapter_config.json").read_text())["lora_alpha"],
        "looks": len(load_manifest(folder)["test_opened"]),
    }


def broken(recipe: Recipe, folder: Path, *, at: int, kind: str) -> None:
    """Let a fault come at one change of a file, then go on as a user would."""
    expected = Killed if kind == "killed" else (InstilError, OSError)
    with injected(Faults(folder, at=at, kind=kind)), pytest.raises(expected) as raised:
        run(recipe, folder)
    if kind != "killed":
        assert FULL in str(raised.value)
        assert not [path for path in folder.rglob("*") if is_scratch(path)]
    run(recipe, folder, resume=not is_vacant(folder))


def same(recipe: Recipe, straight: Straight, folder: Path, *, at: int, kind: str) -> bool:
    broken(recipe, folder, at=at, kind=kind)
    assert not [path for path in folder.rglob("*") if is_scratch(path)]
    return figures(folder) == figures(straight.folder)


@pytest.mark.parametrize(("kind", "part"), [("killed", 0.55), ("full once", 0.5)])
def test_a_fault_on_the_way(
    recipe: Recipe, straight: Straight, tmp_path: Path, kind: str, part: float
) -> None:
    count = straight.places(kind)
    assert count > 40
    assert same(recipe, straight, tmp_path / "run", at=round(part * count), kind=kind)


def parts(kind: str) -> list[object]:
    """Give three parts, for processes to share; `make slow` does two of a kill, else one."""
    here = 2 if kind == "killed" else 1
    return [
        pytest.param(
            kind, first, marks=[pytest.mark.slow, *([pytest.mark.exhaustive] * (first > here))]
        )
        for first in (1, 2, 3)
    ]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("kind", "first"), [part for kind in FAULTS for part in parts(kind)])
def test_a_fault_at_every_change_of_a_file(
    recipe: Recipe, straight: Straight, tmp_path: Path, kind: str, first: int
) -> None:
    count = straight.places(kind)
    assert count > 40
    failed = []
    for at in range(first, count + 1, 3):
        try:
            if not same(recipe, straight, tmp_path / str(at) / "run", at=at, kind=kind):
                failed.append((at, "other figures"))
        except Exception as error:
            failed.append((at, repr(error)))
    assert not failed, f"{len(failed)} of {count}: {failed}"
