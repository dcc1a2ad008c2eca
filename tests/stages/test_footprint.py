"""What a run is said to need; the table of docs/scale.md is made by the same formula."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from instil.config.methods import METHODS, Method
from instil.config.recipe import Quantize
from instil.model.load import ModelFolder, parameter_count
from instil.stages.durations import TRAINING_EFFICIENCY
from instil.stages.footprint import Sizes, memory_terms, sizes_of

PAGE = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
PEAK = 989e12
"""Of an H100 in bfloat16, dense, operations a second, as its maker says."""


def table(title: str) -> list[list[str]]:
    part = PAGE.split(f"## {title}")[1].split("\n## ")[0]
    rows = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def sizes() -> dict[str, Sizes]:
    found = {}
    for name, *cells in table("Shapes"):
        layers, width, parameters, multiplied = (float(cell) for cell in cells)
        found[name] = Sizes(int(layers), int(width), parameters * 1e9, multiplied * 1e9)
    return found


def gigabytes(
    of: Sizes, method: Method, *, quantize: Quantize | None = None, processes: int = 1
) -> str:
    terms = memory_terms(
        of,
        method=method,
        quantize=quantize,
        held_to_base=False,
        micro_batch_tokens=1024,
        processes=processes,
    )
    return f"{sum(terms.values()) / 1e9:.1f}"


def test_memory_as_the_page_says() -> None:
    shapes = sizes()
    rows = table("Memory of one process")
    assert [name for name, *_ in rows] == list(shapes)
    for name, *cells in rows:
        of = shapes[name]
        ways = [(Method.LORA, None), (Method.LORA, Quantize.NF4), (Method.FULL, None)]
        assert cells == [gigabytes(of, way, quantize=packed) for way, packed in ways], name


def test_memory_of_weights_dealt_out_as_the_page_says() -> None:
    shapes = sizes()
    ways = [(Method.LORA, None), (Method.LORA, Quantize.NF4), (Method.FULL, None)]
    for name, *cells in table("Weights dealt out"):
        wanted = [
            gigabytes(shapes[name], way, quantize=packed, processes=n)
            for way, packed in ways
            for n in (4, 8)
        ]
        assert cells == wanted, name


def test_speed_as_the_page_says() -> None:
    shapes = sizes()
    for name, lora, full, step in table("Tokens a second"):
        for cell, method in ((lora, Method.LORA), (full, Method.FULL)):
            operations = METHODS[method].operations * shapes[name].multiplied
            speed = TRAINING_EFFICIENCY * PEAK / operations
            assert float(re.sub(",", "", cell)) == pytest.approx(speed, rel=0.01), name
        assert float(step) == pytest.approx(4 * shapes[name].parameters / 1e9, rel=0.02), name


def test_the_terms_are_what_can_be_lowered() -> None:
    of = Sizes(30, 576, 135e6, 106e6)
    plain = {"method": Method.LORA, "quantize": None, "held_to_base": False}
    some, twice = (memory_terms(of, **plain, micro_batch_tokens=n) for n in (1024, 2048))
    assert list(some) == ["libraries", "weights", "activations"]
    assert twice["activations"] == 2 * some["activations"]
    full = {**plain, "method": Method.FULL}
    held = memory_terms(of, **{**full, "held_to_base": True}, micro_batch_tokens=1024)
    alone = memory_terms(of, **full, micro_batch_tokens=1024)
    assert held["weights and optimizer"] - alone["weights and optimizer"] == 2 * 135_000_000


def test_pruning_holds_the_merged_weights_and_the_base() -> None:
    of = Sizes(30, 576, 135e6, 106e6)
    plain = {"quantize": None, "held_to_base": False, "micro_batch_tokens": 1024}
    for method, name in ((Method.LORA, "weights"), (Method.FULL, "weights and optimizer")):
        alone, pruned = (
            memory_terms(of, method=method, pruned=pruned, **plain)[name]
            for pruned in (False, True)
        )
        assert pruned == max(alone, 6 * 135_000_000)


@pytest.mark.parametrize("told", [True, False])
def test_weights_are_counted_whatever_the_config_says(tiny, tiny_folder, tmp_path, told) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if not told:
        config = {key: value for key, value in config.items() if "dtype" not in key}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert sizes_of(ModelFolder("t", folder, "none")).parameters == parameter_count(tiny.model)
