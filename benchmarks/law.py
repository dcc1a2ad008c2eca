"""How often the band of `forgetting.at_most` holds what comes out, on real runs.

    python benchmarks/law.py train --runs 30
    python benchmarks/law.py table

`train` trains SmolLM2-135M-Instruct with LoRA on tasks of the library, another seed, task and limit
each run, chooses the interpolation weight as `instil run` does, and reads the reported texts before
and after. No prompt and no test row is asked. What is finished is kept in the .jsonl file and not
done again. `table` writes how many of the runs came out within their band, with Wilson's interval.
A seed draws rows, texts and the training's order anew, but all runs share one pool of general text.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).parent
FILE = HERE / "results" / "law.jsonl"
TASKS = ("amazon_reviews", "quartz", "sarcasm", "film_stars")
LIMITS = (0.003, 0.01, 0.03)
"""Nats per token that may be lost."""
RECIPE = """
model: smollm2-135m-instruct
seed: {seed}
tasks: [{{use: {task}, train: {rows}}}]
train: {{learning_rate: {rate}, num_train_epochs: 2, max_length: 256}}
validation: 8
test: 8
baselines: {{shots: [0], tfidf: false, probe: false}}
forgetting: {{tasks: [spelling], rows: {texts}, at_most: {limit}}}
"""


def recipe_of(number: int, *, rows: int, texts: int) -> str:
    """Return the recipe of a run: tasks and limits in turn, each pair once in twelve runs."""
    task, limit = TASKS[number % len(TASKS)], LIMITS[number % len(LIMITS)]
    rate = (1.3e-3, 4e-3)[number // 12 % 2]
    return RECIPE.format(seed=number, task=task, limit=limit, rate=rate, rows=rows, texts=texts)


def train_one(text: str) -> dict[str, Any]:
    """Train, steer, and read the reported texts before and after."""
    from rich.progress import Progress

    from instil.compare.forgetting import ledger, measure
    from instil.config.recipe import load_recipe
    from instil.results import TEXT
    from instil.stages.context import prepare
    from instil.stages.directory import open_run
    from instil.stages.keeping import hold_against, settle
    from instil.stages.preflight import preflight
    from instil.stages.training import train

    with TemporaryDirectory() as folder:
        path = Path(folder, "recipe.yaml")
        path.write_text(text, encoding="utf-8")
        recipe, quiet = load_recipe(path), Progress(disable=True)
        with open_run(recipe, folder=Path(folder, "run"), resume=False) as run:
            context = prepare(recipe, run=run, progress=quiet)
            train(context, preflight(context))
            settled = settle(context)
            guard = [item for item in context.guard if item.id == TEXT]
            before = measure(context.load_base(), guard)
            after = measure(context.load_tuned(), guard)
            settled = hold_against(settled, ledger(guard, before, after))
    assert settled is not None
    law = settled.law
    assert law is not None
    assert law.came_out is not None
    return {
        "task": recipe.tasks[0].use,
        "limit": law.at_most,
        "weight": settled.chosen,
        "predicted": [law.predicted, law.low, law.high],
        "came_out": [law.came_out.mean, law.came_out.low, law.came_out.high],
        "texts": [law.texts, len(guard[0].examples)],
        "curve": [law.slope, law.curvature, law.misfit],
        "points": [[each.weight, each.nats, each.score] for each in law.points],
    }


def covered(line: dict[str, Any]) -> bool:
    """Whether the reported texts came out within the band."""
    _, low, high = line["predicted"]
    return bool(low <= line["came_out"][0] <= high)


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Return the table of coverage: all runs, those held back, and those by limit."""
    from instil.stats.intervals import wilson

    held = [line for line in lines if line["weight"] < 1]
    kinds = {"all": lines, "held back": held}
    kinds |= {f"limit {limit:g}": [x for x in held if x["limit"] == limit] for limit in LIMITS}
    out = ["| runs | number | within the band | lost no more than asked |", "|---|---|---|---|"]
    for name, some in kinds.items():
        if some:
            hits = sum(map(covered, some))
            less = sum(line["came_out"][0] <= line["limit"] for line in some)
            ends = wilson(hits, len(some))
            share = f"{hits} ({100 * ends.low:.0f} to {100 * ends.high:.0f} %)"
            out.append(f"| {name} | {len(some)} | {share} | {less} |")
    return "\n".join(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("train", "table"))
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--texts", type=int, default=24)
    parser.add_argument("--file", type=Path, default=FILE)
    given = parser.parse_args()
    written = given.file.read_text("utf-8").splitlines() if given.file.exists() else []
    lines = [json.loads(line) for line in written]
    if given.what == "train":
        done = {line["recipe"] for line in lines}
        for number in range(given.runs):
            text = recipe_of(number, rows=given.rows, texts=given.texts)
            if text not in done:
                line = {"recipe": text, **train_one(text)}
                lines.append(line)
                with given.file.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
    print(table(lines))


if __name__ == "__main__":
    main()
