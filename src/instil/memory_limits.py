"""Memory that a process may have, and how libraries say that it ran out.

Four limits end a process, and only some of them with an error: what is free on the machine, the
limit of its control group (a container, a batch job), which kills without a word, the limit of its
address space (`ulimit -v`), and the memory of a GPU.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from instil.errors import InstilError, OutOfMemoryError, Problem
from instil.sanitize import shortened

LIBRARIES = 1_050_000_000
"""Bytes of address space that torch, transformers and peft take before any model: 0.9 GB are too
little, 1.0 GB are enough."""
MORE = "or give the process more memory"
COMPUTE_LESS = (
    "take a smaller model, dtype: bfloat16, quantize: nf4, fewer baselines.shots or a lower "
    f"train.max_length, {MORE}"
)
READ_LESS = f"name fewer rows or smaller files, {MORE}"
LOAD_LESS = f"take a smaller model, dtype: bfloat16 or quantize: nf4, {MORE}"

_SAID = re.compile(
    # oneDNN, for kernels and buffers; a descriptor fails for what it does not know
    r"could not (create|execute) a (primitive|memory)(?! descriptor)"
    r"|can't allocate memory|cannot allocate memory|failed to allocate|std::bad_alloc"
    r"|out of memory|not enough memory|ALLOC_FAILED"
    # the loader of libraries, and threads, whose stacks take address space
    r"|failed to map segment|can't start new thread",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error says that memory ran out, of a GPU or of the process, or comes of that."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen and not isinstance(error, InstilError):
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return True
        native = isinstance(error, RuntimeError | OSError | ImportError)
        if (native or type(error).__name__ == "SafetensorError") and _SAID.search(str(error)):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def within_memory(when: str, *, fix: str, needs: str = "") -> Iterator[None]:
    """Tell what was under way when memory runs out in the block.

    Args:
        when: Goes on with "memory ran out".
        fix: What the user can do.
        needs: How much it needs, where that is known.

    Raises:
        OutOfMemoryError: Memory ran out.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(ran_out(error, when, fix=fix, needs=needs)) from error


def ran_out(error: BaseException, when: str = "", *, fix: str, needs: str = "") -> Problem:
    """Return what to tell of an error that says that memory ran out."""
    what = f"memory ran out {when}".rstrip() + (f": {needs}" if needs else "")
    return Problem(what, found=shortage(error), fix=fix)


def shortage(error: BaseException) -> str:
    """Say what the library said, how much this process can still have, and what limits it."""
    words = re.sub(r"\[enforce fail at [^]]*\] err == 0\. ", "", " ".join(str(error).split()))
    said = f"{type(error).__name__}: {shortened(words, most=100)}".removesuffix(": ")
    with suppress(Exception):  # looking takes some memory, too
        free = free_memory()
        return f"{said}; {gigabytes(free.bytes)} left of {free.limit}"
    return said


def require_libraries() -> None:
    """Refuse an address space in which torch and transformers cannot be imported.

    There an import fails with any error of theirs, or hangs.

    Raises:
        OutOfMemoryError: It is smaller than `LIBRARIES`.
    """
    most = address_space_limit()
    if most is not None and most < LIBRARIES:
        raise OutOfMemoryError(
            "the address space that this process may have is too small to load torch in",
            found=f"{gigabytes(most)} (ulimit -v {most // 1024})",
            allowed=f"at least {gigabytes(LIBRARIES)}, and more for the model",
            fix="ulimit -v unlimited, or a larger number",
        )


@dataclass(frozen=True, slots=True)
class Free:
    """What a process can have on top of what it holds."""

    bytes: int
    """How much."""
    limit: str
    """What sets the limit."""


def free_memory(*, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> Free:
    """Return the tightest of the limits of this process, but for a GPU's.

    Args:
        proc: Where the kernel tells about processes.
        cgroups: Where it tells about control groups, of version 1 or 2.
    """
    import psutil

    limits = [Free(psutil.virtual_memory().available, "this machine's memory")]
    # What each control group around this process leaves (Linux; cgroups(7)).
    for line in _text(proc / "self" / "cgroup").splitlines():
        _, kinds, path = line.split(":", 2)
        if kinds == "":
            names = ("memory.max", "memory.current", "inactive_file")
            limits += _limits_above(cgroups, path, names)
        elif "memory" in kinds.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            limits += _limits_above(cgroups / "memory", path, names)
    most = address_space_limit()
    held = re.search(r"^VmSize:\s+(\d+) kB$", _text(proc / "self" / "status"), re.MULTILINE)
    if most is not None and held:
        left = max(0, most - int(held[1]) * 1024)
        limits.append(Free(left, "the address space's limit (ulimit -v)"))
    return min(limits, key=lambda limit: limit.bytes)


def resident_memory() -> int:
    """Return the bytes that this process holds."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def gigabytes(count: float) -> str:
    """Write a number of bytes.

    >>> gigabytes(1_234_000_000), gigabytes(56_000_000)
    ('1.2 GB', '56 MB')
    """
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(0, count) / 1e6:.0f} MB"


def _limits_above(root: Path, path: str, names: tuple[str, str, str]) -> Iterator[Free]:
    limit, usage, cached = names
    inner = root / path.strip("/")
    # A container may see its own group as the root, whatever its path is outside.
    for group in (inner, *inner.parents):
        most, used = _text(group / limit).strip(), _text(group / usage).strip()
        if most.isdigit() and used.isdigit() and int(most) < 1 << 60:
            given_back = re.search(rf"^{cached} (\d+)$", _text(group / "memory.stat"), re.MULTILINE)
            held = int(used) - (int(given_back[1]) if given_back else 0)
            yield Free(max(0, int(most) - held), f"the control group's limit ({limit})")
        if group == root:
            return


def address_space_limit() -> int | None:
    """Return how many bytes of address space this process may have (`ulimit -v`); None: any."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if most == resource.RLIM_INFINITY else most


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
