"""`instil methods`: ways of tuning side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from instil.studyresults import MethodsStudy


def methods(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
    seeds: Annotated[str, typer.Option(help="Seeds of every arm, with commas.")] = "0",
    arms: Annotated[
        str | None,
        typer.Option(help="Arms, with commas; the first is compared with. [default: all]"),
    ] = None,
    own: Annotated[
        list[str] | None,
        typer.Option(
            "--arm",
            metavar="NAME=KEY=VALUE,...",
            help="An arm of your own: what it changes in the recipe; may be repeated.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Another model, prompted beside the tuned one. [default: none]"),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key for all arms."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="The study's folder. [default: runs/NAME-methods]"),
    ] = None,
) -> None:
    """Compare prompting, LoRA, full fine-tuning, multi-task and mitigations on the same rows.

    Shows score against forgetting, with time, memory and bytes. The same command again goes on
    where it was stopped.
    """
    from instil.cli.studying import names, numbers, say, study_folder
    from instil.study.methods import choose_arms
    from instil.study.studies import methods_study

    where = study_folder(recipe, changes=changes or [], folder=folder, kind="methods")
    found = methods_study(
        recipe,
        changes=changes or [],
        arms=choose_arms(names(arms), own=own or []),
        seeds=numbers(seeds, option="--seeds"),
        folder=where,
        model=model,
        say=say,
    )
    _show(found, where)


def _show(study: MethodsStudy, folder: Path) -> None:
    from instil import format as fmt
    from instil.cli.show import filled_table
    from instil.cli.studying import show_study
    from instil.report.methods import methods_verdict
    from instil.report.parts import axis_name

    rows = []
    for arm in study.arms:
        changed = [fmt.change_figure(c) if c else fmt.MISSING for c in (arm.text, arm.points)]
        costs = fmt.seconds(arm.costs.seconds), fmt.size(arm.costs.bytes_on_disk)
        rows.append((arm.label, fmt.interval(arm.score), *changed, *costs))
    measured = ("general text, nats", "guard, points", "time", "to store")
    title = f"{', '.join(study.tasks)}: mean (95 % interval)"
    table = filled_table(title, ("", axis_name(study.metric), *measured), rows)
    show_study([table], methods_verdict(study), folder=folder)
