"""What the tests of rendered rows share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from instil.data.build import Asked, drawn_templates, render_all
from instil.types import Example, Row, Task, Template


def training_examples(
    task: Task,
    rows: Iterable[Row],
    templates: Sequence[Template],
    *,
    per_row: str,
    seed: int,
    epoch: int,
) -> Iterator[Example]:
    """Yield the training rows of one epoch, rendered, in the order of the rows."""
    return render_all(
        Asked(task, template, row)
        for row in rows
        for template in drawn_templates(row, templates, per_row=per_row, seed=seed, draw=epoch)
    )
