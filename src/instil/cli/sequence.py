"""`instil sequence`: tasks one after another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from instil.studyresults import SequenceStudy


def sequence(
    recipes: Annotated[
        list[Path],
        typer.Argument(help="One recipe with several tasks, or several recipes of one task each."),
    ],
    replay: Annotated[
        float,
        typer.Option(
            min=0, max=0.5, help="Share of earlier tasks' rows, in the arm with replay; 0: no arm."
        ),
    ] = 0.05,
    seeds: Annotated[str, typer.Option(help="Seeds of every arm, with commas.")] = "0",
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key for all stages."),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="The study's folder. [default: runs/NAME-sequence]")
    ] = None,
) -> None:
    """Train tasks one after another: what does a later one do to an earlier one?

    Shows the matrix of stages by tasks and backward transfer, with and without replay. The same
    command again goes on where it was stopped.
    """
    from instil.cli.studying import numbers, say, study_folder
    from instil.study.studies import sequence_study

    where = study_folder(recipes[0], changes=changes or [], folder=folder, kind="sequence")
    found = sequence_study(
        recipes,
        changes=changes or [],
        seeds=numbers(seeds, option="--seeds"),
        replay=replay,
        folder=where,
        say=say,
    )
    _show(found, where)


def _show(study: SequenceStudy, folder: Path) -> None:
    from instil import format as fmt
    from instil.cli.show import filled_table
    from instil.cli.studying import show_study
    from instil.report.sequence import sequence_verdict, stage_names

    tables = []
    for arm in study.arms:
        stages = zip(stage_names(study), arm.matrix, strict=True)
        rows = [(name, *map(fmt.interval, line)) for name, line in stages]
        title = f"{arm.label}: mean (95 % interval)"
        tables.append(filled_table(title, ("", *study.tasks), rows))
    show_study(tables, sequence_verdict(study), folder=folder)
