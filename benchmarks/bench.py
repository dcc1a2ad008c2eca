"""instil beside its peers: the same rows, the same machine, the same run.

`make bench` makes the peers' environment and calls this. `--quick` shows in a few minutes that
everything works; `--gpu` runs the cases of a GPU, with random weights and made-up rows.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cases import Case, cases, gpu_cases
from figures import case_figures
from hardware import described, matrix_peaks, model_size
from measure import last_line, measure
from shapes import make_model
from table import table

HERE = Path(__file__).parent
MODEL = "smollm2-135m-instruct"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the cases asked for and write a table."""
    chosen = parsed(arguments)
    device = "cuda" if chosen.gpu and not chosen.tiny else "cpu"
    peaks = matrix_peaks(device)
    every = gpu_cases(tiny=chosen.tiny) if chosen.gpu else cases(quick=chosen.quick)
    report: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": described(device),
        "matrix_peaks": peaks,
        "model": "random weights" if chosen.gpu else MODEL,
        "repeats": chosen.repeats,
        "quick": chosen.quick or chosen.tiny,
        "cases": [],
        "not_measured": [] if chosen.gpu else [case.name for case in gpu_cases()],
    }
    path = chosen.out or HERE / "results" / f"{report['date'][:10]}-{place(report, device)}.json"
    done = {c["name"]: c for c in kept(path)} if chosen.add else {}
    for case in every:
        if chosen.only in case.name:
            print(case.name, file=sys.stderr, flush=True)
            done[case.name] = measured(case, chosen, peak=max(peaks.values()))
        report["cases"] = [done[c.name] for c in every if c.name in done]
        write(report, path)  # as it stands: a long run that breaks off has not been for nothing
    print(table(report))
    print(f"written to {path} and {path.with_suffix('.md').name}", file=sys.stderr)


def kept(path: Path) -> list[dict[str, Any]]:
    """Cases measured before; none where there is no such file."""
    return json.loads(path.read_text(encoding="utf-8"))["cases"] if path.exists() else []


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--peers", required=True, help="python of the peers' environment")
    options.add_argument("--repeats", type=int, default=None, help="turns of each side; 3")
    options.add_argument("--only", default="", help="part of a case's name")
    options.add_argument(
        "--add", action="store_true", help="keep the cases that today's results have already"
    )
    options.add_argument("--quick", action="store_true", help="few rows, one turn, first settings")
    options.add_argument("--gpu", action="store_true", help="the cases of a GPU")
    options.add_argument("--tiny", action="store_true", help="with --gpu: a tiny shape, on a CPU")
    options.add_argument("--out", type=Path, help="the .json to write; a .md goes beside it")
    chosen = options.parse_args(arguments)
    chosen.repeats = chosen.repeats or (1 if chosen.quick or chosen.tiny else 3)
    return chosen


def place(report: dict[str, Any], device: str) -> str:
    """The machine's part of a file name: its card, or how many cores it has."""
    machine = report["machine"]
    name = machine["card"].replace(" ", "-") if device == "cuda" else f"{machine['cores']}cores"
    return f"{name}-quick" if report["quick"] else name


def measured(case: Case, chosen: argparse.Namespace, *, peak: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder), case.model) if case.model else benchmark_model()
        done = measure(
            case,
            model=model,
            peers=chosen.peers,
            repeats=chosen.repeats,
            run=last_line,
            try_all=not (chosen.quick or chosen.tiny),
        )
        return case_figures(case, done, size=model_size(model), peak=peak)


def benchmark_model() -> Path:
    from instil.model.load import resolve_model

    return resolve_model(MODEL).path


def write(report: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    for file, text in (
        (path, json.dumps(report, indent=1) + "\n"),
        (path.with_suffix(".md"), table(report)),
    ):
        scratch = file.with_name(f".{file.name}.part")
        scratch.write_text(text, encoding="utf-8")
        os.replace(scratch, file)


if __name__ == "__main__":
    main()
