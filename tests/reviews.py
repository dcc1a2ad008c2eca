"""Made reviews with one telling word each, and the task that asks whether they are good."""

from __future__ import annotations

import random

from instil.types import Row, SourceSpec, Task, Template

TEMPLATE = Template(
    "yes_no",
    "Is it good? {{ text }}",
    "{{ 'yes' if label == 'good' else 'no' }}",
    choices=("no", "so-so", "yes"),
)
TASK = Task(
    id="reviews",
    kind="sentiment",
    cluster="sentiment",
    description="",
    licence="MIT",
    source=SourceSpec("reviews.csv"),
    text="text",
    target="label",
    templates=(TEMPLATE,),
    choices=("bad", "fair", "good"),
)
WORDS = {"bad": ["awful", "broken", "poor"], "good": ["great", "lovely", "solid"]}


def make_rows(n: int, *, seed: int, share_good: float = 0.5) -> list[Row]:
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        label = "good" if rng.random() < share_good else "bad"
        filler = [f"w{rng.randrange(300)}" for _ in range(8)]
        fields = {"text": " ".join([*filler, rng.choice(WORDS[label])]), "label": label}
        rows.append(Row("reviews", f"{seed}_{i}", f"{seed}_{i // 2}", fields))
    return rows
