"""The learning-rate autopilot against a full sweep: full trainings at every rate, on real tasks.

    python benchmarks/rates.py --rows 2000 --seeds 0 1

For each task and seed: what `train.learning_rate: auto` chooses before training, and a training of
full length at each of five rates. The full sweep takes the one with the best validation score. Both
choices are then held against each other on the test rows, paired by row. What is finished is kept
in the .jsonl file and not done again.

Here every rate is scored on test, for that is what is measured; a run of instil never does so.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TASKS = ("amazon_reviews", "movie_reviews", "spelling")
FACTORS = (1 / 9, 1 / 3, 1.0, 3.0, 9.0)
"""Full trainings are made at so many times the rule's rate, unless others are asked for."""
Line = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what is not done yet, and write the table."""
    chosen = parsed(arguments)
    done = kept(chosen.out)
    for task in chosen.tasks:
        for seed in chosen.seeds:
            for factor in (None, *chosen.factors):
                if not any(is_line(line, task, seed, factor) for line in done):
                    print(f"{task}, seed {seed}: {factor or 'autopilot'}", file=sys.stderr)
                    done.append(measured(chosen, task=task, seed=seed, factor=factor))
                    append(chosen.out, done[-1])
    text = table([line for line in done if line["task"] in chosen.tasks])
    chosen.out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", default="smollm2-135m-instruct")
    options.add_argument("--tasks", nargs="+", default=list(TASKS))
    options.add_argument("--seeds", nargs="+", type=int, default=[0])
    options.add_argument("--factors", nargs="+", type=float, default=FACTORS)
    options.add_argument("--rows", type=int, default=2000, help="training rows of each task")
    options.add_argument("--epochs", type=float, default=2)
    options.add_argument("--validation", type=int, default=150)
    options.add_argument("--test", type=int, default=300)
    options.add_argument("--out", type=Path, default=HERE / "results" / "rates.jsonl")
    return options.parse_args(arguments)


def kept(path: Path) -> list[Line]:
    """What was measured before; none where there is no such file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def append(path: Path, line: Line) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def is_line(line: Line, task: str, seed: int, factor: float | None) -> bool:
    known = line["factor"]
    same = known == factor or (known and factor and math.isclose(known, factor, rel_tol=1e-3))
    return (line["task"], line["seed"]) == (task, seed) and bool(same)


# --- measuring -----------------------------------------------------------------------------------


def measured(chosen: argparse.Namespace, *, task: str, seed: int, factor: float | None) -> Line:
    """Train at a factor of the rule's rate; with None, only let the autopilot choose."""
    from instil.cli.progress import make_progress
    from instil.config.recipe import Recipe
    from instil.stages.context import prepare
    from instil.stages.directory import Run
    from instil.stages.preflight import preflight

    recipe = Recipe.model_validate(
        {
            "model": chosen.model,
            "tasks": [{"use": task, "train": chosen.rows}],
            "validation": chosen.validation,
            "test": chosen.test,
            "seed": seed,
            "forgetting": {"tasks": "none"},
            "train": {"num_train_epochs": chosen.epochs, "too_long": "shorten"},
        }
    )
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, make_progress() as progress:
        context = prepare(recipe, run=Run(Path(folder)), progress=progress)
        found = trained if factor else piloted
        line = found(context, preflight(context), factor or 1.0)
    seconds = time.perf_counter() - began
    return {"task": task, "seed": seed, "factor": factor, "seconds": seconds, **line}


def piloted(context: Any, encoded: Any, _: float) -> Line:
    from instil.stages.learning_rate import find_rate
    from instil.stages.training import adapted, validation_examples
    from instil.train.room import Room

    asked = [examples for d in context.data for examples in validation_examples(d)]
    found = find_rate(context, adapted(context), encoded, asked, room=Room())
    assert found is not None, "the recipe leaves the rate to us"
    return {"rate": found.chosen, "rule": found.rule, "sweep": asdict(found)}


def trained(context: Any, encoded: Any, factor: float) -> Line:
    from instil.stages.learning_rate import rule_rate
    from instil.stages.runfiles import load_steps
    from instil.stages.training import adapted, train

    rate = factor * rule_rate(context, adapted(context), "rule")
    section = context.recipe.train.model_copy(update={"learning_rate": rate})
    context = context.part(context.recipe.model_copy(update={"train": section}))
    done = train(context, encoded).summary
    best = load_steps(context.run.folder)[done.best_step - 1]
    return {
        "rate": rate,
        "steps": done.steps,
        "best_step": done.best_step,
        "validation": best.validation_score,
        "validation_loss": best.validation_loss,
        **judged(context.load_tuned(), context.data),
    }


