from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from safetensors import SafetensorError

from instil import __version__
from instil.cli.show import make_console, plain_table
from instil.cli.terminal import say_answer
from instil.errors import Problem, RunError
from instil.sanitize import visible

COMMANDS = "init check run report status compare predict chat export models tasks".split()
PanicException = type("PanicException", (BaseException,), {})  # as libraries in Rust raise
ConnectError = type("ConnectError", (Exception,), {"__module__": "httpx"})
HEAVY = "torch transformers peft sklearn scipy pyarrow matplotlib datasketch sacrebleu".split()


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from instil.cli.main import main\n"
        "sys.argv = ['instil', '--help']\n"
        "try:\n    main()\n"
        f"finally:\n    print('HEAVY', [m for m in {HEAVY!r} if m in sys.modules])\n"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout
    assert all(command in done.stdout for command in COMMANDS)
    assert seconds < 1.5


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(instil_command, command: str) -> None:
    result = instil_command(command, "--help")
    assert result.exit_code == 0
    assert f"instil {command}" in result.output
    assert "Example:" in result.output


def test_no_command_shows_the_help(instil_command) -> None:
    assert "Labelled rows in" in instil_command().output


def test_version(instil_command) -> None:
    assert instil_command("--version").output == f"instil {__version__}\n"


def test_a_users_mistake_is_told_on_stderr_without_a_traceback(instil_command, library) -> None:
    problem = Problem("it [bold]broke[/bold]", where="runs/x", found="{1}", fix="mend it")
    library.answers["rebuild_report"] = RunError(problem, "and this too")
    result = instil_command("report", "runs/x")
    assert result.exit_code == 2
    assert result.stderr == f"{problem}\nand this too\n"
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("error", "says", "code"),
    [
        (ZeroDivisionError("oops"), "ZeroDivisionError: oops", 1),
        (MemoryError(), "memory ran out\n  found: MemoryError; ", 1),
        (RuntimeError("could not create a primitive"), "memory ran out", 1),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "give the process more memory", 1),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply", 1),
        (OverflowError("date value out of range"), "OverflowError: date value", 1),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "no surrogates"), "its encoding lacks", 1),
        (ValueError("embedded null byte"), "a zero byte", 2),
        (OSError(errno.ELOOP, "Too many symbolic links", "a/b"), "a/b: this cannot be read", 2),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "/x: this cannot be read", 2),
        (OSError("We couldn't connect"), "We couldn't connect", 2),
        (ConnectError("[Errno -2] Name not known"), "the network cannot be reached", 2),
        (SafetensorError("header too large"), "SafetensorError: header too large", 1),
        (PanicException("rust"), "PanicException: rust", 1),
    ],
)
def test_what_is_left_over_is_one_message(instil_command, library, error, says, code) -> None:
    library.answers["rebuild_report"] = error
    result = instil_command("report", "runs/x")
    assert result.exit_code == code
    assert says in result.stderr
    assert "Traceback" not in result.output
    if code == 1:
        log = Path(re.search(r"log: (.*)", result.stderr)[1])
        assert f"{type(error).__name__}" in log.read_text(encoding="utf-8")
        log.unlink()


def test_a_log_that_cannot_be_written_does_not_hide_the_message(
    instil_command, library, monkeypatch
) -> None:
    library.answers["rebuild_report"] = ZeroDivisionError("oops")
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    result = instil_command("report", "runs/x")
    assert result.exit_code == 1
    assert "ZeroDivisionError: oops" in result.stderr
    assert "log:" not in result.stderr


def test_the_traceback_is_shown_on_demand(instil_command, library, monkeypatch) -> None:
    library.answers["rebuild_report"] = ZeroDivisionError("oops")
    monkeypatch.setenv("INSTIL_DEBUG", "1")
    assert isinstance(instil_command("report", "runs/x").exception, ZeroDivisionError)


ESCAPES = "\x1b[31m\x1b]0;title\a\u202e\u200f[red]\x9b"


def test_an_error_quotes_little_and_nothing_that_a_terminal_obeys(instil_command, library) -> None:
    parts = {part: ESCAPES + 5000 * "x" for part in ("what", "where", "found", "nearest", "fix")}
    library.answers["rebuild_report"] = RunError(Problem(**parts))
    said = instil_command("report", "runs/x").stderr
    assert visible(said) == said
    assert "[red]" in said
    assert len(said) < 2500


@pytest.mark.parametrize("place", ["--{}", "{}", "report --{}", "report x {}", "check x --set {}"])
def test_a_wrong_command_line_is_quoted_visibly(instil_command, place: str) -> None:
    result = instil_command(*(part.format(ESCAPES) for part in place.split()))
    assert result.exit_code == 2
    said = result.stderr.replace("\n", "")
    assert visible(said) == said
    assert "\x1b" not in said


def test_a_console_writes_out_control_characters_also_in_tables(capsys) -> None:
    table = plain_table(title=f"a{ESCAPES}")
    table.add_column(f"b{ESCAPES}")
    table.add_row(f"c{ESCAPES}")
    console = make_console()
    console.print(f"d{ESCAPES}\n")
    console.print(table)
    said = capsys.readouterr().out
    assert visible(said) == said
    assert said.count("[red]") == 4


def test_an_answer_keeps_its_characters_in_a_pipe_alone(capsys, monkeypatch) -> None:
    say_answer(ESCAPES)
    assert capsys.readouterr().out == f"{ESCAPES}\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    say_answer(ESCAPES)
    assert capsys.readouterr().out == f"{visible(ESCAPES)}\n"


def test_an_ascii_terminal_gets_escapes_in_place_of_an_error() -> None:
    code = "from instil.cli.main import main; main()"
    command = [sys.executable, "-c", code, "models"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


def test_interrupted_is_130(instil_command, library) -> None:
    library.answers["rebuild_report"] = KeyboardInterrupt()
    result = instil_command("report", "runs/x")
    assert result.exit_code == 130
    assert "Traceback" not in result.output


def test_an_unknown_option_is_a_mistake_of_the_user(instil_command) -> None:
    result = instil_command("run", "--nope")
    assert result.exit_code == 2
    assert "--nope" in result.stderr
