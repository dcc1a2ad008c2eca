"""The ledger of a run: the SHA-256 of every file that a stage wrote, and what it was made from.

`ledger.json` in the run directory. Whatever reads a file of the run later (`--resume`, report,
compare, predict, chat, export) checks it first::

    stages:
      split:     files   split.json: 5e88...
                 inputs  labels of moods in moods.csv: 9f86...
                         model.safetensors of the base model: 60d0...
      training:  files   state/training.json, steps.jsonl, model/adapter_model.safetensors ...

A stage that is not in the ledger is not finished, whatever files of it lie there: it is done again.
So a stage first writes its files, then its entry; and whoever changes a file says so first
(`release`).

Tests: `tests/test_whole.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from instil.errors import Problem, RefusedError
from instil.files import file_sha256, is_scratch, write_whole
from instil.stages.mirror import publish

LEDGER = "ledger.json"
MODEL = "model"
CARD = f"{MODEL}/README.md"
"""Written anew with each report, and for people to edit: not in the ledger."""
PROBABILITIES = f"{MODEL}/probabilities.json"
"""Entered by its own stage alone, and read only where the ledger has it: what a stopped stage left
is written anew."""
_LOADED = frozenset({".safetensors", ".bin", ".json", ".jinja", ".model"})
"""Endings of what is loaded from `model/` only because it lies there."""
_PLURAL = frozenset({"rows", "labels", "templates", "settings"})


@dataclass(frozen=True, slots=True)
class Entry:
    """A finished stage."""

    files: Mapping[str, str]
    """Path within the run directory -> SHA-256; empty while it is being changed."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """What it was made from -> a fingerprint, or the value itself where that is short."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """All finished stages of a run."""

    run: str = ""
    """The run's own id, as in its manifest."""
    stages: Mapping[str, Entry] = field(default_factory=dict)
    """Name -> entry, in the order in which they were finished."""


_LEDGER = TypeAdapter(Ledger)
_SEAL = "sha256"
_CHANGING = ""


def write_sealed(path: Path, content: Mapping[str, object]) -> None:
    """Write a mapping as JSON, with the SHA-256 of itself."""
    content = json.loads(json.dumps(content))  # as it will be read
    told = {**content, _SEAL: _sealed(content)}
    write_whole(path, json.dumps(told, indent=1, ensure_ascii=False).encode())


def read_sealed(path: Path, *, fix: str = "bring it back, or begin a new run") -> dict[str, Any]:
    """Read what `write_sealed` wrote.

    Args:
        path: The file.
        fix: What can be done where it was changed.

    Raises:
        RefusedError: It is not what was written.
    """
    try:
        content = json.loads(path.read_bytes())
        seal = content.pop(_SEAL)
        whole = seal == _sealed(content)
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        what = f"{path.name} is not what was written"
        raise RefusedError(what, where=str(path), fix=fix)
    return dict(content)


