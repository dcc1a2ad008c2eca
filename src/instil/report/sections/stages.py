"""How long each stage takes: as foretold before a run, and as it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from instil import format as fmt
from instil.report.page import Block, table
from instil.results.run import RunSummary

ALL = "all stages"


MANY = 3
"""Of more tasks than these not each is shown in full: what is foretold of them is added up."""


def forecast_lines(seconds: Mapping[str, float], tasks: Sequence[str]) -> list[str]:
    """Return a forecast for people: a heading, a line a stage, and their sum.

    Args:
        seconds: Stage -> seconds.
        tasks: Ids of the tasks; of many, a kind of stage has one line for all.
    """
    kinds: dict[tuple[str, bool], list[float]] = {}
    for name, each in seconds.items():
        kind, _, task = name.rpartition(" ")
        many = task in tasks and len(tasks) > MANY
        kinds.setdefault((kind if many else name, many), []).append(each)
    lines = {
        f"{kind} {len(each)} tasks" if many else kind: sum(each)
        for (kind, many), each in kinds.items()
    }
    lines[ALL] = sum(seconds.values())
    width = max(map(len, lines))
    return [
        "what each stage will take (estimates, were this machine always as fast as now):",
        *(f"  {name:<{width}}  {fmt.seconds(each):>12}" for name, each in lines.items()),
    ]


def stage_blocks(summary: RunSummary) -> tuple[Block, ...]:
    """Return a table of what each stage took, beside what was foretold; nothing without stages."""
    if not summary.stage_seconds:
        return ()
    timed = [
        {**each, ALL: sum(each.values())} if each else {}
        for each in (summary.forecast_seconds, summary.stage_seconds, summary.processor_seconds)
    ]
    rows = [
        (name, *(fmt.seconds(each[name]) if name in each else fmt.MISSING for each in timed))
        for name in (*summary.stage_seconds, ALL)
    ]
    note = (
        "Wall time. The processor time is that of all threads together: it tells more where other "
        "work was on the machine. Rows and model come before the forecast."
    )
    titles = ("Stage", "Foretold", "Took", "Processor time")
    return (table("Time by stage", titles, rows, note),)
