"""What to do when memory runs out while a model computes: less at once, and in another thread.

Once memory was too short for a kernel, oneDNN makes no kernel any more in that thread, whatever
becomes free: its code generator (Xbyak) keeps the error thread by thread. Packs that were halved
failed like whole ones until a thread of their own computed them (docs/002).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import torch

from instil.memory_limits import address_space_limit, is_out_of_memory

T = TypeVar("T")
R = TypeVar("R")

_ALLOCATOR = ((-8, 1), (-3, 256 << 10))
"""glibc's M_ARENA_MAX, as every arena takes 64 MB of address space, and M_MMAP_THRESHOLD, the size
from which memory is asked of the system and given back at once."""


def apart(compute: Callable[[], R]) -> R:
    """Compute in a new thread, with this one's modes of torch."""
    inference, grad = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def work() -> R:
        with torch.inference_mode() if inference else torch.set_grad_enabled(grad):
            return compute()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def halved(compute: Callable[[Sequence[T]], list[R]], items: Sequence[T]) -> list[R]:
    """Compute items together, in two halves where memory runs out, and so on down to one.

    >>> def two_at_most(items):
    ...     if len(items) > 2:
    ...         raise MemoryError
    ...     return [item.upper() for item in items]
    >>> halved(two_at_most, "abcde")
    ['A', 'B', 'C', 'D', 'E']
    """
    try:
        return compute(items)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    give_back()  # behind the handler: its traceback held on to the tensors
    if len(items) < 2:
        return apart(partial(compute, items))
    middle = len(items) // 2
    halves = (items[:middle], items[middle:])
    return [each for half in halves for each in apart(partial(halved, compute, half))]


def retried(compute: Callable[[], R]) -> R:
    """Compute once more where memory runs out, after what is free has been given back."""
    try:
        return compute()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    give_back()
    return apart(compute)


def give_back() -> None:
    """Give memory that the process freed back to the system: files to be mapped want it as well."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    with _glibc() as library:
        library.malloc_trim(0)


def spare_address_space() -> None:
    """Have large tensors given back to the system at once where address space is limited.

    glibc keeps those of up to 32 MB in its heap, whose addresses oneDNN's kernels then lack.
    """
    if address_space_limit() is not None:
        with _glibc() as library:
            for setting in _ALLOCATOR:
                library.mallopt(*setting)


@contextlib.contextmanager
def _glibc() -> Iterator[ctypes.CDLL]:
    """Yield the C library; with another than glibc, what is missing there is not done."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        yield ctypes.CDLL(None)
