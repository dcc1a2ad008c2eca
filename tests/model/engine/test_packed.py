"""The short cuts through the model give the model's own figures."""

from dataclasses import replace

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    NemotronConfig,
    Qwen2Config,
    Qwen3Config,
)

from builds import EACH, OWN, PACKED_HEAD, PLAIN, add_lora
from instil.encode.batch import make_batch
from instil.model.adapter import adapter_off, train_all, trainable
from instil.model.engine import losses, packed
from instil.model.engine.layers import KNOWN
from instil.model.engine.losses import summed_loss
from instil.model.engine.packed import Build, log_chances, model_logits
from instil.model.engine.proof import prove

SIZES = {
    "vocab_size": 90,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}
CONFIGS = {
    "llama": LlamaConfig(**SIZES),
    "llama with biases": LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True),
    "mistral": MistralConfig(**SIZES, sliding_window=6, head_dim=8),
    "qwen2": Qwen2Config(**SIZES, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SIZES, head_dim=16),
    "gemma2": Gemma2Config(
        **SIZES, head_dim=8, final_logit_softcapping=3.0, attn_logit_softcapping=2.0
    ),
    "nemotron": NemotronConfig(**SIZES, head_dim=8),  # hands no arguments on to its attention
    "gpt2": GPT2Config(vocab_size=90, n_embd=32, n_layer=2, n_head=4, n_positions=64),
}
LIBRARYS = replace(PACKED_HEAD, own_memory=True)
"""Packed, but in transformers' layers."""
PROVED = {"gemma2": LIBRARYS, "nemotron": LIBRARYS, "gpt2": LIBRARYS}


def build(name: str, dtype: torch.dtype = torch.float32):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[name], dtype=dtype)
    return model.eval()


def batch_of(seed: int = 0, vocabulary: int = 90):
    """A shared prefix, a plain segment, one with two branches, and one more."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(vocabulary, (36,), generator=generator).tolist()
    return make_batch(
        ids,
        [*range(4), *range(4, 16), *range(4, 12), *range(12, 15), *range(12, 14), *range(4, 11)],
        segments=((12,), (8, 3, 2), (7,)),
        shared_prefix=4,
        predict_from=torch.tensor([9, 14, 14, 23, 25, 34]),
        labels=torch.tensor([1, 5, 7, 2, 88, 3]),
        device=torch.device("cpu"),
    )


def test_every_known_build_is_tested():
    assert {name.split()[0] for name in CONFIGS} >= set(KNOWN)


@pytest.mark.parametrize("name", CONFIGS)
def test_each_build_is_recognised(name):
    assert prove(build(name)) == PROVED.get(name, OWN)


@pytest.mark.parametrize("how", EACH, ids=str)
@pytest.mark.parametrize("name", CONFIGS)
def test_loss_and_gradients_are_the_models_own(name, how):
    model = build(name)
    if how.own_layers and name in PROVED:
        how = prove(model)
    batch = batch_of()
    weights = dict(model.named_parameters())

    def found(how: Build):
        loss = summed_loss(model, batch, build=how)
        grads = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        return loss.detach(), grads

    wanted, ours = found(PLAIN), found(how)
    torch.testing.assert_close(ours[0], wanted[0], rtol=1e-5, atol=1e-5)
    for key, mine, theirs in zip(weights, ours[1], wanted[1], strict=True):
        assert (mine is None) == (theirs is None), key
        if mine is not None:
            close = 1e-4 * theirs.abs().max().item() + 1e-6
            torch.testing.assert_close(mine, theirs, rtol=0, atol=close, msg=key)


@pytest.mark.parametrize("rows", [1, 4, 100])
def test_the_loss_in_chunks_equals_the_plain_one(monkeypatch, rows):
    model, batch = build("llama"), batch_of()
    wanted = torch.nn.functional.cross_entropy(
        model_logits(model, batch, batch.predict_from, build=PLAIN), batch.labels, reduction="sum"
    )
    expected = torch.autograd.grad(wanted, list(model.parameters()))
    monkeypatch.setattr(losses, "CHUNK", rows * 90)
    loss = summed_loss(model, batch, build=OWN)
    torch.testing.assert_close(loss, wanted, rtol=1e-6, atol=1e-6)
    for mine, theirs in zip(
        torch.autograd.grad(loss, list(model.parameters())), expected, strict=True
    ):
        close = 1e-4 * theirs.abs().max().item() + 1e-6
        torch.testing.assert_close(mine, theirs, rtol=0, atol=close)
    with torch.inference_mode():
        torch.testing.assert_close(
            summed_loss(model, batch, build=OWN), wanted, rtol=1e-6, atol=1e-6
        )


def test_recomputing_layers_changes_no_gradient():
    model, batch = build("qwen3"), batch_of()
    plain, again = (
        torch.autograd.grad(
            summed_loss(model, batch, build=OWN, recompute=recompute),
            list(model.parameters()),
        )
        for recompute in (False, True)
    )
    for a, b in zip(plain, again, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["llama", "gemma2"])
@pytest.mark.parametrize("block", [7, 8192])
def test_log_chances_are_those_of_the_logits(monkeypatch, name, block):
    monkeypatch.setattr(packed, "VOCABULARY_BLOCK", block)
    model, batch = build(name), batch_of()
    with torch.inference_mode():
        wanted = model_logits(model, batch, batch.predict_from, build=PLAIN).log_softmax(-1)[
            range(6), batch.labels
        ]
        found = log_chances(model, batch, build=prove(model))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_scores_in_bfloat16_do_not_round_the_logits():
    """Two tokens of one prompt differ by less than a bfloat16 logit can say."""
    model, batch = build("llama", torch.bfloat16), batch_of()
    with torch.inference_mode():
        found = log_chances(model, batch, build=OWN)
        hidden = packed.hidden_states(model, batch, batch.predict_from, build=OWN).double()
        logits = hidden @ model.lm_head.weight.double().t()
    wanted = logits.log_softmax(-1)[range(6), batch.labels].float()
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_fused_adapter_is_pefts(tiny, dtype):
    """Outputs and gradients of the fused layers against PEFT's own forward pass."""
    from instil.model.engine.fused import lora_linears

    loaded = add_lora(
        replace(tiny, model=tiny.model.to(dtype)),
        r=4,
        lora_alpha=8,
        lora_dropout=0.0,
        target_modules="all-linear",
        seed=0,
    )
    attention_layer = loaded.model.get_base_model().model.layers[0].self_attn
    layers = [attention_layer.q_proj, attention_layer.k_proj, attention_layer.v_proj]
    torch.manual_seed(1)
    for layer in layers:
        torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.2)
    x = torch.randn(3, 5, 48, dtype=dtype, requires_grad=True)
    wanted_of = [x, *(p for layer in layers for p in layer.parameters() if p.requires_grad)]
    weigh = [torch.randn(3, 5, layer.out_features, dtype=dtype) for layer in layers]

    def grads(outputs):
        total = sum((y * w).sum() for y, w in zip(outputs, weigh, strict=True))
        return torch.autograd.grad(total, wanted_of)

    ours = lora_linears(x, layers)
    theirs = [type(layer).forward(layer, x) for layer in layers]
    tolerance = 1e-5 if dtype is torch.float32 else 2e-2
    for a, b in [*zip(ours, theirs, strict=True), *zip(grads(ours), grads(theirs), strict=True)]:
        assert a.dtype == b.dtype
        close = tolerance * b.abs().max().item()
        torch.testing.assert_close(a, b, rtol=0, atol=close)


