"""The run directory: the only contract on disk.

::

    recipe.yaml    resolved, every default written out
    manifest.json  format version, versions, machine, seeds, fingerprints, when the test was opened
    ledger.json    the SHA-256 of every file that a stage wrote, and what it was made from
    split.json     which rows train, validate, test
    tasks.json     the tasks as they were asked, for predict, serve and chat
    lineage.json   digests of the texts that were trained and tested on, for models made of this one
    steps.jsonl    one line a step
    scores/*.jsonl one line an example
    state/*.json   finished stages, for --resume
    checkpoints/   the state of training, for --resume
    encoded/       examples as tokens while the run is under way, for --resume of a large one
    summary.json   every figure the report shows
    report.html    one self-contained file
    model/         adapter or weights, tokenizer, chat template, model card, probabilities.json

Every file is written under a temporary name and renamed, so that what is there is whole; one
process at a time works in the folder (`instil.stages.lock`), and what it finds there is checked by
the ledger (`instil.stages.ledger`). recipe.yaml is written last of what a run begins with: where it
is, a run is.

Tests: `tests/stages/test_lock.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from instil.config.recipe import Recipe, load_recipe, to_yaml
from instil.errors import Problem, RefusedError, RunError
from instil.files import is_scratch, sweep, write_whole
from instil.results.run import RunSummary
from instil.stages import ledger
from instil.stages.ledger import LEDGER, Ledger, load_ledger, read_sealed, save_ledger, write_sealed
from instil.stages.lock import HOLDER, LOCK, hold, holder
from instil.stages.mirror import ARMS, publish
from instil.stages.provenance import machine, now, versions
from instil.stages.runfiles import (
    FORMAT_VERSION,
    LINEAGE,
    MANIFEST,
    RECIPE,
    REPORT,
    SPLITS,
    STEPS,
    SUMMARY,
    SUMMARY_TYPE,
    SUMMED_UP,
    TASKS,
    TRAINING,
    chained,
    gone,
    load_manifest,
    require_whole,
    run_ledger,
    step_line,
    step_lines,
    validated,
)
from instil.types import Step

LATER_KEYS = {
    "forgetting": ("margin", "text_margin", "at_most", "gate_checkpoints"),
    "keep": ("distil", "prune"),
    "baselines": ("search", "search_prompts"),
    "split": ("apart_from",),
    "lora": ("use_rslora",),
}
"""Section -> keys that runs of an earlier version do not have."""
WRITTEN_KEYS = {"train": ("fsdp",)}
"""Keys that came later still, and were written from then on."""
NEW_METHODS = ("oft", "shira")
"""Methods, each with a section, that they do not have either."""
ENCODED = "encoded"
"""The folder of encoded examples; it is gone when the run is done."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Run:
    """An open run directory."""

    folder: Path
    """Where it lies."""
    shared: Path | None = None
    """Where runs of one study keep what is the same for several of them; None: nowhere."""

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.resolve().name

    @property
    def id(self) -> str:
        """What no other run is called; empty for a part of a run (`arms/`)."""
        return str(load_manifest(self.folder).get("run_id", ""))

    @property
    def model(self) -> Path:
        """The exported model."""
        return self.folder / ledger.MODEL

    @property
    def checkpoint(self) -> Path:
        """The state of the training."""
        return self.folder / "checkpoints" / "last"

    def kept(
        self,
        stage: str,
        kind: type[T],
        compute: Callable[[], T],
        *,
        files: Sequence[str] = (),
        inputs: Mapping[str, str] | None = None,
    ) -> T:
        """Return a stage's result: from `state/`, if it finished before, else compute and keep it.

        Args:
            stage: Names the file.
            kind: The result's type, as pydantic takes it.
            compute: Called where there is nothing yet.
            files: What else it writes, as paths within the run directory; a folder stands for all
                files in it.
            inputs: What it is made from -> a fingerprint.

        Raises:
            RefusedError: It was made from something else, or its file was changed.
        """
        if self.finished(stage, inputs=inputs):
            return self.read(stage, kind)
        return self.keep(stage, kind, compute(), files=files, inputs=inputs)

    def keep(
        self,
        stage: str,
        kind: type[T],
        result: T,
        *,
        files: Sequence[str] = (),
        inputs: Mapping[str, str] | None = None,
    ) -> T:
        """Keep a stage's result in `state/`, and return it; the arguments are those of `kept`."""
        name = f"state/{stage}.json"
        write_whole(self.folder / name, TypeAdapter(kind).dump_json(result, indent=1))
        self.record(stage, [name, *files], inputs=inputs)
        return result

    def read(self, stage: str, kind: type[T]) -> T:
        """Read a finished stage's result.

        Args:
            stage: Its name.
            kind: The result's type, as pydantic takes it.

        Raises:
            RefusedError: Its file was changed.
            RunError: It cannot be read.
        """
        path = self.folder / "state" / f"{stage}.json"
        return validated(TypeAdapter(kind), path.read_bytes(), where=str(path))

    def finished(self, stage: str, *, inputs: Mapping[str, str] | None = None) -> bool:
        """Whether a stage was finished; from the same inputs, where there are some to compare.

        Raises:
            RefusedError: It was made from something else.
        """
        stages = load_ledger(self.folder).stages
        if stage not in stages:
            return False
        if inputs is not None:
            differences = ledger.input_differences(stage, stages[stage].inputs, inputs)
            ledger.refuse(self.folder, differences, stages=stages)
        return True

    def record(
        self, stage: str, files: Sequence[str], *, inputs: Mapping[str, str] | None = None
    ) -> None:
        """Enter a finished stage into the ledger, with the files that it wrote."""
        ledger.record(self.folder, stage, files, inputs=inputs)

    def release(self, *paths: str) -> None:
        """Note in the ledger that files are about to be changed."""
        ledger.release(self.folder, paths)

    def shared_or(
        self, name: str, kind: type[T], compute: Callable[[], T], *, inputs: Sequence[object]
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
            known = read_sealed(path, fix=f"delete it: it is then computed anew: {path}")["result"]
            return adapter.validate_python(known)
        result = compute()
        write_sealed(path, {"result": adapter.dump_python(result, mode="json")})
        return result

    def forget(self, stage: str) -> None:
        """Drop a stage's result, so that it is computed anew."""
        ledger.forget(self.folder, [stage])
        (self.folder / "state" / f"{stage}.json").unlink(missing_ok=True)

    def write_scores(self, name: str, lines: Iterable[Mapping[str, object]]) -> None:
        """Write `scores/<name>.jsonl`."""
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_whole(self.folder / "scores" / f"{name}.jsonl", text.encode())

    def begin_steps(self, *, up_to: int, digest: str = "") -> None:
        """Drop the lines of steps after `up_to`: a resumed training will take those anew.

        Args:
            up_to: The step of the checkpoint; 0: there is none.
            digest: Of the steps up to there (`steps_digest`), as the checkpoint has it.

        Raises:
            RefusedError: They are not the steps that led to the checkpoint.
        """
        kept = step_lines(self.folder)[:up_to]
        if up_to and chained(kept) != digest:
            different = ledger.Difference(
                f"{STEPS} is not what the training wrote up to its checkpoint (step {up_to})",
                TRAINING,
            )
            ledger.refuse(self.folder, [different], stages=[TRAINING])
        write_whole(self.folder / STEPS, b"".join(line + b"\n" for line in kept))

    def add_step(self, step: Step) -> None:
        """Append a line to `steps.jsonl`."""
        with (self.folder / STEPS).open("ab") as file:
            file.write(step_line(step) + b"\n")

    def note(self, **facts: object) -> None:
        """Add facts to the manifest."""
        path = self.folder / MANIFEST
        write_sealed(path, {**load_manifest(self.folder), **facts})


def is_vacant(folder: Path) -> bool:
    """Whether a run may begin in a folder: it does not exist, or holds the beginning of one alone.

    A process that is killed while it begins a run, or takes back its beginning, leaves its lock,
    ledger, manifest, split or scratch files, but no recipe.yaml.
    """
    if not folder.is_dir():
        return not folder.exists()
    beginnings = {LEDGER, MANIFEST, SPLITS, TASKS, LINEAGE, LOCK, HOLDER}
    return all(p.name in beginnings or is_scratch(p) for p in folder.iterdir())


@contextlib.contextmanager
def open_run(
    recipe: Recipe,
    *,
    folder: Path,
    resume: bool,
    shared: Path | None = None,
    restart_from: str = "",
    again: bool = False,
    require: Callable[[], None] = lambda: None,
) -> Iterator[Run]:
    """Begin a run directory, or go on with one, and keep other processes out of it.

    A new directory in which nothing has been finished yet when an error ends the run is removed
    again, so that a user's mistake leaves nothing half-written.

    Args:
        recipe: What is run.
        folder: The run directory.
        resume: Go on with it.
        shared: Where runs of one study keep what is the same for several of them.
        restart_from: A finished stage to do anew, with all later ones; empty: none.
        again: Whether the test may be opened another time.
        require: Called before a stage is dropped: raises where it should stay.

    Raises:
        RunError: It exists (and `resume` is not asked for), or it does not, or it is another
            recipe's or another version's.
        RefusedError: Another process is at work in it, or it is not what was written.
    """
    if resume and not (folder / RECIPE).is_file():
        raise RunError(_not_a_run(folder))
    if not resume:
        _check_vacant(folder)
        folder.mkdir(parents=True, exist_ok=True)
    with hold(folder, since=now()):
        if resume and load_recipe(folder / RECIPE) != recipe:
            what = f"{folder} holds a run of another recipe"
            raise RunError(what, fix="begin a new run")
        if resume:
            _check_resumable(folder, recipe)
        else:
            _check_vacant(folder)  # another process may have been in it meanwhile
        sweep(folder)
        try:
            if resume:
                restart(folder, restart_from, again=again, require=require)
                require_whole(folder)
            else:
                _begin(folder, recipe)
            run = Run(folder, shared)
            if resume:
                run.note(resumed=[*load_manifest(folder).get("resumed", []), now()])
            yield run
        except (Exception, KeyboardInterrupt):
            if not resume and not (folder / "state").exists():
                (folder / RECIPE).unlink(missing_ok=True)  # first: without it there is no run
                shutil.rmtree(folder, ignore_errors=True)  # it may be the working folder
            raise


def _check_vacant(folder: Path) -> None:
    if not is_vacant(folder):
        fix = f"give another with --folder, or resume it: instil run --resume {folder}"
        raise RunError(f"{folder} exists", where="run directory", fix=fix)


def _not_a_run(folder: Path) -> Problem:
    if folder.is_dir() and is_vacant(folder):
        what = f"{folder} holds no run: it was stopped before it had begun"
        return Problem(what, fix=f"begin it anew: instil run RECIPE --folder {folder}")
    return Problem(f"{folder} is not a run directory: it has no recipe.yaml")


def _begin(folder: Path, recipe: Recipe) -> None:
    """Write what a run begins with."""
    # Of the folder the command runs in: the recipe's history, where there is one.
    revision, command = "", ["git", "rev-parse", "--short=12", "HEAD"]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
        revision = done.stdout.strip() if done.returncode == 0 else ""
    facts = {
        "format_version": FORMAT_VERSION,
        "run_id": uuid.uuid4().hex,
        "begun": now(),
        "versions": versions(),
        "python": platform.python_version(),
        "machine": machine(),
        "git_revision": revision,
        "seed": recipe.seed,
        "recipe_sha256": recipe_fingerprint(recipe),
    }
    save_ledger(folder, Ledger(str(facts["run_id"])))
    write_sealed(folder / MANIFEST, facts)
    write_whole(folder / RECIPE, to_yaml(recipe).encode())


def _check_resumable(folder: Path, recipe: Recipe) -> None:
    """See that a run is of this version and of this recipe."""
    if not (folder / MANIFEST).is_file():
        raise RefusedError(gone(folder, MANIFEST))
    manifest = load_manifest(folder)
    run_ledger(folder)  # else another run's manifest would read as a change of the recipe
    written = manifest.get("recipe_sha256")
    if written is not None and not has_fingerprint(recipe, written):
        raise RunError(
            "the recipe has been changed since the run began",
            where=str(folder / RECIPE),
            fix="undo the change to resume, or begin a new run with it: instil run "
            f"{folder / 'recipe.yaml'} --folder ANOTHER",
        )
    version = manifest.get("format_version")
    if version != FORMAT_VERSION:
        raise RunError(
            f"{folder} was written by another version of instil",
            found=str(version),
            allowed=str(FORMAT_VERSION),
            fix="begin a new run",
        )


@dataclass(frozen=True, slots=True)
class Status:
    """How far a run has come."""

    lines: tuple[str, ...]
    """For people."""
    problems: tuple[Problem, ...]
    """What is not as it was written; none: the run is whole."""


def describe(folder: Path) -> Status:
    """Say how far a run has come and whether it is whole; nothing in it is changed.

    What it was made from (rows, base model) is not looked at: `--resume` and `predict` do that.

    Raises:
        RunError: The folder is no run directory.
    """
    if not (folder / RECIPE).is_file():
        raise RunError(_not_a_run(folder))
    try:
        kept = run_ledger(folder)
    except RunError as error:
        return Status(("NOT whole:",), error.problems)
    problems: tuple[Problem, ...] = ()
    try:
        require_whole(folder)
    except RefusedError as error:
        problems = error.problems
    who, files = holder(folder), sum(len(entry.files) for entry in kept.stages.values())
    lines = [f"stages done: {', '.join(kept.stages) or 'none'}"]
    if (folder / STEPS).is_file() and TRAINING not in kept.stages:
        steps = (folder / STEPS).read_bytes().count(b"\n")
        lines.append(f"training: {steps} steps so far")
    if who:
        lines.append(f"at work in it: {who}")
    if SUMMED_UP in kept.stages:
        lines.append("finished")
    elif kept.run and not who:
        lines.append(f"not finished: instil run --resume {folder}")
    if not kept.run and not problems:
        lines.append("made by an earlier version of instil: it has no ledger to be checked by")
    elif not problems:
        lines.append(f"whole: all {files} files are what was written")
    else:
        lines.append("NOT whole:")
    return Status(tuple(lines), problems)


def restart(
    folder: Path, stage: str, *, again: bool, require: Callable[[], None] = lambda: None
) -> None:
    """Drop a stage and all that were finished after it, with the files that they wrote.

    Args:
        folder: The run directory.
        stage: Its name; empty: nothing is dropped.
        again: Whether the test, where its stage is among them, may be opened another time.
        require: Called before anything is dropped.

    Raises:
        RunError: The stage has not been finished, or the test may not be opened.
    """
    if not stage:
        return
    stages = dict(run_ledger(folder).stages)
    names = [*stages]
    if TRAINING not in stages and (folder / STEPS).exists():
        names.append(TRAINING)  # begun
    if stage not in names:
        what = f"this run has no finished stage {stage!r}"
        raise RunError(what, where="--restart-from", allowed=", ".join(names))
    dropped = names[names.index(stage) :]
    trained = names.index(TRAINING) if TRAINING in names else len(names)
    if {"handed-over", "pruned"} & {*dropped} and TRAINING not in dropped:
        dropped = names[trained:]  # the weights before it are not kept
    if "test" in dropped and not again:
        raise RunError(
            "the test of this run has been opened, and would be opened again",
            where="--restart-from",
            found=stage,
            fix=f"instil run --resume {folder} --restart-from {stage} --look-again, and the "
            "report says so",
        )
    require()
    anew = TRAINING in dropped or TRAINING not in names
    paths = [path for name in dropped if name in stages for path in stages[name].files]
    # What a training would go on from is removed before its stage is forgotten: a process that is
    # killed between the two must not leave it to a run that is then made from something else.
    _remove(folder, ["checkpoints"] if anew else [])
    _remove(folder, [ARMS] if "methods" not in stages or "methods" in dropped else [])
    publish(folder)  # removed at an address as well, before it is forgotten there
    ledger.forget(folder, dropped)
    for path in (*paths, SUMMARY, REPORT, *([STEPS] if anew else [])):
        (folder / path).unlink(missing_ok=True)
    _remove(folder, [ledger.MODEL] if anew else [])


def _remove(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        if (folder / name).exists():
            shutil.rmtree(folder / name)


def recipe_fingerprint(recipe: Recipe, *, later: Mapping[str, Sequence[str]] = LATER_KEYS) -> str:
    """Return what two recipes share that say the same, whatever their layout.

    `later`: section -> keys that are left out where they are at their default.
    """
    # A tracker changes no figure. Keys that earlier versions lacked are left out where they are at
    # their default, so that `--resume` takes those versions' runs.
    silent: dict[str, Any] = {"track": True}
    for name, keys in later.items():
        section = getattr(recipe, name)
        fields = type(section).model_fields
        if unset := {key for key in keys if getattr(section, key) == fields[key].default}:
            silent[name] = unset
    silent |= {name: True for name in NEW_METHODS if name != recipe.method}
    return hashlib.sha256(recipe.model_dump_json(exclude=silent).encode()).hexdigest()


def has_fingerprint(recipe: Recipe, digest: object) -> bool:
    """Whether this version, or an earlier one, has written a fingerprint of the recipe."""
    before = recipe_fingerprint(recipe, later={**LATER_KEYS, **WRITTEN_KEYS})
    return digest in (recipe_fingerprint(recipe), before)


def save_summary(run: Run, summary: RunSummary, *, files: Sequence[str] = ()) -> None:
    """Write `summary.json`, and with it the run is finished.

    Args:
        run: The run.
        summary: Every figure.
        files: What else was written with it.
    """
    write_whole(run.folder / SUMMARY, SUMMARY_TYPE.dump_json(summary, indent=1))
    run.record(SUMMED_UP, [SUMMARY, *files])
