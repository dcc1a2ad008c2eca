"""The study behind the defaults of training: one thing changed at a time, on many kinds of task.

    python benchmarks/defaults.py train --arms before after --rows 500 --seeds 0 1
    python benchmarks/defaults.py table
    python benchmarks/defaults.py test
    python benchmarks/defaults.py looks

`train` trains every arm on every task, and scores the *last* weights on the validation rows:
nothing is stopped or picked by them, and the test rows stay closed. What is finished is kept in the
.jsonl file and not done again. TF-IDF with logistic regression, trained on the same rows, stands
beside it. `table` writes the means and the paired differences between arms.

`test` is the one look at the test rows, taken when the defaults were chosen: `instil run` itself on
each task, every key at its default but the rows of training (and no guard tasks, which change no
figure of the task). `looks` writes the table of what came out.

An arm is a list of changes to the recipe, as `instil run --set` takes them, so that each figure can
be had again with the product itself.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import astuple
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).parent
CLASSES = (
    "sarcasm",
    "film_stars",
    "movie_reviews",
    "amazon_reviews",
    "bbc_topic",
    "newsgroups",
    "quartz",
    "spam_emails",
)
"""Sarcasm, ratings, sentiment twice, topics of five and of twenty kinds, a choice of two, spam."""
TEXTS = ("spelling", "translate_de", "bbc_headline")
"""Correction, translation, headlines."""
TEXTS_READ = 30
"""Pieces of general text, read before and after training: the guard's rows in a run."""
TFIDF = "tfidf"
BEFORE = (
    "train.learning_rate=5e-4",
    "train.loss_over=tokens",
    "train.num_train_epochs=2",
    "train.tokens_per_batch=1024",
)
"""The defaults of the first half of November 2026, for 200 rows and more."""
AFTER = (
    "train.learning_rate=1.3e-3",
    "train.loss_over=examples",
    "train.num_train_epochs=auto",
    "train.tokens_per_batch=512",
    "wordings=1",
)
ARMS = {
    TFIDF: (),
    "before": BEFORE,
    "after": AFTER,
    "after, all wordings": (*AFTER, "wordings=99"),
    "after, all templates": (*AFTER, "wordings="),
    "after, all templates, over tokens": (*AFTER, "wordings=", "train.loss_over=tokens"),
    "after, all templates, 5 epochs": (*AFTER, "wordings=", "train.num_train_epochs=5"),
    "after, two wordings": (*AFTER, "wordings=2"),
    "after, 5e-4": (*AFTER, "train.learning_rate=5e-4"),
    "after, 8e-4": (*AFTER, "train.learning_rate=8e-4"),
    "after, 2.6e-3": (*AFTER, "train.learning_rate=2.6e-3"),
    "after, over tokens": (*AFTER, "train.loss_over=tokens"),
    "after, 1024 tokens a step": (*AFTER, "train.tokens_per_batch=1024"),
    "after, 256 tokens a step": (*AFTER, "train.tokens_per_batch=256"),
    "after, 2 epochs": (*AFTER, "train.num_train_epochs=2"),
    "after, 5 epochs": (*AFTER, "train.num_train_epochs=5"),
    "after, 10 epochs": (*AFTER, "train.num_train_epochs=10"),
    "after, MLP alone": (*AFTER, "lora.target_modules=[gate_proj, up_proj, down_proj]"),
    "after, rank 8": (*AFTER, "lora.r=8", "lora.lora_alpha=16"),
}
"""Name -> changes to the recipe; of changes to one key the last holds. `wordings=2` leaves
out all templates but the first two answering ones, `wordings=99` all but the answering ones, and
`wordings=` none."""
Line = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what is not done yet, or write the table."""
    chosen = parsed(arguments)
    if chosen.what == "table":
        print(table(kept(chosen.out)))
        return
    if chosen.what == "looks":
        print(looks(kept(chosen.looks)))
        return
    if chosen.what == "test":
        tested(chosen)
        return
    done = {key(line) for line in kept(chosen.out)}
    cells = [
        {"task": task, "arm": arm, "rows": rows, "seed": seed}
        for seed in chosen.seeds
        for rows in chosen.rows
        for task in chosen.tasks
        for arm in chosen.arms
        if not (arm == TFIDF and task in TEXTS)
    ]
    cells = [cell for cell in cells if key(cell) not in done]
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # one thread a process, several processes
        os.environ[name] = "1"
    with ProcessPoolExecutor(chosen.workers, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(measured, cell, chosen.validation) for cell in cells]
        for number, made in enumerate(waiting, 1):
            line = made.result()
            append(chosen.out, line)
            seen = f"{line['task']}, {line['rows']} rows, {line['arm']}: {100 * line['score']:.1f}"
            print(f"{number}/{len(waiting)} {seen}", file=sys.stderr, flush=True)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("what", choices=["train", "table", "test", "looks"])
    options.add_argument("--tasks", nargs="+", default=[*CLASSES, *TEXTS])
    options.add_argument(
        "--arms", nargs="+", choices=list(ARMS), default=[TFIDF, "before", "after"]
    )
    options.add_argument("--rows", nargs="+", type=int, default=[500])
    options.add_argument("--seeds", nargs="+", type=int, default=[0])
    options.add_argument("--validation", type=int, default=300)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--looks", type=Path, default=HERE / "results" / "defaults-test.jsonl")
    options.add_argument("--out", type=Path, default=HERE / "results" / "defaults.jsonl")
    return options.parse_args(arguments)


def key(line: Line) -> tuple[Any, ...]:
    return line["task"], line["arm"], line["rows"], line["seed"]


def kept(path: Path) -> list[Line]:
    """What was measured before; none where there is no such file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def append(path: Path, line: Line) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


