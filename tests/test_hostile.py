"""Each bad input of the table ends in one message, exit code 2, in five seconds and 500 MB."""

from __future__ import annotations

import csv
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hostile import ESCAPES, WORDS, Case, lay_out, table
from instil.cli.main import app
from instil.sanitize import visible

CASES = table()
SECONDS = 5
"""Of one command."""
MEGABYTES = 500
"""More than was held before, at the peak of one command."""
SAMPLE = 10
"""Cases of an area that are tried each time."""
LONG = ("bomb", "laughs", "many keys", "deep", "a cut", "sparse", "chat template", "model=")
"""Parts of the names of cases that take up to some seconds."""


def ends_well(case: Case, folder: Path, model: Path) -> None:
    lay_out(folder, model=model)
    case.prepare(folder)
    began, held = time.thread_time(), restart_peak()
    result = CliRunner().invoke(app, case.arguments)
    assert result.exit_code in case.codes, (result.output[-3000:], result.exception)
    assert not result.exception or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    said = result.stdout + result.stderr
    assert said.strip()
    assert visible(said) == said
    assert len(said) < 6000, said
    assert time.thread_time() - began < SECONDS
    assert held is None or peak() - held < MEGABYTES


def restart_peak() -> float | None:
    """Let the peak begin at what is held now, in MB; None where the system has no such file."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return peak()


def peak() -> float:
    """Return the peak of memory held, in MB."""
    (line,) = (
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    )
    return int(line.split()[1]) / 1000


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "work"
    made.mkdir()
    monkeypatch.chdir(made)
    monkeypatch.setenv("COLUMNS", "100")
    return made


def test_the_table_is_large() -> None:
    areas = Counter(case.area for case in CASES)
    assert len(CASES) > 600
    assert len(areas) == 6
    assert min(areas.values()) > 50


def test_escapes_in_rows_labels_and_names_do_not_reach_the_terminal(
    folder: Path, tiny_folder: Path
) -> None:
    lay_out(folder, model=tiny_folder)
    draw = random.Random(0)
    rows = [[f"text{ESCAPES}", f"label{ESCAPES}"]]
    rows += [[f"{draw.choice(WORDS)} {n} {ESCAPES}", f"{'ab'[n % 2]}{ESCAPES}"] for n in range(99)]
    with (folder / "rows.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)
    commands = [
        ["init", "rows.csv"],
        ["tasks", "show", "./rows.task.yaml"],
        ["tasks", "test", "./rows.task.yaml"],
        ["check", "recipe.yaml", "--set", "tasks=[{use: ./rows.task.yaml}]"],
        ["preview", "recipe.yaml", "--set", "tasks=[{use: ./rows.task.yaml}]"],
    ]
    for arguments in commands:
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        assert visible(result.output) == result.output, arguments
        assert "test" in arguments or "\u241b" in result.output


def sample() -> list[Case]:
    """Draw cases of each area, always the same."""
    quick = [case for case in CASES if not any(part in case.name for part in LONG)]
    areas = sorted({case.area for case in quick})
    return [
        case
        for area in areas
        for case in random.Random(1).sample([c for c in quick if c.area == area], SAMPLE)
    ]


@pytest.mark.parametrize("case", sample(), ids=lambda case: case.id)
def test_a_bad_input_of_the_sample(case: Case, folder: Path, tiny_folder: Path) -> None:
    ends_well(case, folder, tiny_folder)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_bad_input(case: Case, folder: Path, tiny_folder: Path) -> None:
    ends_well(case, folder, tiny_folder)
