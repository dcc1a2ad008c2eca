"""One job of a study: a run, or prompting alone; resumed where it was stopped."""

from __future__ import annotations

from rich.progress import Progress

from instil.pipeline import run_recipe
from instil.stages.directory import RECIPE
from instil.study.folder import REPORT, Job, StudyFolder, Work
from instil.study.untrained import ask_recipe, prompt_recipe


def do(folder: StudyFolder, job: Job, *, progress: Progress | None = None) -> None:
    """Run one job of a study, resuming it if its folder exists.

    Raises:
        InstilError: Whatever the user can mend.
    """
    shown = progress or Progress(disable=True)
    arm = folder.arm(job.name)
    resume = (arm / RECIPE).is_file()
    if job.work is not Work.RUN:
        ask = prompt_recipe if job.work is Work.PROMPT else ask_recipe
        ask(job.recipe, folder=arm, resume=resume, progress=shown, shared=folder.shared)
        return
    if not (arm / REPORT).is_file():
        run_recipe(job.recipe, folder=arm, resume=resume, progress=shown, shared=folder.shared)
    if job.merge and not folder.merged(job.name).is_dir():
        from instil.ship.serve import export

        export(arm, out=folder.merged(job.name), merge=True)