# --- measuring -----------------------------------------------------------------------------------


def measured(cell: Line, validation: int) -> Line:
    """Train one arm on one task, and score its last weights on the validation rows."""
    from instil.stages.context import prepare, prepare_rows

    recipe = recipe_of(cell, validation)
    if cell["arm"] == TFIDF:
        return {**cell, **classifier(prepare_rows(recipe)[0])}
    return {**cell, **trained(prepare(recipe))}


def recipe_of(cell: Line, validation: int) -> Any:
    from instil.config.overrides import override
    from instil.config.recipe import Recipe
    from instil.errors import RecipeError
    from instil.tasks.task import load_task
    from instil.types import Role

    use: Line = {"use": cell["task"], "train": cell["rows"], "templates": "all"}
    data: Line = {
        "model": "smollm2-135m-instruct",
        "tasks": [use],
        "validation": validation,
        "test": 300,
        "seed": cell["seed"],
        "split": {"seed": 0},
        "forgetting": {"tasks": "none"},
        "train": {"too_long": "shorten"},
    }
    for change in ARMS[cell["arm"]]:
        if change.startswith("wordings="):
            templates = load_task(cell["task"]).templates
            asking = [t.id for t in templates if t.role is Role.ANSWER]
            count = change.removeprefix("wordings=")
            use["templates"] = asking[: int(count)] if count else "all"
        else:
            override(data, change, model=Recipe, error=RecipeError)
    return Recipe.model_validate(data)


def trained(context: Any) -> Line:
    from instil.compare.forgetting import load_guard
    from instil.model.adapter import trainable
    from instil.stages.training import adapted, encoded_training, objective
    from instil.train.loop import Schedule, train_steps
    from instil.train.optim import adamw
    from instil.train.room import Room

    encoded, loaded = encoded_training(context), adapted(context)
    wanted = context.recipe.train
    schedule = Schedule(
        wanted.learning_rate, wanted.warmup_ratio, wanted.lr_scheduler_type, wanted.max_grad_norm
    )
    optimizer = adamw(
        trainable(loaded.model),
        learning_rate=wanted.learning_rate,
        weight_decay=wanted.weight_decay,
    )
    guard = load_guard([], rows=TEXTS_READ, text=True, chat=loaded.chat, seed=0)
    text_before = text_nats(loaded, guard)
    began = time.process_time()
    steps = list(
        train_steps(
            loaded,
            encoded.batches,
            optimizer=optimizer,
            schedule=schedule,
            steps_per_epoch=len(encoded.batches) / encoded.epochs,
            room=Room(),
            objective=objective(context),
        )
    )
    seconds = time.process_time() - began
    return {
        **judged(loaded, context.data[0]),
        "steps": len(steps),
        "tokens": sum(step.tokens for step in steps),
        "cpu_seconds": round(seconds, 1),
        "text_nats": [text_before, text_nats(loaded, guard)],
    }


