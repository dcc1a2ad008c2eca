"""A frozen base model dealt out over the processes, for one that fits into none of them.

Each process holds its part of every block's weights (FSDP2, as in `train.sharded`), and all of what
belongs to no block: embeddings, the last norm, the output layer; and adapters, which are small.
In training all processes compute the same blocks in step. Everything else of a run is the first
process's work: before it computes a block it says so, and its helpers hand it their parts. So every
way of asking works as it does in one process, generation too; the computing is not shared.
"""

from __future__ import annotations

import gc
import itertools
import signal
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from instil.model.load import LoadedModel, ModelFolder, load_model, pick_device, pick_dtype
from instil.signals import CTRL_C, ENDING, on_signals
from instil.train.ranks import send_job, world_size
from instil.train.sharded import Compute, Gathering, require_packed


@dataclass(frozen=True, slots=True)
class Hold:
    """Tells the helpers to load a base model, and to keep their parts of it."""

    number: int
    """Which of those that are dealt out."""
    folder: ModelFolder
    """Where it lies."""
    computing: dict[str, Any]
    """How it computes, as `load_model` takes it."""


@dataclass(frozen=True, slots=True)
class Gather:
    """Tells the helpers to hand over their parts of one block's weights."""

    number: int
    """Of the base model."""
    block: int
    """Which of its blocks."""
    dropped: tuple[int, ...]
    """Base models that the first process has let go of."""


class Parts:
    """This process's parts of a base model."""

    def __init__(self, number: int, model: Any, *, device: torch.device) -> None:
        """Deal a model's blocks out; all processes call this with the same one.

        Args:
            number: Which of those that are dealt out.
            model: Whole, on the CPU; it is taken apart.
            device: Where the parts go, and the rest.
        """
        self.number = number
        self._blocks: list[Any] = []
        self._in_step = False
        mesh = init_device_mesh(device.type, (world_size(),))
        unsplit = set(model._no_split_modules or ())
        for module in [m for m in model.modules() if type(m).__name__ in unsplit]:
            beside = {name: vars(p) for name, p in module.named_parameters() if vars(p)}
            fully_shard(module, mesh=mesh, reshard_after_forward=True)
            _keep_beside(module, beside, device=device)
            # Said, since FSDP's guess counts what the first process alone has computed.
            module.set_modules_to_backward_prefetch([(self._blocks or [module])[-1]])
            self._blocks.append(module)
        rest = {p for p in model.parameters() if not isinstance(p, DTensor)}
        for p in rest:
            p.data = p.data.to(device)
        for module in model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.to(device))
        self._root: Any = fully_shard(Gathering(model), mesh=mesh, ignored_params=rest)
        self(lambda: torch.zeros(()))  # FSDP takes what is called first for the outermost

    def __call__(self, compute: Compute) -> torch.Tensor:
        """Compute a loss, as all processes do meanwhile."""
        self._in_step = True
        try:
            loss: torch.Tensor = self._root(compute)
        finally:
            self._in_step = False
        return loss

    def hand_over(self, block: int) -> None:
        """Give the other processes this one's part of a block, and let go of theirs."""
        _gather(self._blocks[block])
        self._blocks[block].reshard()

    def announce(self, tell: Callable[[int], None]) -> None:
        """Wherever a block is computed out of step, tell the helpers its number first."""

        def before(module: Any, _: Any, *, block: int) -> None:
            if self._in_step:
                return
            pressed: list[int] = []
            # A helper that was told waits for this process: nothing may come between.
            with on_signals(lambda number, _: pressed.append(number), CTRL_C, *ENDING):
                module.reshard()  # it was left whole where memory ran out
                tell(block)
                _gather(module)
            for number in pressed:
                signal.raise_signal(number)

        for number, block in enumerate(self._blocks):
            block.register_forward_pre_hook(partial(before, block=number), prepend=True)


def _gather(module: FSDPModule) -> None:
    with torch.inference_mode(False), torch.no_grad():
        module.unshard()


def _keep_beside(
    module: Any, beside: Mapping[str, Mapping[str, Any]], *, device: torch.device
) -> None:
    """Put back what a weight in four bits carries: to the parts, and to the whole."""
    if not beside:
        return
    for carried in beside.values():
        if (state := carried.get("quant_state")) is not None:
            state.to(device)
    for turn in (module.unshard, module.reshard):
        turn()
        for name, carried in beside.items():
            vars(module.get_parameter(name)).update(carried)


class Held:
    """A helper's parts of the base models that the first process works with."""

    def __init__(self) -> None:
        self.bases: dict[int, LoadedModel] = {}

    def serve(self, job: Hold | Gather) -> None:
        """Do what the first process asks for."""
        if isinstance(job, Hold):
            self.bases[job.number] = _dealt(job)
            return
        for number in job.dropped:
            self.bases.pop(number, None)
        parts = self.bases[job.number].through
        assert isinstance(parts, Parts)
        parts.hand_over(job.block)


_numbers = itertools.count()
_dropped: list[int] = []


def deal_base(folder: ModelFolder, **computing: Any) -> LoadedModel:
    """Load a base model and deal it out; called by the first process, its helpers `serve`.

    Args:
        folder: Where it lies.
        computing: As `load_model` takes it.

    Raises:
        ModelError: As `load_model`; or its rows are not all packed.
    """
    hold = Hold(next(_numbers), folder, computing)
    send_job(hold)
    loaded = _dealt(hold)
    parts = loaded.through
    assert isinstance(parts, Parts)

    def tell(block: int) -> None:
        gone = tuple(_dropped)
        send_job(Gather(hold.number, block, gone))
        del _dropped[: len(gone)]

    parts.announce(tell)
    weakref.finalize(loaded.model, _dropped.append, hold.number)
    return loaded


def _dealt(hold: Hold) -> LoadedModel:
    gc.collect()  # a model that was dealt out refers to itself
    where = pick_device(hold.computing["device"])
    dtype = str(pick_dtype(hold.computing["dtype"], where)).removeprefix("torch.")
    loaded = load_model(hold.folder, **{**hold.computing, "device": "cpu", "dtype": dtype})
    require_packed(loaded.build)
    through = Parts(hold.number, loaded.model, device=where)
    # transformers' own layers: instil's take their weights past the calls that gather them.
    build = replace(loaded.build, own_layers=False)
    return replace(loaded, device=where, build=build, through=through)
