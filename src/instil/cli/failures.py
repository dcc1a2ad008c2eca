"""How a command ends that fails: one message, an exit code, and a log file for what is left over.

A user's mistake is an `InstilError` and says all itself (exit code 2). What the surroundings refuse
(a full disk, no permission, no network) is told in one line (2). Anything else is a mistake of
instil's own or too much for this machine: one line too, and the traceback goes to a file (1).
`INSTIL_DEBUG=1` shows the traceback instead.

Tests: `tests/cli/test_main.py`.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from datetime import datetime

from instil.errors import InstilError, Problem
from instil.memory_limits import MORE, is_out_of_memory, ran_out
from instil.sanitize import shortened

DEBUG = "INSTIL_DEBUG"
"""The environment variable that shows tracebacks."""
BUG = 1
"""The exit code where it is no mistake of the user's."""
INTERRUPTED = 130
"""The exit code after Ctrl-C or SIGTERM, as shells have it."""

_NETWORK = ("httpx", "httpcore", "requests", "urllib3", "huggingface_hub", "ssl")


def wants_traceback() -> bool:
    """Whether the user asked for tracebacks."""
    return os.environ.get(DEBUG, "") not in ("", "0")


def is_failure(error: BaseException) -> bool:
    """Whether an exception is a failure, and not a way to end; libraries in Rust panic beside."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def told(error: BaseException) -> tuple[str, int]:
    """Return the message for an exception, and the exit code.

    What is neither a user's mistake nor a refusal by the surroundings is written to a log file.
    """
    if isinstance(error, InstilError):
        return str(error), error.exit_code
    if is_out_of_memory(error):
        fix = f"use fewer or shorter rows, or a smaller model, {MORE}{_logged(error)}"
        return str(ran_out(error, fix=fix)), BUG
    problem, network = None, type(error).__module__.startswith(_NETWORK)
    if isinstance(error, OSError) and not network:
        problem = Problem(
            f"this cannot be read or written: {error.strerror or _line(error)}",
            where=str(error.filename or ""),
            fix="make room, or name a place that you may read and write",
        )
    elif isinstance(error, ValueError) and "embedded null" in str(error):
        problem = Problem("a name has a zero byte in it", fix="write it without")
    elif network:
        problem = Problem(
            "the network cannot be reached, or refuses",
            found=f"{type(error).__name__}: {_line(error)}",
            fix="try again with a network, or name files on this machine",
        )
    if problem:
        return str(problem), InstilError.exit_code
    fix = "this is a mistake in instil, not in your files: please report it with the log"
    match error:
        case RecursionError():
            what = "the text is nested too deeply, or refers to itself"
            fix = "look for a value within itself, or brackets without an end"
        case UnicodeError():
            what = f"a text has characters that its encoding lacks: {_line(error)}"
            fix = "save the files as UTF-8"
        case _:
            what = f"{type(error).__name__}: {_line(error)}"
    return str(Problem(what, fix=f"{fix}{_logged(error)}")), BUG


def _line(error: BaseException) -> str:
    return shortened(" ".join(str(error).split()) or "no reason given")


def _logged(error: BaseException) -> str:
    """Write the traceback to a temporary file; return a line that names it, or an empty text."""
    text = "".join(traceback.format_exception(error, chain=True))
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    try:
        with tempfile.NamedTemporaryFile(
            "w",
            encoding="utf-8",
            errors="backslashreplace",
            prefix=f"instil-{stamp}-",
            suffix=".log",
            delete=False,
        ) as log:
            log.write(f"{' '.join(sys.argv)}\n\n{text}")
        return f"\n  log: {log.name}"
    except OSError:
        return ""
