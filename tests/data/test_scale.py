"""A million rows in under 2 GB of memory, from reading to the cleaned split."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

MILLION = 1_000_000
GIGABYTE = 1_000_000_000
TASK = """
id: big
source: {name}
text: review
target: label
choices: [bad, good]
group: product
templates: [{{id: plain, prompt: "Good? {{{{ review }}}}"}}]
"""
CHILD = """
import re, sys
from pathlib import Path
from instil.data.prepare import prepare
from instil.tasks.task import load_task

data = prepare(
    load_task(sys.argv[1]), train=None, validation=150, test=300, seed=0, near_duplicates=0.8
)
# getrusage would also count what pytest had when it started this process.
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(len(data.train), int(peak[1]) * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the peak")
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("name", "rows"),
    # The other readers on fewer rows, for the time it takes: what a million would need is reckoned.
    [("rows.jsonl", MILLION), ("rows.csv", MILLION // 8), ("rows.json", MILLION // 8)],
)
def test_a_million_rows_stay_under_two_gigabytes(tmp_path: Path, name: str, rows: int):
    idle = peak_bytes(tmp_path, name=name, rows=5000)
    grown = peak_bytes(tmp_path, name=name, rows=rows) - idle
    million = idle + grown * MILLION / rows
    assert grown > 0
    assert million < 2 * GIGABYTE, f"{million / 1e9:.2f} GB, {idle / 1e9:.2f} GB of it at rest"


def peak_bytes(tmp_path: Path, *, name: str, rows: int) -> int:
    """Prepare that many rows in a process of its own and return its peak memory."""
    rng = random.Random(0)
    words = [f"word{n}" for n in range(3000)]
    with (tmp_path / name).open("w") as file:
        file.write({"rows.csv": "review,label,product\n", "rows.json": "["}.get(name, ""))
        for n in range(rows):
            row = (" ".join(rng.choices(words, k=9)), ("good", "bad")[n % 2], f"p{n % 50_000}")
            line = ",".join(row)
            if name != "rows.csv":
                line = json.dumps(dict(zip(("review", "label", "product"), row, strict=True)))
            file.write(("," if name == "rows.json" and n else "") + line + "\n")
        file.write("]" if name == "rows.json" else "")
    (tmp_path / "big.yaml").write_text(TASK.format(name=name))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = [sys.executable, "-c", CHILD, str(tmp_path / "big.yaml")]
    done = subprocess.run(child, capture_output=True, text=True, env=environment, check=True)
    train, peak = map(int, done.stdout.split())
    assert train > 0.98 * (rows - 450)
    return peak
