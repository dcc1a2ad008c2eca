"""Is `instil advise` right? Its advice beside what whole runs came to on test.

    python benchmarks/advice.py run --rows 100 400 --seeds 0 --folder FOLDER
    python benchmarks/advice.py table

`run` asks for advice on every task, lets the run go on to its end, and adds a line a run to
`results/advice.jsonl`; what is there is not done again, and a run that was stopped goes on. `table`
writes what was advised, with which risk, and what came of it on test; and what the rest of the
training added to the short try, which is where `compare.advice.GROWTH` is from.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from runs import add_line, read_lines

from instil.compare.advice import WORTH
from instil.results.names import TUNED
from instil.stages.runfiles import load_probabilities, load_scores, load_summary

RESULTS = Path(__file__).parent / "results" / "advice.jsonl"
TASKS = (
    "sarcasm",
    "film_stars",
    "movie_reviews",
    "amazon_reviews",
    "bbc_topic",
    "quartz",
    "spam_emails",
    "social_iqa",
)
SETTINGS = (
    "validation=100",
    "test=300",
    "forgetting.tasks=none",
    "baselines.shots=[0,2]",
    "train.learning_rate=rule",
    "train.max_length=256",
    "train.too_long=shorten",
)


def do(task: str, *, rows: int, seed: int, folder: Path) -> dict[str, Any]:
    """Advise, run to the end, and return what was said and what came out."""
    place = folder / f"{task}-{rows}-{seed}"
    recipe = folder / f"{task}.yaml"
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(f"model: smollm2-135m-instruct\ntasks: [{{use: {task}}}]\n", "utf-8")
    changes = [f"tasks.0.train={rows}", f"seed={seed}", *SETTINGS]
    options = [each for change in changes for each in ("--set", change)]
    instil = [sys.executable, "-m", "instil"]
    subprocess.run([*instil, "advise", str(recipe), "--folder", str(place), *options], check=True)
    if not (place / "summary.json").exists():
        subprocess.run([*instil, "run", "--resume", str(place)], check=True)
    summary = load_summary(place)
    (advice,), (result,) = summary.advice, summary.tasks
    fitted = load_probabilities(place).get(advice.task)
    lines = load_scores(place, f"test-{advice.task}")
    return {
        "task": task,
        "rows": rows,
        "seed": seed,
        "tried": advice.tried,
        "advised": advice.way.name,
        "ways": {
            way.name: {
                "seen": way.seen.mean,
                "expected": [way.expected.mean, way.expected.low, way.expected.high],
                "risk": way.risk,
            }
            for way in advice.ways
        },
        "whole": fmean(fitted.right) if fitted else None,
        "test": {arm.name: arm.summaries[result.metric].mean for arm in result.arms},
        "majority": _majority(lines),
    }


def _majority(lines: Sequence[dict[str, Any]]) -> float:
    """Return the share of the commonest target on test."""
    targets = [line["target"] for line in lines if line["arm"] == TUNED]
    return max(map(targets.count, targets)) / len(targets)


def run(args: argparse.Namespace) -> None:
    """Do what is missing."""
    done = {(each["task"], each["rows"], each["seed"]) for each in read_lines(RESULTS)}
    for seed in args.seeds:
        for rows in args.rows:
            for task in args.tasks:
                if (task, rows, seed) in done:
                    continue
                found = do(task, rows=rows, seed=seed, folder=args.folder)
                add_line(RESULTS, found)


def table(_: argparse.Namespace) -> None:
    """Write the tables."""
    runs = read_lines(RESULTS)
    print("| task | rows | advised | risk told | best on test | advised on test | wrong |")
    print("|---|---|---|---|---|---|---|")
    told, wrong, inside, growths = [], [], [], []
    for each in runs:
        tested = {**each["test"], "majority": each["majority"]}
        ways = each["ways"]
        best = max(ways, key=lambda name: tested[name])
        gap = tested[best] - tested[each["advised"]]
        told.append(ways[each["advised"]]["risk"])
        wrong.append(gap > WORTH)
        inside += [w["expected"][1] <= tested[n] <= w["expected"][2] for n, w in ways.items()]
        if each["whole"] is not None and ways[TUNED]["seen"] < 1:
            seen = ways[TUNED]["seen"]
            growths.append((each["whole"] - seen) / (1 - seen))
        print(
            f"| {each['task']} | {each['rows']} | {each['advised']} | {100 * told[-1]:.0f} % "
            f"| {best} {100 * tested[best]:.1f} | {100 * tested[each['advised']]:.1f} "
            f"| {'yes' if wrong[-1] else ''} |"
        )
    print(
        f"\nwrong: {sum(wrong)} of {len(runs)}, {100 * fmean(told):.0f} % told; expected intervals "
        f"hold the test score in {100 * fmean(inside):.0f} % of {len(inside)}; growth "
        f"{fmean(growths):.2f}, standard deviation {stdev(growths):.2f}, over {len(growths)} runs"
    )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    runs = commands.add_parser("run")
    runs.add_argument("--tasks", nargs="+", default=TASKS)
    runs.add_argument("--rows", nargs="+", type=int, default=[100, 400])
    runs.add_argument("--seeds", nargs="+", type=int, default=[0])
    runs.add_argument("--folder", type=Path, required=True)
    runs.set_defaults(do=run)
    commands.add_parser("table").set_defaults(do=table)
    args = parser.parse_args()
    args.do(args)


if __name__ == "__main__":
    main()
