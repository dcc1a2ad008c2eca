"""Training on several processes (data parallel): `torchrun --nproc-per-node 4 -m instil run ...`.

Every process holds the whole model and lays out the same batches, since all is seeded. A batch's
packs are dealt to the processes, each loss is divided by the supervised tokens of the *whole*
batch, and the gradients are summed: 1 x 8 equals 8 x 1 equals 2 processes x 4.

The first process (rank 0) does everything else of a run alone, and is the only one to write. The
others are its helpers: they wait until it sends them a job, or lets them go.

With one process all of this is nothing: `first` is true, and no value goes anywhere.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from instil.encode.pack import halves
from instil.errors import InstilError
from instil.signals import CTRL_C, ENDING
from instil.types import Pack

PATIENCE = timedelta(days=7)
"""How long a process waits for the others: a helper waits for all that comes before training."""
BUCKET = 2**25
"""Weights whose gradients are summed at once."""

_ALONE = ContextVar("alone", default=False)

T = TypeVar("T")


class LetGoError(InstilError):
    """Raised in a helper that is let go while it waits for an answer."""


class OutOfStepError(InstilError):
    """Raised in one process while others wait for it: what started them must end them.

    No `TrainError`, which all processes get over together.
    """


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if _joined() else 0


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if _joined() else 1


def is_first() -> bool:
    """Whether this process writes, validates and speaks."""
    return rank() == 0


def _joined() -> bool:
    return not _ALONE.get() and dist.is_available() and dist.is_initialized()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Within the block the first process trains by itself; its helpers wait for a job."""
    before = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(before)


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Join the processes that torchrun or `accelerate launch` has started, and leave them again.

    At the end of the block the first process lets its helpers go. Helpers leave it to the first one
    to hear Ctrl-C and its like.
    """
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    if not is_first():
        for number in (CTRL_C, *ENDING):
            signal.signal(number, signal.SIG_IGN)
    answers = True
    try:
        yield
    except OutOfStepError:
        answers = False
        raise
    finally:
        if is_first() and answers:
            send_job(None)
        if answers:
            dist.destroy_process_group()


def send_job(job: Any) -> None:
    """Give the helpers something to do; None: let them go. Called by the first process."""
    if world_size() > 1:
        _broadcast(job)


def jobs() -> Iterator[Any]:
    """Yield what the first process sends, until it lets its helpers go."""
    while (job := _broadcast(None)) is not None:
        yield job


@dataclass(frozen=True, slots=True)
class _Answer:
    value: Any


def from_first(compute: Callable[[], T], *, serve: Callable[[Any], None] | None = None) -> T:
    """Let the first process compute a value, and return it in all of them.

    Args:
        compute: Called by the first process.
        serve: What a helper does with a job that it is sent meanwhile.

    Raises:
        LetGoError: In a helper, where the first process has ended in the midst of it.
    """
    if world_size() == 1:
        return compute()
    if is_first():
        value = compute()
        send_job(_Answer(value))
        return value
    for job in jobs():
        if isinstance(job, _Answer):
            return job.value  # type: ignore[no-any-return]
        assert serve is not None, f"nobody expects {job}"
        serve(job)
    raise LetGoError("the first process has ended")


def _broadcast(value: Any) -> Any:
    held = [value]
    dist.broadcast_object_list(held, src=0, device=torch.device("cpu"))
    return held[0]


def deal(packs: Sequence[Pack]) -> list[Pack]:
    """Return this process's share of a batch's packs, about as many tokens as any other's.

    Packs are cut, between their examples, until there is one for each process; where there are
    fewer examples than processes, some get nothing.
    """
    parts = list(packs)
    if world_size() == 1:
        return parts
    while len(parts) < world_size():
        largest = max(parts, key=lambda pack: (len(pack.example_ids) > 1, len(pack.ids)))
        if len(largest.example_ids) == 1:
            break
        parts.remove(largest)
        parts += halves(largest)
    shares: list[list[Pack]] = [[] for _ in range(world_size())]
    for pack in sorted(parts, key=lambda pack: len(pack.ids), reverse=True):
        min(shares, key=lambda share: sum(len(p.ids) for p in share)).append(pack)
    return shares[rank()]


def total(value: float) -> float:
    """Sum a number over all processes."""
    return totals([value])[0]


def totals(values: Sequence[float]) -> Sequence[float]:
    """Sum numbers over all processes, each for itself."""
    if world_size() == 1:
        return values
    held = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(held)
    return [float(value) for value in held]


def most(value: int) -> int:
    """Return the largest of the processes' numbers."""
    if world_size() == 1:
        return value
    held = torch.tensor(value)
    dist.all_reduce(held, op=dist.ReduceOp.MAX)
    return int(held)


def sum_gradients(weights: Sequence[torch.nn.Parameter]) -> None:
    """Sum every weight's gradient over all processes; one that has none here adds nothing.

    Weights that have a gradient nowhere get none: AdamW would let them decay.
    """
    if world_size() == 1:
        return
    holders = totals([p.grad is not None for p in weights])
    held = [p for p, processes in zip(weights, holders, strict=True) if processes]
    for bucket in _buckets(held):
        flat = torch.cat(
            [p.new_zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in bucket]
        )
        dist.all_reduce(flat)
        for p, grad in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
            p.grad = grad.view_as(p)


def _buckets(weights: Sequence[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    bucket: list[torch.nn.Parameter] = []
    filled = 0
    for p in weights:
        if bucket and (filled + p.numel() > BUCKET or p.dtype is not bucket[0].dtype):
            yield bucket
            bucket, filled = [], 0
        bucket.append(p)
        filled += p.numel()
    if bucket:
        yield bucket
