"""Finished runs of the tiny model for the tests of what is shipped; none writes into them."""

from __future__ import annotations

from pathlib import Path

import pytest

from moods import lay_out, make_recipe, run


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A run that trained all weights: its answers end."""
    changes = ("method=full", "train.learning_rate=0.003", "train.num_train_epochs=10")
    return _finished(tmp_path_factory.mktemp("full"), tiny_folder, *changes)


@pytest.fixture(scope="session")
def done_lora(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A run with an adapter."""
    return _finished(tmp_path_factory.mktemp("lora"), tiny_folder)


def _finished(folder: Path, model: Path, *changes: str) -> Path:
    lay_out(folder)
    brief = ("dtype=float32", "baselines.shots=[0]", "forgetting.text=false", *changes)
    return run(make_recipe(folder, model, *brief), folder / "run")
