"""What a training is expected to take, beside what it took; and which models are dealt out."""

from dataclasses import replace

import pytest

from instil.errors import ModelError, RecipeError
from instil.stages.context import prepare
from instil.stages.preflight import preflight
from instil.stages.training import Expected, as_expected, eval_steps
from instil.types import Step
from moods import lay_out, make_recipe


def step(number: int, seconds: float) -> Step:
    return Step(
        step=number,
        epoch=1.0,
        loss=1.0,
        learning_rate=1e-4,
        grad_norm=1.0,
        supervised_tokens=3,
        tokens=100,
        seconds=seconds,
        memory_bytes=2_000_000_000,
    )


def test_only_the_steps_that_were_taken_count():
    expected = Expected(0.01, (1000, 1000, 1000), 1_500_000_000)
    said = as_expected(expected, [step(1, 12.0), step(2, 13.0)])
    assert "2 steps took 25" in said
    assert "20" in said.split("(")[1]
    assert "2.0\xa0GB (1.5\xa0GB expected)" in said


def test_what_validation_took_is_told_apart():
    expected = Expected(0.01, (1000, 1000), 1_500_000_000)
    look = replace(step(2, 1.0), validation_loss=1.0, memory_bytes=2_600_000_000)
    said = as_expected(expected, [step(1, 1.0), look])
    assert "2.0\xa0GB (1.5\xa0GB expected), 2.6\xa0GB with the looks at validation" in said
    assert "2.6\xa0GB (1.5" in as_expected(expected, [look]), "every step may have been a look"


def test_validations_are_spread_over_the_run():
    assert [eval_steps("auto", steps=n) for n in (80, 78, 3)] == [14, 13, 1]
    for steps in range(12, 200):
        each = eval_steps("auto", steps=steps)
        assert steps / 2 <= 3 * each <= steps / 2 + 3, "the third look is at the half"


def test_weights_are_dealt_out_of_models_that_pack_alone(tmp_path, tiny_folder):
    """Told before training."""
    changes = ("method=full", "train.fsdp=true", "forgetting.text=false")
    recipe = make_recipe(lay_out(tmp_path), tiny_folder, *changes)
    context = prepare(recipe)
    preflight(context)
    context.build = replace(context.build, segments=False)
    with pytest.raises(ModelError, match="keep step"):
        preflight(context)


@pytest.mark.parametrize(
    ("changes", "told"),
    [(["method=auto"], "name the method"), (["keep.prune=0.1"], "keep.prune")],
)
def test_what_needs_a_whole_model_is_refused_where_it_is_dealt_out(
    tmp_path, tiny_folder, changes, told
):
    with pytest.raises(RecipeError, match=told):
        make_recipe(lay_out(tmp_path), tiny_folder, "train.fsdp=true", *changes)
