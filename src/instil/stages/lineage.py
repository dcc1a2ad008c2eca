"""Which rows a base model has learnt already, where instil made it: none of them judges it again.

A run keeps digests of the texts that it trains on and that judge it, together with those of its own
base, as `lineage.json`; an export takes the file along (a push does not: a digest tells whoever has
a text that the model has seen it). Where such a model is tuned further, rows that it learnt are
left out of validation and test, and rows that have judged it are not replayed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from instil.data.audit import normalise, read_text
from instil.data.prepare import TaskData
from instil.errors import DataError
from instil.stages.ledger import MODEL
from instil.stages.runfiles import LINEAGE, validated
from instil.types import Part, Row, Task

ASIDE = "lineage-of-study.json"
"""A study's merged models keep theirs under this name: it is handed on, and not applied."""
LEARNT = "learnt by the base model already: left out of {part}"


@dataclass(frozen=True, slots=True)
class Lineage:
    """Digests of texts, of a model and of those that it was made from."""

    trained: tuple[str, ...] = ()
    """Trained on."""
    judged: tuple[str, ...] = ()
    """Tested on."""

    def with_rows(self, data: Sequence[TaskData]) -> Lineage:
        """Return the lineage of what is trained on rows, from a base of this lineage."""
        trained = digests((d.task, row) for d in data for row in d.train)
        judged = digests((d.task, row) for d in data for row in d.test)
        return Lineage(
            tuple(dict.fromkeys((*self.trained, *trained))),
            tuple(dict.fromkeys((*self.judged, *judged))),
        )


LINEAGE_TYPE = TypeAdapter(Lineage)


def digests(rows: Iterable[tuple[Task, Row]]) -> list[str]:
    """Return a digest of each row's text, up to case and punctuation."""
    texts = (normalise(read_text(task, row.fields)) for task, row in rows)
    return [hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16] for text in texts]


def set_aside(folder: Path) -> None:
    """Keep the lineage of a study's model from those of its rows that every stage is asked."""
    if (folder / LINEAGE).is_file():
        os.replace(folder / LINEAGE, folder / ASIDE)


def lineage_of(model: str, *, aside: bool = False) -> Lineage:
    """Return the lineage of a base model: an export of instil, or a run's own `model/`.

    Args:
        model: As in a recipe; nothing is known of a name.
        aside: Whether that of a study's model is wanted too.

    Raises:
        RunError: The file cannot be read.
    """
    path = Path(os.path.expanduser(model))
    places = [path, *([path.resolve().parent] if path.name == MODEL else [])]
    names = (LINEAGE, ASIDE) if aside else (LINEAGE,)
    for file in (place / name for place in places for name in names):
        if file.is_file():
            return validated(LINEAGE_TYPE, file.read_bytes(), where=str(file))
    return Lineage()


def without_learnt(data: TaskData, known: Lineage) -> TaskData:
    """Leave rows out of validation and test that the base model has learnt; they are counted.

    Raises:
        DataError: No row of a part is left.
    """
    trained, counts = frozenset(known.trained), dict[str, int]()
    parts: dict[Part, tuple[Row, ...]] = {}
    for part in (Part.VALIDATION, Part.TEST):
        rows = data.part(part)
        said = digests((data.task, row) for row in rows)
        parts[part] = tuple(r for r, d in zip(rows, said, strict=True) if d not in trained)
        if lost := len(rows) - len(parts[part]):
            counts[LEARNT.format(part=part)] = lost
        if rows and not parts[part]:
            raise DataError(
                f"the base model has learnt every {part} row of {data.task.id} already",
                where=f"task {data.task.id}",
                fix="bring rows that it was not tuned on, or take another base model",
            )
    return data.judged_by(parts, counts=counts) if counts else data
