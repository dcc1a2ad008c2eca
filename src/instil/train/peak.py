"""How much memory was in use at most, since somebody last asked to forget."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import psutil
import torch

from instil.model.shortage import give_back

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
FORGET = "5"
"""Written to `CLEAR` it sets the peak to what is resident now (Linux, proc(5))."""


def forget_peak(device: torch.device) -> None:
    """Count the peak anew from now on; on systems that cannot, it stays the whole process's.

    What is free, but held for later by the C library, is given back first: it is not in use.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    give_back()
    with contextlib.suppress(OSError):
        CLEAR.write_text(FORGET, encoding="ascii")


def peak_memory(device: torch.device) -> int:
    """Peak bytes: of the GPU's allocator, or of the process on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if STATUS.exists():
        for line in STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # not on Windows
        info = psutil.Process().memory_info()
        return int(getattr(info, "peak_wset", info.rss))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
