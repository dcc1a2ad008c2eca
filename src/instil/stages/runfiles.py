"""The files of a run directory, read back and held against the ledger.

What stands in which file is told by `instil.stages.directory`, which writes them.

Tests: `tests/stages/test_lock.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from instil.errors import Problem, RefusedError, RunError
from instil.files import file_sha256
from instil.results.probabilities import Fitted
from instil.results.run import RunSummary
from instil.stages import ledger
from instil.stages.ledger import LEDGER, Ledger, load_ledger, read_sealed
from instil.stages.older import of_today
from instil.types import Step, Task

FORMAT_VERSION = 2
"""2: with a ledger. A finished run of format 1 is still read, without any check."""
RECIPE, MANIFEST, SUMMARY = "recipe.yaml", "manifest.json", "summary.json"
SPLITS, STEPS, REPORT = "split.json", "steps.jsonl", "report.html"
TASKS, LINEAGE = "tasks.json", "lineage.json"
ASKED_ALONE = "asked_alone"
"""What a manifest says of a model that is asked, and not trained."""
TRAINING, SUMMED_UP = "training", "summary"
"""The stages that write `model/` and `summary.json`."""
T = TypeVar("T")
_STEP = TypeAdapter(Step)
SUMMARY_TYPE = TypeAdapter(RunSummary)
_MANIFEST = TypeAdapter(dict[str, Any])
_FITTED = TypeAdapter(dict[str, Fitted])
TASKS_TYPE = TypeAdapter(dict[str, Task])
_SCORES = TypeAdapter(list[dict[str, Any]])


def step_line(step: Step) -> bytes:
    """Return a step as a line of `steps.jsonl`, without its end."""
    return _STEP.dump_json(step)


def steps_digest(before: str, step: Step) -> str:
    """Return the digest of all steps so far, from that of the steps before; empty: there are none.

    A chain, so that a checkpoint can tell which steps led to it.
    """
    return chained([step_line(step)], before=before)


def chained(lines: Sequence[bytes], *, before: str = "") -> str:
    """Return the digest of lines of `steps.jsonl`, after that of those `before` them."""
    for line in lines:
        before = hashlib.sha256(before.encode() + line).hexdigest()
    return before


def validated(adapter: TypeAdapter[T], data: bytes, *, where: str) -> T:
    """Read a file of a run, or a line of one.

    Raises:
        RunError: It is not what was written.
    """
    try:
        return adapter.validate_json(of_today(data))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RunError(
            "this file of a run cannot be read",
            where=where,
            found=f"{place}: {first['msg']}" if place else first["msg"],
            fix="it was changed, or written by another version: make the run anew",
        ) from error


def require_whole(folder: Path) -> None:
    """See that every file of a run's finished stages is what was written.

    Runs of format 1 have no ledger, and are not checked.

    Raises:
        RefusedError: Something is gone or changed, each by its name.
    """
    kept = run_ledger(folder)
    differences = ledger.file_differences(folder, kept)
    for arm in sorted(folder.glob("arms/*")):  # what `method: auto` has tried
        for each in ledger.file_differences(arm, load_ledger(arm)):
            told = f"arms/{arm.name}/{each.what}"
            differences.append(replace(each, what=told, stage="methods"))
    ledger.refuse(folder, differences, stages=kept.stages)


def require_same(folder: Path, now: Mapping[str, str], *, which: Callable[[str], bool]) -> None:
    """See that some of what a run was made from is what it was.

    Args:
        folder: The run directory.
        now: Name -> fingerprint, as it is now.
        which: Whether a name is to be compared.

    Raises:
        RefusedError: Something differs, each by its name.
    """
    kept = run_ledger(folder)
    for stage, entry in kept.stages.items():
        before = {name: each for name, each in entry.inputs.items() if which(name)}
        if before:
            ledger.refuse(folder, ledger.input_differences(stage, before, now), stages=kept.stages)


def run_ledger(folder: Path) -> Ledger:
    """Read the ledger of a run; an empty one where its format has none.

    Raises:
        RefusedError: It is gone, cannot be read, or is another run's.
    """
    if not (folder / MANIFEST).is_file():
        if (folder / LEDGER).is_file():
            raise RefusedError(gone(folder, MANIFEST))
        return Ledger()
    manifest = load_manifest(folder)
    if manifest.get("format_version", 1) == 1:
        return Ledger()
    if not (folder / LEDGER).is_file():
        raise RefusedError(gone(folder, LEDGER))
    kept = load_ledger(folder)
    if kept.run != manifest.get("run_id"):
        what = f"{LEDGER} and {MANIFEST} are not of the same run"
        fix = "bring back the run's own"
        raise RefusedError(what, where=str(folder), fix=fix)
    return kept


def gone(folder: Path, name: str) -> Problem:
    """Say that a file is gone without which nothing can be checked."""
    fix = "bring it back, or begin a new run"
    return Problem(
        f"{name} is gone: nothing in this run can be checked", where=str(folder), fix=fix
    )


def load_manifest(folder: Path) -> dict[str, Any]:
    """Read `manifest.json`; an empty mapping where there is none.

    Raises:
        RefusedError: It is not what was written.
        RunError: It cannot be read.
    """
    path = folder / MANIFEST
    if not path.exists():
        return {}
    known = validated(_MANIFEST, path.read_bytes(), where=str(path))
    return known if known.get("format_version", 0) == 1 else read_sealed(path)


def load_steps(folder: Path) -> tuple[Step, ...]:
    """Read `steps.jsonl`; a last line cut short by a crash is passed over."""
    return tuple(
        validated(_STEP, line, where=f"{folder / STEPS}:{number}")
        for number, line in enumerate(step_lines(folder), start=1)
    )


def step_lines(folder: Path) -> list[bytes]:
    """Return the whole lines of `steps.jsonl`, undecoded."""
    path = folder / STEPS
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def load_scores(folder: Path, name: str) -> list[dict[str, Any]]:
    """Read `scores/<name>.jsonl`.

    Raises:
        RunError: The run has no such scores.
    """
    path = folder / "scores" / f"{name}.jsonl"
    if not path.is_file():
        raise RunError(f"{folder} has no scores of its test", fix="finish it: instil run --resume")
    lines = path.read_bytes().splitlines()
    with contextlib.suppress(ValidationError):  # at once: several times as fast as one by one
        found = _SCORES.validate_json(b"[" + b",".join(lines) + b"]")
        if len(found) == len(lines):
            return found
    return [
        validated(_MANIFEST, line, where=f"{path}:{number}")
        for number, line in enumerate(lines, start=1)
    ]


def load_probabilities(folder: Path) -> dict[str, Fitted]:
    """Read `model/probabilities.json`: task -> what was fitted; empty where a run has none.

    Raises:
        RunError: It cannot be read.
    """
    path = folder / ledger.PROBABILITIES
    stages = run_ledger(folder).stages.values()
    if not any(ledger.PROBABILITIES in entry.files for entry in stages) or not path.is_file():
        return {}
    return validated(_FITTED, path.read_bytes(), where=str(path))


def load_tasks(folder: Path) -> dict[str, Task]:
    """Read `tasks.json`: the tasks as the run asked them, by id; empty in runs from before it.

    Raises:
        RefusedError: It is not what the run has written.
        RunError: It cannot be read.
    """
    path = folder / TASKS
    written = [e.files[TASKS] for e in run_ledger(folder).stages.values() if TASKS in e.files]
    if not written:
        return {}
    if not path.is_file():
        raise RefusedError(gone(folder, TASKS))
    if file_sha256(path) != written[-1]:
        raise RefusedError(f"{TASKS} is not what was written", where=str(folder))
    return validated(TASKS_TYPE, path.read_bytes(), where=str(path))


def is_finished(folder: Path) -> bool:
    """Whether a folder is a run with all its figures."""
    if not (folder / SUMMARY).is_file():
        return False
    kept = run_ledger(folder)
    return not kept.run or SUMMED_UP in kept.stages


def require_training(folder: Path) -> None:
    """See that a folder is not that of a model which a study asks, and does not train.

    Raises:
        RunError: It is.
    """
    if load_manifest(folder).get(ASKED_ALONE):
        raise RunError(
            "nothing is trained here: a study asked this model its test rows",
            where=str(folder),
            fix="see the study's own report.html",
        )


def load_summary(folder: Path) -> RunSummary:
    """Read `summary.json`.

    Raises:
        RunError: The folder is no finished run, or of another format.
    """
    path = folder / SUMMARY
    require_training(folder)
    if not is_finished(folder):
        unfinished = (folder / RECIPE).is_file()
        raise RunError(
            f"{folder} is {'an unfinished run' if unfinished else 'not a run directory'}",
            fix=f"instil run --resume {folder}" if unfinished else "give a folder under runs/",
        )
    return validated(SUMMARY_TYPE, path.read_bytes(), where=str(path))
