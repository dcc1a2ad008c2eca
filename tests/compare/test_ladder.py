"""The ladder and the choice of a template on a tiny model: fewer prompts, the same figures."""

from dataclasses import replace

import pytest

from instil.compare import contest, halving, ladder
from instil.compare.ladder import Prompting, best_rung, climb
from instil.evaluate.choices import CALIBRATED, RAW
from instil.stages.context import prepare_rows
from instil.types import Prediction
from moods import lay_out, make_recipe


@pytest.fixture
def data(tmp_path, tiny_folder):
    recipe = make_recipe(
        lay_out(tmp_path), tiny_folder, "forgetting.tasks=none", "tasks.0.templates=all"
    )
    (prepared,) = prepare_rows(recipe)
    return prepared


@pytest.fixture
def three(data):
    """The same with a third answering template."""
    ask, *others = data.templates
    third = replace(ask, id="third", prompt="{{ text }}\nSentiment, positive or negative:")
    task = replace(data.task, templates=(ask, third, *others))
    return replace(data, task=task, templates=task.templates)


def climbed(tiny, data, *, count=None):
    asked = []
    rungs = climb(
        tiny, data, templates=data.answering, shots=(0, 2), rows=data.validation, seed=3,
        on_done=asked.append,
    )  # fmt: skip
    return rungs, sum(asked)


def test_a_halved_ladder_has_the_full_ones_figures(tiny, three, monkeypatch):
    full, all_prompts = climbed(tiny, three)
    assert all(rung.asked_all for rung in full)
    assert all_prompts == 6 * len(three.validation)

    monkeypatch.setattr(halving, "FEWEST", 6)
    rungs, prompts = climbed(tiny, three)
    plan = halving.planned([0, 2] * 3, rows=len(three.validation))
    assert prompts <= sum(ways * more for ways, more in plan) < all_prompts
    dropped = [rung for rung in rungs if not rung.asked_all]
    assert dropped
    assert all(rung.summary.scored < len(three.validation) for rung in dropped)
    whole = {(r.template, r.shots, r.scoring): r for r in full}
    kept = [rung for rung in rungs if rung.asked_all]
    assert {rung.shots for rung in kept} == {0, 2}
    for rung in kept:
        other = whole[rung.template, rung.shots, rung.scoring]
        assert rung.summary == other.summary
        assert rung.exemplar_tokens == other.exemplar_tokens
    assert best_rung(rungs).summary.mean == max(rung.summary.mean for rung in kept)
    assert climbed(tiny, three)[0] == rungs, "the same seed asks the same"


def test_of_equal_rungs_the_simpler_rule_is_taken(tiny, data, monkeypatch):
    """The first template is right by the calibrated rule alone, the second by the raw one."""
    first, second = (template.id for template in data.answering)

    def answers(loaded, examples, **_):
        right = [Prediction(e.id, e.target) for e in examples]
        wrong = [Prediction(e.id, "neither") for e in examples]
        by_raw, by_calibrated = (wrong, right) if examples[0].template == first else (right, wrong)
        return {RAW: by_raw, CALIBRATED: by_calibrated}

    monkeypatch.setattr(ladder, "answer_by_rule", answers)
    monkeypatch.setattr(halving, "FEWEST", len(data.validation))
    rungs = climb(tiny, data, templates=data.answering, shots=[0], rows=data.validation, seed=3)
    best = best_rung(rungs)
    assert (best.template, best.scoring, best.summary.mean) == (second, RAW, 1.0)


def test_the_choice_of_a_template_ends_when_one_is_left(tiny, data, three, monkeypatch):
    asked = []
    best = contest.best_template(tiny, three, three.validation, seed=0, on_done=asked.append)
    assert sum(asked) == 3 * len(three.validation)
    means = {
        template.id: contest.ask(
            tiny, three, name="tuned", way=Prompting(template), scoring=RAW, rows=three.validation
        )
        .marked.summary()
        .mean
        for template in three.answering
    }
    assert means[best.id] == max(means.values())

    asked.clear()
    monkeypatch.setattr(halving, "FEWEST", 6)
    contest.best_template(tiny, three, three.validation, seed=0, on_done=asked.append)
    assert sum(asked) == (3 + 2) * len(three.validation) // 3

    asked.clear()
    (only, *_) = data.answering
    one = replace(data, templates=(only,))
    assert contest.best_template(tiny, one, one.validation, seed=0, on_done=asked.append) == only
    assert asked == []


def test_wordings_ask_nothing_twice(tiny, data):
    template, other = data.answering
    on_test = contest.ask(
        tiny, data, name="tuned", way=Prompting(template), scoring=RAW, rows=data.test
    )
    asked = []
    few = data.test[:9]
    wordings = contest.over_templates(tiny, data, asked=on_test, rows=few, on_done=asked.append)
    assert sum(asked) == len(few), "the other template alone"
    assert wordings.marked[0].predictions == on_test.marked.predictions[: len(few)]
    again = contest.ask(tiny, data, name="tuned", way=Prompting(other), scoring=RAW, rows=few)
    assert wordings.marked[1] == again.marked


def test_choices_that_follow_from_the_row_are_not_calibrated_by_another_rows(tiny, data):
    ask = data.answering[0]
    own = replace(ask, id="own", choices=("{{ text }}", "negative"))
    assert Prompting(ask).blank(data, data.test[0])
    assert Prompting(own).blank(data, data.test[0]) is None
