"""What a run was made with: versions, machine and time, for its manifest."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

PACKAGES = ("instil", "torch", "transformers", "peft", "tokenizers", "scikit-learn", "safetensors")


def versions() -> dict[str, str]:
    """Return the versions of the packages that figures depend on."""
    known = dict.fromkeys(PACKAGES, "not installed")
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            known[name] = importlib.metadata.version(name)
    return known


def now() -> str:
    """Return the time, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def machine() -> dict[str, object]:
    """Describe this machine: system, processor, cores, memory in bytes."""
    import psutil

    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace") if info.exists() else ""
    names = [line.partition(":")[2] for line in lines.splitlines() if line.startswith("model name")]
    return {
        "system": platform.system(),
        "processor": (names[0].strip() if names else platform.processor()) or platform.machine(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
    }
