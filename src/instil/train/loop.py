"""The training loop: a generator that yields one `Step` after each optimizer step.

It knows nothing of files, validation or stopping; whoever consumes the steps does (`train.fit`).

The loss of a batch is a mean over all its supervised tokens, or over its examples, and divided by
their number in the *whole* batch (`train.objective`), so that cutting a batch into more packs
changes nothing. The
vocabulary projection is computed at supervised places only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from instil.encode.batch import to_batch
from instil.errors import DivergedError, Problem, TrainError
from instil.memory_limits import MORE, is_out_of_memory, shortage
from instil.model.adapter import trainable
from instil.model.engine.losses import Losses, losses
from instil.model.load import LoadedModel
from instil.model.shortage import apart, give_back
from instil.train.objective import BatchObjective, Objective, Sums
from instil.train.optim import rate
from instil.train.peak import forget_peak, peak_memory
from instil.train.ranks import OutOfStepError, deal, most, rank, sum_gradients, total
from instil.train.room import Room
from instil.train.sharded import full, trains_parts
from instil.types import Pack, Step


@dataclass(frozen=True, slots=True)
class Schedule:
    """The learning rate over the steps, and clipping."""

    learning_rate: float
    """The peak."""
    warmup_ratio: float
    """Share of all steps spent climbing."""
    lr_scheduler_type: str
    """linear, cosine or constant."""
    max_grad_norm: float
    """Gradients are scaled down to this norm; 0: never."""


def train_steps(
    loaded: LoadedModel,
    batches: Sequence[Sequence[Pack]],
    *,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    steps_per_epoch: float,
    start: int = 0,
    room: Room | None = None,
    objective: Objective | None = None,
    seed: int = 0,
) -> Iterator[Step]:
    """Take one optimizer step a batch, from batch `start` on; yield what happened.

    What is random in a step (dropout) is drawn from `seed`, the step and the process, so that a
    resumed training draws what an uninterrupted one does.

    Raises:
        DivergedError: The gradient is not a finite number.
        TrainError: Memory does not do for one example.
    """
    room = room or Room()
    objective = objective or Objective()
    model = loaded.model
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    for number in range(start + 1, len(batches) + 1):
        packs = batches[number - 1]
        began = time.perf_counter()
        lr = rate(
            number,
            peak=schedule.learning_rate,
            steps=len(batches),
            warmup_ratio=schedule.warmup_ratio,
            schedule=schedule.lr_scheduler_type,
        )
        for group in optimizer.param_groups:
            group["lr"] = lr
        model.train()
        _draw_anew(seed, number)
        whole = objective.over(packs, step=number)
        found = batch_gradient(loaded, packs, room=room, whole=whole)
        norm = torch.nn.utils.clip_grad_norm_(weights, schedule.max_grad_norm or float("inf"))
        norm = full(norm)
        if not torch.isfinite(norm):
            raise DivergedError(
                Problem(
                    f"the gradient is not finite at step {number} (loss {found.loss:.3g})",
                    fix="lower train.learning_rate, or set dtype: float32",
                )
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield Step(
            step=number,
            epoch=number / steps_per_epoch,
            loss=found.loss,
            learning_rate=lr,
            grad_norm=float(norm),
            supervised_tokens=whole.supervised,
            tokens=sum(pack.tokens for pack in packs),
            seconds=time.perf_counter() - began,
            memory_bytes=peak_memory(loaded.device),
            terms=whole.means(found),
        )


def _draw_anew(seed: int, step: int) -> None:
    """Seed torch's random numbers, on every device, for a step of this process."""
    drawn = np.random.SeedSequence((seed, step, rank())).generate_state(1, np.uint64)
    torch.manual_seed(int(drawn[0]))


def batch_gradient(
    loaded: LoadedModel,
    packs: Sequence[Pack],
    *,
    room: Room,
    whole: BatchObjective | None = None,
) -> Sums:
    """Compute the gradient of a whole batch, its packs dealt to all processes (`train.ranks`).

    Args:
        loaded: The model, which gets the gradient.
        packs: The batch.
        room: How much is computed at once; gets tighter if need be.
        whole: The objective over this batch; None: plain cross-entropy.

    Raises:
        TrainError: a single example does not fit into memory, here or in another process.
        OutOfStepError: memory ran out, and the weights are dealt out.
    """
    whole = whole or Objective().over(packs, step=0)
    found, failed, share = whole.nothing, None, deal(packs)
    idle = most(len(share)) - len(share) if loaded.through else 0
    try:
        found = own_gradient(loaded, share, whole=whole, room=room)
    except TrainError as error:
        failed = error
    for _ in range(idle):  # all processes gather the weights as often
        backward(loaded, packs[0], whole=whole, idle=True)
    if total(failed is not None):  # asked of all, as nobody may wait for a process that gave up
        raise failed or TrainError(Problem("memory ran out in another process"))
    if not trains_parts(loaded.model):  # else they were summed as they came
        sum_gradients(list(trainable(loaded.model).values()))
    return found.over_all()


