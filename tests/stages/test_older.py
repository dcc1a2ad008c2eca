"""What an earlier version wrote is read as today's."""

import dataclasses
import hashlib
import json

import pytest
from pydantic import TypeAdapter

from instil.config.recipe import load_recipe
from instil.errors import RunError
from instil.results.guard import Margins
from instil.results.keeping import Means
from instil.results.run import RunSummary
from instil.stages.directory import (
    LATER_KEYS,
    NEW_METHODS,
    Run,
    has_fingerprint,
    recipe_fingerprint,
)
from instil.stages.older import of_today
from instil.stages.runfiles import load_steps, step_line
from instil.types import Step

STEP = Step(1, 0.5, 2.0, 1e-3, 1.0, 12, 34, 0.5, 10**9, terms={"kl": 0.25, "replay_loss": 3.0})
OLD = {**json.loads(step_line(STEP)), "kl": 0.25, "replay_loss": 3.0, "entropy_weight": None}
del OLD["terms"]


def test_a_step_of_format_1(tmp_path):
    lines = [json.dumps(OLD), step_line(STEP).decode()]
    (tmp_path / "steps.jsonl").write_text("".join(f"{line}\n" for line in lines))
    assert load_steps(tmp_path) == (STEP, STEP)


@pytest.mark.parametrize("mean", [0.0123, None])
def test_means_of_format_1(mean):
    old = {
        "replay_share": 0.05,
        "replay_of": "own",
        "replayed": [],
        "replay_loss": 3.4,
        "kl": 0.1,
        "kl_on": "prompt",
        "mean_kl": mean,
        "entropy_weighted": True,
        "mean_weight": 0.5,
    }
    data = json.dumps({"means": old}).encode()
    assert of_today(data) != data
    means = TypeAdapter(Means).validate_python(json.loads(of_today(data))["means"])
    assert (means.replay_share, means.replay_loss) == (0.05, 3.4)
    assert [(term.name, term.mean) for term in means.terms] == [
        ("kl", mean),
        ("entropy_weight", 0.5),
    ]
    assert "(prompt): forward KL with a weight of 0.1" in means.terms[0].sentence
    assert means.terms[1].sentence.endswith("; 0.5000 on average.")


def test_a_digest_of_steps_is_of_the_lines_as_they_stand(tmp_path):
    """Steps of the earlier form are told to be those that led to a checkpoint."""
    from instil.stages.runfiles import chained

    line = json.dumps(OLD).encode()
    (tmp_path / "steps.jsonl").write_bytes(line + b"\n")
    Run(tmp_path).begin_steps(up_to=1, digest=chained([line]))
    assert load_steps(tmp_path) == (STEP,)


def test_a_recipe_without_newer_keys_has_the_digest_that_an_earlier_version_gave_it(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("model: ./m\ntasks:\n  - use: t.yaml\n")
    recipe = load_recipe(path)
    earlier = json.loads(recipe.model_dump_json(exclude={"track"}))
    for section, keys in LATER_KEYS.items():
        for key in keys:
            del earlier[section][key]
    for section in NEW_METHODS:
        del earlier[section]
    before_fsdp = {**earlier, "train": {k: v for k, v in earlier["train"].items() if k != "fsdp"}}
    for version in (earlier, before_fsdp):
        text = json.dumps(version, separators=(",", ":"), ensure_ascii=False)
        assert has_fingerprint(recipe, hashlib.sha256(text.encode()).hexdigest())
    dealt = load_recipe(path, overrides=["method=full", "train.fsdp=true"])
    assert not has_fingerprint(dealt, recipe_fingerprint(recipe))
    said = json.dumps(earlier, separators=(",", ":"), ensure_ascii=False)
    assert recipe_fingerprint(recipe) == hashlib.sha256(said.encode()).hexdigest()
    for key in ("margin", "text_margin", "at_most"):
        other = load_recipe(path, overrides=[f"forgetting.{key}=1"])
        assert recipe_fingerprint(other) != recipe_fingerprint(recipe)
    for key in ("distil", "prune"):
        other = load_recipe(path, overrides=[f"keep.{key}=0.5"])
        assert recipe_fingerprint(other) != recipe_fingerprint(recipe)
    for changes in ("search=quick", "search_prompts=9"):
        other = load_recipe(path, overrides=[f"baselines.{changes}"])
        assert recipe_fingerprint(other) != recipe_fingerprint(recipe)
    for changes in (
        ["forgetting.gate_checkpoints=true", "forgetting.budget=2"],
        ["lora.use_rslora=true"],
        ["split.apart_from=[u.yaml]"],
        ["method=oft"],
        ["method=shira"],
    ):
        assert recipe_fingerprint(load_recipe(path, overrides=changes)) != recipe_fingerprint(
            recipe
        )
    rotated = ("method=oft", "oft.oft_block_size=16"), ("method=oft", "oft.oft_block_size=32")
    one, other = (recipe_fingerprint(load_recipe(path, overrides=each)) for each in rotated)
    assert one != other


def test_a_summary_without_margins_is_read():
    fields = {field.name: field for field in dataclasses.fields(RunSummary)}
    assert fields["mean_change"].default is None
    assert fields["margins"].default_factory is Margins


def test_a_damaged_line_of_format_1_is_told_as_any_other(tmp_path):
    (tmp_path / "steps.jsonl").write_text(json.dumps(OLD)[:-1] + "\n")
    with pytest.raises(RunError, match="cannot be read"):
        load_steps(tmp_path)
