"""Checkpoints: everything that training needs to go on as if it had never stopped.

One safetensors file holds the trained weights, AdamW's two moments for each, and the best weights
so far; of weights that are dealt out (`train.sharded`) there is one from each process, and any
number of processes can go on from them. One JSON file beside it holds the counters, the SHA-256 of
the others and one of itself. The order of the data is a pure function of seed, epoch and example
ids, and what is random in a step one of seed and step, so the step's number restores both; the
fingerprint of the data makes sure that it is the same data, the id that it is the same run, and the
digest of the steps that they led here.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.api import CheckpointException

from instil.errors import RefusedError, TrainError
from instil.files import file_sha256
from instil.model.adapter import own, restore, trainable
from instil.model.load import fingerprint
from instil.results.training import Lost
from instil.stages.ledger import read_sealed, write_sealed
from instil.train.ranks import from_first, is_first
from instil.train.sharded import (
    as_part,
    names_in,
    part_like,
    read_parts,
    trains_parts,
    write_parts,
)

COUNTERS = "progress.json"
_MOMENTS = ("exp_avg", "exp_avg_sq")
_STATE_SHA256 = "state_sha256"


@dataclass(frozen=True, slots=True)
class Progress:
    """The counters of a training that is under way."""

    step: int = 0
    """Optimizer steps done."""
    best_step: int = 0
    """The step with the best validation so far; 0: none yet."""
    best_score: float | None = None
    """Validation metric there."""
    best_loss: float | None = None
    """Validation loss there, nats per token."""
    best_beyond: float = 0.0
    """How far it is beyond what may be forgotten (`Lost.beyond`)."""
    lost: tuple[Lost, ...] = ()
    """What was forgotten at each look, where that is measured."""
    lowest_loss: float | None = None
    """The lowest validation loss so far, at whatever step."""
    worse_in_a_row: int = 0
    """Validations since the metric or the loss was last at its best."""
    shown: bool = False
    """Whether a validation has shown that every task is learnt."""
    seconds: float = 0.0
    """Training time so far, validations included."""
    data: str = ""
    """Fingerprint of the training examples."""
    run: str = ""
    """The id of the run."""
    steps: str = ""
    """Digest of all steps up to here (`stages.runfiles.steps_digest`)."""


def save_checkpoint(
    folder: Path,
    *,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    best: dict[str, torch.Tensor],
    progress: Progress,
) -> None:
    """Write a checkpoint; it replaces the one before only once it is whole.

    Of weights that are dealt out every process writes its part: all call this.
    """
    weights = trainable(model)
    dealt = trains_parts(model)
    # Named by the step, so that where files are sent one after another (`stages.mirror`) the new
    # tensors never stand beside the counters of the old ones.
    state = f"state-{progress.step}"
    tensors = dict[str, torch.Tensor]()
    for name, p in weights.items():
        tensors[f"weight/{name}"] = p.detach()
        for key, value in optimizer.state.get(p, {}).items():
            tensors[f"{key}/{name}"] = torch.as_tensor(value).detach()
        tensors[f"best/{name}"] = as_part(best[name], p)
    folder.parent.mkdir(parents=True, exist_ok=True)

    def make() -> Path:
        return Path(tempfile.mkdtemp(dir=folder.parent, prefix=".checkpoint-"))

    scratch, old = from_first(make) if dealt else make(), _old(folder)
    try:
        if dealt:
            write_parts(tensors, scratch / state)
        else:
            whole = {k: t.cpu().contiguous() for k, t in tensors.items()}
            save_file(whole, scratch / f"{state}.safetensors")
        if not is_first():
            return
        counters = {**asdict(progress), _STATE_SHA256: _digest(scratch, progress.step)}
        write_sealed(scratch / COUNTERS, counters)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)  # left by a process that was killed
            os.replace(folder, old)
        os.replace(scratch, folder)
    except (OSError, SafetensorError, CheckpointException) as error:
        raise TrainError(
            f"the checkpoint cannot be written: {error}",
            where=str(folder),
            fix="make room; the checkpoint before it is kept",
        ) from error
    finally:
        if is_first():
            shutil.rmtree(scratch, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _tensors(folder: Path, step: int) -> Path:
    """Where a step's tensors lie: a file, or a folder of the parts that processes wrote.

    Earlier versions did not name the step.
    """
    names = (f"state-{step}", f"state-{step}.safetensors", "state", "state.safetensors")
    return next((folder / name for name in names if (folder / name).exists()), folder / names[1])


def _digest(folder: Path, step: int) -> str:
    """SHA-256 of a checkpoint's tensors, in one file or in parts."""
    path = _tensors(folder, step)
    return fingerprint(path) if path.is_dir() else file_sha256(path)


