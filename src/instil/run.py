"""The run directory: the only contract on disk.

::

    recipe.yaml    resolved, every default written out
    manifest.json  format version, versions, machine, seeds, fingerprints, when the test was opened
    split.json     which rows train, validate, test
    steps.jsonl    one line a step
    scores/*.jsonl one line an example
    state/*.json   finished stages, for --resume
    checkpoints/   the state of training, for --resume
    summary.json   every figure the report shows
    report.html    one self-contained file
    model/         adapter or weights, tokenizer, chat template, model card

Every file is written under a temporary name and renamed, so that what is there is whole.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from instil.errors import Problem, RunError
from instil.recipe import Recipe, load_recipe, to_yaml
from instil.results import RunSummary
from instil.types import Step

FORMAT_VERSION = 1
RECIPE, SUMMARY = "recipe.yaml", "summary.json"
PACKAGES = ("instil", "torch", "transformers", "peft", "tokenizers", "scikit-learn", "safetensors")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Run:
    """An open run directory."""

    folder: Path
    """Where it lies."""
    recipe: Recipe
    """As resolved when it was begun."""
    shared: Path | None = None
    """Where runs of one study keep what is the same for several of them; None: nowhere."""

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.resolve().name

    @property
    def model(self) -> Path:
        """What is handed over."""
        return self.folder / "model"

    @property
    def checkpoint(self) -> Path:
        """The state of the training."""
        return self.folder / "checkpoints" / "last"

    def kept(self, stage: str, kind: Any, compute: Callable[[], T]) -> T:
        """Return a stage's result: from `state/`, if it finished before, else compute and keep it.

        Args:
            stage: Names the file.
            kind: The result's type, as pydantic takes it.
            compute: Called where there is nothing yet.
        """
        path = self.folder / "state" / f"{stage}.json"
        adapter: TypeAdapter[T] = TypeAdapter(kind)
        if path.exists():
            return _validated(adapter, path.read_bytes(), where=str(path))
        result = compute()
        write_whole(path, adapter.dump_json(result, indent=1))
        return result

    def shared_or(
        self, name: str, kind: Any, compute: Callable[[], T], *, inputs: Sequence[object]
    ) -> T:
        """Take a result over from another run of the study that had the same inputs, or compute it.

        Args:
            name: Of the result; names the file.
            kind: Its type, as pydantic takes it.
            compute: Called where no run had the same inputs yet.
            inputs: Everything that the result depends on, each with a `repr` that tells it.
        """
        if self.shared is None:
            return compute()
        digest = hashlib.sha256("\n".join(map(repr, inputs)).encode()).hexdigest()
        path = self.shared / f"{name}-{digest[:20]}.json"
        adapter: TypeAdapter[T] = TypeAdapter(kind)
        if path.exists():
            self.note(taken_over=[*load_manifest(self.folder).get("taken_over", []), path.name])
            return _validated(adapter, path.read_bytes(), where=str(path))
        result = compute()
        write_whole(path, adapter.dump_json(result))
        return result

    def forget(self, stage: str) -> None:
        """Drop a stage's result, so that it is computed anew."""
        (self.folder / "state" / f"{stage}.json").unlink(missing_ok=True)

    def write_scores(self, name: str, lines: Iterable[Mapping[str, object]]) -> None:
        """Write `scores/<name>.jsonl`."""
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_whole(self.folder / "scores" / f"{name}.jsonl", text.encode())

    def begin_steps(self, *, up_to: int) -> None:
        """Drop the lines of steps after `up_to`: a resumed training will take those anew."""
        kept = [step for step in load_steps(self.folder) if step.step <= up_to]
        lines = [_STEP.dump_json(step) for step in kept]
        write_whole(self.folder / "steps.jsonl", b"".join(line + b"\n" for line in lines))

    def add_step(self, step: Step) -> None:
        """Append a line to `steps.jsonl`."""
        with (self.folder / "steps.jsonl").open("ab") as file:
            file.write(_STEP.dump_json(step) + b"\n")

    def note(self, **facts: object) -> None:
        """Add facts to the manifest."""
        path = self.folder / "manifest.json"
        known = load_manifest(self.folder) if path.exists() else {}
        write_whole(path, json.dumps({**known, **facts}, indent=2, ensure_ascii=False).encode())


_STEP = TypeAdapter(Step)
_SUMMARY = TypeAdapter(RunSummary)
_MANIFEST = TypeAdapter(dict[str, Any])


