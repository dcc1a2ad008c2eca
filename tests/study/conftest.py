"""A small recipe file over made-up reviews, and a way to run a study in this process."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
from rich.progress import Progress

from instil import pipeline
from instil.compare import forgetting
from instil.study import studies
from instil.study.folder import StudyFolder
from instil.study.worker import do
from moods import lay_out, make_recipe

S = TypeVar("S")
QUICK = (
    "dtype=float32",
    "tasks.0.train=24",
    "train.num_train_epochs=1",
    "baselines.shots=[0]",
    "forgetting.rows=3",
    "train.eval_steps=100",
    "validation=8",
    "test=16",
)


def quiet(_: str) -> None:
    """Say nothing."""


def here(said: list[str] | None = None):
    """Run jobs in this process, noting what is said."""
    say = quiet if said is None else said.append

    def execute(folder: StudyFolder, chains: Sequence) -> None:
        for job in (job for chain in chains for job in chain):
            if not folder.finished(job):
                say(f"arm {job.name}")
                folder.lay_out(job)
                do(folder, job, progress=Progress(disable=True))

    return execute


def studied(study: Callable[..., S], *args, execute: Callable, **options) -> S:
    """Make a study whose jobs are done by `execute`, not in processes of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studies, "run_apart", lambda folder, chains, **_: execute(folder, chains))
        return study(*args, **options)


def blank_report(folder: Path) -> None:
    """Stand in for a run's report and model card."""
    for name in ("report.html", "model/README.md"):
        (folder / name).write_text("", encoding="utf-8")


@pytest.fixture(scope="module")
def recipe_path(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path):
    """A recipe file whose general text is at hand."""
    folder = lay_out(tmp_path_factory.mktemp("study"))
    make_recipe(folder, tiny_folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forgetting, "TEXT_FROM", str(folder / "echo.yaml"))
        # The reports of the arms themselves: tested elsewhere, and half of a tiny run's time.
        patch.setattr(pipeline, "rebuild_report", blank_report)
        yield folder / "recipe.yaml"


@pytest.fixture
def no_forecast(monkeypatch: pytest.MonkeyPatch) -> None:
    """For runs that are only pretended: their models are not there to be checked."""
    monkeypatch.setattr(studies, "_forecast", lambda *_, **__: "")
