"""One job of a study: a run, or prompting alone; resumed where it was stopped."""

from __future__ import annotations

from functools import partial

from rich.progress import Progress

from instil.pipeline import run_recipe
from instil.stages.lineage import set_aside
from instil.stages.runfiles import RECIPE
from instil.study.folder import REPORT, Job, StudyFolder, Work
from instil.study.untrained import ask_untrained


def do(folder: StudyFolder, job: Job, *, progress: Progress) -> None:
    """Run one arm of a study, resuming it if its folder exists.

    Raises:
        InstilError: Whatever the user can mend.
    """
    arm = folder.arm(job.name)
    work = run_recipe if job.work is Work.RUN else partial(ask_untrained, work=job.work)
    if job.work is not Work.RUN or not (arm / REPORT).is_file():
        work(
            job.recipe,
            folder=arm,
            resume=(arm / RECIPE).is_file(),
            progress=progress,
            shared=folder.shared,
        )
    if job.merge and not folder.merged(job.name).is_dir():
        from instil.ship.export import export
        from instil.ship.formats import Format

        export(arm, out=folder.merged(job.name), form=Format.MERGED)
    if job.merge:
        # Every stage and seed is asked the same rows; which of them repeat others the study says.
        set_aside(folder.merged(job.name))
