from pathlib import Path

import pytest

from instil.compare import forgetting
from instil.compare.forgetting import (
    GUARD,
    GuardScores,
    GuardTask,
    choose_guard,
    ledger,
    load_guard,
    mean_changes,
)
from instil.data.registry import load_rows
from instil.model.load import LoadedModel
from instil.results import TEXT
from instil.tasks.task import load_task
from instil.types import Example, Message, Prediction, Score
from moods import lay_out


def test_the_guard_is_of_at_least_four_other_kinds():
    names, related = choose_guard("guard", clusters=["sentiment"], trained=["amazon_reviews"])
    assert names == GUARD
    assert related == ()
    assert len({load_task(name).kind for name in names}) >= 4


def test_relatives_of_the_trained_task_are_left_out_and_named():
    cluster = load_task("bbc_topic").cluster
    names, related = choose_guard("guard", clusters=[cluster], trained=["bbc_topic"])
    assert "bbc_topic" in related
    assert not set(names) & set(related)
    assert all(load_task(name).cluster != cluster for name in names)


def test_named_tasks_are_taken_and_none_is_none():
    assert choose_guard(["trivia"], clusters=["qa"], trained=[]) == (("trivia",), ())
    assert choose_guard("none", clusters=[], trained=[]) == ((), ())


@pytest.mark.parametrize("rows", [3, 30])
def test_there_are_as_many_pieces_of_general_text_as_rows_of_a_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: LoadedModel, rows: int
):
    echo = str(lay_out(tmp_path) / "echo.yaml")
    monkeypatch.setattr(forgetting, "TEXT_FROM", echo)
    guard = load_guard([echo], rows=rows, text=True, chat=tiny.chat, seed=0)
    assert [(item.id, len(item.examples)) for item in guard] == [("echo", rows), (TEXT, rows)]


def test_a_gain_in_nats_does_not_make_good_a_loss_elsewhere():
    def scores(task: str, metric: str, *values: float | None) -> GuardScores:
        lines = tuple(Score(f"{task}/{n}/a", metric, v) for n, v in enumerate(values))
        return GuardScores(task, metric, lines, ())

    before = (
        scores("q", "accuracy", 1.0, 1.0, 0.0, 1.0),
        scores("q", "nats_per_token", 3.0, 3.0),
        scores("text", "nats_per_token", 2.0, None),
    )
    after = (
        scores("q", "accuracy", 1.0, 0.0, 0.0, 1.0),
        scores("q", "nats_per_token", 1.0, 1.0),
        scores("text", "nats_per_token", 2.4, 9.0),
    )
    points, nats = mean_changes(before, after)
    assert points == pytest.approx(-25)
    assert nats == pytest.approx(0.2)
    assert mean_changes((), ()) == (None, None)


def test_the_ledger_pairs_before_and_after():
    examples = tuple(
        Example(f"q/{n}/a", "q", "a", str(n), str(n), (Message("user", "x"),), "y", ("y", "z"))
        for n in range(20)
    )
    task = GuardTask("q", "qa", "accuracy", 4, examples)

    def scores(right: int) -> GuardScores:
        values = [Score(e.id, "accuracy", float(n < right)) for n, e in enumerate(examples)]
        return GuardScores("q", "accuracy", tuple(values), (Prediction("q/0/a", "y"),) * 20)

    (line,) = ledger([task], [scores(15)], [scores(10)])
    assert (line.before.mean, line.after.mean) == (0.75, 0.5)
    assert line.comparison.difference == pytest.approx(-0.25)
    assert (line.comparison.a, line.comparison.b, line.comparison.n) == ("before", "after", 20)
    assert (line.comparison.a_only, line.comparison.b_only) == (5, 0)


def test_rows_are_read_again_only_where_task_or_file_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(tmp_path)
    task, read = load_task(str(tmp_path / "echo.yaml")), []
    monkeypatch.setattr(
        forgetting, "load_rows", lambda each: read.append(each.id) or load_rows(each)
    )
    first = forgetting.guard_rows([str(tmp_path / "echo.yaml")], rows=4, seed=0)
    assert forgetting.guard_rows([str(tmp_path / "echo.yaml")], rows=4, seed=0) == first
    assert read == [task.id]
    data = Path(task.source.uri)
    data.write_text("".join(data.read_text().splitlines(keepends=True)[:-1]))
    forgetting.guard_rows([str(tmp_path / "echo.yaml")], rows=4, seed=0)
    assert read == [task.id] * 2
