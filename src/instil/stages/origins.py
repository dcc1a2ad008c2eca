"""What a run is made from, as its ledger has it: a name for people -> a fingerprint.

Tests: `tests/test_whole.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from instil.data.prepare import TaskData
from instil.data.sources.uri import is_public
from instil.files import file_sha256
from instil.stages.provenance import versions
from instil.types import Part, Row, Task

if TYPE_CHECKING:
    from instil.compare.forgetting import GuardTask
    from instil.model.load import ModelFolder

_OF_BASE = "of the base model"
_BASE_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
"""Weights, config, tokenizer and chat template."""
_NOT_SETTINGS = frozenset({"source", "templates", "description", "licence", "rows"})
"""Fields of a task that are noted by themselves, or change no figure."""


def origins(
    data: Sequence[TaskData], folder: ModelFolder, *, device: str, dtype: str
) -> dict[str, str]:
    """Return all that a run is made from beside its recipe.

    Args:
        data: The tasks, split.
        folder: The base model, with the rules of the chat format.
        device: auto, cpu or cuda.
        dtype: auto, bfloat16 or float32.
    """
    from instil.model.load import pick_device, pick_dtype

    processor = pick_device(device)
    computed = str(pick_dtype(dtype, processor)).removeprefix("torch.")
    of_tasks: dict[str, str] = {}
    for d in data:
        split = (d.split.train, d.split.validation, d.split.test)
        noted = (name for name in d.task.__slots__ if name not in _NOT_SETTINGS)
        settings = sorted((name, getattr(d.task, name)) for name in noted)
        of_tasks |= {
            **row_origins(d.task, d.rows),
            f"split of {d.task.id}": _digest(split),
            **template_origins(d.task),
            f"settings of {d.task.id}": _digest(settings),
        }
    return {
        **of_tasks,
        **base_files(folder.path),
        **chat_origins(folder),
        **{f"version of {name}": version for name, version in versions().items()},
        "computing": f"{processor.type}, {computed}",
    }


def row_origins(task: Task, rows: Sequence[Row]) -> dict[str, str]:
    """Return what a task's labels and rows are, as `origins` has it.

    Args:
        task: The task.
        rows: All that are used: train, validation, test, in the split's order.
    """
    uri = task.source.uri
    # A path without the user's folders.
    where = f"{task.id} in {uri if is_public(uri) else Path(uri).name}"
    return {
        f"labels of {where}": _digest((row.id, row.fields.get(task.target)) for row in rows),
        f"rows of {where}": _digest(
            (row.id, sorted(field for field in row.fields.items() if field[0] != task.target))
            for row in rows
        ),
    }


def template_origins(task: Task) -> dict[str, str]:
    """Return what a task's templates are, as `origins` has it."""
    return {f"templates of {task.id}": _digest(task.templates)}


def base_files(path: Path) -> dict[str, str]:
    """Return the files of a base model, each with its SHA-256."""
    files = sorted({file for pattern in _BASE_FILES for file in path.glob(pattern)})
    return {f"{file.name} {_OF_BASE}": file_sha256(file) for file in files}


def is_base_file(name: str) -> bool:
    """Whether a name in `origins` is that of a file of the base model."""
    return name.endswith(_OF_BASE)


def chat_origins(folder: ModelFolder) -> dict[str, str]:
    """Return the chat template that the recipe gives, if it is a file; the model's own is its."""
    rules = folder.chat
    template = Path(rules.template) if rules.template else None
    if template is not None and template.is_file():
        return {f"chat template {template.name}": file_sha256(template)}
    return {}


def data_fingerprint(data: TaskData) -> Mapping[str, str]:
    """Return SHA-256 of the rows in use and of the templates."""
    rows = repr([(r.id, sorted(r.fields.items())) for part in Part for r in data.part(part)])
    return {
        "rows": hashlib.sha256(rows.encode()).hexdigest(),
        "templates": hashlib.sha256(repr(data.templates).encode()).hexdigest(),
        "licence": data.task.licence,
        "source": data.task.source.uri if is_public(data.task.source.uri) else "local",
    }


def guard_origins(guard: Sequence[GuardTask]) -> Mapping[str, str]:
    """Return what the guard's rows are."""
    names = dict.fromkeys(item.id for item in guard)
    return {
        f"rows of the guard task {name}": _digest(item for item in guard if item.id == name)
        for name in names
    }


def _digest(parts: Iterable[object]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(repr(part).encode("utf-8", "surrogatepass"))
        digest.update(b"\n")
    return digest.hexdigest()
