"""Where a run comes from: its data, the tokens it trained on, and its manifest."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence

from instil import format as fmt
from instil.report.page import (
    Align,
    Block,
    Cell,
    Column,
    Fact,
    Facts,
    Note,
    Run,
    Table,
    Tokens,
)
from instil.results import TaskResult
from instil.types import Part, Piece


def data_blocks(task: TaskResult) -> tuple[Block, ...]:
    """Return the sizes of the parts, their labels, and what was taken out of them."""
    columns = (Column("Part", Align.TEXT), Column("Rows"), Column("Groups"))
    parts = [*Part, *(name for name in task.rows if name not in list(Part))]
    rows = tuple(
        (Cell(part), Cell(_counted(task.rows, part)), Cell(_counted(task.groups, part)))
        for part in parts
    )
    sizes = Table("Rows and groups", columns, rows)
    left_out = Facts(
        "Taken out and left out",
        (*_counts("Removed", task.removed), *_counts("Skipped", task.skipped)),
    )
    return (sizes, *_balance(task), left_out)


def token_blocks(pieces: Sequence[Piece]) -> tuple[Block, ...]:
    """Return one training example with the trained-on tokens marked, and how many they are."""
    if not pieces:
        return (Note("No example was kept."),)
    trained = [piece for piece in pieces if piece.trained]
    share = fmt.percent(len(trained) / len(pieces))
    note = (
        f"{fmt.count(len(trained))} of {fmt.plural(len(pieces), 'token')} are trained on ({share})"
    )
    last = f"; the last of them is {trained[-1].text!r}." if trained else "."
    return (Note(note + last), Tokens(token_runs(pieces)))


def manifest_facts(manifest: Mapping[str, object]) -> tuple[Facts, ...]:
    """Return the manifest as lists of facts: plain keys first, then one list a nested mapping."""
    # The stages' times stand among the costs already.
    timed = ("stage_seconds", "stage_processor_seconds", "forecast_seconds")
    known = {key: value for key, value in manifest.items() if key not in timed}
    nested = {key: value for key, value in known.items() if isinstance(value, Mapping)}
    plain = {key: value for key, value in known.items() if key not in nested}
    groups = [Facts("Manifest", flatten(plain))] if plain else []
    groups += [Facts(str(key), flatten(value)) for key, value in nested.items()]
    return tuple(groups)


def token_runs(pieces: Sequence[Piece]) -> tuple[Run, ...]:
    """Return the pieces gathered into runs of one fate, in order.

    >>> pieces = [Piece("a", False), Piece("b", True), Piece("c", True)]
    >>> [len(run.pieces) for run in token_runs(pieces)]
    [1, 2]
    """
    grouped = itertools.groupby(pieces, key=lambda piece: piece.trained)
    return tuple(Run(tuple(run), trained) for trained, run in grouped)


def flatten(value: object, name: str = "") -> tuple[Fact, ...]:
    """Return nested mappings as facts with dotted names; lists of plain values in one line.

    >>> flatten({"seed": 7, "versions": {"torch": "2.13"}})
    (Fact(name='seed', value='7'), Fact(name='versions.torch', value='2.13'))
    """
    if isinstance(value, Mapping) and value:
        found = (
            flatten(each, f"{name}.{key}" if name else str(key)) for key, each in value.items()
        )
        return tuple(itertools.chain.from_iterable(found))
    if name.endswith("bytes") and isinstance(value, int):
        return (Fact(name, f"{fmt.count(value)} ({fmt.size(value)})"),)
    return (Fact(name, _plain(value)),)


def _balance(task: TaskResult) -> tuple[Block, ...]:
    labels = tuple(dict.fromkeys(itertools.chain.from_iterable(task.balance.values())))
    if not labels:
        return ()
    parts = tuple(task.balance)
    columns = (Column("Label", Align.TEXT), *(Column(part) for part in parts))
    rows = tuple(
        (
            Cell(_with_value(task, label)),
            *(_balance_cell(task.balance[part], label) for part in parts),
        )
        for label in labels
    )
    return (Table("Labels by part", columns, rows),)


def _with_value(task: TaskResult, label: str) -> str:
    """The label and, where it is a word for another value in the data, that value."""
    value = next((value for value, word in task.labels.items() if word == label), label)
    return label if value == label else f"{label} ({value} in the data)"


def _balance_cell(counts: Mapping[str, int], label: str) -> Cell:
    total = sum(counts.values())
    number = counts.get(label, 0)
    share = f" ({fmt.percent(number / total)})" if total else ""
    return Cell(f"{fmt.count(number)}{share}")


def _counted(counts: Mapping[str, int], part: str) -> str:
    return fmt.count(counts[part]) if part in counts else fmt.MISSING


def _counts(name: str, counts: Mapping[str, int]) -> list[Fact]:
    if not counts:
        return [Fact(name, "none")]
    return [Fact(f"{name}: {why}", fmt.count(number)) for why, number in counts.items()]


def _plain(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)) and all(isinstance(each, (str, int)) for each in value):
        return ", ".join(map(str, value)) or "none"
    if value is None or value == {}:
        return "none"
    return json.dumps(value, ensure_ascii=False, default=str)
