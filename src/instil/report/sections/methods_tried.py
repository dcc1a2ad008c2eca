"""What `method: auto` tried and which way it took: sentences and a table."""

from __future__ import annotations

from instil import format as fmt
from instil.report.page import Align, Block, Cell, Column, Note, Table, Tone
from instil.report.sections.keeping import MEASURED, chosen_on, measured_cells
from instil.results import Methods, TriedMethod


def methods_lines(found: Methods | None) -> list[str]:
    """Return a line a way that was tried, and the pick."""
    if found is None:
        return []
    lines = [f"Tried {each.name}: {_told(each)}." for each in found.tried]
    return [*lines, f"Taken: {found.tried[found.chosen].name}; {found.why}."]


def methods_blocks(found: Methods | None) -> tuple[Block, ...]:
    """Return the pick, and the table of what was tried."""
    if found is None:
        return ()
    columns = (Column("Method", Align.TEXT), *MEASURED, Column("Time"))
    note = (
        f"{chosen_on(found.guard_rows, found.tried)} What was taken is what everything else on "
        "this page is measured with; test rows had no part in the choice."
    )
    lines = tuple(_row(each, taken=n == found.chosen) for n, each in enumerate(found.tried))
    table = Table("Methods that were tried", columns, lines, note)
    return (Note(methods_lines(found)[-1]), table)


def _told(each: TriedMethod) -> str:
    parts = [f"validation {fmt.percent(each.score)}"]
    if each.points is not None:
        parts.append(f"guard {fmt.signed(each.points, 1)} points")
    if each.nats is not None:
        parts.append(f"{fmt.signed(each.nats, 3)} nats per token")
    return ", ".join([*parts, fmt.seconds(each.seconds)])


def _row(each: TriedMethod, *, taken: bool) -> tuple[Cell, ...]:
    return (
        Cell(each.name, "taken" if taken else "", Tone.CHOSEN if taken else Tone.PLAIN),
        *measured_cells(each),
        Cell(fmt.seconds(each.seconds)),
    )
