"""The notebook of docs runs from its first cell to its last, and shows what it says."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "a-run-from-python.ipynb"


@pytest.fixture(autouse=True)
def private_cache() -> None:
    """Slow tests use the user's cache: the model is fetched, converted and proved once."""


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = [c for c in nbformat.read(NOTEBOOK, as_version=4).cells if c.cell_type == "code"]
    assert cells
    assert not any(cell.outputs or cell.execution_count for cell in cells)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")  # of the kernel's own libraries
def test_the_notebook_runs(tmp_path: Path) -> None:
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    book = nbformat.read(NOTEBOOK, as_version=4)
    place = {"metadata": {"path": str(tmp_path)}}
    os.environ.setdefault("IPYTHONDIR", str(tmp_path / "ipython"))
    NotebookClient(book, timeout=600, kernel_name="python3", resources=place).execute()
    printed, shown = list[str](), list[dict[str, str]]()
    for cell in book.cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error", output
            if output.output_type == "stream" and output.name == "stdout":
                printed.append(output.text)
            elif output.output_type == "execute_result":
                shown.append(output.data)
    assert "training" in printed[0]
    run, _, predicted, compared = shown
    assert "tuning" in run["text/html"]
    assert "<table>" in run["text/html"]
    assert predicted["text/plain"].count("'prediction'") == 2
    assert compared["text/plain"].startswith("[Comparison(")
