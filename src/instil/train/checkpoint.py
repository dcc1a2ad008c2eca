"""Checkpoints: everything that training needs to go on as if it had never stopped.

One safetensors file holds the trained weights, AdamW's two moments for each, the best weights so
far, and the random state; one JSON file beside it holds the counters, the SHA-256 of the first file
and one of itself. The order of the data is a pure function of seed, epoch and example ids, so the
step's number restores it; the fingerprint of the data makes sure that it is the same data, the id
that it is the same run, and the digest of the steps that they led here.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from instil.errors import RefusedError, TrainError
from instil.files import file_sha256
from instil.model.adapter import restore, trainable
from instil.results import Lost
from instil.stages.ledger import read_sealed, write_sealed

STATE, COUNTERS = "state.safetensors", "progress.json"
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
    """Write a checkpoint; it replaces the one before only once it is whole."""
    tensors = {"rng": torch.get_rng_state()}
    for name, p in trainable(model).items():
        tensors[f"weight/{name}"] = p.detach().cpu().contiguous()
        for key, value in optimizer.state.get(p, {}).items():
            tensors[f"{key}/{name}"] = torch.as_tensor(value).detach().cpu().contiguous()
    tensors |= {f"best/{name}": t.contiguous() for name, t in best.items()}
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".checkpoint-"))
    try:
        save_file(tensors, scratch / STATE)
        counters = {**asdict(progress), _STATE_SHA256: file_sha256(scratch / STATE)}
        write_sealed(scratch / COUNTERS, counters)
        old = _old(folder)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)  # left by a process that was killed
            os.replace(folder, old)
        os.replace(scratch, folder)
    except (OSError, SafetensorError) as error:
        raise TrainError(
            f"the checkpoint cannot be written: {error}",
            where=str(folder),
            fix="make room; the checkpoint before it is kept",
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


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
        whole = file_sha256(folder / STATE) == told.pop(_STATE_SHA256)
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
    try:
        tensors = load_file(folder / STATE)
    except (OSError, SafetensorError) as error:
        raise _damaged(folder) from error
    restore(model, _under(tensors, "weight/"))
    for name, p in trainable(model).items():
        state = {
            key: tensors[f"{key}/{name}"].to(p.device if key != "step" else "cpu")
            for key in ("step", "exp_avg", "exp_avg_sq")
            if f"{key}/{name}" in tensors
        }
        if state:
            optimizer.state[p] = state
    torch.set_rng_state(tensors["rng"])
    return progress, _under(tensors, "best/")


def _under(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
