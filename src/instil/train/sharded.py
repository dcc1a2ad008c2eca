"""Weights dealt out over the processes: FSDP2, for a training that does not fit into one of them.

Each process holds its part of every weight, of its gradient and of AdamW's two moments, in float32;
a block's weights are gathered when it is computed, and let go of again (Rajbhandari et al. 2020,
arXiv:1910.02054, stage 3; Zhao et al. 2023, arXiv:2304.11277). What is computed is what one process
computes. All processes must gather alike, so each runs as many packs as the others: one that has
fewer runs a pack again and counts it as nothing.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from instil.errors import ModelError, Problem
from instil.model.adapter import trainable
from instil.model.engine.packed import Build, base_of
from instil.model.load import LoadedModel
from instil.train.ranks import world_size

Compute = Callable[[], torch.Tensor]
"""Computes a loss with the model."""


class Gathering(torch.nn.Module):
    """What FSDP2 takes for the model: a loss computed within its call finds all weights whole."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, compute: Compute) -> torch.Tensor:
        """Compute a loss."""
        return compute()


def deal_out(loaded: LoadedModel) -> LoadedModel:
    """Keep this process's part of every weight, and leave the rest to the others.

    The blocks are those that transformers names as not to be split (`_no_split_modules`); what
    belongs to none, such as the embeddings, is gathered throughout forward and backward pass.

    Args:
        loaded: The whole model, every weight trained; it is taken apart.

    Raises:
        ModelError: The model's rows are computed one by one, and processes would not keep step.
    """
    require_packed(loaded.build)
    model = loaded.model
    mesh = init_device_mesh(loaded.device.type, (world_size(),))
    unsplit = set(base_of(model)._no_split_modules or ())
    for module in model.modules():
        if type(module).__name__ in unsplit:
            fully_shard(module, mesh=mesh)
    through: Any = fully_shard(Gathering(model), mesh=mesh)
    for module in through.modules():
        if isinstance(module, FSDPModule):  # a loss is a share of the whole batch's: summed
            module.set_force_sum_reduction_for_comms(True)
            module.set_gradient_divide_factor(1.0)
    # transformers' own layers: instil's take their weights past the calls that gather them.
    return replace(loaded, build=replace(loaded.build, own_layers=False), through=through)


def require_packed(build: Build) -> None:
    """Refuse a model of which a pack is not one pass, always.

    Raises:
        ModelError: It is such a model.
    """
    if not build.segments or build.longest is not None:
        raise ModelError(
            Problem(
                "this model's rows are not all computed packed, so that processes that share its "
                "weights would not keep step",
                where="train.fsdp",
                found=str(build),
                fix="leave train.fsdp out; where memory is short then, set method: lora as well",
            )
        )


def trains_parts(model: torch.nn.Module) -> bool:
    """Whether the weights that are trained are dealt out."""
    return any(isinstance(p, DTensor) for p in trainable(model).values())


def full(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor whole; all processes call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_like(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Deal a tensor out as another of its shape is; all processes call this with the same one."""
    if not isinstance(like, DTensor):
        return whole.to(like.device)
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements)


def as_part(part: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Take this process's part of a tensor for that of one which is dealt out as another is."""
    if not isinstance(like, DTensor):
        return part
    return DTensor.from_local(
        part.to(like.device),
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )


def write_parts(tensors: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write tensors by all processes, each its own part, as safetensors files.

    Raises:
        CheckpointException: In all processes, where one cannot write.
    """
    with _hushed():
        save(
            dict(tensors),
            storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True),
        )


def names_in(folder: Path) -> frozenset[str]:
    """The names of the tensors that `write_parts` wrote into a folder.

    Raises:
        CheckpointException, OSError: They cannot be read.
    """
    return frozenset(HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata)


def read_parts(into: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Read tensors in place, however many processes wrote them and however many read.

    Raises:
        CheckpointException: In all processes, where one cannot read.
    """
    with _hushed():
        load(dict(into), storage_reader=HuggingFaceStorageReader(str(folder)))


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is one process
        yield


def hand_over(model: torch.nn.Module, *, whole: torch.nn.Module | None) -> None:
    """Copy weights that are dealt out into a whole model, in the first process.

    All processes call this. One weight at a time is whole in each.

    Args:
        model: Of which this process has a part.
        whole: The same model; None in the other processes.
    """
    into = dict(whole.named_parameters()) if whole is not None else {}
    with torch.no_grad():
        for name, p in trainable(model).items():
            gathered = full(p)
            if into:
                into[name].copy_(gathered)
