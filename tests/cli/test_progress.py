from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.progress import Progress

from instil.cli import progress as module
from instil.cli.progress import LineProgress, NoteColumn, make_progress
from instil.data.sources.fetch import on_bytes


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    out = io.StringIO()
    console = Console(file=out, markup=False, highlight=False, soft_wrap=True)
    monkeypatch.setattr(module, "make_console", lambda **_: console)
    return out


def test_away_from_a_terminal_stages_are_lines(
    lines: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    with make_progress() as progress:
        assert isinstance(progress, LineProgress)
        stage = progress.add_task("training [x]", total=3, note="")
        progress.update(stage, advance=1, note="loss 0.5")
        clock[0] = 60.0
        progress.update(stage, advance=1, note="loss 0.4")
        progress.advance(stage)
        progress.update(stage, completed=3)
    assert lines.getvalue().splitlines() == [
        "training [x]  0/3",
        "training [x]  2/3  loss 0.4",
        "training [x]  3/3  loss 0.4",
    ]


def test_a_stage_of_unknown_length_is_told_once(lines: io.StringIO) -> None:
    with make_progress() as progress:
        stage = progress.add_task("model", total=None)
        progress.update(stage, total=1, completed=1)
    assert lines.getvalue().splitlines() == ["model", "model  1/1"]


def test_a_long_stage_of_unknown_length_tells_how_long_it_has_taken(
    lines: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    with make_progress() as progress:
        progress.get_time = lambda: clock[0]
        stage = progress.add_task("test tickets", total=None)
        progress.advance(stage)
        clock[0] = 75.0
        progress.advance(stage)
        progress.update(stage, total=1, completed=1)
    told = lines.getvalue().replace("\u00a0", " ").splitlines()
    assert told == ["test tickets", "test tickets  1 min 15 s", "test tickets  1/1"]


def test_on_a_terminal_a_note_stands_behind_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    monkeypatch.setattr(module, "make_console", lambda **_: console)
    with make_progress() as progress:
        assert type(progress) is Progress
        stage = progress.add_task("training", total=2, note="loss 0.5")
        bare = progress.add_task("other")
        column = NoteColumn()
        assert column.render(progress.tasks[stage]).plain == "loss 0.5"
        assert column.render(progress.tasks[bare]).plain == ""
    assert "loss 0.5" in out.getvalue()


def test_a_download_is_a_stage_in_megabytes(capsys):
    with make_progress() as progress:
        show = on_bytes.get()
        assert show is not None
        for done in (1 << 16, 2_500_000, 5_000_000):
            show("rows.whl", done, 5_000_000)
    assert [(t.description, t.completed, t.total) for t in progress.tasks] == [
        ("downloading rows.whl", 5, 5)
    ]
    assert "downloading rows.whl  5/5  MB" in capsys.readouterr().err
