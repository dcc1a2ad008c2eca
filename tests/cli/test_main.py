from __future__ import annotations

import subprocess
import sys
import time

import pytest

from instil import __version__
from instil.errors import Problem, RunError

COMMANDS = "init check run report status compare predict chat export models tasks".split()
HEAVY = "torch transformers peft sklearn scipy pyarrow altair datasketch sacrebleu".split()


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


def test_a_mistake_of_ours_shows_its_traceback(instil_command, library) -> None:
    library.answers["rebuild_report"] = ZeroDivisionError("oops")
    result = instil_command("report", "runs/x")
    assert result.exit_code == 1
    assert isinstance(result.exception, ZeroDivisionError)
    assert "mistake in instil" in result.exception.__notes__[0]


def test_interrupted_is_130(instil_command, library) -> None:
    library.answers["rebuild_report"] = KeyboardInterrupt()
    result = instil_command("report", "runs/x")
    assert result.exit_code == 130
    assert "Traceback" not in result.output


def test_an_unknown_option_is_a_mistake_of_the_user(instil_command) -> None:
    result = instil_command("run", "--nope")
    assert result.exit_code == 2
    assert "--nope" in result.stderr