def _sealed(content: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def load_ledger(folder: Path) -> Ledger:
    """Read a run directory's ledger; an empty one where there is none.

    Raises:
        RefusedError: It is not what was written.
    """
    path = folder / LEDGER
    return _LEDGER.validate_python(read_sealed(path)) if path.is_file() else Ledger()


def save_ledger(folder: Path, ledger: Ledger) -> None:
    """Write the ledger; it is whole or the one before. What a run at an address has is sent."""
    write_sealed(folder / LEDGER, asdict(ledger))
    publish(folder)


def record(
    folder: Path, stage: str, files: Iterable[str], *, inputs: Mapping[str, str] | None = None
) -> None:
    """Enter a finished stage; files that an earlier stage wrote and this one wrote anew are its.

    Args:
        folder: The run directory.
        stage: Its name.
        files: Paths within the run directory; a folder stands for the files in it.
        inputs: What it was made from.
    """
    paths = [path for name in files for path in _within(folder, name)]
    ledger = load_ledger(folder)
    others = {
        name: replace(each, files={p: h for p, h in each.files.items() if p not in paths})
        for name, each in ledger.stages.items()
        if name != stage
    }
    entry = Entry({path: file_sha256(folder / path) for path in paths}, inputs or {})
    save_ledger(folder, replace(ledger, stages={**others, stage: entry}))


def release(folder: Path, paths: Sequence[str]) -> None:
    """Note of files that they are about to be changed; a folder stands for all in it.

    Until a stage enters them anew they may be anything, or gone.
    """
    ledger = load_ledger(folder)
    stages = {
        name: replace(
            entry,
            files={
                path: _CHANGING if any(_is_in(path, each) for each in paths) else digest
                for path, digest in entry.files.items()
            },
        )
        for name, entry in ledger.stages.items()
    }
    if stages != ledger.stages:
        save_ledger(folder, replace(ledger, stages=stages))


def forget(folder: Path, stages: Iterable[str]) -> None:
    """Drop the entries of stages."""
    ledger = load_ledger(folder)
    left = {name: entry for name, entry in ledger.stages.items() if name not in set(stages)}
    if left.keys() != ledger.stages.keys():
        save_ledger(folder, replace(ledger, stages=left))


def _within(folder: Path, name: str) -> list[str]:
    place = folder / name
    if not place.is_dir():
        return [name]
    files = sorted(p for p in place.rglob("*") if p.is_file() and not is_scratch(p))
    paths = (file.relative_to(folder).as_posix() for file in files)
    return [path for path in paths if path not in (CARD, PROBABILITIES)]


def _is_in(path: str, name: str) -> bool:
    return path == name or path.startswith(f"{name}/")


# --- what differs ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as it was."""

    what: str
    """A sentence that names it."""
    stage: str
    """The stage that wrote it, or was made from it."""
    before: str = ""
    """What it was, where that is short enough to be shown."""
    now: str = ""
    """What it is."""


def file_differences(folder: Path, ledger: Ledger) -> list[Difference]:
    """Return the files that are gone, or not what the ledger says; and files put into `model/`."""
    differences = []
    for stage, entry in ledger.stages.items():
        for path, digest in entry.files.items():
            if digest == _CHANGING:
                continue
            if not (folder / path).is_file():
                differences.append(Difference(f"{path} is gone", stage))
            elif file_sha256(folder / path) != digest:
                written = "was trained" if _is_in(path, MODEL) else f"the stage {stage} wrote"
                differences.append(Difference(f"{path} is not what {written}", stage))
    known = {path: stage for stage, entry in ledger.stages.items() for path in entry.files}
    of_model = [stage for path, stage in known.items() if _is_in(path, MODEL)]
    if of_model and (folder / MODEL).is_dir():
        differences += [
            Difference(f"{path} was not there when the model was trained", of_model[0])
            for path in _within(folder, MODEL)
            if path not in known and Path(path).suffix in _LOADED
        ]
    return differences


def input_differences(
    stage: str, before: Mapping[str, str], now: Mapping[str, str]
) -> list[Difference]:
    """Return what a stage was made from and is not as it was then."""
    differences = []
    for name in dict.fromkeys((*before, *now)):
        was, is_now = before.get(name, ""), now.get(name, "")
        if was == is_now:
            continue
        has, are = ("have", "are") if name.split()[0] in _PLURAL else ("has", "is")
        told = f"{has} changed" if was and is_now else f"{are} gone" if was else f"{has} been added"
        what = f"{name} {told} since the stage {stage} was done"
        short = max(len(was), len(is_now)) < 40
        differences.append(Difference(what, stage, *((was, is_now) if short else ())))
    return differences


def refuse(folder: Path, differences: Sequence[Difference], *, stages: Iterable[str]) -> None:
    """Tell what is not as it was; nothing where nothing differs.

    Args:
        folder: The run directory.
        differences: What differs.
        stages: The finished stages, in order: the first one that is touched is named in the fix.

    Raises:
        RefusedError: Something differs.
    """
    if not differences:
        return
    touched = {each.stage for each in differences}
    first = next(stage for stage in (*stages, *touched) if stage in touched)
    again = f"instil run --resume {folder} --restart-from {first}"
    problems = [
        Problem(each.what, where=str(folder), found=each.now, allowed=each.before)
        for each in differences
    ]
    fix = f"bring back what it was; or do this stage and all later ones anew: {again}"
    raise RefusedError(*problems[:-1], replace(problems[-1], fix=fix))
