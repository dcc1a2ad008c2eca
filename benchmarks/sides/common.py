"""What every side of a benchmark shares; imports nothing of instil nor of its peers.

A side is a script that runs in a process of its own and prints one line of JSON, at the least::

    tokens      of the rows in the timed part: the same for every side
    computed    tokens that were truly computed: padding adds some, shared prefixes save some
    places      where the vocabulary projection was needed
    seconds     of the timed part
    peak_bytes  peak memory: of the process on a CPU, of the allocator on a GPU
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def finish(result: Mapping[str, Any], *, device: str = "cpu") -> None:
    """Print the side's one line, peak memory added unless it is there."""
    print(json.dumps({"peak_bytes": peak_bytes(device), **result}))


def peak_bytes(device: str = "cpu") -> int:
    """Peak memory of this process (or of the GPU's allocator).

    `ru_maxrss` would not do: over fork and exec it begins at what the *parent* held.
    """
    if device == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def chunks(items: list[Any], size: int) -> list[list[Any]]:
    """Cut a list into pieces of `size`; the last may be shorter."""
    return [items[n : n + size] for n in range(0, len(items), size)]
