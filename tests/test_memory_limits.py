"""What says that memory ran out, what limits a process, and how both are told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from instil.errors import ModelError, OutOfMemoryError, Problem
from instil.memory_limits import Free, free_memory, is_out_of_memory, shortage, within_memory
from instil.stages.footprint import memory_line

GIGABYTE = 10**9
CPU = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"
SafetensorError = type("SafetensorError", (Exception,), {})


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError(CPU),
        RuntimeError("could not create a primitive"),
        RuntimeError("could not execute a primitive"),
        RuntimeError("could not create a memory object"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("unable to mmap 269060552 bytes from file <m>: Cannot allocate memory (12)"),
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
        RuntimeError("can't start new thread"),
        OSError(12, "Cannot allocate memory"),
        ImportError("libfoo.so: failed to map segment from shared object"),
        SafetensorError("Cannot allocate memory (os error 12)"),
    ],
    ids=str,
)
def test_memory_that_runs_out_is_recognised(error: Exception) -> None:
    assert is_out_of_memory(error)
    wrapped = ValueError("not loaded")
    wrapped.__cause__ = error
    assert is_out_of_memory(wrapped)
    with (
        pytest.raises(
            OutOfMemoryError, match=r"^memory ran out in the stage 'rows'\n  found: "
        ) as told,
        within_memory("in the stage 'rows'", fix="name fewer"),
    ):
        raise error
    assert type(error).__name__ in str(told.value)
    assert "left of" in str(told.value)
    assert str(told.value).endswith("to fix: name fewer")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        RuntimeError("could not create a primitive descriptor for the matmul primitive. Run ..."),
        RuntimeError("could not create a memory descriptor from blob"),
        ValueError("the text says: out of memory"),
        ModelError(Problem("a model that ran out of memory")),
        OSError(28, "No space left on device"),
    ],
    ids=str,
)
def test_other_errors_pass(error: Exception) -> None:
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)), within_memory("anywhere", fix="none"):
        raise error


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")


def test_the_limit_of_a_control_group_counts(tmp_path: Path) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    write(proc / "self/cgroup", "0::/slurm/job_7/step\n")
    write(groups / "slurm/job_7/step/memory.max", "max\n")
    write(groups / "slurm/job_7/step/memory.current", "100\n")
    write(groups / "slurm/job_7/memory.max", "90000000\n")
    write(groups / "slurm/job_7/memory.current", "70000000\n")
    write(groups / "slurm/job_7/memory.stat", "anon 1\ninactive_file 30000000\n")
    # What it holds of files is given back when it is short.
    wanted = Free(50_000_000, "the control group's limit (memory.max)")
    assert free_memory(proc=proc, cgroups=groups) == wanted


def test_the_limit_of_a_control_group_of_version_1_counts(tmp_path: Path) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    write(proc / "self/cgroup", "8:pids:/\n4:memory:/outside/the/container\n")
    write(groups / "memory/memory.limit_in_bytes", "20000000\n")
    write(groups / "memory/memory.usage_in_bytes", "25000000\n")
    wanted = Free(0, "the control group's limit (memory.limit_in_bytes)")
    assert free_memory(proc=proc, cgroups=groups) == wanted


def test_without_limits_the_machine_counts(tmp_path: Path) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    write(proc / "self/cgroup", "4:memory:/\n")
    write(groups / "memory/memory.limit_in_bytes", "9223372036854771712\n")
    write(groups / "memory/memory.usage_in_bytes", "1\n")
    found = free_memory(proc=proc, cgroups=groups)
    assert found.limit == "this machine's memory"
    assert found.bytes > 0


def test_a_shortage_is_told_even_where_looking_takes_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def short() -> Free:
        raise MemoryError

    monkeypatch.setattr("instil.memory_limits.free_memory", short)
    assert shortage(RuntimeError("std::bad_alloc")) == "RuntimeError: std::bad_alloc"


def test_the_forecast_stands_beside_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    left = Free(2 * GIGABYTE, "the control group's limit (memory.max)")
    monkeypatch.setattr("instil.stages.footprint.free_memory", lambda: left)
    monkeypatch.setattr("instil.stages.footprint.resident_memory", lambda: GIGABYTE)
    enough = memory_line({"libraries": GIGABYTE, "weights": 2 * GIGABYTE}, device="cpu").replace(
        "\u00a0", " "
    )
    parts = "1.0 GB libraries, 2.0 GB weights"
    assert enough == f"memory: about 3.0 GB (an estimate: {parts}); 3.0 GB is free"
    short = memory_line({"libraries": GIGABYTE, "weights": 3 * GIGABYTE}, device="cpu").replace(
        "\u00a0", " "
    )
    assert "3.0 GB weights), but 3.0 GB is free, by the control group's limit" in short
    assert "killed without a word" in short


@pytest.mark.parametrize(
    "command",
    ["check", "preview", "run", "methods", "curve", "sequence", "predict", "chat", "export"],
)
def test_an_address_space_too_small_for_torch_is_refused_before_it_is_imported(
    tmp_path: Path, command: str
) -> None:
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_AS, (800_000_000, 800_000_000))\n"
        "from instil.cli.main import main\n"
        f"sys.argv = ['instil', {command!r}, 'any']\n"
        f"sys.argv += {{'predict': ['a review'], 'export': ['there']}}.get({command!r}, [])\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 2, done.stderr
    assert "too small to load torch in" in done.stderr
    assert "Traceback" not in done.stderr
