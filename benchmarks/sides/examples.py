"""A benchmark's row as instil's example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instil.types import Example, Message


def as_example(row: Mapping[str, Any]) -> Example:
    return Example(
        id=row["id"],
        task="bench",
        template="bench",
        row=row["id"],
        group=row["id"],
        messages=tuple(Message(**message) for message in row["messages"]),
        target=row["completion"],
        choices=tuple(row["choices"]),
    )