def _validated(adapter: TypeAdapter[T], data: bytes, *, where: str) -> T:
    """Read a file of a run, or a line of one.

    Raises:
        RunError: It is not what was written.
    """
    try:
        return adapter.validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RunError(
            Problem(
                "this file of a run cannot be read",
                where=where,
                found=f"{place}: {first['msg']}" if place else first["msg"],
                fix="it was changed, or written by another version: make the run anew",
            )
        ) from error


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, then rename it; parent folders are made."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        scratch.write_bytes(data)
        os.replace(scratch, path)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def open_run(
    recipe: Recipe, *, folder: Path, resume: bool, shared: Path | None = None
) -> Iterator[Run]:
    """Begin a run directory, or go on with one.

    A new directory in which nothing has been finished yet when an error ends the run is removed
    again, so that a user's mistake leaves nothing half-written.

    Raises:
        RunError: It exists (and `resume` is not asked for), or it does not, or it is another
            recipe's or another version's.
    """
    if resume:
        _check_resumable(folder, recipe)
    elif folder.exists():
        raise RunError(
            Problem(
                f"{folder} exists",
                where="run directory",
                fix=f"give another with --folder, or go on with it: instil run --resume {folder}",
            )
        )
    else:
        folder.mkdir(parents=True)
        write_whole(folder / RECIPE, to_yaml(recipe).encode())
    run = Run(folder, recipe, shared)
    run.note(**_facts(recipe))
    try:
        yield run
    except (Exception, KeyboardInterrupt):
        if not resume and not (folder / "state").exists():
            shutil.rmtree(folder)
        raise


def _check_resumable(folder: Path, recipe: Recipe) -> None:
    if not (folder / RECIPE).is_file():
        raise RunError(Problem(f"{folder} is not a run directory: it has no recipe.yaml"))
    if load_recipe(folder / RECIPE) != recipe:
        raise RunError(Problem(f"{folder} holds a run of another recipe", fix="begin a new run"))
    manifest = load_manifest(folder)
    if manifest.get("recipe_sha256", _fingerprint(recipe)) != _fingerprint(recipe):
        raise RunError(
            Problem(
                "the recipe has been changed since the run began",
                where=str(folder / RECIPE),
                fix="undo the change to go on, or begin a new run with it: instil run "
                f"{folder / 'recipe.yaml'} --folder ANOTHER",
            )
        )
    found = manifest.get("format_version")
    if found != FORMAT_VERSION:
        raise RunError(
            Problem(
                f"{folder} was written by another version of instil",
                found=str(found),
                allowed=str(FORMAT_VERSION),
                fix="begin a new run",
            )
        )


def _facts(recipe: Recipe) -> dict[str, object]:
    return {
        "format_version": FORMAT_VERSION,
        "begun": now(),
        "versions": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "machine": machine(),
        "git_revision": _git_revision(),
        "seed": recipe.seed,
        "recipe_sha256": _fingerprint(recipe),
    }


def _fingerprint(recipe: Recipe) -> str:
    return hashlib.sha256(recipe.model_dump_json().encode()).hexdigest()


def now() -> str:
    """Return the time, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def machine() -> dict[str, object]:
    """Describe this machine: system, processor, cores, memory in bytes."""
    import psutil

    return {
        "system": platform.system(),
        "processor": _processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace") if info.exists() else ""
    names = [line.partition(":")[2] for line in lines.splitlines() if line.startswith("model name")]
    return names[0].strip() if names else platform.processor()


def _git_revision() -> str:
    """The revision of the folder the command runs in: the recipe's history, where there is one."""
    command = ["git", "rev-parse", "--short=12", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def load_manifest(folder: Path) -> dict[str, Any]:
    """Read `manifest.json`; an empty mapping where there is none."""
    path = folder / "manifest.json"
    return _validated(_MANIFEST, path.read_bytes(), where=str(path)) if path.exists() else {}


def load_steps(folder: Path) -> tuple[Step, ...]:
    """Read `steps.jsonl`; a last line cut short by a crash is passed over."""
    path = folder / "steps.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return tuple(
        _validated(_STEP, line, where=f"{path}:{number}")
        for number, line in enumerate(lines, start=1)
    )


def load_scores(folder: Path, name: str) -> list[dict[str, Any]]:
    """Read `scores/<name>.jsonl`.

    Raises:
        RunError: The run has no such scores.
    """
    path = folder / "scores" / f"{name}.jsonl"
    if not path.is_file():
        raise RunError(
            Problem(f"{folder} has no scores of its test", fix="finish it: instil run --resume")
        )
    return [
        _validated(_MANIFEST, line, where=f"{path}:{number}")
        for number, line in enumerate(path.read_bytes().splitlines(), start=1)
    ]


def save_summary(run: Run, summary: RunSummary) -> None:
    """Write `summary.json`."""
    write_whole(run.folder / SUMMARY, _SUMMARY.dump_json(summary, indent=1))


def load_summary(folder: Path) -> RunSummary:
    """Read `summary.json`.

    Raises:
        RunError: The folder is no finished run, or of another format.
    """
    path = folder / SUMMARY
    if not path.is_file():
        unfinished = (folder / RECIPE).is_file()
        raise RunError(
            Problem(
                f"{folder} is {'an unfinished run' if unfinished else 'not a run directory'}",
                fix=f"instil run --resume {folder}" if unfinished else "give a folder under runs/",
            )
        )
    return _validated(_SUMMARY, path.read_bytes(), where=str(path))
