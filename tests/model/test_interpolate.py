"""Between base and tuned: both ends exactly, the middle in between, and PEFT loads it as it is."""

import json
from dataclasses import replace

import pytest
import torch

from builds import add_lora
from instil.model.adapter import adapter_off, load_adapter, trainable
from instil.model.export import save_model
from instil.model.interpolate import blend, scale_adapter
from instil.model.load import ModelFolder, load_model

SETTINGS = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": "all-linear", "seed": 0}
IDS = torch.arange(3, 40)[None]


def logits(loaded) -> torch.Tensor:
    with torch.inference_mode():
        return loaded.model(input_ids=IDS).logits


def shaken(loaded):
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in trainable(loaded.model).values():
            weight.add_(torch.randn_like(weight) * 0.1)
    return loaded


def again(folder):
    return load_model(ModelFolder("tiny", folder, "none"), device="cpu", dtype="float32")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapter_at_0_is_the_base_and_at_1_the_tuned_model(tiny, dtype):
    loaded = shaken(add_lora(replace(tiny, model=tiny.model.to(dtype)), **SETTINGS))
    tuned = logits(loaded)
    with adapter_off(loaded.model):
        base = logits(loaded)
    assert not torch.equal(base, tuned)
    put = blend(loaded)
    for share, wanted in ((0.0, base), (1.0, tuned), (0.0, base)):
        put(share)
        assert torch.equal(logits(loaded), wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_at_0_are_the_base_and_at_1_the_tuned_model(tiny, tiny_folder, dtype):
    base = replace(tiny, model=tiny.model.to(dtype))
    other = again(tiny_folder)
    tuned = replace(other, model=shaken(other).model.to(dtype))
    ends = {
        share: {n: w.detach().clone() for n, w in m.model.named_parameters()}
        for share, m in ((0.0, base), (1.0, tuned))
    }
    put = blend(tuned, base=base)
    for share in (0.3, 0.0, 1.0, 0.0):
        put(share)
        now = dict(tuned.model.named_parameters())
        for name, weight in now.items():
            mixed = torch.lerp(ends[0.0][name].float(), ends[1.0][name].float(), share)
            torch.testing.assert_close(weight.float(), mixed, atol=1e-2, rtol=1e-2)
            if share in ends:
                assert torch.equal(weight, ends[share][name])
    assert logits(tuned).equal(logits(base))


def test_a_scaled_adapter_on_disk_is_the_scaled_one_in_memory(tiny, tiny_folder, tmp_path):
    loaded = shaken(add_lora(tiny, **SETTINGS))
    tuned = logits(loaded)
    save_model(loaded, tmp_path / "model")
    for share in (0.0, 0.5, 0.3, 1.0):
        scale_adapter(tmp_path / "model", lora_alpha=share * SETTINGS["lora_alpha"])
        shipped = load_adapter(again(tiny_folder), tmp_path / "model")
        blend(loaded)(share)
        torch.testing.assert_close(logits(shipped), logits(loaded), atol=1e-5, rtol=1e-5)
    assert torch.equal(logits(shipped), tuned)


def test_layers_that_peft_joins_are_scaled_with_the_others(tmp_path):
    config = {"r": 4, "lora_alpha": 8, "rank_pattern": {"x": 8}, "alpha_pattern": {"x": 16}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    for alpha in (2, 8, 0):
        scale_adapter(tmp_path, lora_alpha=alpha)
        found = json.loads((tmp_path / "adapter_config.json").read_text())
        assert (found["lora_alpha"], found["alpha_pattern"]) == (alpha, {"x": 2 * alpha})


def test_half_an_adapter_is_the_base_with_half_of_the_change(tiny, tiny_folder):
    """The scale of the adapter is the share of the way between the merged weights."""
    loaded = shaken(add_lora(tiny, **SETTINGS))
    base = {n: w.detach().clone() for n, w in again(tiny_folder).model.named_parameters()}
    blend(loaded)(0.5)
    half = dict(loaded.model.merge_and_unload().named_parameters())
    whole_of = shaken(add_lora(again(tiny_folder), **SETTINGS)).model.merge_and_unload()
    whole = dict(whole_of.named_parameters())
    moved = 0
    for name, weight in half.items():
        wanted = (base[name] + whole[name]) / 2
        torch.testing.assert_close(weight, wanted, atol=1e-5, rtol=1e-5)
        moved += not torch.equal(base[name], whole[name])
    assert moved > 0
