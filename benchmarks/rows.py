"""The rows that both sides of a benchmark see: rendered once, written as JSON Lines.

A line holds `id`, `messages`, `completion` and `choices`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from instil.data.build import (
    Asked,
    drawn_templates,
    pick_exemplars,
    render_all,
    render_example,
)
from instil.data.prepare import TaskData, prepare
from instil.tasks.task import load_task
from instil.types import Example, Message, Row, Task, Template

# Wordings that the library does not have, for what a benchmark needs.
WORDINGS = {
    "long_story": Template(
        "long_story",
        "Write a headline for this news story:\n{{ body | first_words(300) }}",
        "{{ headline }}",
    ),
    "sentences": Template(
        "sentences",
        "{{ opening }}\nWhat is this story about?",
        "{{ choices[['business', 'entertainment', 'politics', 'sports', 'tech'].index(topic)] }}",
        choices=(
            "It is about companies and the economy.",
            "It is about films, music and famous people.",
            "It is about the government and its parties.",
            "It is about a game and its players.",
            "It is about computers and the internet.",
        ),
    ),
}


def load(task: str, *, train: int, validation: int) -> TaskData:
    return prepare(
        load_task(task),
        train=train,
        validation=validation,
        test=20,
        seed=0,
        near_duplicates=0.8,
    )


def wordings(data: TaskData, names: Sequence[str]) -> list[Template]:
    """The templates named, from the task or from here; none named: all of the task's."""
    known = {t.id: t for t in data.templates}
    return [known.get(n) or WORDINGS[n] for n in names] if names else list(data.templates)


def training_rows(path: Path, *, task: str, rows: int, templates: Sequence[str] = ()) -> None:
    """One example a row."""
    data = load(task, train=rows, validation=20)
    chosen = wordings(data, templates)
    examples = list(rendered(data.task, data.train, chosen, epoch=0))
    assert len(examples) >= rows, f"{task} has {len(examples)} training rows, not {rows}"
    write(path, examples[:rows])


def rendered(
    task: Task, rows: Iterable[Row], templates: Sequence[Template], *, epoch: int
) -> Iterator[Example]:
    """Each row through one template, drawn by seed 0, the epoch and the row's id."""
    return render_all(asked(task, rows, templates, epoch=epoch))


def asked(
    task: Task, rows: Iterable[Row], templates: Sequence[Template], *, epoch: int
) -> Iterator[Asked]:
    """The same, not rendered yet."""
    for row in rows:
        for template in drawn_templates(row, templates, per_row="one", seed=0, draw=epoch):
            yield Asked(task, template, row)


def scoring_rows(path: Path, *, task: str, rows: int, template: str, shots: int = 0) -> None:
    """One prompt a row, its exemplars the same in all."""
    data = load(task, train=60, validation=rows)
    (chosen,) = wordings(data, [template])
    exemplars = pick_exemplars(data.task, data.train, shots=shots, seed=0)
    write(
        path,
        [render_example(data.task, chosen, row, exemplars=exemplars) for row in data.validation],
    )


def made_up_rows(path: Path, *, rows: int, words: int, answer: int) -> None:
    """Rows of drawn words, for models with random weights: a prompt of `words`, an `answer`."""
    draw = random.Random(0)
    write(path, (_made_up(n, draw, words, answer) for n in range(rows)))


def _made_up(number: int, draw: random.Random, words: int, answer: int) -> Example:
    # Lengths vary as those of real rows do: from half of the mean to one and a half.
    prompt, target = (
        " ".join(draw.choices(VOCABULARY, k=max(1, draw.randint(n // 2, n + n // 2))))
        for n in (words, answer)
    )
    name = str(number)
    return Example(name, "made up", "", name, name, (Message("user", prompt),), target)


VOCABULARY = (
    "the of and to in is was for that on with it as by at this from not are be have an which you "
    "one we all they more about who when there out up some time people year city price company "
    "game team music film market government law school water house street night day"
).split()


def repeated(rows: Sequence[Row], *, count: int, text: str) -> Iterator[Row]:
    """Draw `count` rows with repetition; each gets an id and a text of its own."""
    draw = random.Random(0)
    for number in range(count):
        row = draw.choice(rows)
        fields = {**row.fields, text: f"{row.fields[text]} ({number})"}
        yield replace(row, id=f"{row.id}-{number}", group=f"{row.group}-{number}", fields=fields)


def write(path: Path, examples: Iterable[Example]) -> None:
    with path.open("w", encoding="utf-8") as out:
        for e in examples:
            line = {
                "id": e.id,
                "messages": [{"role": m.role, "content": m.content} for m in e.messages],
                "completion": e.target,
                "choices": list(e.choices),
            }
            out.write(json.dumps(line) + "\n")