def read_progress(folder: Path, *, run: str) -> Progress:
    """Return the counters of the checkpoint in a folder; those of no step where there is none.

    Args:
        folder: Of the checkpoint.
        run: The id of the run that it must be of.

    Raises:
        TrainError: It is damaged, or another run's.
    """
    # Where saving stopped between its two renames, the old checkpoint is taken.
    old = _old(folder)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
    elif old.exists():
        os.replace(old, folder)
    else:
        return Progress()
    try:
        told = read_sealed(folder / COUNTERS)
        whole = _digest(folder, told["step"]) == told.pop(_STATE_SHA256)
        lost = TypeAdapter(tuple[Lost, ...]).validate_python(told.pop("lost", ()))
        progress = Progress(**told, lost=lost)
    except (OSError, RefusedError, TypeError, KeyError, ValidationError) as error:
        raise _damaged(folder) from error
    if not whole:
        raise _damaged(folder)
    if progress.run != run:
        what, fix = "this checkpoint is another run's", f"delete {folder}, or bring back its own"
        raise TrainError(what, where=str(folder), fix=fix)
    return progress


def _damaged(folder: Path) -> TrainError:
    fix = f"delete {folder}: training then begins anew, all earlier stages are kept"
    what = "the checkpoint is not what was written"
    return TrainError(what, where=str(folder), fix=fix)


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}-old")


def load_checkpoint(
    folder: Path,
    *,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    data: str,
    run: str,
) -> tuple[Progress, dict[str, torch.Tensor]] | None:
    """Restore a checkpoint into model and optimizer; return its counters and best weights.

    Returns None where there is no checkpoint.

    Raises:
        TrainError: it is damaged, another run's, or was made with other training data.
    """
    progress = read_progress(folder, run=run)
    if not progress.step:
        return None
    if progress.data != data:
        raise TrainError(
            "the training examples have changed since the checkpoint",
            where=str(folder),
            fix="start a new run, or bring back the data, templates and recipe of this one",
        )
    weights = trainable(model)
    try:
        tensors = _read(_tensors(folder, progress.step), weights)
    except (OSError, SafetensorError, CheckpointException) as error:
        raise _damaged(folder) from error
    restore(model, {name: own(tensors[f"weight/{name}"]) for name in weights})
    best = {name: own(tensors[f"best/{name}"]).cpu() for name in weights}
    for name, p in weights.items():
        if f"step/{name}" in tensors:
            moments = {key: tensors[f"{key}/{name}"] for key in _MOMENTS}
            # A fused optimizer takes the count from where the weight is.
            step = tensors[f"step/{name}"].to(p.device)
            optimizer.state[p] = {"step": step, **moments}
    return progress, best


def _read(path: Path, weights: Mapping[str, torch.nn.Parameter]) -> Mapping[str, torch.Tensor]:
    """Read a checkpoint's tensors, dealt out as the weights are, however it was written.

    Raises:
        OSError, SafetensorError, CheckpointException: They cannot be read.
    """
    kinds = ("weight", "best", *_MOMENTS)
    if not path.is_dir():
        told = load_file(path)
        for name, p in weights.items():
            for key in (f"{kind}/{name}" for kind in kinds):
                if key in told:
                    told[key] = part_like(told[key], p)
        return dict(told)
    written = names_in(path)  # a weight that never had a gradient has no moments and no count
    tensors = dict[str, torch.Tensor]()
    for name, p in weights.items():
        keys = [key for kind in kinds if (key := f"{kind}/{name}") in written]
        tensors |= {key: torch.empty_like(p.detach()) for key in keys}
        if (count := f"step/{name}") in written:
            tensors[count] = torch.empty(())
    read_parts(tensors, path)
    return tensors
