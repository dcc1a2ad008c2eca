"""Faults in the middle of a run: a process that is killed, a disk that is full, at any write."""

import builtins
import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import safetensors.torch
from safetensors import SafetensorError
from transformers import PreTrainedTokenizerFast

FULL = "No space left on device"


class Killed(BaseException):
    """The process is gone: whatever it would have cleaned up stays."""


class Faults:
    """Counts what changes files under a folder; at the number `at` the fault begins.

    killed: that change does not happen, nor does any later one; half of a file is written.
    full: it fails, as all later ones do that need room, if the fault is one for good.
    """

    def __init__(self, under: Path, *, at: int = 0, kind: str = "killed") -> None:
        self.under, self.at, self.kind = str(under), at, kind
        self.count, self.dead = 0, False
        self.seen: list[bool] = []
        """Every change of a file: whether it needs room."""

    def change(self, path: object, *, needs_room: bool, half: Callable[[], object] = int) -> None:
        """Let one change of a file through, or not."""
        if not str(path).startswith(self.under) and not isinstance(path, int):
            return
        self.seen.append(needs_room)
        if self.dead and (self.kind == "killed" or (self.kind == "full for good" and needs_room)):
            self._fail(path)
        if self.dead or (self.kind != "killed" and not needs_room):
            return
        self.count += 1
        if self.count == self.at:
            half()
            self.dead = True
            self._fail(path)

    def _fail(self, path: object) -> None:
        if self.kind == "killed":
            raise Killed
        raise OSError(errno.ENOSPC, FULL, str(path))


@contextmanager
def injected(faults: Faults) -> Iterator[Faults]:
    """Within the block changes of files go by `faults`."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("unlink", "remove", "rmdir", "mkdir", "replace", "rename"):
            patch.setattr(os, name, _counted(faults, getattr(os, name), name))
        opened = io.open

        def open_counted(file: object, mode: str = "r", *args: object, **options: object) -> object:
            if set(mode) & set("wax+"):
                faults.change(file, needs_room=True)
            return opened(file, mode, *args, **options)

        patch.setattr(io, "open", open_counted)
        patch.setattr(builtins, "open", open_counted)

        def write_bytes(path: Path, data: bytes) -> int:
            def write(part: bytes) -> int:
                with opened(path, "wb") as file:
                    return file.write(part)

            faults.change(path, needs_room=True, half=lambda: write(data[: len(data) // 2]))
            return write(data)

        patch.setattr(Path, "write_bytes", write_bytes)
        _patch_native(faults, patch)
        yield faults


def _counted(faults: Faults, do: Callable, name: str) -> Callable:
    def act(path: object, *args: object, **options: object) -> object:
        if name == "mkdir" and os.path.isdir(path):  # nothing changes
            return do(path, *args, **options)
        target = args[0] if name in ("replace", "rename") else path
        where = 0 if options.get("dir_fd") is not None else target  # of rmtree: a part of a path
        faults.change(where, needs_room=name in ("mkdir",))
        return do(path, *args, **options)

    return act


def _patch_native(faults: Faults, patch: pytest.MonkeyPatch) -> None:
    """Writers in native code, which raise no OSError."""
    serialize, save = safetensors.torch.serialize_file, PreTrainedTokenizerFast._save_pretrained

    def serialize_file(tensors: object, filename: object, **options: object) -> object:
        try:
            half = lambda: os.close(os.open(filename, os.O_CREAT | os.O_WRONLY))  # noqa: E731
            faults.change(filename, needs_room=True, half=half)
        except OSError as error:
            raise SafetensorError(f"I/O error: {FULL} (os error 28)") from error
        return serialize(tensors, filename, **options)

    def save_pretrained(self: object, save_directory: object, **options: object) -> object:
        try:
            faults.change(save_directory, needs_room=True)
        except OSError as error:
            raise Exception(f"{FULL} (os error 28)") from error
        return save(self, save_directory, **options)

    patch.setattr(safetensors.torch, "serialize_file", serialize_file)
    patch.setattr(PreTrainedTokenizerFast, "_save_pretrained", save_pretrained)
