"""What benchmarks of whole runs share: a run that is begun, and lines kept in a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from instil.stages.context import RunContext


@contextmanager
def begun(text: str) -> Iterator[RunContext]:
    """Begin a run by a recipe's text, in a folder that is gone afterwards; its rows are split."""
    from rich.progress import Progress

    from instil.config.recipe import load_recipe
    from instil.stages.context import prepare
    from instil.stages.directory import open_run

    with TemporaryDirectory() as folder:
        path = Path(folder, "recipe.yaml")
        path.write_text(text, encoding="utf-8")
        recipe, quiet = load_recipe(path), Progress(disable=True)
        with open_run(recipe, folder=Path(folder, "run"), resume=False) as run:
            yield prepare(recipe, run=run, progress=quiet)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a .jsonl file; none where there is no file."""
    written = path.read_text("utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in written]


def add_line(path: Path, line: dict[str, Any]) -> dict[str, Any]:
    """Add a line to a .jsonl file, and return it."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    return line
