"""The studies, each a function: plan the arms, say what they will take, run them, report.

Everything before the first run is checked first (`instil check` of every recipe), so that a mistake
in the last arm is told at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from instil.recipe import Recipe
from instil.report import format as fmt
from instil.report.methods import methods_report
from instil.study.execute import Chain, Say, devices, run_apart
from instil.study.folder import Job, StudyFolder, Work
from instil.study.methods import jobs_of, plan_methods, sum_up_methods
from instil.studyresults import MethodsStudy

Execute = Callable[[StudyFolder, Sequence[Chain]], None]


def methods_study(
    path: Path,
    *,
    changes: Sequence[str],
    arms: Mapping[str, Sequence[str]],
    seeds: Sequence[int],
    folder: Path,
    model: str | None = None,
    say: Say,
    execute: Execute | None = None,
) -> MethodsStudy:
    """Run the arms on the same rows and seeds, and report score against forgetting.

    Args:
        path: The recipe file.
        changes: Overrides for all arms.
        arms: Arm -> its own overrides; the first is what the others are compared with.
        seeds: Of every arm.
        folder: The study's folder; finished arms in it are taken as they are.
        model: Another model, to be prompted beside them.
        say: Shows one line.
        execute: Runs the jobs; None: in processes of their own.

    Raises:
        InstilError: Whatever the user can mend; what is finished is kept.
    """
    methods = plan_methods(path, changes=changes, arms=arms, model=model)
    study = StudyFolder(folder)
    # Seed by seed: what is there after a stop compares all arms.
    chains = [(jobs_of(m, seeds=[seed])[0],) for seed in seeds for m in methods]
    _do(study, chains, say=say, execute=execute)
    found = sum_up_methods(study, methods, seeds=seeds)
    study.save(found, methods_report(found))
    return found


def _do(study: StudyFolder, chains: Sequence[Chain], *, say: Say, execute: Execute | None) -> None:
    jobs = [job for chain in chains for job in chain]
    study.check(jobs)
    gpus = devices(jobs[0].recipe)
    left = [job for job in jobs if not study.finished(job)]
    if left:
        say(_forecast(left, of=len(jobs), at_once=max(1, len(gpus)), say=say))
    if execute is None:
        run_apart(study, chains, gpus=gpus, say=say)
    else:
        execute(study, chains)


def _forecast(left: Sequence[Job], *, of: int, at_once: int, say: Say) -> str:
    """Check every recipe, and say what the runs that are left will take.

    Raises:
        InstilError: Whatever would stop one of them.
    """
    from instil.foresee import check_recipe

    found: dict[str, float] = {}
    total = 0.0
    for job in left:
        if job.work is Work.PROMPT:
            continue
        key = _but_for_seed(job.recipe)
        if key not in found:
            found[key] = check_recipe(job.recipe, say=say).seconds
        total += found[key]
    finished = f", {of - len(left)} of {of} are finished" if of > len(left) else ""
    several = f", {at_once} at a time" if at_once > 1 else ""
    return (
        f"{fmt.plural(len(left), 'run')} to do{finished}: about "
        f"{fmt.seconds(total / at_once)}{several} (an estimate, less what they share)"
    )


def _but_for_seed(recipe: Recipe) -> str:
    return recipe.model_copy(update={"seed": 0}).model_dump_json()
