"""How long each stage takes: as foretold before a run, and as it was."""

from __future__ import annotations

from collections.abc import Mapping

from instil import format as fmt
from instil.report.page import Align, Block, Cell, Column, Table
from instil.results import RunSummary

ALL = "all stages"


def forecast_lines(seconds: Mapping[str, float]) -> list[str]:
    """Return a forecast for people: a heading, a line a stage, and their sum.

    Args:
        seconds: Stage -> seconds.
    """
    lines = {**seconds, ALL: sum(seconds.values())}
    width = max(map(len, lines))
    return [
        "what each stage will take (estimates):",
        *(f"  {name:<{width}}  {fmt.seconds(each):>12}" for name, each in lines.items()),
    ]


def stage_blocks(summary: RunSummary) -> tuple[Block, ...]:
    """Return a table of what each stage took, beside what was foretold; nothing without stages."""
    if not summary.stage_seconds:
        return ()
    timed = (summary.forecast_seconds, summary.stage_seconds, summary.processor_seconds)
    rows = [
        (Cell(name), *(_cell(each.get(name)) for each in timed)) for name in summary.stage_seconds
    ]
    total = (Cell(ALL), *(_cell(sum(each.values()) if each else None) for each in timed))
    columns = (
        Column("Stage", Align.TEXT),
        Column("Foretold"),
        Column("Took"),
        Column("Processor time"),
    )
    note = (
        "Wall time. The processor time is that of all threads together: it tells more where other "
        "work was on the machine. Rows and model come before the forecast."
    )
    return (Table("Time by stage", columns, (*rows, total), note),)


def _cell(seconds: float | None) -> Cell:
    return Cell(fmt.MISSING if seconds is None else fmt.seconds(seconds))
