"""Rows as the text of a CSV file that reads back as what was written."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence


def as_csv(rows: Sequence[Mapping[str, object]], *, delimiter: str = ",") -> str:
    r"""Return rows as CSV: a column for each name in any of them, in the order they come.

    >>> as_csv([{"a": "x, y"}, {"a": 1, "b": None}])
    'a,b\n"x, y",\n1,\n'
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    # The csv module quotes a carriage return only where lines end in one.
    returns = any("\r" in value for row in rows for value in row.values() if isinstance(value, str))
    text = io.StringIO(newline="")
    table = csv.DictWriter(
        text,
        names,
        restval="",
        delimiter=delimiter,
        lineterminator="\r\n" if returns else "\n",
    )
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()
