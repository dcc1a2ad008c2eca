"""Signals that stop a run in order: Ctrl-C, a scheduler's SIGTERM, a closed terminal's SIGHUP."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

CTRL_C = signal.SIGINT
ENDING = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)  # Windows has no SIGHUP
"""What is to end a process as Ctrl-C does."""
interrupt = signal.default_int_handler
"""The handler that raises `KeyboardInterrupt`."""


@contextmanager
def on_signals(
    handler: Callable[[int, FrameType | None], None], *numbers: signal.Signals
) -> Iterator[None]:
    """Within the block signals call `handler`; those of ENDING that are ignored (nohup) stay so.

    Outside the main thread Python delivers no signals, and nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    known = {number: signal.getsignal(number) for number in numbers}
    taken = {n: old for n, old in known.items() if n == CTRL_C or old is not signal.SIG_IGN}
    for number in taken:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in taken.items():
            signal.signal(number, old)
