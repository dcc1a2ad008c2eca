"""`instil methods`, `curve`, `sequence`, `generalise`: runs that differ in one thing, compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from instil.cli import terminal
from instil.cli.options import RecipeFile

if TYPE_CHECKING:
    from rich.table import Table

    from instil.config.recipe import Device
    from instil.study.engine import Engine, MakeEngine
    from instil.study.folder import StudyFolder
    from instil.studyresults import CurveStudy, GeneraliseStudy, MethodsStudy, SequenceStudy


class Where(StrEnum):
    """Where the runs of a study are done."""

    LOCAL = "local"
    RAY = "ray"
    SLURM = "slurm"
    SUBMITIT = "submitit"


def _to_set(what: str) -> Any:
    return typer.Option("--set", metavar="KEY=VALUE", help=f"Change a key for all {what}.")


def _study_dir(kind: str) -> Any:
    return typer.Option(help=f"The study's folder. [default: runs/NAME-{kind}]")


On = Annotated[
    Where,
    typer.Option(
        "--on", help="Where the runs are done: this machine, a Ray cluster, Slurm, or its stand-in."
    ),
]
Resources = Annotated[
    list[str] | None,
    typer.Option(
        "--resource",
        metavar="NAME=VALUE",
        help="With --on: what a run asks for, by Ray's names (num_gpus=1) or submitit's "
        "(slurm_partition=gpu); may be repeated.",
    ),
]


def methods(
    recipe: RecipeFile,
    seeds: Annotated[str, typer.Option(help="Seeds of every arm, with commas.")] = "0",
    arms: Annotated[
        str | None,
        typer.Option(
            help="Arms, with commas; the first is compared with. [default: all but distil, prune, "
            "mlp, rslora, oft, shira and prompted]"
        ),
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
    changes: Annotated[list[str] | None, _to_set("arms")] = None,
    folder: Annotated[Path | None, _study_dir("methods")] = None,
    on: On = Where.LOCAL,
    resources: Resources = None,
) -> None:
    """Compare prompting, LoRA, full fine-tuning, multi-task and mitigations on the same rows.

    Shows score against forgetting, with time, memory and bytes. The same command again resumes
    where it was stopped.
    """
    from instil.study.methods import choose_arms
    from instil.study.studies import methods_study

    wanted = [a.strip() for a in (arms or "").split(",") if a.strip()] or None
    where = study_folder(recipe, changes=changes or [], folder=folder, kind="methods")
    study = methods_study(
        recipe,
        changes=changes or [],
        arms=choose_arms(wanted, own=own or []),
        seeds=numbers(seeds, option="--seeds"),
        folder=where,
        model=model,
        say=say,
        engine=engine_of(on, resources or ()),
    )
    from instil.report.methods import methods_verdict

    _show([methods_table(study)], methods_verdict(study), where)


def curve(
    recipe: RecipeFile,
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
    changes: Annotated[list[str] | None, _to_set("runs")] = None,
    folder: Annotated[Path | None, _study_dir("curve")] = None,
    on: On = Where.LOCAL,
    resources: Resources = None,
) -> None:
    """Train on 50, 100, 250 ... rows with several seeds: would more data pay?

    The same command again resumes where it was stopped, and may name more sizes and seeds.
    """
    from instil.study.studies import curve_study

    changed = [*(changes or []), *([] if guard else ["forgetting.tasks=none"])]
    where = study_folder(recipe, changes=changed, folder=folder, kind="curve")
    study = curve_study(
        recipe,
        changes=changed,
        sizes=None if sizes is None else numbers(sizes, option="--sizes", least=1),
        seeds=numbers(seeds, option="--seeds"),
        folder=where,
        say=say,
        engine=engine_of(on, resources or ()),
    )
    from instil.report.curve import curve_verdict

    _show([curve_table(study)], curve_verdict(study), where)


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
    changes: Annotated[list[str] | None, _to_set("stages")] = None,
    folder: Annotated[Path | None, _study_dir("sequence")] = None,
    on: On = Where.LOCAL,
    resources: Resources = None,
) -> None:
    """Train tasks one after another: what does a later one do to an earlier one?

    Shows the matrix of stages by tasks and backward transfer, with and without replay. The same
    command again resumes where it was stopped.
    """
    from instil.study.studies import sequence_study

    where = study_folder(recipes[0], changes=changes or [], folder=folder, kind="sequence")
    study = sequence_study(
        recipes,
        changes=changes or [],
        seeds=numbers(seeds, option="--seeds"),
        replay=replay,
        folder=where,
        say=say,
        engine=engine_of(on, resources or ()),
    )
    from instil.report.sequence import sequence_verdict

    _show(sequence_tables(study), sequence_verdict(study), where)


def generalise(
    recipe: RecipeFile,
    sizes: Annotated[
        str | None,
        typer.Option(
            help="Training examples of an epoch, with commas. [default: as the recipe says]"
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of every arm, with commas.")] = "0",
    own: Annotated[
        list[str] | None,
        typer.Option(
            "--arm",
            metavar="NAME=KEY=VALUE,...",
            help="An arm beside the recipe as it stands: what it changes; may be repeated.",
        ),
    ] = None,
    alone: Annotated[
        bool,
        typer.Option("--alone", help="Also tune on each task by itself: an upper mark."),
    ] = False,
    changes: Annotated[list[str] | None, _to_set("arms")] = None,
    folder: Annotated[Path | None, _study_dir("generalise")] = None,
    on: On = Where.LOCAL,
    resources: Resources = None,
) -> None:
    """Tune on all clusters of tasks but one: does it help on tasks never seen?

    Each cluster is left out once and asked zero-shot, paired by row with the base model. The same
    command again resumes where it was stopped.
    """
    from instil.study.methods import choose_arms
    from instil.study.studies import generalise_study

    where = study_folder(recipe, changes=changes or [], folder=folder, kind="generalise")
    study = generalise_study(
        recipe,
        changes=changes or [],
        arms=choose_arms([], own=own or []),
        sizes=() if sizes is None else numbers(sizes, option="--sizes", least=1),
        seeds=numbers(seeds, option="--seeds"),
        alone=alone,
        folder=where,
        say=say,
        engine=engine_of(on, resources or ()),
    )
    from instil.report.generalise import generalise_verdict

    _show([generalise_table(study)], generalise_verdict(study), where)


def engine_of(on: Where, resources: Sequence[str]) -> MakeEngine:
    """Return what makes the engine that is asked for."""
    from instil.cli.arm import main
    from instil.study.local import here

    pairs = dict(text.partition("=")[::2] for text in resources)
    if not all(pairs.values()):
        raise typer.BadParameter("give NAME=VALUE, such as num_gpus=1", param_hint="--resource")
    if on is Where.LOCAL and pairs:
        raise typer.BadParameter("goes with --on ray or --on slurm", param_hint="--resource")

    def on_ray(_: StudyFolder, __: Device) -> Engine:
        from instil.study.onray import OnRay

        return OnRay(main, resources=pairs)

    def on_slurm(folder: StudyFolder, _: Device) -> Engine:
        from instil.study.onslurm import OnSlurm

        cluster = "local" if on is Where.SUBMITIT else "slurm"
        return OnSlurm(main, folder=folder, resources=pairs, cluster=cluster)

    makers: dict[Where, MakeEngine] = {Where.LOCAL: here, Where.RAY: on_ray}
    return makers.get(on, on_slurm)


def numbers(text: str, *, option: str, least: int = 0) -> tuple[int, ...]:
    """Read whole numbers from `least` on with commas, each once and in the order given."""
    try:
        given = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        given = []
    if not given or min(given) < least or max(given) >= 2**32:
        example = ",".join(str(least + n) for n in range(3))
        raise typer.BadParameter(
            f"{text!r}: give whole numbers such as {example}", param_hint=option
        )
    return tuple(dict.fromkeys(given))


def study_folder(recipe: Path, *, changes: Sequence[str], folder: Path | None, kind: str) -> Path:
    """Return where a study goes, unless the user says: beside the runs of its recipe."""
    from instil.config.recipe import load_recipe, run_name

    if folder is None:
        folder = Path(load_recipe(recipe, overrides=changes).output) / f"{run_name(recipe)}-{kind}"
    if ":/" in str(folder):  # a path has one slash only
        raise typer.BadParameter("a study lies in a folder of this machine", param_hint="--folder")
    return folder


def say(text: str) -> None:
    """Show a line beside the result: on stderr, as progress is."""
    terminal.say(text, err=True)


def _show(tables: Iterable[Table], verdict: Iterable[str], folder: Path) -> None:
    from instil.cli.show import make_console

    console = make_console()
    for part in (*tables, *verdict):
        console.print(part)
    console.print(f"\nreport: {folder / 'report.html'}")


def methods_table(study: MethodsStudy) -> Table:
    """Lay out the arms: score, what was forgotten, and the price."""
    from instil import format as fmt
    from instil.cli.show import filled_table
    from instil.report.parts import axis_name

    rows = []
    for arm in study.arms:
        changed = [fmt.change_figure(c) if c else fmt.MISSING for c in (arm.text, arm.points)]
        costs = fmt.seconds(arm.costs.seconds), fmt.size(arm.costs.bytes_on_disk)
        rows.append((arm.label, fmt.interval(arm.score), *changed, *costs))
    headings = (axis_name(study.metric), "general text, nats", "guard, points", "time", "to store")
    return filled_table(_title(study.tasks), ("", *headings), rows)


def curve_table(study: CurveStudy) -> Table:
    """Lay out the sizes: score, seed by seed and against prompting."""
    from instil import format as fmt
    from instil.cli.show import filled_table
    from instil.report.parts import axis_name

    rows = []
    for point in study.points:
        seeds = ", ".join(fmt.figure(each, study.metric) for each in point.by_seed)
        change = fmt.change_with_interval(point.against_prompting)
        figures = fmt.interval(point.score), seeds, change, fmt.seconds(point.seconds)
        rows.append((fmt.count(point.asked), *figures))
    headings = ("rows", axis_name(study.metric), "seed by seed", "minus prompting", "training")
    return filled_table(_title(study.tasks), headings, rows)


def sequence_tables(study: SequenceStudy) -> list[Table]:
    """Lay out each arm's matrix of stages by tasks."""
    from instil import format as fmt
    from instil.cli.show import filled_table
    from instil.report.sequence import stage_names

    tables = []
    for arm in study.arms:
        lines = zip(stage_names(study), arm.matrix, strict=True)
        rows = [(name, *(fmt.interval(cell) for cell in line)) for name, line in lines]
        title = f"{arm.label}: mean (95 % interval)"
        tables.append(filled_table(title, ("", *study.tasks), rows))
    return tables


def generalise_table(study: GeneraliseStudy) -> Table:
    """Lay out the tasks: base model, each arm and its difference, and tuning on the task alone."""
    from instil import format as fmt
    from instil.cli.show import filled_table

    headings = ["task never seen", "base model"]
    headings += [head for arm in study.arms for head in (arm.label, "minus base")]
    headings += ["on the task alone"] if study.alone else []
    rows = []
    for n, task in enumerate(study.tasks):
        row = [f"{task.task} ({task.cluster})", fmt.interval(task.base)]
        for arm in study.arms:
            row += [fmt.interval(arm.scores[n]), fmt.change_with_interval(arm.against_base[n])]
        rows.append((*row, *([fmt.interval(task.alone)] if task.alone else [])))
    last = ["average", fmt.interval(study.base)]
    for arm in study.arms:
        last += [fmt.interval(arm.average), fmt.change_with_interval(arm.gain)]
    rows.append((*last, *([fmt.interval(study.alone)] if study.alone else [])))
    return filled_table("Tasks never seen: mean (95 % interval)", headings, rows)


def _title(tasks: Sequence[str]) -> str:
    return f"{', '.join(tasks)}: mean (95 % interval)"
