"""Rows that are asked but not rendered yet, for the tests of what encodes many of them."""

import random
from dataclasses import replace

from instil.data.build import Asked
from instil.types import Row, SourceSpec, Task, Template

ASK = Template("ask", "Good or bad? {{ text }}", "{{ label }}", choices=("bad", "good"))
OTHER = Template("other", "{{ text.upper() }} {{ note | int }}", "{{ label }}")
TASK = Task(
    "t", "k", "t", "", "", SourceSpec("x.csv"), "text", "label", (ASK, OTHER),
    choices=("bad", "good"),
)  # fmt: skip

LENGTH = 150
"""Tokens: some rows are longer, and some of these can be shortened."""


def asked(count: int, *, seed: int = 0) -> list[Asked]:
    """Rows of drawn lengths, some of them with worked examples."""
    draw = random.Random(seed)

    def row(n: int) -> Row:
        text = " ".join(
            draw.choices(["good", "bad", "great", "awful", "ça va", "👍"], k=1 + n % 50)
        )
        fields = {"text": text, "label": ("bad", "good")[n % 2], "note": str(n)}
        return Row("t", f"r{n}", f"g{n}", fields, place=f"x.csv:{n}")

    shown = (row(1000), row(1001))
    return [
        Asked(TASK, draw.choice((ASK, OTHER)), row(n), shown if n % 5 == 0 else ())
        for n in range(count)
    ]


def spoilt(items: list[Asked], *places: int, **fields: object) -> list[Asked]:
    """Give the rows at some places other fields, through the template that reads them."""
    items = list(items)
    for place in places:
        row = items[place].row
        items[place] = Asked(TASK, OTHER, replace(row, fields={**row.fields, **fields}))
    return items


def contents(shard) -> tuple[object, ...]:
    store = shard.store
    return list(store), store.fates, store.shared_prefix(), shard.counts.lines()
