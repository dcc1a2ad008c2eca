"""instil beside its peers: the same rows, the same machine, the same run.

Both sides run alternately, each in a process of its own, several times; the table shows medians
with their spread. `make bench` makes the peers' environment and calls this.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import rows

from instil.model.load import resolve_model
from instil.recipe import Recipe, TaskUse
from instil.run import machine

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Case:
    """One benchmark: how its rows are made, and the command of each side."""

    name: str
    """For the table."""
    make_rows: Callable[[Path], None]
    """Writes the rows that both sides see."""
    sides: dict[str, tuple[str, ...]]
    """Side -> script and its arguments behind rows and model."""


def train_case(
    name: str, method: str, *, task: str, templates: tuple[str, ...], batch: int
) -> Case:
    steps = 4
    size = (str(batch), str(steps))
    return Case(
        name,
        lambda path: rows.training_rows(path, task=task, rows=batch * steps, templates=templates),
        {
            "instil": ("train_instil.py", method, *size),
            "TRL default": ("train_trl.py", method, *size, "default"),
            "TRL best": ("train_trl.py", method, *size, "best"),
        },
    )


def score_case(name: str, *, task: str, template: str, shots: int, count: int) -> Case:
    return Case(
        name,
        lambda path: rows.scoring_rows(path, task=task, rows=count, shots=shots, template=template),
        {"instil": ("score_instil.py",), "lm-eval": ("score_lm_eval.py", "16")},
    )


SHORT = ("positive_or_negative", "good_or_bad", "satisfied", "for_or_against", "mood")
CASES = {
    case.name: case
    for case in (
        train_case("LoRA, short prompts", "lora", task="amazon_reviews", templates=SHORT, batch=16),
        train_case("LoRA, long prompts", "lora", task="bbc_topic", templates=(), batch=8),
        train_case("full, short prompts", "full", task="amazon_reviews", templates=SHORT, batch=16),
        score_case(
            "choices of one token",
            task="amazon_reviews",
            template="for_or_against",
            shots=0,
            count=120,
        ),
        score_case(
            "choices, five-shot",
            task="amazon_reviews",
            template="for_or_against",
            shots=5,
            count=120,
        ),
    )
}


def main() -> None:
    """Run the cases asked for and write a table."""
    options = argparse.ArgumentParser()
    options.add_argument("--peers", required=True, help="python of the peers' environment")
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--only", default="", help="part of a case's name")
    options.add_argument("--out", type=Path, default=HERE / "results" / "latest.json")
    chosen = options.parse_args()
    model = str(resolve_model("smollm2-135m-instruct").path)
    peak = matrix_peak()
    results = [
        measure(case, model=model, peers=chosen.peers, repeats=chosen.repeats, peak=peak)
        for case in CASES.values()
        if chosen.only in case.name
    ]
    report = {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": machine(),
        "python": platform.python_version(),
        "matrix_peak_gflops": round(peak / 1e9),
        "cases": results,
    }
    chosen.out.parent.mkdir(exist_ok=True)
    chosen.out.write_text(json.dumps(report, indent=1), encoding="utf-8")
    chosen.out.with_suffix(".md").write_text(table(report), encoding="utf-8")
    print(table(report))


def matrix_peak() -> float:
    """Measure the machine's bfloat16 matrix products, operations a second."""
    from instil.foresee import matrix_speed

    return matrix_speed(Recipe(model="x", tasks=(TaskUse(use="x"),)))


def measure(case: Case, *, model: str, peers: str, repeats: int, peak: float) -> dict:
    """Run both sides alternately and keep every figure."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        case.make_rows(path)
        runs: dict[str, list[dict]] = {side: [] for side in case.sides}
        for _ in range(repeats):
            for side, (script, *arguments) in case.sides.items():
                python = sys.executable if side == "instil" else peers
                command = [python, str(HERE / "sides" / script), str(path), model, *arguments]
                print(case.name, side, file=sys.stderr, flush=True)
                runs[side].append(last_line(command))
    return {"name": case.name, "sides": {s: summary(r) for s, r in runs.items()}}


def last_line(command: list[str]) -> dict:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def summary(runs: list[dict]) -> dict:
    speeds = [run["tokens"] / run["seconds"] for run in runs]
    return {
        "tokens_per_second": statistics.median(speeds),
        "lowest": min(speeds),
        "highest": max(speeds),
        "seconds": statistics.median(run["seconds"] for run in runs),
        "peak_bytes": statistics.median(run["peak_bytes"] for run in runs),
        "tokens": runs[0]["tokens"],
        "loss": runs[0].get("loss"),
    }


def table(report: dict) -> str:
    machine = report["machine"]
    lines = [
        f"# Benchmarks, {report['date']}",
        "",
        f"{machine['processor']}, {machine['cores']} cores; bfloat16 matrix products "
        f"{report['matrix_peak_gflops']} GFLOP/s. Medians (lowest to highest) of runs that took "
        "turns; tokens are those of the rows, the same for every side.",
        "",
        "| case | side | tokens/s | peak memory | instil is |",
        "|---|---|---|---|---|",
    ]
    for case in report["cases"]:
        ours = case["sides"]["instil"]["tokens_per_second"]
        for side, r in case["sides"].items():
            ratio = "" if side == "instil" else f"{ours / r['tokens_per_second']:.1f} x as fast"
            lines.append(
                f"| {case['name']} | {side} | {r['tokens_per_second']:.0f} "
                f"({r['lowest']:.0f} to {r['highest']:.0f}) | {r['peak_bytes'] / 1e9:.2f} GB | "
                f"{ratio} |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
