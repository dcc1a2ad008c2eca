from pathlib import Path

import numpy as np
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
from instil.compare.kept import guard_claims
from instil.compare.verdict import Outcome, outcomes
from instil.errors import DataError
from instil.model.load import LoadedModel
from instil.results.guard import Margins
from instil.results.names import TEXT
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


def sides(changes: dict[str, list[float]], *, margin: float, metric: str = "accuracy"):
    """Return a guard whose rows change so, the base model's scores, and both models to ask."""
    guard = tuple(
        GuardTask(
            name,
            "qa",
            metric,
            4,
            tuple(
                Example(f"{name}/{n}/a", name, "a", str(n), str(n), (Message("user", "x"),), "y")
                for n in range(len(values))
            ),
        )
        for name, values in changes.items()
    )
    asked: list[tuple[str, str, int]] = []

    def model(side: str):
        def ask(items):
            (item,) = items
            asked.append((side, item.id, len(item.examples)))
            rows = [int(e.row) for e in item.examples]
            gains = [changes[item.id][n] if side == "tuned" else 0.0 for n in rows]
            values = [0.5 + gain / 2 for gain in gains]
            scores = zip(item.examples, values, strict=True)
            return (
                GuardScores(item.id, metric, tuple(Score(e.id, metric, v) for e, v in scores), ()),
            )

        return ask

    base = model("base")
    before = tuple(base([item])[0] for item in forgetting.first_batch(guard))
    asked.clear()
    found = forgetting.ask_until_decided(
        guard, before, ask_base=base, ask_tuned=model("tuned"), margins=Margins(points=margin)
    )
    return guard, found, asked


def test_rows_are_asked_until_something_is_shown():
    guard, found, asked = sides(
        {"lost": [-1.0, -1.0, 0.0] * 100, "kept": [0.0] * 300, "unclear": [-1.0, 1.0] * 60},
        margin=8,
    )
    rows = {after.task: len(after.scores) for after in found.after}
    assert rows == {"lost": 50, "kept": 100, "unclear": 120}, "50 after 50, or all there are"
    assert [each for each in asked if each[0] == "base"] == [
        ("base", "kept", 50),
        ("base", "unclear", 50),
        ("base", "unclear", 20),
    ]
    for before, after in zip(found.before, found.after, strict=True):
        assert [s.example_id for s in before.scores] == [s.example_id for s in after.scores]
    lines = ledger(guard, found.before, found.after, anytime=Margins(points=8))
    assert guard_claims(lines, Margins(points=8)) == (
        "lost more than 8 points, shown",
        "kept within 8 points, shown",
        "not shown either way",
    )
    assert all(each.comparison.p_value is None for each in lines), "McNemar's is of fixed rows"
    fixed = ledger(guard, found.before, found.after)
    for one, other in zip(lines, fixed, strict=True):
        assert one.comparison.low <= other.comparison.low
        assert one.comparison.high >= other.comparison.high
        assert one.after.low < one.after.mean < one.after.high
        assert one.after != other.after


def test_what_ended_the_asking_is_also_shown_in_the_end():
    rng, wrong, ended = np.random.default_rng(0), 0, 0
    for _ in range(25):
        changes = {
            name: list(rng.choice([-1.0, 0.0, 1.0], 300, p=[0.1 + by, 0.8 - by, 0.1]))
            for name, by in {"same": 0.0, "lost": 0.3, "a little": 0.1}.items()
        }
        guard, found, _ = sides(changes, margin=20)
        lines = ledger(guard, found.before, found.after, anytime=Margins(points=20))
        shown = outcomes([each.comparison for each in lines])
        wrong += shown[0] is not Outcome.NOT_SHOWN
        for line, claim in zip(lines, guard_claims(lines, Margins(points=20)), strict=True):
            ended += line.comparison.n < 300
            assert line.comparison.n == 300 or claim != "not shown either way"
    assert wrong <= 25 * 0.05 + 3
    assert ended > 25


def test_of_each_group_one_row_is_asked_where_rows_must_be_independent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: LoadedModel
):
    moods = str(lay_out(tmp_path) / "moods.yaml")
    monkeypatch.setattr(forgetting, "TEXT_FROM", moods)
    lone, every = (
        load_guard([moods], rows=30, text=True, chat=tiny.chat, seed=0, one_a_group=one)
        for one in (True, False)
    )
    for item in lone:
        groups = [e.group for e in item.examples]
        assert len(groups) == len(set(groups)) == 30
    assert len({e.group for e in every[0].examples}) < 30
    named = forgetting.guard_rows([moods], rows=30, text=False, seed=0, one_a_group=True)
    assert {e.row for e in lone[0].examples} <= {row.id for _, row in named}
    assert forgetting.most_rows(7) == 7
    assert forgetting.most_rows("auto") == forgetting.MOST_ROWS


def test_a_guard_of_one_group_is_refused_since_nothing_can_be_compared_on_it(
    tmp_path: Path, tiny: LoadedModel
):
    lay_out(tmp_path)
    path = tmp_path / "lone.yaml"
    task = (tmp_path / "moods.yaml").read_text(encoding="utf-8").replace("id: moods", "id: lone")
    path.write_text(task.replace("group: review", "group: thing"), encoding="utf-8")
    lines = (tmp_path / "moods.csv").read_text(encoding="utf-8").splitlines()
    alike = [line.rsplit(",", 1)[0] + ",phone" for line in lines[1:]]
    (tmp_path / "moods.csv").write_text("\n".join([lines[0], *alike]), encoding="utf-8")
    with pytest.raises(DataError, match="lone has too few"):
        load_guard([str(path)], rows=30, text=False, chat=tiny.chat, seed=0)
