"""The search for a prompt on a tiny model: its budget, whom it asks, what it takes for the bar."""

from dataclasses import replace

import pytest

from instil.compare import ladder, search
from instil.compare.halving import doubling
from instil.compare.instructions import described, instruction_in, request, written
from instil.compare.ladder import best_rung, climb
from instil.compare.search import EXTENTS, Way, asked_by, prompting_of
from instil.data.build import render_example
from instil.evaluate.choices import CALIBRATED, RAW
from instil.results.prompts import Demonstrations
from instil.stages.context import prepare_rows
from instil.types import Message, Prediction
from moods import lay_out, make_recipe


@pytest.fixture(scope="module")
def data(tmp_path_factory, tiny_folder):
    recipe = make_recipe(
        lay_out(tmp_path_factory.mktemp("moods")),
        tiny_folder,
        "forgetting.tasks=none",
        "tasks.0.templates=all",
    )
    (prepared,) = prepare_rows(recipe)
    return prepared


@pytest.fixture
def rungs(tiny, data):
    return climb(
        tiny, data, templates=data.answering, shots=(0, 2), rows=data.validation, seed=3
    )  # fmt: skip


def searched(tiny, data, rungs, *, extent="quick", budget=400, longest=512, on_done=lambda _: None):
    return search.search(
        tiny,
        data,
        rungs=rungs,
        extent=EXTENTS[extent],
        rows=data.validation,
        budget=budget,
        longest=longest,
        seed=3,
        on_done=on_done,
    )


@pytest.fixture
def oracle(monkeypatch):
    """In place of the model: a prompt that asks for one of the answers is answered right."""
    asked = []

    def answers(loaded, examples, *, blank=None, on_done=lambda _: None, **_):
        asked.extend(examples)
        on_done(len(examples) + (blank is not None))
        made = [
            Prediction(e.id, e.target if _good(e) else next(c for c in e.choices if c != e.target))
            for e in examples
        ]
        return {RAW: made} | ({CALIBRATED: made} if blank is not None else {})

    def _good(example):
        shown = "good" in example.messages[-1].content and example.shots == 3
        return shown or int(example.row.removeprefix("r")) % 3 == 0

    def answer(loaded, examples, **more):
        return answers(loaded, examples, **more)[RAW]

    monkeypatch.setattr(ladder, "answer_by_rule", answers)
    monkeypatch.setattr(search, "answer", answer)
    return asked


@pytest.mark.parametrize("budget", [1, 150, 700])
def test_the_budget_is_never_exceeded_and_all_that_is_asked_is_counted(
    tiny, data, rungs, oracle, budget
):
    asked = []
    oracle.clear()
    made = searched(tiny, data, rungs, extent="full", budget=budget, on_done=asked.append)
    assert made.budget == budget
    assert sum(asked) == made.prompts <= budget
    assert len({row.id for row in data.validation} & {e.row for e in oracle}) > 0 or budget < 300
    if budget == 1:
        assert not made.ways
        assert made.left_out[search.NO_BUDGET] > 20


def test_rows_of_validation_and_test_are_never_shown_and_those_of_test_never_asked(
    tiny, data, rungs, oracle, monkeypatch
):
    shown, asked = [], []

    def spied(task, template, row, *, exemplars=()):
        shown.extend(exemplars)
        asked.append(row)
        return render_example(task, template, row, exemplars=exemplars)

    for module in (search, ladder):
        monkeypatch.setattr(module, "render_example", spied)
    searched(tiny, data, rungs, extent="full", budget=900)
    assert {row.id for row in shown} <= {row.id for row in data.train}
    assert {row.id for row in asked} <= {row.id for row in (*data.train, *data.validation)}
    assert len(shown) > 100


@pytest.mark.slow
def test_the_best_way_is_the_bar_and_is_rebuilt_from_what_is_kept(tiny, data, oracle):
    rungs = climb(
        tiny, data, templates=data.answering, shots=(0, 2), rows=data.validation, seed=3
    )  # fmt: skip
    made = searched(tiny, data, rungs, extent="full", budget=2400)
    assert made.better
    assert made.summary.mean == 1.0 > best_rung(rungs).summary.mean
    assert made.demonstrations.shots == 3
    draws = {(way.draw, way.seed) for way in made.ways if way.draw}
    assert len(draws) >= 16, "sets of worked examples"
    assert {way.scoring for way in made.ways} == {RAW}
    assert any(way.order for way in made.ways)
    whole = [way for way in made.ways if way.asked_all]
    assert {way.summary.scored for way in whole} == {len(data.validation)}
    assert made.shown.messages[-1].content
    again = prompting_of(tiny, data, made, data.validation[:1], longest=512)
    assert again.examples(data, data.validation[:1])[0].messages == made.shown.messages
    test = prompting_of(tiny, data, made, data.test, longest=512)
    assert {len(e.messages) for e in test.examples(data, data.test)} == {7}