def text_nats(loaded: Any, guard: Any) -> float:
    """Return the mean over pieces of general text of their nats a token."""
    from instil.compare.forgetting import measure

    (scores,) = measure(loaded, guard)
    return sum(score.value for score in scores.scores) / len(scores.scores)


def judged(loaded: Any, data: Any) -> Line:
    """Score the validation rows through one template, as a run does its test rows.

    It is chosen on the rows that were dealt to it, the rows being dealt to all answering templates
    in turn; the others are scored. Of a single template all rows are scored.
    """
    from instil.compare.ladder import Prompting
    from instil.evaluate.suite import look, mark
    from instil.stages.training import validation_examples

    dealt: list[tuple[float, int, Any, set[str]]] = []
    nats = tokens = 0.0
    for number, examples in enumerate(validation_examples(data)):
        seen = look(loaded, examples, max_new_tokens=data.task.max_new_tokens)
        marked = mark(examples, seen.predictions, metric=data.task.metric)
        mean = sum(marked.values.values()) / len(marked.values)
        dealt.append((mean, -number, marked, {example.row for example in examples}))
        nats, tokens = nats + seen.nats, tokens + seen.tokens
    _, number, marked, rows = max(dealt, key=lambda each: each[:2])
    if len(dealt) > 1:
        others = [row for row in data.validation if row.id not in rows]
        examples = Prompting(data.answering[-number]).examples(data, others)
        seen = look(loaded, examples, max_new_tokens=data.task.max_new_tokens)
        marked = mark(examples, seen.predictions, metric=data.task.metric)
    return {
        **scored(marked, data),
        "template": data.answering[-number].id,
        "wordings": [round(each[0], 4) for each in dealt],
        "loss": nats / tokens,
    }


def scored(marked: Any, data: Any) -> Line:
    rows = {example.id: example.row for example in marked.examples}
    values = {rows[name]: value for name, value in marked.values.items()}
    mean = sum(values.values()) / len(values)
    return {"metric": data.task.metric, "score": mean, "values": values}


def classifier(data: Any) -> Line:
    """TF-IDF with logistic regression, on the same rows."""
    from instil.compare.ladder import Prompting
    from instil.evaluate.baseline import ask_tfidf, train_tfidf
    from instil.evaluate.suite import mark

    began = time.process_time()
    examples = Prompting(data.answering[0]).examples(data, data.validation)
    words = train_tfidf(data.train, task=data.task)
    made = ask_tfidf(words, data.validation, examples, task=data.task)
    marked = mark(examples, made, metric=data.task.metric)
    return {**scored(marked, data), "cpu_seconds": round(time.process_time() - began, 1)}


# --- the one look at the test rows ----------------------------------------------------------------


def tested(chosen: argparse.Namespace) -> None:
    """Run the product on each task that has no look yet, and keep its figures and sentences."""
    done = {(line["task"], line["rows"]) for line in kept(chosen.looks)}
    cells = [(task, rows) for task in chosen.tasks for rows in chosen.rows]
    with ThreadPoolExecutor(chosen.workers) as pool:
        waiting = [
            pool.submit(looked_at, task, rows, chosen.workers)
            for task, rows in cells
            if (task, rows) not in done
        ]
        for each in as_completed(waiting):
            append(chosen.looks, each.result())


