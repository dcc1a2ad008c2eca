"""Made-up reviews of things, a tiny recipe over them, and a run without a progress bar."""

import csv
import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.progress import Progress

from instil.config.recipe import Recipe, load_recipe
from instil.pipeline import run_recipe
from instil.stages import training
from instil.stages.context import prepare
from instil.stages.directory import Run
from instil.stages.judge import Look
from instil.stages.preflight import preflight

GOOD = ["good", "great", "lovely", "fast", "happy"]
BAD = ["bad", "poor", "awful", "slow", "sad"]
THINGS = ["phone", "book", "film", "plot", "actor", "battery", "screen", "sound", "camera"]

SENTIMENT = """
id: moods
kind: sentiment
cluster: sentiment
description: Made-up reviews.
licence: CC0-1.0
source: moods.csv
text: text
target: mood
choices: [positive, negative]
group: review
templates:
  - {id: ask, prompt: "Is it positive or negative?\\n{{ text }}", target: "{{ mood }}"}
  - id: words
    prompt: "{{ text }}\\nIs that good or bad?"
    choices: [good, bad]
    target: "{{ 'good' if mood == 'positive' else 'bad' }}"
  - {id: write, role: inverted, prompt: "Write a {{ mood }} review.", target: "{{ text }}"}
"""

ECHO = """
id: echo
kind: extraction
cluster: extraction
description: Say the thing that the sentence is about.
licence: CC0-1.0
source: moods.csv
text: text
target: thing
metric: exact_match
max_new_tokens: 6
templates:
  - {id: which, prompt: "Which thing?\\n{{ text }}", target: "{{ thing }}"}
  - {id: thing, prompt: "{{ text }}\\nThe thing is:", target: "{{ thing }}"}
"""


def write_rows(path: Path, *, rows: int = 160) -> None:
    draw = random.Random(7)
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(["id", "review", "text", "mood", "thing"])
        for n in range(rows):
            mood, words = [("positive", GOOD), ("negative", BAD)][n % 2]
            thing = draw.choice(THINGS)
            text = f"{thing} {n}: it is {draw.choice(words)} and {draw.choice(words)}"
            out.writerow([f"r{n}", n // 4, text, mood, thing])


def lay_out(folder: Path) -> Path:
    write_rows(folder / "moods.csv")
    (folder / "moods.yaml").write_text(SENTIMENT, encoding="utf-8")
    (folder / "echo.yaml").write_text(ECHO, encoding="utf-8")
    return folder


def make_recipe(folder: Path, model: Path, *changes: str, task: str = "moods.yaml") -> Recipe:
    path = folder / "recipe.yaml"
    path.write_text(
        f"""
model: {model}
tasks: [{{use: ./{task}}}]
train: {{learning_rate: 0.02, num_train_epochs: 6, tokens_per_batch: 256, eval_steps: 8,
        early_stopping_patience: null}}
validation: 24
test: 40
baselines: {{shots: [0, 2]}}
forgetting: {{tasks: [./echo.yaml], rows: 12}}
lora: {{r: 4, lora_alpha: 8}}
""",
        encoding="utf-8",
    )
    return load_recipe(path, overrides=changes)


def run(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    look: Look = Look.ONCE,
    restart_from: str = "",
) -> Path:
    quiet = Progress(disable=True)
    return run_recipe(
        recipe,
        folder=folder,
        resume=resume,
        progress=quiet,
        look=look,
        restart_from=restart_from,
    )


def ready(recipe: Recipe, folder: Path):
    """Go through the stages that training needs: the run and its encoded training."""
    context = prepare(recipe, run=Run(folder))
    return context, preflight(context)


@contextmanager
def signalled_at(step: int, *, number: int = signal.SIGINT) -> Iterator[None]:
    """Within the block the process gets a signal as a training tells of a step."""
    original = training._step_note

    def signalled(each) -> str:
        if each.step == step:
            os.kill(os.getpid(), number)
        return original(each)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_step_note", signalled)
        yield
