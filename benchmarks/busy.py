"""Training on a busy machine: how OpenMP's threads wait for one another, and what that costs.

They spin for a while before they sleep; on busy cores a spinning thread takes the time of the one
that it waits for. Several numbers of spins take turns, each beside none and beside some processes
that keep a core busy. The model has layers of SmolLM2's shape with random weights; the rows are
drawn words. On a shared machine, what others took meanwhile is measured (Linux) and written down.
For figures of idle cores there: `chrt -f 10 python benchmarks/busy.py --beside 0`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from beside import busy
from hardware import described
from measure import HERE, last_line
from rows import made_up_rows
from shapes import make_model

# 22M weights: six of SmolLM2-135M's thirty layers.
SHAPE = {
    "vocab_size": 1024,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 6,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}
UNSET, FEW, PASSIVE = 300_000, 200, 0
"""GOMP_SPINCOUNT: libgomp's own where nothing is set, instil's, what OMP_WAIT_POLICY=PASSIVE is."""
BATCH = 16


def main(arguments: Sequence[str] | None = None) -> None:
    """Let the ways of waiting take turns, and write a table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--turns", type=int, default=3)
    options.add_argument("--steps", type=int, default=7, help="the first of them is not timed")
    options.add_argument("--spins", type=int, nargs="+", default=[UNSET, FEW, PASSIVE])
    options.add_argument("--beside", type=int, nargs="+", default=[0, 1, 2, 4])
    options.add_argument("--out", type=Path, help="the .json to write; a .md goes beside it")
    chosen = options.parse_args(arguments)
    report = {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": described("cpu"),
        "turns": chosen.turns,
        "lines": measured(chosen),
    }
    name = f"{report['date'][:10]}-{os.cpu_count()}cores-busy.json"
    path = chosen.out or HERE / "results" / name
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(table(report), encoding="utf-8")
    print(table(report))


def measured(chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """Tokens a second of every way of waiting beside every number of processes."""
    kinds = [(beside, spins) for beside in chosen.beside for spins in chosen.spins]
    lines = {
        (beside, spins): {"beside": beside, "spins": spins, "tokens_per_second": [], "others": []}
        for beside, spins in kinds
    }
    with tempfile.TemporaryDirectory() as folder:
        model, rows = make_model(Path(folder) / "model", SHAPE), Path(folder) / "rows.jsonl"
        made_up_rows(rows, rows=BATCH * chosen.steps, words=60, answer=2)
        script = str(HERE / "sides" / "train_instil.py")
        settings = ["--method", "lora", "--batch", str(BATCH)]
        command = [sys.executable, script, str(rows), str(model), *settings]
        for turn in range(chosen.turns):
            for beside, spins in kinds[:: 1 if turn % 2 == 0 else -1]:
                before = processor_seconds()
                with busy(beside):
                    done = last_line(command, environment={"GOMP_SPINCOUNT": str(spins)})
                assert "failed" not in done, done["failed"]
                others = processor_seconds().others_since(before)
                speed = done["tokens"] / done["seconds"]
                said = f"  {beside} beside, {spins} spins: {speed:.0f}, others {others:.2f}"
                print(said, file=sys.stderr, flush=True)
                lines[beside, spins]["tokens_per_second"].append(speed)
                lines[beside, spins]["others"].append(others)
    return list(lines.values())


@dataclass(frozen=True, slots=True)
class ProcessorSeconds:
    """What the processor's cores have done so far."""

    clock: float
    """Seconds."""
    all: float
    """Core seconds of all processes."""
    ours: float
    """Core seconds of this process's children that have ended."""

    def others_since(self, before: ProcessorSeconds) -> float:
        """Return how many cores processes that are not ours have kept busy."""
        theirs = (self.all - before.all) - (self.ours - before.ours)
        return max(0.0, theirs) / (self.clock - before.clock)


def processor_seconds() -> ProcessorSeconds:
    """Read the clocks of Linux: time stolen by other virtual machines counts as another's."""
    first = Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0].split()
    user, nice, system, _, _, interrupts, soft, stolen = map(int, first[1:9])
    ticks = user + nice + system + interrupts + soft + stolen
    times = os.times()
    ours = times.children_user + times.children_system
    return ProcessorSeconds(time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), ours)


def table(report: Mapping[str, Any]) -> str:
    """Write a line for each number of processes, a column for each way of waiting."""
    lines = report["lines"]
    spins = list(dict.fromkeys(line["spins"] for line in lines))
    rows = [
        f"# Training on a busy machine, {report['date']}",
        "",
        f"{report['machine']['processor']}, {report['machine']['cores']} cores; tokens/s by "
        f"GOMP_SPINCOUNT, median of {report['turns']} interleaved turns (lowest to highest)",
        "",
        f"| busy processes beside it | {' | '.join(f'{n:,}' for n in spins)} | others, cores |",
        "|---" * (2 + len(spins)) + "|",
    ]
    for beside in dict.fromkeys(line["beside"] for line in lines):
        here = [line for line in lines if line["beside"] == beside]
        speeds = (line["tokens_per_second"] for line in here)
        cells = [f"{median(s):,.0f} ({min(s):,.0f} to {max(s):,.0f})" for s in speeds]
        others = [n for line in here for n in line["others"]]
        cells.append(f"{min(others):.1f} to {max(others):.1f}")
        rows.append(f"| {beside} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
