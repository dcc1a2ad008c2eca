"""How often the band of `forgetting.at_most` holds what comes out, on real runs.

    python benchmarks/law.py train --runs 32
    python benchmarks/law.py texts --of 2 12 15 --texts 200
    python benchmarks/law.py table

`train` trains SmolLM2-135M-Instruct with LoRA on tasks of the library, another seed, task and limit
each run, chooses the interpolation weight as `instil run` does, and reads the reported texts before
and after. No prompt and no test row is asked. What is finished is kept in the .jsonl file and not
done again. A seed draws rows, texts and the training's order anew, but all runs share one pool of
general text. `texts` trains some of them again and keeps what each of many texts loses at eleven
weights. `table` writes how many of the runs came out within their band, with Wilson's interval, and
draws texts to choose on and to report 2000 times of those kept; between weights a text's loss is a
monotone cubic's.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from runs import add_line, begun, read_lines

if TYPE_CHECKING:
    from instil.stages.context import RunContext

HERE = Path(__file__).parent
FILE = HERE / "results" / "law.jsonl"
TEXTS = HERE / "results" / "law-texts.jsonl"
WEIGHTS = tuple(n / 10 for n in range(11))
DRAWS = 2000
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


@contextmanager
def trained(text: str) -> Iterator[RunContext]:
    """Train by a recipe, and yield the run."""
    from instil.stages.preflight import preflight
    from instil.stages.training import train

    with begun(text) as context:
        train(context, preflight(context))
        yield context


def train_one(text: str) -> dict[str, Any]:
    """Train, steer, and read the reported texts before and after."""
    from instil.compare.forgetting import ledger, measure
    from instil.results.names import TEXT
    from instil.stages.keeping import hold_against, settle

    with trained(text) as context:
        recipe, settled = context.recipe, settle(context)
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


def read_texts(number: int, *, rows: int, texts: int) -> dict[str, Any]:
    """Train a run, and read many texts at all of WEIGHTS."""
    from instil.compare.forgetting import TEXT_TOKENS
    from instil.evaluate.suite import text_loss
    from instil.model.interpolate import blend
    from instil.results.names import TEXT

    with trained(recipe_of(number, rows=rows, texts=texts)) as context:
        (read,) = (item.examples for item in context.guard if item.id == TEXT)
        tuned = context.load_tuned()
        put = blend(tuned, base=None)
        losses = []
        for weight in WEIGHTS:
            put(weight)
            values = text_loss(tuned, read, max_tokens=TEXT_TOKENS).values
            losses.append([round(values[example.id], 5) for example in read])
        return {"number": number, "task": context.recipe.tasks[0].use, "losses": losses}


def drawn(lines: Sequence[dict[str, Any]]) -> str:
    """Return the table of coverage of bands over texts drawn anew from those that were read."""
    import numpy as np
    from scipy.interpolate import PchipInterpolator

    from instil.compare.forgetting_law import band, steer
    from instil.compare.interpolation import SHARES

    out = [
        "| run | all the way | texts, reported | limit | within the band | weight | lost |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        losses = np.array(line["losses"])
        at, every = PchipInterpolator(WEIGHTS, losses, axis=0), losses.shape[1]
        whole = (losses[-1] - losses[0]).mean()
        for count, reported in ((12, 24), (50, 100)):
            for limit in LIMITS:
                dice, found = np.random.default_rng(0), []
                for _ in range(DRAWS):
                    order = dice.permutation(every)
                    some, other = order[:count], order[count : count + reported]
                    steered = steer(
                        lambda weight, at=at, some=some: at(weight)[some],
                        weights=SHARES,
                        at_most=limit,
                    )
                    end = steered.weight
                    names = [*map(str, some)]
                    ends = band(steered.losses[end], groups=names, reported=reported)
                    came = (at(end) - at(0.0))[other].mean()
                    found.append((ends.low <= came <= ends.high, end, came))
                hits, weight, lost = np.mean(found, axis=0)
                out.append(
                    f"| {line['number']}, {line['task']} | {whole:+.2f} | {count}, {reported} "
                    f"| {limit:g} | {100 * hits:.1f} % | {weight:.3f} | {lost:.4f} |"
                )
    return "\n".join(out)


def covered(line: dict[str, Any]) -> bool:
    """Whether the reported texts came out within the band."""
    _, low, high = line["predicted"]
    return bool(low <= line["came_out"][0] <= high)


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Return the table of coverage: all runs, those held back, and those by limit and by task.

    The last column is the mean change of the validation score, from all of the way to the weight
    exported, in points of 100, and its standard error over runs.
    """
    from instil.stats.intervals import wilson

    held = [line for line in lines if line["weight"] < 1]
    kinds = {"all": lines, "held back": held}
    kinds |= {f"limit {limit:g}": [x for x in held if x["limit"] == limit] for limit in LIMITS}
    kinds |= {f"held back, {task}": [x for x in held if x["task"] == task] for task in TASKS}
    out = [
        "| runs | number | within the band | lost no more than asked | score given up |",
        "|---|---|---|---|---|",
    ]
    for name, some in kinds.items():
        if some:
            hits = sum(map(covered, some))
            less = sum(line["came_out"][0] <= line["limit"] for line in some)
            ends = wilson(hits, len(some))
            share = f"{hits} ({100 * ends.low:.0f} to {100 * ends.high:.0f} %)"
            out.append(f"| {name} | {len(some)} | {share} | {less} | {given_up(some)} |")
    return "\n".join(out)


def given_up(lines: Sequence[dict[str, Any]]) -> str:
    """Return the mean change of the validation score from all of the way, and its error."""
    changes = []
    for line in lines:
        scores = {weight: score for weight, _, score in line["points"]}
        changes.append(100 * (scores[line["weight"]] - scores[1.0]))
    error = stdev(changes) / len(changes) ** 0.5 if len(changes) > 1 else float("nan")
    return f"{fmean(changes):+.1f} ± {error:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("train", "texts", "table"))
    parser.add_argument("--runs", type=int, default=32)
    parser.add_argument("--of", nargs="*", type=int, default=(2, 12, 15), help="with texts: runs")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--texts", type=int, default=24, help="reported ones")
    given = parser.parse_args()
    lines, many = read_lines(FILE), read_lines(TEXTS)
    if given.what == "train":
        done = {line["recipe"] for line in lines}
        for number in range(given.runs):
            text = recipe_of(number, rows=given.rows, texts=given.texts)
            if text not in done:
                lines.append(add_line(FILE, {"recipe": text, **train_one(text)}))
    if given.what == "texts":
        for number in {*given.of} - {line["number"] for line in many}:
            found = read_texts(number, rows=given.rows, texts=given.texts)
            many.append(add_line(TEXTS, found))
    print(table(lines), drawn(many), sep="\n\n")


if __name__ == "__main__":
    main()
