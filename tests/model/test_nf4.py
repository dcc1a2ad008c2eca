"""A 4-bit base: what it computes is what its unpacked weights compute, forward and backward."""

import math

import pytest
import torch

from builds import add_lora, shaken
from instil.errors import ModelError
from instil.model import nf4
from instil.model.adapter import load_shipped, merged, trainable
from instil.model.export import save_model
from instil.model.load import ModelFolder, load_model, parameter_count

pytest.importorskip("bitsandbytes")
SETTINGS = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": "all-linear", "seed": 0}
IDS = torch.arange(3, 40)[None]


@pytest.fixture
def packed(tiny_folder):
    folder = ModelFolder("tiny", tiny_folder, "none")
    return load_model(folder, device="cpu", dtype="float32", quantize="nf4")


@pytest.fixture
def unpacked(tiny, packed):
    """A plain model with the very weights that the packed one stands for."""
    mine = dict(tiny.model.named_modules())
    with torch.no_grad():
        for name, layer in packed.model.named_modules():
            if nf4.is_packed(layer):
                mine[name].weight.copy_(nf4.whole(layer.weight, nf4.packing(layer.weight)))
    return tiny


def loss_of(loaded):
    out = loaded.model(input_ids=IDS).logits[0]
    return torch.nn.functional.cross_entropy(out[:-1].float(), IDS[0, 1:])


def test_every_linear_layer_but_the_head_is_packed(packed, tiny):
    names = {n for n, layer in packed.model.named_modules() if nf4.is_packed(layer)}
    linear = {n for n, m in tiny.model.named_modules() if type(m) is torch.nn.Linear}
    assert names == linear - {"lm_head"}
    assert all(packed.model.get_submodule(n).weight.dtype is torch.uint8 for n in names)


def test_it_counts_weights_not_bytes(packed, tiny):
    assert parameter_count(packed.model) == parameter_count(tiny.model)


def test_it_is_rounded_and_not_much(packed, tiny):
    plain = dict(tiny.model.named_modules())
    for name, layer in packed.model.named_modules():
        if nf4.is_packed(layer):
            w = plain[name].weight
            whole = nf4.whole(layer.weight, nf4.packing(layer.weight))
            error = float((whole - w).detach().norm() / w.detach().norm())
            assert 0 < error < 0.11, name  # .09 is what 16 steps leave of normal numbers


@pytest.mark.parametrize("shape", [(64, 64), (48, 48), (48, 96), (100, 160), (16, 50), (7, 11)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_width_is_read_as_it_was_packed(shape, dtype):
    from bitsandbytes.functional import quantize_4bit

    w = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    q, state = quantize_4bit(w, quant_type=nf4.NF4, compress_statistics=True)
    read = nf4.whole(q, state)
    assert (read.shape, read.dtype) == (w.shape, dtype)
    assert float((read - w).norm() / w.norm()) < 0.12


def test_untouched_it_computes_what_its_weights_say(packed, unpacked):
    torch.testing.assert_close(
        packed.model(input_ids=IDS).logits, unpacked.model(input_ids=IDS).logits
    )


@pytest.mark.parametrize("dropout", [0.0, 1e-9])  # our own forward pass, and PEFT's
def test_gradients_are_those_of_the_same_weights_unpacked(packed, unpacked, dropout):
    found = []
    for each in (packed, unpacked):
        loaded = shaken(add_lora(each, **(SETTINGS | {"lora_dropout": dropout})))
        loaded.model.train()
        loss_of(loaded).backward()
        found.append({n: p.grad for n, p in trainable(loaded.model).items()})
    assert found[0].keys() == found[1].keys()
    for name, grad in found[0].items():
        assert grad.abs().max() > 0
        torch.testing.assert_close(grad, found[1][name], rtol=1e-4, atol=1e-6)


def test_training_lowers_the_loss_and_leaves_the_base(packed):
    loaded = add_lora(packed, **SETTINGS)
    bases = {n: p.clone() for n, p in loaded.model.named_parameters() if nf4.packing(p) is not None}
    optimizer = torch.optim.AdamW(trainable(loaded.model).values(), lr=1e-2)
    losses = []
    for _ in range(5):
        loss = loss_of(loaded)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0]
    now = dict(loaded.model.named_parameters())
    assert bases
    assert all(torch.equal(now[n], w) for n, w in bases.items())


def test_saved_loaded_and_merged_it_says_the_same(packed, tmp_path, tiny_folder):
    loaded = shaken(add_lora(packed, **SETTINGS))
    before = loaded.model(input_ids=IDS).logits.detach()
    save_model(loaded, tmp_path / "adapter")
    folder = ModelFolder("tiny", tiny_folder, "none")
    again = load_shipped(
        tmp_path / "adapter", base=folder, device="cpu", dtype="float32", quantize="nf4"
    )
    torch.testing.assert_close(again.model(input_ids=IDS).logits.detach(), before)
    save_model(merged(again), tmp_path / "merged")
    plain = load_model(ModelFolder("m", tmp_path / "merged", "none"), device="cpu", dtype="float32")
    assert not any(map(nf4.is_packed, plain.model.modules()))
    torch.testing.assert_close(
        plain.model(input_ids=IDS).logits.detach(), before, rtol=1e-4, atol=1e-4
    )


def test_without_bitsandbytes_the_error_says_what_to_install(monkeypatch, tiny_folder):
    monkeypatch.setattr(nf4.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"instil\[qlora\]"):
        load_model(ModelFolder("tiny", tiny_folder, "none"), device="cpu", quantize="nf4")
