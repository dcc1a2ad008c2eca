"""`instil check`: everything that can be found out before a run.

Tests: `tests/cli/test_commands.py`.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from instil.cli.options import Changes, RecipeFile
from instil.types import Piece

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from instil.stages.check import Forecast, TaskForecast

TRAINED_STYLE = "bold green"
FEW = 1
"""Examples shown of each task and finding where there are many; `instil preview` has them all."""
_OPEN, _CLOSE = "\u27e6", "\u27e7"


def check(
    recipe: RecipeFile,
    changes: Changes = None,
) -> None:
    """Check a recipe, its tasks and their data, and train nothing.

    Shows the split, class balance, duplicates and lengths, three examples with the tokens that are
    trained on, an estimate of time and memory, and the smallest difference that the test can show.
    """
    from instil.config.recipe import load_recipe

    loaded = load_recipe(recipe, overrides=changes or [])

    from instil.cli.show import make_console
    from instil.stages.check import check_recipe

    say = make_console(stderr=True).print
    show_check(check_recipe(loaded, say=say), recipe=recipe)


def show_check(report: Forecast, *, recipe: Path) -> None:
    """Print what was found, and the next command."""
    from rich.text import Text

    from instil import format as fmt
    from instil.cli.show import make_console
    from instil.report.sections.mix import mix_text
    from instil.report.sections.stages import MANY, forecast_lines

    console = make_console()
    tasks = report.tasks
    said = Counter(warning for task in tasks for warning in task.warnings)
    common = [warning for warning, times in said.items() if times == len(tasks) > 1]
    for task in tasks:
        _show_task(console, task, common=common, shown=FEW if len(tasks) > MANY else None)
    for warning in report.idle:
        console.print(Text(f"warning: {warning}", style="yellow"))
    for warning in common:
        console.print(Text(f"warning: of each task, {warning}", style="yellow"))
    for line in mix_text(report.mix):
        console.print(line)
    for left_out in report.left_out:
        console.print(fmt.without_adapter(left_out))
    console.print()
    for line in forecast_lines(report.stages, [task.task for task in tasks]):
        console.print(line)
    for line in report.guard:
        console.print(line)
    console.print(report.memory)
    console.print(f"computed: {report.computed}")
    count = sum(len(task.warnings) + len(task.findings) for task in tasks) + len(report.idle)
    count -= len(common) * (len(tasks) - 1)
    console.print(f"{fmt.plural(count, 'warning')}; next: instil run {shlex.quote(str(recipe))}")


def _show_task(
    console: Console, task: TaskForecast, *, common: Collection[str], shown: int | None
) -> None:
    """Print a task: of its examples and of each finding's as many as `shown`; None: all."""
    from rich.text import Text

    from instil import format as fmt
    from instil.sanitize import visible

    console.print(Text(task.task, style="bold"))
    facts = [("rows", _counts(task.rows))]
    if task.groups != task.rows:
        facts.append(("groups", _counts(task.groups)))
    facts += [(part, _counts(labels)) for part, labels in task.balance.items()]
    facts.append(("duplicates", _counts(task.removed) or "none"))
    if task.skipped:
        facts.append(("left out", _counts(task.skipped)))
    median, long, longest = task.lengths
    lengths = f"trained on: median {median}, 95 % up to {long}, longest {longest}"
    facts.append(("tokens", f"{lengths}; longest asked {fmt.count(task.longest_asked)}"))
    for name, text in facts:
        console.print(f"  {name:<12}{text}")
    metric = fmt.style(task.metric).label
    shows = f"no difference in {metric}: too few rows or groups"
    if task.smallest_difference < 1:
        smallest = fmt.size_of_change(task.smallest_difference, task.metric)
        shows = f"differences in {metric} from {smallest} on (80 % power; guessed)"
    console.print(f"  {'test shows':<12}{shows}")
    for warning in task.warnings:
        if warning in common:
            continue
        console.print(Text(f"  warning: {warning}", style="yellow"))
    for finding in task.findings:
        console.print(Text(f"  warning: {finding.what}", style="yellow"))
        for example in finding.examples[:shown]:
            console.print(Text(f"           {visible(example)}", style="dim"))
        if finding.fix:
            console.print(Text(f"           to fix: {finding.fix}"))
    if task.previews:
        console.print(f"\n  examples; {_OPEN}these tokens{_CLOSE} are trained on:")
    for pieces in task.previews[:shown]:
        console.print(mask_text(pieces))
    console.print()


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def mask_text(pieces: Sequence[Piece]) -> Text:
    """Draw an example with the trained-on tokens between brackets, in colour where there is any."""
    from rich.text import Text

    from instil.sanitize import visible

    text, inside = Text("  | "), False
    for piece in pieces:
        if piece.trained != inside:
            text.append(_OPEN if piece.trained else _CLOSE)
            inside = piece.trained
        shown = visible(piece.text).replace("\n", "\n  | ")
        text.append(shown, style=TRAINED_STYLE if piece.trained else None)
    return text.append(_CLOSE) if inside else text