def test_the_ladder_stays_the_bar_where_nothing_is_better(tiny, data, monkeypatch, rungs):
    def wrong(loaded, examples, *, blank=None, **_):
        return {RAW: [Prediction(e.id, "") for e in examples]}

    monkeypatch.setattr(ladder, "answer_by_rule", wrong)
    made, best = searched(tiny, data, rungs), best_rung(rungs)
    assert not made.better
    assert (made.template.id, made.scoring) == (best.template, best.scoring)
    assert made.summary == best.summary
    assert (made.demonstrations.shots if made.demonstrations else 0) == best.shots


@pytest.mark.slow
def test_the_same_seed_finds_the_same(tiny, data, rungs):
    one, other = (searched(tiny, data, rungs, budget=350) for _ in range(2))
    assert replace(one, seconds=0) == replace(other, seconds=0)
    assert len(one.ways) > 4


def test_free_text_is_searched_too(tiny, tmp_path, tiny_folder):
    recipe = make_recipe(lay_out(tmp_path), tiny_folder, "forgetting.tasks=none", task="echo.yaml")
    (data,) = prepare_rows(recipe)
    rungs = climb(
        tiny, data, templates=data.answering[:1], shots=(0,), rows=data.validation, seed=3
    )
    made = searched(tiny, data, rungs, budget=300)
    assert {way.scoring for way in made.ways} == {"generated"}
    assert any(way.draw == "words" for way in made.ways)


def test_worked_examples_are_left_out_where_the_context_is_too_short(tiny, data):
    rows = data.train[:8]
    way = Way(data.answering[0], Demonstrations("random", 8, rows=tuple(row.id for row in rows)))
    asked = data.validation[:3]
    whole = asked_by(tiny, data, way, asked, near=None, longest=0)
    assert whole.exemplars == rows
    assert whole.by_row == {}
    assert whole.blank(data, asked[0]) is not None
    room = [tiny.chat.answer_room(e, max_new_tokens=0) for e in whole.examples(data, asked)]
    longest = max(map(sum, room)) - 30
    short = asked_by(tiny, data, way, asked, near=None, longest=longest)
    assert set(short.by_row) == {
        row.id for row, each in zip(asked, room, strict=True) if sum(each) > longest
    }
    for each in short.by_row.values():
        assert 0 < len(each) < 8
        assert each == rows[-len(each) :], "the last ones stay"
    for example in short.examples(data, asked):
        assert sum(tiny.chat.answer_room(example, max_new_tokens=0)) <= longest


def test_ways_that_do_not_fit_the_context_are_left_out_and_counted(tiny, data, rungs, oracle):
    room = tiny.chat.answer_room(
        asked_by(
            tiny, data, Way(data.answering[0]), data.validation, near=None, longest=0
        ).examples(data, data.validation[:1])[0],
        max_new_tokens=0,
    )
    made = searched(tiny, data, rungs, budget=700, longest=2 * sum(room))
    assert made.left_out[search.TOO_LONG] > 0
    assert {way.shots for way in made.ways} == {0}


# --- instructions -----------------------------------------------------------------------------


def test_a_template_with_words_added_still_shows_the_row(data):
    template, row = data.answering[0], data.validation[0]
    made = described(data, template)
    ids = [each.template.id for each in made]
    assert ids == [f"{template.id}+{name}" for name in ("description", "system", "answers")]
    for each in made:
        example = render_example(data.task, each.template, row)
        assert str(row.fields["text"]) in example.messages[-1].content
        assert example.target == render_example(data.task, template, row).target
    worded = described(data, data.answering[1])[-1]
    said = render_example(data.task, worded.template, row).messages[-1].content
    assert said.endswith("Answer with one of: good, bad.")


def test_a_request_for_an_instruction_shows_training_rows_alone(data):
    content = request(data, data.answering[0], seed=1).messages[0].content
    shown = [row for row in data.rows if f"Input: {row.fields['text']}\n" in content]
    assert len(shown) == 5
    assert {row.id for row in shown} <= {row.id for row in data.train}
    assert request(data, data.answering[0], seed=2).messages[0].content != content


def test_only_usable_instructions_are_taken(tiny, data, monkeypatch):
    texts = [
        "Say how the {{ mood }} of the text is.",
        "Short.",
        "x" * 500,
        "Say\x00 something nice",
    ]
    assert [instruction_in(text) for text in texts] == [""] * 4
    assert (
        instruction_in("**Instruction:** Decide which it is.\n\nInput: a") == "Decide which it is."
    )

    said = ["Decide which mood it is.", "Decide which mood it is.", "No."]
    made = [Prediction(str(n), text) for n, text in enumerate(said)]
    monkeypatch.setattr("instil.compare.instructions.generate", lambda *_, **__: made)
    (only,) = written(tiny, data, data.answering[0], count=3, seed=0)
    example = render_example(data.task, only.template, data.validation[0])
    assert example.messages[0].content.startswith("Decide which mood it is.\n\n")
    assert isinstance(example.messages[0], Message)


def test_looks_double():
    assert doubling(100) == (16, 32, 64, 100)
