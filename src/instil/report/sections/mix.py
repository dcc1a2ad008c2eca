"""The mix of a training: what an epoch holds of each task, as text lines and as a table."""

from __future__ import annotations

from collections.abc import Sequence

from instil import format as fmt
from instil.report.page import Align, Block, Cell, Column, Note, Table
from instil.results import MixLine

_HEADS = ("rows", "examples", "few-shot", "tokens", "trained on", "examples / trained on")


def mix_text(mix: Sequence[MixLine]) -> list[str]:
    """Return the mix as lines of one width, a line a task, with a head and a sum.

    Its last column has two shares, of the examples and of the tokens that are trained on: a task
    of long answers weighs more than its examples tell.
    """
    cells = [("an epoch", *_HEADS), *((name, *figures) for name, figures in _figures(mix))]
    widths = [max(len(row[n]) for row in cells) for n in range(len(cells[0]))]
    return [
        "  ".join(
            text.ljust(width) if n == 0 else text.rjust(width)
            for n, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]


def mix_blocks(mix: Sequence[MixLine]) -> tuple[Block, ...]:
    """Return the mix as a table of the report."""
    if not mix:
        return (Note("What an epoch held was not recorded."),)
    columns = (Column("Task", Align.TEXT), *(Column(head.capitalize()) for head in _HEADS))
    rows = tuple((Cell(name), *map(Cell, figures)) for name, figures in _figures(mix))
    note = (
        "Share: of the examples, and of the tokens that are trained on. Rows may come again, or "
        "through several templates."
    )
    return (Table("The first epoch of training", columns, rows, note),)


def _figures(mix: Sequence[MixLine]) -> list[tuple[str, tuple[str, ...]]]:
    total = MixLine(
        "all",
        *(
            sum(getattr(line, name) for line in mix)
            for name in ("rows", "examples", "few_shot", "tokens", "supervised_tokens")
        ),
    )
    lines = [*mix, total] if len(mix) > 1 else list(mix)
    return [(line.task, _line(line, total)) for line in lines]


def _line(line: MixLine, total: MixLine) -> tuple[str, ...]:
    shares = (
        fmt.percent(part / whole if whole else 0.0)
        for part, whole in (
            (line.examples, total.examples),
            (line.supervised_tokens, total.supervised_tokens),
        )
    )
    counts = (line.rows, line.examples, line.few_shot, line.tokens, line.supervised_tokens)
    return (*map(fmt.count, counts), " / ".join(shares))