def judged(tuned: Any, data: Any) -> Line:
    """Score every test row through one answering template, dealt out as in validation."""
    from instil.evaluate.suite import answer, mark
    from instil.stages.training import validation_examples

    test, groups = {}, {}
    for d in data:
        for examples in validation_examples(replace(d, validation=d.test)):
            made = answer(tuned, examples, max_new_tokens=d.task.max_new_tokens)
            marked = mark(examples, made, metric=d.task.metric)
            test.update(marked.values)
            groups.update(marked.groups)
    return {"test": test, "groups": groups}


# --- what came out -------------------------------------------------------------------------------


def full_choice(trainings: Iterable[Line]) -> Line:
    """What a full sweep takes: the best validation score, ties to the lower loss."""
    return max(trainings, key=lambda line: (line["validation"], -line["validation_loss"]))


def nearest(trainings: Iterable[Line], rate: float) -> Line:
    """The training at a rate."""
    found = min(trainings, key=lambda line: abs(line["rate"] / rate - 1))
    assert abs(found["rate"] / rate - 1) < 1e-6, "the autopilot chooses among the trained rates"
    return found


def lost(pairs: Sequence[tuple[Line, Line]]) -> tuple[float, float, float]:
    """Test score of the second of each pair minus the first's, in points, with its interval.

    Rows are paired, and rows of a group stay together, over all seeds.
    """
    from instil.stats.intervals import DIFFERENCE, bootstrap_mean

    gaps, groups = [], []
    for full, auto in pairs:
        for key in sorted(full["test"].keys() & auto["test"].keys()):
            gaps.append(auto["test"][key] - full["test"][key])
            groups.append(full["groups"][key])
    found = bootstrap_mean(gaps, groups=groups, span=DIFFERENCE)
    return tuple(100 * x for x in (sum(gaps) / len(gaps), found.low, found.high))  # type: ignore[return-value]


def table(lines: Sequence[Line]) -> str:
    """Return markdown: a line a task and seed, then the loss a task over all seeds."""
    rates = sorted({round(line["factor"], 6) for line in lines if line["factor"]})
    head = [
        "task",
        "seed",
        *(f"x {fraction(r)}" for r in rates),
        "full sweep",
        "autopilot",
        "tried",
    ]
    text = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    pairs: dict[str, list[tuple[Line, Line]]] = {}
    for task, seed in sorted({(line["task"], line["seed"]) for line in lines}):
        own = [line for line in lines if (line["task"], line["seed"]) == (task, seed)]
        trainings = {round(line["factor"], 6): line for line in own if line["factor"]}
        pilot = next((line for line in own if line["factor"] is None), None)
        if pilot is None or not trainings:
            continue
        full, auto = full_choice(trainings.values()), nearest(trainings.values(), pilot["rate"])
        pairs.setdefault(task, []).append((full, auto))
        cells = [scores(trainings[r]) if r in trainings else "" for r in rates]
        tried = len(pilot["sweep"]["tried"]) or "too short"
        text.append(
            f"| {task} | {seed} | {' | '.join(cells)} | {full['rate']:.2g} | {auto['rate']:.2g} "
            f"| {tried} |"
        )
    text += ["", "Each cell: score on validation / on test, of 100.", ""]
    for task, found in pairs.items():
        mean, low, high = lost(found)
        text.append(
            f"- {task}: the autopilot's choice minus the full sweep's on test: {mean:+.1f} points "
            f"({low:+.1f} to {high:+.1f}), {len(found)} seed(s)"
        )
    return "\n".join(text) + "\n"


def scores(line: Line) -> str:
    test = sum(line["test"].values()) / len(line["test"])
    return f"{100 * line['validation']:.1f} / {100 * test:.1f}"


def fraction(factor: float) -> str:
    """A factor for people.

    >>> fraction(1 / 9), fraction(3.0)
    ('1/9', '3')
    """
    return f"{factor:g}" if factor >= 1 else f"1/{round(1 / factor)}"


if __name__ == "__main__":
    main()
