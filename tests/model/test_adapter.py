from dataclasses import replace

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from instil.errors import ModelError
from instil.model.adapter import add_lora, merged, restore, snapshot, trainable, trainable_share

SETTINGS = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": "all-linear", "seed": 0}


def test_flan_t5_base_r32_on_q_and_v_trains_3_538_944_weights(tiny):
    config = T5Config(
        vocab_size=32128,
        d_model=768,
        d_kv=64,
        d_ff=2048,
        num_layers=12,
        num_decoder_layers=12,
        num_heads=12,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        model = T5ForConditionalGeneration(config)
        loaded = add_lora(
            replace(tiny, model=model), **(SETTINGS | {"r": 32, "target_modules": ["q", "v"]})
        )
    count, _ = trainable_share(loaded.model)
    assert count == 3_538_944


def test_adapter_weights_are_float32_on_a_bfloat16_base(tiny):
    loaded = add_lora(replace(tiny, model=tiny.model.to(torch.bfloat16)), **SETTINGS)
    assert {p.dtype for p in trainable(loaded.model).values()} == {torch.float32}


def test_merged_equals_adapter(tiny):
    loaded = add_lora(tiny, **SETTINGS)
    with torch.no_grad():
        for weight in trainable(loaded.model).values():
            weight.normal_(std=0.1)
    ids = torch.arange(3, 40)[None]
    before = loaded.model(input_ids=ids).logits.detach()
    after = merged(loaded).model(input_ids=ids).logits.detach()
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)


def test_snapshot_and_restore_are_exact_and_apart(tiny):
    loaded = add_lora(tiny, **SETTINGS)
    kept = snapshot(loaded.model)
    with torch.no_grad():
        for weight in trainable(loaded.model).values():
            weight.add_(1)
    assert not any(torch.equal(w, kept[n]) for n, w in trainable(loaded.model).items())
    restore(loaded.model, kept)
    assert all(torch.equal(w, kept[n]) for n, w in trainable(loaded.model).items())


def test_no_such_layer_is_told(tiny):
    with pytest.raises(ModelError, match="nowhere"):
        add_lora(tiny, **(SETTINGS | {"target_modules": ["nowhere"]}))
