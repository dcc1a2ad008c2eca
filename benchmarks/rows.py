"""The rows that both sides of a benchmark see: rendered once, written as JSON Lines."""

from __future__ import annotations

import json
from pathlib import Path

from instil.data.build import pick_exemplars, render_example, training_examples
from instil.data.prepare import TaskData, prepare
from instil.tasks.task import load_task
from instil.types import Example


def load(task: str, *, train: int, validation: int) -> TaskData:
    return prepare(
        load_task(task),
        train=train,
        validation=validation,
        test=20,
        seed=0,
        near_duplicates=0.8,
    )


def training_rows(path: Path, *, task: str, rows: int, templates: tuple[str, ...] = ()) -> None:
    """Write {messages, completion} lines: one example a row."""
    data = load(task, train=rows, validation=20)
    chosen = [t for t in data.templates if not templates or t.id in templates]
    examples = training_examples(data.task, data.train, chosen, per_row="one", seed=0, epoch=0)
    write(path, examples)


def scoring_rows(path: Path, *, task: str, rows: int, shots: int, template: str) -> None:
    """Write {messages, completion, choices} lines: one prompt a row, exemplars the same in all."""
    data = load(task, train=60, validation=rows)
    chosen = next(t for t in data.templates if t.id == template)
    exemplars = pick_exemplars(data.task, data.train, shots=shots, seed=0)
    write(
        path,
        [render_example(data.task, chosen, row, exemplars=exemplars) for row in data.validation],
    )


def write(path: Path, examples: list[Example] | tuple[Example, ...]) -> None:
    lines = [
        json.dumps(
            {
                "id": e.id,
                "messages": [{"role": m.role, "content": m.content} for m in e.messages],
                "completion": e.target,
                "choices": list(e.choices),
            }
        )
        for e in examples
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
