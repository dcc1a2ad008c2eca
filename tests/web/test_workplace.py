"""What of a folder is shown, and where files that are dropped go."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from instil.errors import DataError
from instil.web import workplace as module
from instil.web.workplace import NotHereError, Workplace


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    folder = tmp_path / "shop"
    folder.mkdir()
    return Workplace(folder.resolve())


def lay(place: Workplace, *names: str) -> None:
    for name in names:
        path = place.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


async def blocks(*parts: bytes):
    for part in parts:
        yield part


def take(place: Workplace, name: str, *parts: bytes) -> Path:
    return asyncio.run(place.take(name, blocks(*parts)))


def test_rows_tasks_and_recipes_are_told_apart(place):
    lay(place, "a.csv", "sub/b.jsonl.gz", "a.task.yaml", "a.recipe.yaml", "notes.txt", ".c.csv")
    lay(place, "model/config.json", "model/tokenizer.json", "runs/a/recipe.yaml")
    lay(place, "runs/a/manifest.json", "runs/a/scores.json", "study/study.json", "x/y/z/deep.csv")
    assert {place.name(p) for p in place.data()} == {"a.csv", "sub/b.jsonl.gz"}
    assert [place.name(p) for p in place.tasks()] == ["a.task.yaml"]
    assert [place.name(p) for p in place.recipes()] == ["a.recipe.yaml"]
    assert [place.name(p) for p in place.runs()] == ["runs/a"]
    assert [place.name(p) for p in place.studies()] == ["study"]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/../../x", "/etc/passwd", ".instil", "a/.b", "no", "a\0b"]
)
def test_names_that_lead_elsewhere_are_not_there(place, name):
    lay(place, "a/b.csv", ".instil/x")
    with pytest.raises(NotHereError):
        place.path(name)


def test_links_are_followed_within_the_folder_alone(place):
    lay(place, "a.csv")
    (place.folder / "in.csv").symlink_to(place.folder / "a.csv")
    (place.folder / "out.csv").symlink_to("/etc/hostname")
    (place.folder / "loop.csv").symlink_to(place.folder / "loop.csv")
    assert place.path("in.csv").read_text() == "x"
    for name in ("out.csv", "loop.csv"):
        with pytest.raises(NotHereError):
            place.path(name)


def test_a_name_that_looks_like_an_option_is_written_as_a_path(place):
    lay(place, "-rf.csv")
    assert place.name(place.folder / "-rf.csv") == "./-rf.csv"


def test_what_breaks_off_leaves_nothing(place, monkeypatch):
    monkeypatch.setattr(module, "LARGEST_UPLOAD", 5)
    with pytest.raises(DataError, match="too large"):
        take(place, "a.csv", b"abc", b"def")
    assert not list(place.folder.iterdir())


def test_nothing_is_written_over(place):
    lay(place, "a.csv")
    assert take(place, "a.csv", b"new").name == "a-2.csv"
    assert take(place, "a.csv", b"new").name == "a-3.csv"
    assert (place.folder / "a.csv").read_text() == "x"
    assert (place.folder / "a-2.csv").read_bytes() == b"new"


def test_the_next_free_folder(place):
    lay(place, "runs/a/recipe.yaml", "runs/a-2/recipe.yaml")
    assert place.free("runs/a").name == "a-3"
    assert place.free("runs/b").name == "b"
