"""Where a run comes from: its data, the tokens it trained on, and its manifest."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence

from instil import format as fmt
from instil.report.page import Block, Facts, Note, Run, Tokens, table
from instil.results.tasks import TaskResult
from instil.types import Part, Piece


def data_blocks(task: TaskResult) -> tuple[Block, ...]:
    """Return the sizes of the parts, their labels, and what was taken out of them."""

    def counted(counts: Mapping[str, int], part: str) -> str:
        return fmt.count(counts[part]) if part in counts else fmt.MISSING

    parts = [*Part, *(name for name in task.rows if name not in list(Part))]
    sizes = [(part, counted(task.rows, part), counted(task.groups, part)) for part in parts]
    blocks: list[Block] = [table("Rows and groups", ("Part", "Rows", "Groups"), sizes)]
    in_data = {word: value for value, word in reversed([*task.labels.items()])}
    rows = []
    for label in dict.fromkeys(itertools.chain.from_iterable(task.balance.values())):
        value = in_data.get(label, label)
        cells = [label if value == label else f"{label} ({value} in the data)"]
        for counts in task.balance.values():
            total, number = sum(counts.values()), counts.get(label, 0)
            share = f" ({fmt.percent(number / total)})" if total else ""
            cells.append(f"{fmt.count(number)}{share}")
        rows.append(cells)
    if rows:
        blocks.append(table("Labels by part", ("Label", *task.balance), rows))
    facts: dict[str, str] = {}
    for name, counts in (("Removed", task.removed), ("Skipped", task.skipped)):
        facts |= {f"{name}: {why}": fmt.count(number) for why, number in counts.items()}
        facts |= {} if counts else {name: "none"}
    return (*blocks, Facts("Taken out and left out", facts))


def token_blocks(pieces: Sequence[Piece]) -> tuple[Block, ...]:
    """Return one training example with the trained-on tokens marked, and how many they are."""
    if not pieces:
        return (Note("No example was kept."),)
    trained = [piece for piece in pieces if piece.trained]
    share = fmt.percent(len(trained) / len(pieces))
    counts = f"{fmt.count(len(trained))} of {fmt.plural(len(pieces), 'token')}"
    last = f"; the last of them is {trained[-1].text!r}." if trained else "."
    note = f"{counts} are trained on ({share}){last}"
    return (Note(note), Tokens(token_runs(pieces)))


def token_runs(pieces: Sequence[Piece]) -> tuple[Run, ...]:
    """Return the pieces gathered into runs of one fate, in order.

    >>> pieces = [Piece("a", False), Piece("b", True), Piece("c", True)]
    >>> [len(run.pieces) for run in token_runs(pieces)]
    [1, 2]
    """
    grouped = itertools.groupby(pieces, key=lambda piece: piece.trained)
    return tuple(Run(tuple(run), trained) for trained, run in grouped)


def manifest_facts(manifest: Mapping[str, object]) -> tuple[Facts, ...]:
    """Return the manifest as lists of facts: plain keys first, then one list a nested mapping."""
    # The stages' times stand among the costs already.
    timed = ("stage_seconds", "stage_processor_seconds", "forecast_seconds")
    known = {key: value for key, value in manifest.items() if key not in timed}
    nested = {key: value for key, value in known.items() if isinstance(value, Mapping)}
    plain = {key: value for key, value in known.items() if key not in nested}
    groups = [Facts("Manifest", flatten(plain))] if plain else []
    return (*groups, *(Facts(str(key), flatten(value)) for key, value in nested.items()))


def flatten(value: object, name: str = "") -> dict[str, str]:
    """Return nested mappings as facts with dotted names; lists of plain values in one line.

    >>> flatten({"seed": 7, "versions": {"torch": "2.13"}})
    {'seed': '7', 'versions.torch': '2.13'}
    """
    if isinstance(value, Mapping) and value:
        facts: dict[str, str] = {}
        for key, each in value.items():
            facts |= flatten(each, f"{name}.{key}" if name else str(key))
        return facts
    text = json.dumps(value, ensure_ascii=False, default=str)
    if name.endswith("bytes") and isinstance(value, int):
        text = f"{fmt.count(value)} ({fmt.size(value)})"
    elif isinstance(value, str):
        text = value
    elif isinstance(value, (list, tuple)) and all(isinstance(each, (str, int)) for each in value):
        text = ", ".join(map(str, value)) or "none"
    elif value is None or value == {}:
        text = "none"
    return {name: text}
