"""The studies, each a function: plan the arms, say what they will take, run them, report.

Everything before the first run is checked first (`instil check` of every recipe), so that a mistake
in the last arm is told at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from instil import format as fmt
from instil.errors import RecipeError, RunError
from instil.files import sweep, write_whole
from instil.report.curve import curve_report
from instil.report.generalise import generalise_report
from instil.report.html import to_html
from instil.report.methods import methods_report
from instil.report.sequence import sequence_report
from instil.stages.context import prepare_rows
from instil.stages.lock import hold
from instil.stages.provenance import now
from instil.stages.runfiles import require_whole
from instil.study import collect
from instil.study.curve import plan_curve, sum_up_curve
from instil.study.engine import MakeEngine, Say
from instil.study.execute import Chain, run_apart
from instil.study.folder import REPORT, STUDY, Job, StudyFolder, Work
from instil.study.generalise import plan_generalise, sum_up_generalise
from instil.study.local import here
from instil.study.methods import jobs_of, plan_methods, sum_up_methods
from instil.study.sequence import first_jobs, later_jobs, plan_sequence, sum_up_sequence
from instil.studyresults import CurveStudy, GeneraliseStudy, MethodsStudy, SequenceStudy

_STUDIES: TypeAdapter[MethodsStudy | CurveStudy | SequenceStudy | GeneraliseStudy] = TypeAdapter(
    Annotated[
        MethodsStudy | CurveStudy | SequenceStudy | GeneraliseStudy, Field(discriminator="kind")
    ]
)
Study = TypeVar("Study", MethodsStudy, CurveStudy, SequenceStudy, GeneraliseStudy)


def methods_study(
    path: Path,
    *,
    changes: Sequence[str],
    arms: Mapping[str, Sequence[str]],
    seeds: Sequence[int],
    folder: Path,
    model: str | None = None,
    say: Say,
    engine: MakeEngine = here,
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
        engine: Where the runs are done.

    Raises:
        InstilError: Whatever the user can mend; what is finished is kept.
    """
    methods = plan_methods(path, changes=changes, arms=arms, model=model)
    study = StudyFolder(folder)
    # Seed by seed: what is there after a stop compares all arms.
    chains = [(jobs_of(m, seeds=[seed])[0],) for seed in seeds for m in methods]
    _do(study, chains, say=say, engine=engine)
    return _reported(study, sum_up_methods(study, methods, seeds=seeds))


def curve_study(
    path: Path,
    *,
    changes: Sequence[str],
    sizes: Sequence[int] | None,
    seeds: Sequence[int],
    folder: Path,
    say: Say,
    engine: MakeEngine = here,
) -> CurveStudy:
    """Run every size with every seed, and report the learning curve.

    Args:
        path: The recipe file.
        changes: Overrides for all runs.
        sizes: Rows of each task; None: 50, 100, 250, 500 and 1000, as far as there are rows.
        seeds: Of every size.
        folder: The study's folder; finished runs in it are taken as they are.
        say: Shows one line.
        engine: Where the runs are done.

    Raises:
        InstilError: Whatever the user can mend; what is finished is kept.
    """
    plan = plan_curve(path, changes=changes, sizes=sizes, seeds=seeds)
    if plan.left_out:
        left_out = ", ".join(map(str, plan.left_out))
        say(f"left out, for want of rows or of one for each class: {left_out}")
    study = StudyFolder(folder)
    _do(study, [(job,) for job in plan.jobs()], say=say, engine=engine)
    return _reported(study, sum_up_curve(study, plan))


def sequence_study(
    paths: Sequence[Path],
    *,
    changes: Sequence[str],
    seeds: Sequence[int],
    replay: float,
    folder: Path,
    say: Say,
    engine: MakeEngine = here,
) -> SequenceStudy:
    """Train tasks one after another, with and without replay, and report the matrix.

    Args:
        paths: One recipe with several tasks, or several of one task each.
        changes: Overrides for all stages.
        seeds: Of every arm.
        replay: Share of earlier tasks' rows in the arm with replay; 0: no such arm.
        folder: The study's folder; finished stages in it are taken as they are.
        say: Shows one line.
        engine: Where the runs are done.

    Raises:
        InstilError: Whatever the user can mend; what is finished is kept.
    """
    plan = plan_sequence(paths, changes=changes, seeds=seeds, replay=replay)
    study = StudyFolder(folder)
    _do(study, first_jobs(plan, study), later_jobs(plan, study), say=say, engine=engine)
    return _reported(study, sum_up_sequence(study, plan))


