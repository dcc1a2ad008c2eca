"""Checkpoints: everything that training needs to go on as if it had never stopped.

One safetensors file holds the trained weights, AdamW's two moments for each, the best weights so
far, and the random state; one JSON file beside it holds the counters. The order of the data is a
pure function of seed, epoch and example ids, so the step's number restores it; the fingerprint of
the data makes sure that it is the same data.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from instil.errors import Problem, TrainError
from instil.model.adapter import restore, trainable


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
    save_file(tensors, scratch / "state.safetensors")
    (scratch / "progress.json").write_text(json.dumps(asdict(progress), indent=1), encoding="utf-8")
    old = folder.with_name(f".{folder.name}-old")
    if folder.exists():
        os.replace(folder, old)
    os.replace(scratch, folder)
    shutil.rmtree(old, ignore_errors=True)


def steps_done(folder: Path) -> int:
    """Steps that the checkpoint in a folder holds; 0 where there is none."""
    _heal(folder)
    return _progress(folder).step if (folder / "progress.json").is_file() else 0


def _progress(folder: Path) -> Progress:
    try:
        return Progress(**json.loads((folder / "progress.json").read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise _damaged(folder) from error


def _damaged(folder: Path) -> TrainError:
    fix = f"delete {folder}: training then begins anew, all earlier stages are kept"
    return TrainError(Problem("the checkpoint cannot be read", where=str(folder), fix=fix))


def _heal(folder: Path) -> None:
    """Take the old checkpoint where saving stopped between its two renames."""
    old = folder.with_name(f".{folder.name}-old")
    if not folder.exists() and old.exists():
        os.replace(old, folder)


def load_checkpoint(
    folder: Path, *, model: torch.nn.Module, optimizer: torch.optim.Optimizer, data: str
) -> tuple[Progress, dict[str, torch.Tensor]] | None:
    """Restore a checkpoint into model and optimizer; return its counters and best weights.

    Returns None where there is no checkpoint.

    Raises:
        TrainError: it is damaged, or was made with other training data.
    """
    _heal(folder)
    if not (folder / "progress.json").is_file():
        return None
    progress = _progress(folder)
    if progress.data != data:
        raise TrainError(
            Problem(
                "the training examples have changed since the checkpoint",
                where=str(folder),
                fix="start a new run, or bring back the data, templates and recipe of this one",
            )
        )
    try:
        tensors = load_file(folder / "state.safetensors")
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
