"""Pruning the update: both ends exactly, brute force in between, and what is saved is the same."""

import pytest
import torch

from builds import add_lora
from instil.model.adapter import adapter_off, load_shipped, merged, trainable
from instil.model.export import save_model
from instil.model.load import ModelFolder, load_model
from instil.model.prune import prune, scores

SETTINGS = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": "all-linear", "seed": 0}
IDS = torch.arange(3, 40)[None]


def logits(loaded) -> torch.Tensor:
    with torch.inference_mode():
        return loaded.model(input_ids=IDS).logits


def again(folder, dtype: str = "float32"):
    return load_model(ModelFolder("tiny", folder, "none"), device="cpu", dtype=dtype)


def shaken(loaded):
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in trainable(loaded.model).values():
            weight.add_(torch.randn_like(weight) * 0.1)
    return loaded


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_is_the_tuned_model_and_none_is_the_base(tiny_folder, tmp_path, full, dtype):
    base, untouched = again(tiny_folder, dtype), logits(again(tiny_folder, dtype))

    def tuned():
        loaded = again(tiny_folder, dtype)
        return shaken(loaded) if full else merged(shaken(add_lora(loaded, **SETTINGS)))

    save_model(tuned(), tmp_path / "model")  # as `export --format merged` does
    folder = ModelFolder("tiny", tiny_folder, "none")
    wanted = logits(load_shipped(tmp_path / "model", base=folder, device="cpu", dtype=dtype))
    whole = tuned()
    assert not torch.equal(wanted, untouched)
    kept = prune(whole, base=base, share=1.0)
    assert torch.equal(logits(whole), wanted)
    assert kept.kept == kept.changed > 0
    none = prune(whole, base=base, share=0.0)
    assert torch.equal(logits(whole), untouched)
    assert (none.kept, none.changed) == (0, kept.changed)


def test_what_is_kept_is_what_brute_force_keeps(tiny, tiny_folder):
    base = again(tiny_folder)
    whole = merged(shaken(add_lora(tiny, **SETTINGS)))
    starts = {n: w.detach().clone() for n, w in base.model.named_parameters()}
    ends = {n: w.detach().clone() for n, w in whole.model.named_parameters()}
    pruned = prune(whole, base=base, share=0.3)
    now, kept = dict(whole.model.named_parameters()), 0
    assert now.keys() == starts.keys()
    for name, weight in now.items():
        start, end = starts[name].flatten().tolist(), ends[name].flatten().tolist()
        mean = sum(map(abs, start)) / len(start)
        by_score = {
            n: abs(t - w) - mean * abs(t - w) / abs(w)
            for n, (t, w) in enumerate(zip(end, start, strict=True))
            if t != w
        }
        best = sorted(by_score, key=by_score.__getitem__, reverse=True)
        take = set(best[: round(0.3 * len(best))])
        wanted = [end[n] if n in take else start[n] for n in range(len(start))]
        # Of scores that are equal to rounding either may be taken.
        other = (weight.flatten() != torch.tensor(wanted)).sum().item()
        assert other <= 2, name
        kept += int((weight != starts[name]).sum())
    assert kept == pruned.kept == pytest.approx(0.3 * pruned.changed, rel=0.01)


def test_scores_by_hand():
    base = torch.tensor([2.0, -0.5, 0.5, 0.0, 1.0])  # of mean size 0.8
    tuned = torch.tensor([2.4, -0.6, 0.5, 0.1, 1.0])
    wanted = torch.tensor([0.4 - 0.8 * 0.2, 0.1 - 0.8 * 0.2, 0, -torch.inf, 0])
    torch.testing.assert_close(scores(tuned, base), wanted)
    # Fresh biases: what moved farthest, and not what stands first.
    fresh = torch.tensor([0.0, 0.1, -0.3])
    torch.testing.assert_close(scores(fresh, torch.zeros(3)), fresh.abs())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_saved_is_what_was_pruned(tiny_folder, tmp_path, dtype):
    adapted = shaken(add_lora(again(tiny_folder, dtype), **SETTINGS))
    with adapter_off(adapted.model):
        untouched = logits(adapted)
    whole = merged(adapted)
    prune(whole, base=again(tiny_folder, dtype), share=0.2)
    wanted = logits(whole)
    save_model(whole, tmp_path / "model")
    folder = ModelFolder("tiny", tiny_folder, "none")
    shipped = load_shipped(tmp_path / "model", base=folder, device="cpu", dtype=dtype)
    assert torch.equal(logits(shipped), wanted)
    assert not torch.equal(wanted, untouched)
