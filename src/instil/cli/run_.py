"""`instil run`: a recipe in, a run directory out."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from instil.cli.failures import INTERRUPTED
from instil.cli.options import Changes, place
from instil.cli.terminal import say

BUDGET_BROKEN = 3
"""Exit code of a run that forgot more than its budget; all its results are kept."""

if TYPE_CHECKING:
    from instil.config.recipe import Recipe


def run(
    recipe: Annotated[
        Path | None, typer.Argument(help="The recipe, a YAML file.", show_default=False)
    ] = None,
    changes: Changes = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD",
            help="lora, full, oft, shira, or auto: tries one way after another and picks on "
            "validation. The same as --set method=METHOD.",
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            parser=place,
            help="The run directory, or an address for it (s3://bucket/runs/reviews). [default: "
            "runs/NAME-OF-THE-RECIPE]",
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            parser=place,
            help="Go on with the run in this directory, or at this address, that was stopped.",
        ),
    ] = None,
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            help="Where the directory exists: show that run, or resume it, if it is the same; "
            "else take the next free name.",
        ),
    ] = False,
    restart_from: Annotated[
        str | None,
        typer.Option(
            metavar="STAGE",
            help="With --resume: do a stage (`instil status DIR` lists them) and all later ones "
            "anew.",
        ),
    ] = None,
    look_again: Annotated[
        bool,
        typer.Option(
            "--look-again",
            help="With --resume: judge a finished run on its test rows again; the report says so.",
        ),
    ] = False,
) -> None:
    """Do all that the recipe says: split, prompt, train, test, compare, report.

    Prints the verdict and where the report lies. Ctrl-C leaves a run that `--resume` takes up.
    Several processes train together: `torchrun --nproc-per-node 4 -m instil run RECIPE`.
    """
    from instil.cli.folders import place_run
    from instil.config.recipe import load_recipe
    from instil.errors import RunError
    from instil.stages.helpers import several_processes
    from instil.stages.runfiles import RECIPE

    changes = [*(changes or []), *([f"method={method}"] if method else [])]
    with several_processes() as first:
        if not first:
            return
        if resume is None:
            for option, given in (("--look-again", look_again), ("--restart-from", restart_from)):
                if given:
                    raise typer.BadParameter("goes with --resume DIR", param_hint=option)
            if recipe is None:
                raise typer.BadParameter("give a recipe, or --resume DIR", param_hint="RECIPE")
            wanted = load_recipe(recipe, overrides=changes)
            found = place_run(recipe, wanted, folder=folder, again=again)
            if found.passed:
                say(found.passed, err=True)
            if found.finished:
                say(f"this recipe has been run before, in {found.folder}:", err=True)
                _show(found.folder)
                return
            if found.begun:
                say(f"resuming the run in {found.folder}", err=True)
            _run(wanted, folder=found.folder, resume=found.begun)
            return
        if recipe or changes or folder or again:
            raise typer.BadParameter(
                "takes the recipe in the run directory; nothing else can be given",
                param_hint="--resume",
            )
        if not (resume / RECIPE).is_file():
            raise RunError(
                "this is not a run directory: it holds no recipe.yaml",
                where=str(resume),
                fix="give the directory that `instil run` made, such as runs/reviews",
            )
        _run(
            load_recipe(resume / RECIPE),
            folder=resume,
            resume=True,
            look_again=look_again,
            restart_from=restart_from or "",
        )


def _run(
    recipe: Recipe,
    *,
    folder: Path,
    resume: bool,
    look_again: bool = False,
    restart_from: str = "",
) -> None:
    from instil import pipeline
    from instil.cli.progress import make_progress
    from instil.errors import InstilError, Problem, RefusedError
    from instil.signals import ENDING, interrupt, on_signals
    from instil.stages.directory import is_vacant
    from instil.stages.judge import Look

    ours = resume or is_vacant(folder)
    go_on = f"instil run --resume {shlex.quote(str(folder))}"
    try:
        with on_signals(interrupt, *ENDING), make_progress() as progress:
            done = pipeline.run_recipe(
                recipe,
                folder=folder,
                resume=resume,
                progress=progress,
                look=Look.AGAIN if look_again else Look.ONCE,
                restart_from=restart_from,
            )
    except KeyboardInterrupt:
        say("\nstopped", err=True)
        if folder.exists():
            say(f"  to resume: {go_on}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except RefusedError:
        raise
    except InstilError as error:
        if not ours or not (folder / "state").exists():
            raise
        kept = Problem(
            "what was finished is kept",
            where=str(folder),
            fix=f"{go_on}   (after a change of the recipe begin a new run)",
        )
        raise type(error)(*error.problems, kept) from error
    _show(done)


def _show(folder: Path) -> None:
    from instil.cli.show import show_run
    from instil.stages.runfiles import load_summary

    summary = load_summary(folder)
    show_run(summary, folder=folder)
    if summary.budget is not None and summary.budget.broken:
        raise typer.Exit(BUDGET_BROKEN)
