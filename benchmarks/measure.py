"""Runs the sides of a case alternately, each in a process of its own, and keeps every figure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agreement import agreement
from beside import busy
from cases import Case, Side

HERE = Path(__file__).parent
Runner = Callable[[list[str]], dict[str, Any]]
"""A command -> what it printed, or `{"failed": why}`."""


def measure(
    case: Case, *, model: Path, peers: str, repeats: int, run: Runner, try_all: bool = True
) -> dict[str, Any]:
    """Choose each side's settings, then let the sides take turns.

    Args:
        case: What to run.
        model: The model's folder.
        peers: python of the peers' environment.
        repeats: Turns of each side.
        run: Runs a command.
        try_all: Try all settings of a side; else its first are taken.

    Returns:
        `sides`: name -> settings, what was tried, and runs; `agreement`: what the sides agree on.
    """
    with tempfile.TemporaryDirectory() as folder, busy(case.beside):
        case.make_rows(Path(folder))

        def command(side: Side, more: tuple[str, ...] = ()) -> list[str]:
            # A side that makes its own rows is told their task in place of a file.
            rows = Path(folder) / f"{side.rows}.jsonl"
            given = str(rows) if rows.exists() else side.rows
            python = peers if side.peer else sys.executable
            script = str(HERE / "sides" / side.script)
            return [python, script, given, str(model), *side.arguments, *more]

        sides: dict[str, dict[str, Any]] = {}
        for name, side in case.sides.items():
            tried = {} if not try_all else _tried(side, lambda m, s=side: run(command(s, m)))
            sides[name] = {"settings": _best(side, tried), "tried": tried, "runs": []}
        for turn in range(repeats):
            # Every other turn the other way round, so that no side always goes first.
            for name in list(sides)[:: 1 if turn % 2 == 0 else -1]:
                done = sides[name]
                if not (done["runs"] and "failed" in done["runs"][0]):
                    settings = tuple(done["settings"].split())
                    done["runs"].append(run(command(case.sides[name], settings)))
        told = [run(command(side)) for side in case.agree]
    found = agreement({name: done["runs"] for name, done in sides.items()}, told)
    for done in sides.values():
        for kept in done["runs"]:
            for bulky in ("trained", "nats", "texts"):
                kept.pop(bulky, None)
    return {"name": case.name, "sides": sides, "agreement": found}


def _tried(side: Side, run: Callable[[tuple[str, ...]], dict[str, Any]]) -> dict[str, Any]:
    """Run each of several settings once: settings -> tokens a second, or why it failed."""
    if len(side.candidates) < 2:
        return {}
    found: dict[str, Any] = {}
    for more in side.candidates:
        done = run((*more, *side.trying))
        found[" ".join(more)] = done.get("failed") or done["tokens"] / done["seconds"]
    return found


def _best(side: Side, tried: dict[str, Any]) -> str:
    worked = {settings: speed for settings, speed in tried.items() if not isinstance(speed, str)}
    return max(worked, key=worked.__getitem__) if worked else " ".join(side.candidates[0])


def last_line(
    command: list[str], *, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run a command, with some variables set beside the present ones; its last line is JSON."""
    script = Path(command[1]).name
    print(f"  {script} {' '.join(command[4:])}", file=sys.stderr, flush=True)
    surroundings = {**os.environ, **(environment or {})}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=surroundings)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        print(done.stderr[-3000:], file=sys.stderr)
        return {"failed": lines[-1][:200]}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
