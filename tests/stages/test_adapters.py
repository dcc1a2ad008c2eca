"""Whole runs with each adapter but plain LoRA: stopped and resumed, interpolated, exported."""

import json
from pathlib import Path

import gguf
import pytest
import torch
from safetensors.torch import load_file

from instil.errors import ModelError, RecipeError, RunError
from instil.model.adapter import load_shipped
from instil.model.load import ModelFolder
from instil.ship.export import export
from instil.ship.formats import Format
from instil.stages.runfiles import load_scores, load_steps, load_summary
from moods import lay_out, make_recipe, run, signalled_at

pytestmark = pytest.mark.slow  # many whole runs


QUICK = (
    "dtype=float32",
    "baselines.shots=[0]",
    "baselines.tfidf=false",
    "baselines.probe=false",
    "forgetting.tasks=none",
    "train.num_train_epochs=2",
)
KINDS = {
    "oft": ("method=oft", "oft.oft_block_size=8"),
    "shira": ("method=shira", "shira.r=4"),
    "rslora": ("lora.target_modules=mlp", "lora.use_rslora=true"),
}
WORDS = {"oft": "OFT", "shira": "SHiRA", "rslora": "LoRA"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return lay_out(tmp_path)


@pytest.fixture(scope="module", params=KINDS)
def finished(request, tmp_path_factory, tiny_folder) -> tuple[str, Path]:
    """A finished run of each kind; nothing is written into it."""
    folder = lay_out(tmp_path_factory.mktemp(request.param))
    return request.param, run(
        make_recipe(folder, tiny_folder, *QUICK, *KINDS[request.param]), folder / "run"
    )


def logits(loaded) -> torch.Tensor:
    with torch.no_grad():
        return loaded.model(input_ids=torch.arange(3, 40)[None]).logits


def test_a_run_says_what_was_trained(finished):
    kind, done = finished
    summary = load_summary(done)
    assert f"of the parameters trained ({WORDS[kind]})" in summary.verdict[-1]
    config = json.loads((done / "model" / "adapter_config.json").read_text())
    assert config["peft_type"] == ("LORA" if kind == "rslora" else kind.upper())
    card = (done / "model" / "README.md").read_text(encoding="utf-8")
    assert f"fine-tuned with {WORDS[kind]} on moods" in card
    assert f"  - {config['peft_type'].lower()}\n" in card
    assert summary.moved.overall.mean > 0
    assert load_steps(done)[-1].loss < load_steps(done)[0].loss


def test_it_is_exported_merged_and_as_gguf(finished, tiny_folder, tmp_path):
    kind, done = finished
    base = ModelFolder("tiny", tiny_folder, "none")
    tuned = load_shipped(done / "model", base=base, device="cpu", dtype="float32")
    whole = export(done, out=tmp_path / "merged", form=Format.MERGED)
    merged = load_shipped(whole.path, base=base, device="cpu", dtype="float32")
    wanted = logits(tuned)
    assert (logits(merged) - wanted).abs().max() < 1e-5 * wanted.abs().max()
    assert export(done, out=tmp_path / "gguf", form=Format.GGUF).weights.is_file()
    notes = export(done, out=tmp_path / "hf", form=Format.HF).notes
    if kind == "rslora":
        made = export(done, out=tmp_path / "lora", form=Format.GGUF_LORA)
        fields = gguf.GGUFReader(made.weights).fields
        # llama.cpp divides by the rank, 4: the scale is 8 / 2.
        assert fields["adapter.lora.alpha"].contents() == pytest.approx(4 * 8 / 2)
        assert notes == ()
        return
    with pytest.raises(RunError, match=f"no other adapter than LoRA's.*{WORDS[kind]}"):
        export(done, out=tmp_path / "lora", form=Format.GGUF_LORA)
    assert "vLLM loads no other adapter" in notes[0]


@pytest.mark.parametrize("kind", ["oft", "shira"])
def test_a_stopped_run_goes_on_to_the_same_end(folder, tiny_folder, kind):
    recipe = make_recipe(folder, tiny_folder, *QUICK, *KINDS[kind])
    straight = run(recipe, folder / "straight")
    with signalled_at(3), pytest.raises(KeyboardInterrupt):
        run(recipe, folder / "broken")
    resumed = run(recipe, folder / "broken", resume=True)
    a, b = load_steps(straight), load_steps(resumed)
    assert [(s.step, s.loss) for s in a] == [(s.step, s.loss) for s in b]
    assert load_scores(straight, "test-moods") == load_scores(resumed, "test-moods")
    ends = [load_file(done / "model" / "adapter_model.safetensors") for done in (straight, resumed)]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(weight, ends[1][name]) for name, weight in ends[0].items())


def test_half_of_shira_is_half_of_its_changes(folder, tiny_folder):
    whole = run(make_recipe(folder, tiny_folder, *QUICK, *KINDS["shira"]), folder / "whole")
    recipe = make_recipe(folder, tiny_folder, *QUICK, *KINDS["shira"], "keep.interpolate=0.5")
    half = run(recipe, folder / "half")
    ends, mixed = (
        load_file(done / "model" / "adapter_model.safetensors") for done in (whole, half)
    )
    assert ends.keys() == mixed.keys()
    changes = 0
    for name, weight in mixed.items():
        share = 0.5 if name.endswith("shira_weight") else 1
        assert torch.equal(weight, (ends[name] * share).to(weight.dtype))
        changes += share == 0.5
    assert changes == 14
    assert 0 < load_summary(half).moved.overall.mean < load_summary(whole).moved.overall.mean
    run(recipe, half, resume=True)
    again = load_file(half / "model" / "adapter_model.safetensors")
    assert all(torch.equal(weight, mixed[name]) for name, weight in again.items())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("method=oft", "keep.interpolate=0.5"), "no exact adapter for OFT"),
        (("method=oft", "quantize=nf4"), "cannot be trained by OFT"),
        (("method=shira", "quantize=nf4"), "cannot be trained by SHiRA"),
        (("oft.oft_block_size=1",), "oft_block_size"),
        (("lora.target_modules=mlps",), "target_modules"),
    ],
)
def test_what_a_recipe_cannot_ask(folder, tiny_folder, changes, said):
    with pytest.raises(RecipeError, match=said):
        make_recipe(folder, tiny_folder, *changes)


def test_a_block_that_fits_no_layer_is_told_before_anything_is_loaded(folder, tiny_folder):
    with pytest.raises(ModelError, match=r"(?s)oft\.oft_block_size.*32, but"):
        run(make_recipe(folder, tiny_folder, *QUICK, "method=oft"), folder / "run")
    assert not (folder / "run" / "steps.jsonl").exists()
