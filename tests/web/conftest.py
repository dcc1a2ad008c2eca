"""A folder with rows, a task, a recipe and a finished run, and the page of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from instil.compare import forgetting
from instil.web.site import Site
from instil.web.workplace import Workplace
from moods import lay_out, make_recipe, run
from pages import TOKEN, client_of


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A folder with a finished run; nobody writes into it."""
    folder = tmp_path_factory.mktemp("page") / "shop"
    folder.mkdir()
    lay_out(folder)
    shutil.copytree(tiny_folder, folder / "tiny")
    (folder / "moods.yaml").rename(folder / "moods.task.yaml")
    recipe = make_recipe(
        folder,
        folder / "tiny",
        "dtype=float32",
        "baselines.shots=[0]",
        "forgetting.text=false",
        task="moods.task.yaml",
    )
    run(recipe, folder / "runs" / "moods")
    (folder / "recipe.yaml").rename(folder / "moods.recipe.yaml")
    return folder


@pytest.fixture
def shop(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder with a finished run; what is written into it is taken out again."""
    monkeypatch.setattr(forgetting, "TEXT_FROM", str(finished / "echo.yaml"))
    before = {path: path.read_bytes() for path in finished.glob("*.*") if path.is_file()}
    yield finished
    shutil.rmtree(finished / ".instil", ignore_errors=True)
    for path in finished.glob("*.*"):
        if path.is_file() and path not in before:
            path.unlink()
    for path, data in before.items():
        path.write_bytes(data)


@pytest.fixture
def site(tmp_path: Path, tiny_folder: Path) -> Site:
    """The page of an empty folder."""
    folder = tmp_path / "shop"
    folder.mkdir()
    return Site(Workplace(folder.resolve()), TOKEN, str(tiny_folder))


@pytest.fixture
def page(site: Site) -> TestClient:
    return client_of(site)


@pytest.fixture
def shop_page(shop: Path, tiny_folder: Path) -> TestClient:
    return client_of(Site(Workplace(shop.resolve()), TOKEN, str(tiny_folder)))