def looked_at(task: str, rows: int, workers: int) -> Line:
    """Run one default recipe in a process of its own, and read what it found on test."""
    with TemporaryDirectory() as made:
        recipe = Path(made) / f"{task}.recipe.yaml"
        recipe.write_text(
            f"model: smollm2-135m-instruct\ntasks:\n  - use: {task}\n    train: {rows}\n"
            "train: {too_long: shorten}\nforgetting: {tasks: none}\n",
            encoding="utf-8",
        )
        threads = str(max(1, (os.cpu_count() or 1) // workers))
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "instil", "run", str(recipe), "--folder", f"{made}/run"],
            env={**os.environ, "OMP_NUM_THREADS": threads},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        seconds = time.perf_counter() - began
        return {
            "task": task,
            "rows": rows,
            "seconds": round(seconds),
            **read_run(Path(made, "run")),
        }


def read_run(folder: Path) -> Line:
    """Return the arms with their means and intervals, tuned minus each, and what the run says."""
    from instil.stages.runfiles import load_summary

    summary = load_summary(folder)
    (task,) = summary.tasks
    arms = {arm.name: [arm.label, *astuple(arm.summaries[task.metric])[1:4]] for arm in task.arms}
    minus = {c.a: [c.difference, c.low, c.high] for c in task.comparisons}
    return {"metric": task.metric, "arms": arms, "minus": minus, "verdict": summary.verdict}


def looks(lines: Sequence[Line]) -> str:
    """Write a table: a task a row, the arms' means, tuned minus each with its interval."""
    names = ("prompting", "tfidf", "probe")
    parts = [f"| task | tuned | {' | '.join(names)} | {' | '.join(f'- {n}' for n in names)} |"]
    parts.append("|---" * (2 + 2 * len(names)) + "|")
    for line in lines:
        tuned, arms, minus = line["arms"]["tuned"], line["arms"], line["minus"]
        cells = [f"{100 * tuned[1]:.1f} ({100 * tuned[2]:.1f}-{100 * tuned[3]:.1f})"]
        cells += [f"{100 * arms[n][1]:.1f}" if n in arms else "" for n in names]
        cells += [
            "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * x for x in minus[n]))
            if n in minus
            else ""
            for n in names
        ]
        parts.append(f"| {line['task']} | {' | '.join(cells)} |")
    return "\n".join(parts)


# --- what came out -------------------------------------------------------------------------------


def table(lines: Sequence[Line]) -> str:
    """Write a table for each number of rows: arms down, tasks across, differences at the end."""
    parts = []
    for rows in sorted({line["rows"] for line in lines}):
        here = [line for line in lines if line["rows"] == rows]
        tasks = [task for task in (*CLASSES, *TEXTS) if any(x["task"] == task for x in here)]
        arms = [arm for arm in ARMS if any(line["arm"] == arm for line in here)]
        seeds = sorted({line["seed"] for line in here})
        head = f"{rows} training rows, seeds {', '.join(map(str, seeds))}"
        parts += [f"### {head}", "", f"| arm | {' | '.join(tasks)} | minus `after`, same tasks |"]
        parts.append("|---" * (len(tasks) + 2) + "|")
        for arm in arms:
            cells = [shown([x for x in here if (x["task"], x["arm"]) == (t, arm)]) for t in tasks]
            parts.append(f"| {arm} | {' | '.join(cells)} | {difference(here, arm, 'after')} |")
        parts.append("")
    return "\n".join(parts)


def shown(lines: Sequence[Line]) -> str:
    """Return the mean score over seeds, of 100."""
    return f"{100 * sum(x['score'] for x in lines) / len(lines):.1f}" if lines else ""


def difference(lines: Sequence[Line], arm: str, other: str) -> str:
    """Return the mean over tasks of arm minus other, in points, with a 95 % interval.

    Paired by row, after the mean over the seeds that both have. The interval is over the rows of
    these tasks (a normal one: thousands of rows), not over tasks that might have been taken.
    """
    means, variances = [], []
    for task in dict.fromkeys(line["task"] for line in lines):
        gaps = paired(lines, task, arm, other)
        if len(gaps) > 1:
            mean = sum(gaps) / len(gaps)
            means.append(mean)
            spread = sum((gap - mean) ** 2 for gap in gaps) / (len(gaps) - 1)
            variances.append(spread / len(gaps))
    if arm == other or not means:
        return ""
    mean = 100 * sum(means) / len(means)
    half = 196 * math.sqrt(sum(variances)) / len(means)
    tasks = f"{len(means)} task{'s' * (len(means) > 1)}"
    return f"{mean:+.1f} ({mean - half:+.1f} to {mean + half:+.1f}; {tasks})"


def paired(lines: Sequence[Line], task: str, arm: str, other: str) -> list[float]:
    """Return a row's score in one arm minus that in the other, a row, mean over common seeds."""
    values = {(line["arm"], line["seed"]): line["values"] for line in lines if line["task"] == task}
    seeds = [s for name, s in values if name == arm and (other, s) in values]
    gaps: dict[str, list[float]] = {}
    for seed in seeds:
        one, two = values[arm, seed], values[other, seed]
        for row in one.keys() & two.keys():
            gaps.setdefault(row, []).append(one[row] - two[row])
    return [sum(each) / len(each) for each in gaps.values()]


if __name__ == "__main__":
    main()