def test_dropout_and_switching_off_are_left_to_peft(tiny):
    loaded = add_lora(
        tiny, r=4, lora_alpha=8, lora_dropout=0.5, target_modules="all-linear", seed=0
    )
    torch.nn.init.normal_(next(p for n, p in trainable(loaded.model).items() if "lora_B" in n))
    ids = torch.arange(3, 20)[None]
    loaded.model.train()
    torch.manual_seed(0)
    one, two = loaded.model(input_ids=ids).logits, loaded.model(input_ids=ids).logits
    assert not torch.equal(one, two)
    loaded.model.eval()
    with adapter_off(loaded.model):
        off = loaded.model(input_ids=ids).logits
    assert not torch.equal(off, loaded.model(input_ids=ids).logits)


@pytest.mark.parametrize("how", [OWN, LIBRARYS], ids=["own layers", "transformers' layers"])
@pytest.mark.parametrize("name", CONFIGS)
def test_float32_masters_are_computed_in_bfloat16(name, how):
    """Norms and positions leave queries in float32, in other families and in their own code."""
    model = build(name)
    how = PROVED.get(name, how)
    exact = summed_loss(model, batch_of(), build=how)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = summed_loss(model, batch_of(), build=how)
    loss.backward()
    torch.testing.assert_close(loss, exact, rtol=0.05, atol=0.5)
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}


def test_full_fine_tuning_in_bfloat16_keeps_float32_gradients(tiny_folder):
    from instil.model.load import ModelFolder, load_model
    from instil.train.loop import compute_in

    loaded = load_model(
        ModelFolder("tiny", tiny_folder, ""), device="cpu", dtype="bfloat16", masters=True
    )
    loaded = train_all(loaded)
    with compute_in(loaded):
        summed_loss(loaded.model, batch_of(), build=loaded.build).backward()
    assert {p.grad.dtype for p in loaded.model.parameters()} == {torch.float32}