def own_gradient(
    loaded: LoadedModel, packs: Sequence[Pack], *, whole: BatchObjective, room: Room
) -> Sums:
    """Compute this process's share of a batch; packs that do not fit into memory are cut.

    Args:
        loaded: The model; its gradients are added to.
        packs: The share.
        whole: The objective over the whole batch.
        room: Gets tighter if need be.

    Raises:
        TrainError: a single example does not fit.
        OutOfStepError: memory ran out, and the weights are dealt out.
    """

    def compute() -> Sums:
        parts = (
            backward(loaded, pack, whole=whole, recompute=room.recompute)
            for pack in room.cut(packs)
        )
        return sum(parts, whole.nothing)

    while True:
        try:
            return apart(compute) if room.apart else compute()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            said = shortage(error)
        # Behind the handler: its traceback held on to the tensors.
        if loaded.through:
            raise OutOfStepError(
                Problem(
                    "memory ran out, and packs are not cut while other processes wait",
                    where="train.micro_batch_tokens",
                    found=said,
                    fix="lower train.micro_batch_tokens, or start more processes",
                )
            )
        loaded.model.zero_grad(set_to_none=True)
        give_back()
        if not room.tighten(packs):
            longest = max(len(pack.ids) for pack in room.cut(packs))
            raise TrainError(
                Problem(
                    f"one example of {longest} tokens does not fit into memory",
                    where="train.max_length",
                    found=said,
                    fix=f"lower train.max_length, take method: lora or a smaller model, {MORE}",
                )
            )


@dataclass(frozen=True, slots=True)
class Probe:
    """What computing the largest pack took."""

    tokens: int
    """Computed in a batch from the middle."""
    seconds: float
    """Forward and backward of that batch."""
    memory_bytes: int
    """Peak of the largest pack, of the process or the GPU."""
    step_tokens: tuple[int, ...]
    """Computed in each step of the training to come."""


def probe(
    loaded: LoadedModel,
    batches: Sequence[Sequence[Pack]],
    *,
    room: Room,
    objective: Objective | None = None,
) -> Probe:
    """Compute the largest pack before training, so that memory runs out now or never.

    Then a batch from the middle is timed: as in training, some of its shapes are new and must be
    compiled. No weight and no random state changes; `room` gets tighter if need be.
    """
    largest, step_tokens = batches[0][0], []
    for packs in map(deal, batches):
        largest = max(largest, *packs, key=lambda pack: len(pack.ids))
        step_tokens.append(sum(len(pack.ids) for pack in packs))
    loaded.model.train()
    typical = deal(batches[len(batches) // 2])
    room.apart = loaded.device.type == "cpu"
    with torch.random.fork_rng():
        forget_peak(loaded.device)
        _trial(loaded, [largest], room=room, objective=objective)
        memory = peak_memory(loaded.device)
        seconds = _trial(loaded, typical, room=room, objective=objective)
    room.apart &= room.tightened  # where memory is short it may run out again
    return Probe(sum(len(pack.ids) for pack in typical), seconds, memory, tuple(step_tokens))


def _trial(
    loaded: LoadedModel, packs: Sequence[Pack], *, room: Room, objective: Objective | None
) -> float:
    """Compute packs' gradient and drop it; return the seconds that took."""
    began = time.perf_counter()
    whole = (objective or Objective()).over(packs, step=0)
    own_gradient(loaded, packs, whole=whole, room=room)
    loaded.model.zero_grad(set_to_none=True)
    return time.perf_counter() - began


def backward(
    loaded: LoadedModel,
    pack: Pack,
    *,
    whole: BatchObjective,
    recompute: bool = False,
    idle: bool = False,
) -> Sums:
    """Add one pack's share of the batch's gradient; return its share of the figures.

    With `idle` the pack is computed and counts as nothing.
    """
    batch = to_batch(pack, device=loaded.device)
    found: Losses

    def compute() -> torch.Tensor:
        nonlocal found
        found = losses(
            loaded.model,
            batch,
            build=loaded.build,
            recompute=recompute,
            shares=whole.shares(pack, device=loaded.device),
            weigh=[term.weigh for term in whole.objective.terms if term.weigh],
            anchors=whole.anchors(loaded, pack, batch),
        )
        return whole.loss(found)

    with compute_in(loaded):
        loss = loaded.through(compute) if loaded.through else compute()
    (loss * 0 if idle else loss).backward()
    return whole.nothing if idle else whole.sums(pack, found)


def compute_in(loaded: LoadedModel) -> Any:
    """Autocast to the model's compute type; nothing where that is float32."""
    return torch.autocast(
        loaded.device.type, dtype=loaded.dtype, enabled=loaded.dtype is not torch.float32
    )
