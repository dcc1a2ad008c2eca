"""The mix of a training: what an epoch holds of each task, as text lines and as a table."""

from __future__ import annotations

from collections.abc import Sequence

from instil import format as fmt
from instil.report.page import Table, table
from instil.results.training import MixLine

_HEADS = ("rows", "examples", "few-shot", "tokens", "trained on", "examples / trained on")


def mix_text(mix: Sequence[MixLine]) -> list[str]:
    """Return the mix as lines of one width, a line a task, with a head, a sum and what was dropped.

    Its last column has two shares, of the examples and of the tokens that are trained on: a task
    of long answers weighs more than its examples tell.
    """
    cells = [("an epoch", *_HEADS), *_rows(mix)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            text.rjust(width) if n else text.ljust(width)
            for n, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    return [*lines, *_dropped(mix)]


def mix_table(mix: Sequence[MixLine]) -> Table:
    """Return the mix as a table of the report."""
    note = (
        "Share: of the examples, and of the tokens that are trained on. Rows may come again, or "
        "through several templates."
    )
    note = " ".join((note, *_dropped(mix)))
    heads = ("Task", *map(str.capitalize, _HEADS))
    return table("The first epoch of training", heads, _rows(mix), note)


def _dropped(mix: Sequence[MixLine]) -> list[str]:
    """Say in a sentence which tasks' examples were dropped as too long; empty: none was."""
    counts = [f"{fmt.count(line.dropped)} of {line.task}" for line in mix if line.dropped]
    total = fmt.plural(sum(line.dropped for line in mix), "example")
    return (
        [f"Dropped, longer than train.max_length: {total}, {', '.join(counts)}."] if counts else []
    )


def _rows(mix: Sequence[MixLine]) -> list[tuple[str, ...]]:
    lines = {
        line.task: (line.rows, line.examples, line.few_shot, line.tokens, line.supervised_tokens)
        for line in mix
    }
    totals = tuple(map(sum, zip(*lines.values(), strict=True)))
    rows = []
    for name, figures in (lines | ({"all": totals} if len(mix) > 1 else {})).items():
        shares = (figures[n] / totals[n] if totals[n] else 0.0 for n in (1, 4))
        rows.append((name, *map(fmt.count, figures), " / ".join(map(fmt.percent, shares))))
    return rows
