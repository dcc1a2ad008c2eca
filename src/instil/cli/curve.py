"""`instil curve`: the score by number of training rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from instil.studyresults import CurveStudy


def curve(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
    sizes: Annotated[
        str | None,
        typer.Option(
            help="Rows of each task, with commas. [default: 50,100,250,500,1000 as far as they go]"
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of every size, with commas.")] = "0,1,2",
    guard: Annotated[
        bool,
        typer.Option("--guard", help="Also measure forgetting in every run, as the recipe says."),
    ] = False,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key for all runs."),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="The study's folder. [default: runs/NAME-curve]")
    ] = None,
) -> None:
    """Train on 50, 100, 250 ... rows with several seeds: would more data pay?

    The same command again goes on where it was stopped, and may name more sizes and seeds.
    """
    from instil.cli.studying import numbers, say, study_folder
    from instil.study.studies import curve_study

    changed = [*(changes or []), *([] if guard else ["forgetting.tasks=none"])]
    where = study_folder(recipe, changes=changed, folder=folder, kind="curve")
    found = curve_study(
        recipe,
        changes=changed,
        sizes=None if sizes is None else numbers(sizes, option="--sizes", least=1),
        seeds=numbers(seeds, option="--seeds"),
        folder=where,
        say=say,
    )
    _show(found, where)


def _show(study: CurveStudy, folder: Path) -> None:
    from instil import format as fmt
    from instil.cli.show import filled_table
    from instil.cli.studying import show_study
    from instil.report.curve import curve_verdict
    from instil.report.parts import axis_name

    rows = [
        (
            fmt.count(point.asked),
            fmt.interval(point.score),
            ", ".join(fmt.figure(each, study.metric) for each in point.by_seed),
            fmt.change_with_interval(point.against_prompting),
            fmt.seconds(point.seconds),
        )
        for point in study.points
    ]
    titles = ("rows", axis_name(study.metric), "seed by seed", "minus prompting", "training")
    title = f"{', '.join(study.tasks)}: mean (95 % interval)"
    show_study([filled_table(title, titles, rows)], curve_verdict(study), folder=folder)