def generalise_study(
    path: Path,
    *,
    changes: Sequence[str],
    arms: Mapping[str, Sequence[str]],
    sizes: Sequence[int],
    seeds: Sequence[int],
    alone: bool,
    folder: Path,
    say: Say,
    engine: MakeEngine = here,
) -> GeneraliseStudy:
    """Tune on all clusters but one, for each of them, and report what that does to its tasks.

    Args:
        path: The recipe file; its tasks are of two clusters or more.
        changes: Overrides for all arms.
        arms: Arms beside the recipe as it stands -> their own overrides.
        sizes: Training examples of an epoch, each an arm; empty: as the recipe says.
        seeds: Of every arm.
        alone: Whether each task is tuned on by itself, too.
        folder: The study's folder; finished jobs in it are taken as they are.
        say: Shows one line.
        engine: Where the runs are done.

    Raises:
        InstilError: Whatever the user can mend; what is finished is kept.
    """
    plan = plan_generalise(path, changes=changes, arms=arms, sizes=sizes, seeds=seeds, alone=alone)
    study = StudyFolder(folder)
    _do(study, plan.chains(study), say=say, engine=engine)
    return _reported(study, sum_up_generalise(study, plan))


def _reported(study: StudyFolder, results: Study) -> Study:
    write_whole(study.path / STUDY, TypeAdapter(type(results)).dump_json(results, indent=1))
    rebuild_study(study.path)
    return results


def rebuild_study(folder: Path) -> Path:
    """Write a study's `report.html` anew from `study.json`; return it.

    Raises:
        RunError: The file is not what was written.
    """
    path = folder / STUDY
    try:
        results = _STUDIES.validate_json(path.read_bytes())
    except ValidationError as error:
        raise RunError(
            "this file of a study cannot be read",
            where=str(path),
            found=error.errors(include_url=False)[0]["msg"],
            fix="it was changed, or written by another version: give the study's command again",
        ) from error
    match results:
        case MethodsStudy():
            report = methods_report(results)
        case CurveStudy():
            report = curve_report(results)
        case SequenceStudy():
            report = sequence_report(results)
        case GeneraliseStudy():
            report = generalise_report(results)
    write_whole(folder / REPORT, to_html(report).encode())
    return folder / REPORT


def _do(study: StudyFolder, *phases: Sequence[Chain], say: Say, engine: MakeEngine) -> None:
    """Run what is not finished, phase by phase; a second process is refused.

    Raises:
        RecipeError: Runs would ask different rows of the guard.
    """
    jobs = [job for chains in phases for chain in chains for job in chain]
    wanted = [job.recipe.forgetting for job in jobs]
    if any(each.rows == "auto" and each.tasks != "none" for each in wanted):
        raise RecipeError(
            "the runs of a study are compared on the same guard rows, so their number is fixed",
            where="forgetting.rows",
            found="auto",
            fix="give a number: --set forgetting.rows=100",
        )
    study.check(jobs)
    study.path.mkdir(parents=True, exist_ok=True)
    with hold(study.path, since=now()):
        sweep(study.path / "recipes")
        left = [job for job in jobs if not study.finished(job)]
        done = [study.arm(job.name) for job in jobs if job not in left]
        known: collect.Rows = {}
        if left and done:  # before anything is trained on rows that cannot be paired
            known = collect.rows_of(prepare_rows(left[0].ahead or left[0].recipe))
        collect.require_same_rows(done, known=known)
        if left:
            there = engine(study, jobs[0].recipe.device)
            say(_forecast(left, of=len(jobs), at_once=there.at_once, say=say))
            for chains in phases:
                run_apart(study, chains, engine=there, say=say)
        for job in jobs:
            require_whole(study.arm(job.name))
        collect.require_same_rows([study.arm(job.name) for job in jobs], known=known)


def _forecast(left: Sequence[Job], *, of: int, at_once: int, say: Say) -> str:
    """Check every recipe, and say what the runs that are left will take.

    Raises:
        InstilError: Whatever would stop one of them.
    """
    from instil.stages.check import check_recipe

    seconds: dict[str, float] = {}
    total = 0.0
    for job in left:
        if job.work is Work.ASK:
            continue
        recipe = job.ahead or job.recipe
        key = recipe.model_copy(update={"seed": 0}).model_dump_json()
        if key not in seconds:
            seconds[key] = check_recipe(recipe, say=say).seconds
        total += seconds[key]
    finished = f", {of - len(left)} of {of} are finished" if of > len(left) else ""
    several = f", {at_once} at a time" if at_once > 1 else ""
    return (
        f"{fmt.plural(len(left), 'run')} to do{finished}: about "
        f"{fmt.seconds(total / at_once)}{several} (an estimate, less what they share)"
    )
