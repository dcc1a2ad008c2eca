"""The story of a run: one recipe in, one run directory out.

`run_recipe` is the whole product, a line a stage; `instil.stages` holds what each line does.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instil.config.recipe import Recipe
from instil.files import write_whole
from instil.report.build import build_report
from instil.report.card import model_card
from instil.report.html import to_html
from instil.report.sections.keeping import methods_lines
from instil.report.sections.mix import mix_text
from instil.report.sections.stages import forecast_lines
from instil.results.advice import Advice
from instil.stages.advice import advise, advised, require_groups
from instil.stages.auto_method import pick_method
from instil.stages.context import (
    RunContext,
    keep_splits,
    note_chat,
    prepare,
    require_same_inputs,
)
from instil.stages.directory import ENCODED, open_run, save_summary
from instil.stages.durations import foretell
from instil.stages.guard import GUARD_SCORES, compare_guard, guard_after, guard_before
from instil.stages.judge import Look, prepare_look, sum_up, test
from instil.stages.keeping import cut_back, hold_against, how_far, settle
from instil.stages.ladder import climb_ladders, prompts_to_train
from instil.stages.ledger import CARD, MODEL
from instil.stages.mirror import publish
from instil.stages.preflight import preflight
from instil.stages.probabilities import fit_probabilities
from instil.stages.replaying import add_replay
from instil.stages.runfiles import (
    REPORT,
    load_manifest,
    load_scores,
    load_steps,
    load_summary,
    require_training,
    require_whole,
)
from instil.stages.training import encoded_training, train
from instil.types import Comparison

if TYPE_CHECKING:
    from rich.progress import Progress

    from instil.encode.plan import TrainingData


def run_recipe(
    recipe: Recipe,
    *,
    folder: Path,
    resume: bool,
    progress: Progress,
    look: Look = Look.ONCE,
    shared: Path | None = None,
    restart_from: str = "",
) -> Path:
    """Do all that a recipe says, and return the run directory.

    Args:
        recipe: What to do.
        folder: The run directory; made here, unless `resume`.
        resume: Go on with the run in `folder`: finished stages are taken as they are.
        progress: Shows what is under way.
        look: Whether a run that has been judged is judged again on the same test rows.
        shared: Where the runs of a study keep what is the same for several of them; None: nowhere.
        restart_from: With `resume`: a finished stage to do anew, with all later ones.

    Raises:
        InstilError: Whatever the user can mend.
    """
    require_training(folder)
    with open_run(
        recipe,
        folder=folder,
        resume=resume,
        shared=shared,
        restart_from=restart_from,
        again=look is Look.AGAIN,
        require=partial(require_same_inputs, recipe, folder, before=restart_from),
    ) as run:
        context = prepare(recipe, run=run, progress=progress, say=progress.console.print)
        keep_splits(context)
        prepare_look(run, look=look)
        note_chat(context)
        encoded = add_replay(context, preflight(context))
        if len(encoded.mix) > 1 or any(line.few_shot for line in encoded.mix):
            _say(context, mix_text(encoded.mix))
        _say_forecast(context, encoded)
        ladders = climb_ladders(context)
        if context.recipe.mix.few_shot == "best":
            context.prompts = prompts_to_train(context, ladders)
            encoded = add_replay(context, encoded_training(context))
            _say(context, mix_text(encoded.mix))
        before = guard_before(context)
        tracker = context.tracker
        context, encoded, methods = pick_method(context, encoded)
        _say(context, methods_lines(methods))
        trained = train(context, encoded)
        tracker.steps(load_steps(run.folder))
        interpolation, pruning = settle(context), cut_back(context)
        moved = how_far(context)
        sides = guard_after(context, before)
        fitted = fit_probabilities(context)
        results = test(context, ladders, trained.summary, fitted, look=look)
        forgotten = compare_guard(context, sides)
        interpolation = hold_against(interpolation, forgotten)
        summary = sum_up(
            context, trained, results, forgotten, encoded.mix, interpolation=interpolation
        )
        summary = replace(
            summary,
            moved=moved,
            interpolation=interpolation,
            pruning=pruning,
            methods=methods,
            advice=advised(run),
        )
        save_summary(run, summary, files=[GUARD_SCORES])
        shutil.rmtree(run.folder / ENCODED, ignore_errors=True)
        tracker.finish(summary)
        rebuild_report(folder)
    return folder


def advise_recipe(
    recipe: Recipe, *, folder: Path, resume: bool, progress: Progress
) -> tuple[Advice, ...]:
    """Begin a run, and advise what to do before its training; return the advice, one a task.

    The run is left for `run_recipe` to resume.

    Args:
        recipe: What the run would do.
        folder: The run directory; made here, unless `resume`.
        resume: Go on with the run in `folder`.
        progress: Shows what is under way.

    Raises:
        InstilError: Whatever the user can mend.
    """
    with open_run(recipe, folder=folder, resume=resume) as run:
        context = prepare(recipe, run=run, progress=progress, say=progress.console.print)
        keep_splits(context)
        require_groups(context)
        note_chat(context)
        encoded = add_replay(context, preflight(context))
        _say_forecast(context, encoded)
        return advise(context, encoded, climb_ladders(context))


def _say_forecast(context: RunContext, encoded: TrainingData) -> None:
    """Say what each stage will take, unless this run has been told before."""
    foretold = foretell(context, encoded)
    if foretold is not None:
        _say(context, forecast_lines(foretold, [d.task.id for d in context.data]))


def _say(context: RunContext, lines: Iterable[str]) -> None:
    for line in lines:
        context.say(line)


def rebuild_report(folder: Path) -> Path:
    """Write `report.html` and the model card anew from the run's figures; return the report.

    Raises:
        RunError: The folder is no finished run, or is not what was written.
    """
    require_whole(folder)
    summary, manifest = load_summary(folder), load_manifest(folder)
    report = build_report(summary, steps=load_steps(folder), manifest=manifest)
    write_whole(folder / REPORT, to_html(report).encode())
    if (folder / MODEL).is_dir():
        write_whole(folder / CARD, model_card(summary, manifest=manifest).encode())
    publish(folder, last=True)
    return folder / REPORT


def compare_runs(a: Path, b: Path) -> list[Comparison]:
    """Compare the tuned models of two runs on the test rows that both have scored.

    Raises:
        RunError: A run is not finished or not what was written, or the two share no test rows of a
            task.
    """
    from instil.compare.pairing import compare_scores

    require_whole(a)
    require_whole(b)
    first, second = map(_test_scores, (a, b))
    return compare_scores(first, second, a=a.resolve().name, b=b.resolve().name)


def comparison_notes(a: Path, b: Path) -> tuple[str, ...]:
    """Say what a comparison of two runs leaves out, and what else their prompts differ in.

    Raises:
        RunError: A run is not finished.
    """
    from instil.compare import pairing

    first, second = map(_test_scores, (a, b))
    return pairing.comparison_notes(first, second, a=a.resolve().name, b=b.resolve().name)


def _test_scores(run: Path) -> dict[str, Sequence[dict[str, Any]]]:
    return {each.task: load_scores(run, f"test-{each.task}") for each in load_summary(run).tasks}
