"""The folder of a study, and the jobs that fill it.

::

    recipes/<arm>.yaml   what each arm runs, resolved; also good for `instil run`
    arms/<arm>/          an ordinary run directory each
    logs/<arm>.txt       what an arm printed, where several ran at once
    shared/              what the base model said, once for all arms
    study.json           every figure of the report
    report.html          one self-contained file

Finished arms are taken as they are: the same command again goes on where a study was stopped, and
may name more seeds, sizes or arms.

Tests: `tests/study/test_execute.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from instil.config.recipe import Recipe, load_recipe, to_yaml
from instil.errors import RecipeError, RunError
from instil.files import write_whole
from instil.stages.lock import HOLDER, LOCK
from instil.stages.runfiles import RECIPE, load_manifest

STUDY = "study.json"
REPORT = "report.html"
"""The last thing that a run writes."""


class Work(StrEnum):
    """What a job does."""

    RUN = "run"
    """A whole run."""
    PROMPT = "prompt"
    """Prompting alone: the ladder and the test, nothing trained."""
    ASK = "ask"
    """The test rows of several tasks alone, zero-shot."""


_DONE = {
    Work.RUN: REPORT,
    Work.PROMPT: "state/prompted.json",
    Work.ASK: "state/asked.json",
}


@dataclass(frozen=True, slots=True)
class Job:
    """One run directory of a study."""

    name: str
    """Of its folder."""
    recipe: Recipe
    """What it runs."""
    work: Work = Work.RUN
    """What it does."""
    merge: bool = False
    """Whether its model is then written as one plain model, for a later run to start from."""
    ahead: Recipe | None = None
    """What is checked beforehand in its stead, where its model is another job's; None: itself."""


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """Where everything of a study lies."""

    path: Path
    """The folder itself."""

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name

    @property
    def shared(self) -> Path:
        """What runs take over from one another."""
        return self.path / "shared"

    def arm(self, name: str) -> Path:
        """The run directory of an arm."""
        return self.path / "arms" / name

    def merged(self, name: str) -> Path:
        """The merged model of an arm, in the name that its run directory will have."""
        return self.arm(name) / "merged"

    def recipe(self, name: str) -> Path:
        """The recipe of an arm."""
        return self.path / "recipes" / f"{name}.yaml"

    def log(self, name: str) -> Path:
        """What an arm printed."""
        return self.path / "logs" / f"{name}.txt"

    def finished(self, job: Job) -> bool:
        """Say whether a job is done."""
        done = self.arm(job.name) / _DONE[job.work]
        return done.is_file() and (not job.merge or self.merged(job.name).is_dir())

    def check(self, jobs: Sequence[Job]) -> None:
        """See that what is there is of the same recipes and models.

        Args:
            jobs: All of the study, those that others go on from before them.

        Raises:
            RunError: The folder is no study, or arms in it were run with other recipes, or from
                models that have been made anew since.
        """
        there = {path.name for path in self.path.glob("*")} - {LOCK, HOLDER}
        if there and "recipes" not in there:
            raise RunError(
                f"{self.path} exists and is not a study", fix="give another folder with --folder"
            )
        others = []
        for job in jobs:
            path, known = self.arm(job.name) / RECIPE, None
            with suppress(RecipeError):  # of another version
                known = load_recipe(path) if path.is_file() else job.recipe
            if known != job.recipe:
                others.append(job.name)
        stale = self._stale(jobs, others)
        later = f", with those that go on from them ({', '.join(stale)})" if stale else ""
        if others:
            raise RunError(
                "the recipe (or a default of instil's) has changed since these arms were run",
                where=str(self.path),
                found=", ".join(others),
                fix="undo the change to resume; or begin a new study with --folder ANOTHER; or "
                f"remove these arms' folders under {self.path / 'arms'}{later} to run them anew",
            )
        if stale:
            raise RunError(
                "these arms were run with models that are not those that are there, or that are "
                "to be made anew",
                where=str(self.path),
                found=", ".join(stale),
                fix=f"remove their folders under {self.path / 'arms'} to run them anew, or begin "
                "a new study with --folder ANOTHER",
            )

    def _stale(self, jobs: Sequence[Job], changed: Sequence[str]) -> list[str]:
        """Name the arms that are there, and whose model is not, or will not be."""
        from instil.model.load import fingerprint

        makers = {str(self.merged(job.name).resolve()): job.name for job in jobs if job.merge}
        anew, stale = set(changed), list[str]()
        for job in jobs:
            folder, model = self.arm(job.name), Path(job.recipe.model)
            if job.name in anew:
                continue
            if not (folder / RECIPE).is_file():
                anew.add(job.name)
                continue
            known = load_manifest(folder).get("model", {}).get("sha256")
            local = model.is_absolute() and model.is_dir()  # else a name of the catalogue or hub
            other = known is not None and local and fingerprint(model) != known
            is_stale = other or makers.get(str(model)) in anew
            if is_stale:
                stale.append(job.name)
            if is_stale or not (folder / _DONE[job.work]).is_file():
                anew.add(job.name)
        return stale

    def lay_out(self, job: Job) -> None:
        """Write a job's recipe."""
        write_whole(self.recipe(job.name), to_yaml(job.recipe).encode())
