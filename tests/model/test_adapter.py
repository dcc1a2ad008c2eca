from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    Llama4ForCausalLM,
    Llama4TextConfig,
    LlamaForCausalLM,
    Mamba2Config,
    Mamba2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

import families
from builds import add_lora, shaken
from instil.config.methods import Lora
from instil.encode.batch import make_batch
from instil.errors import ModelError
from instil.evaluate.generate import generate
from instil.model.adapter import (
    adapter_off,
    adapts_head,
    base_parameters,
    left_out,
    linear_layers,
    merged,
    planned_adapter,
    restore,
    skeleton,
    snapshot,
    trainable,
    trainable_share,
)
from instil.model.engine.divergence import divergence, states
from instil.model.engine.losses import summed_loss
from instil.model.engine.packed import log_chances
from instil.model.load import ModelFolder
from instil.results.training import LeftOut
from instil.types import Example, Message

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


EMBEDDINGS = (["embed_tokens"], ["lm_head"], ["embed_tokens", "lm_head"])


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def either(request, tiny):
    """The tiny model with tied embeddings, and with an output embedding of its own."""
    if request.param:
        return tiny
    config = tiny.model.config
    config.tie_word_embeddings = False
    torch.manual_seed(2)
    apart = LlamaForCausalLM(config).eval()
    assert apart.lm_head.weight is not apart.model.embed_tokens.weight
    return replace(tiny, model=apart)


def packed_rows():
    """Two segments behind a shared prefix, and the same as rows of their own."""
    ids = torch.randint(400, (24,), generator=torch.Generator().manual_seed(0)).tolist()
    batch = make_batch(
        ids,
        [*range(4), *range(4, 16), *range(4, 12)],
        segments=((12,), (8,)),
        shared_prefix=4,
        predict_from=torch.tensor([13, 14, 21, 22]),
        labels=torch.tensor([ids[14], ids[15], ids[22], ids[23]]),
        device=torch.device("cpu"),
    )
    rows = (ids[:16], ids[:4] + ids[16:])
    return batch, [(torch.tensor([row]), len(row) - 3, row[-2:]) for row in rows]


def row_logits(model, rows):
    """What the model says at the same places, row by row, by its own forward pass."""
    return torch.cat([model(input_ids=ids).logits[0, at : at + 2] for ids, at, _ in rows])


@pytest.mark.parametrize("targets", EMBEDDINGS, ids=" and ".join)
def test_adapters_on_embeddings_are_trained_and_seen_everywhere(either, targets):
    loaded = shaken(add_lora(either, **(SETTINGS | {"target_modules": targets})))
    assert adapts_head(loaded.model) == ("lm_head" in targets)
    batch, rows = packed_rows()
    labels = torch.tensor([label for *_, last in rows for label in last])
    wanted = row_logits(loaded.model, rows)
    wanted_loss = cross_entropy(wanted, labels, reduction="sum")
    weights = trainable(loaded.model)
    wanted_gradients = torch.autograd.grad(wanted_loss, [*weights.values()])

    loss = summed_loss(loaded.model, batch, build=loaded.build)
    torch.testing.assert_close(loss, wanted_loss, rtol=1e-5, atol=1e-5)
    gradients = torch.autograd.grad(loss, [*weights.values()])
    for found, expected in zip(gradients, wanted_gradients, strict=True):
        assert expected.abs().max() > 0
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)

    with torch.no_grad():
        chances = wanted.log_softmax(-1).gather(1, labels[:, None])[:, 0]
        torch.testing.assert_close(
            log_chances(loaded.model, batch, build=loaded.build), chances, rtol=1e-4, atol=1e-4
        )
        tuned = states(loaded.model, batch, build=loaded.build)
        with adapter_off(loaded.model):
            base = states(loaded.model, batch, build=either.build)
            log_p = row_logits(loaded.model, rows).log_softmax(-1)
        far = (log_p.exp() * (log_p - wanted.log_softmax(-1))).sum(-1)
        assert far.min() > 1e-3
        torch.testing.assert_close(divergence(base, tuned), far, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("targets", EMBEDDINGS, ids=" and ".join)
def test_generation_sees_adapters_on_embeddings(either, targets):
    loaded = shaken(add_lora(either, **(SETTINGS | {"target_modules": targets})))
    asked = [
        Example(str(n), "t", "w", str(n), "", (Message("user", text),), "")
        for n, text in enumerate(["good film", "a poor book of the price", "happy"])
    ]
    found = generate(loaded, asked, max_new_tokens=6)
    for example, made in zip(asked, found, strict=True):
        prompt = loaded.chat.prompt(example.messages)
        ids = torch.tensor([prompt])
        for _ in range(6):
            with torch.no_grad():
                token = int(loaded.model(input_ids=ids).logits[0, -1].argmax())
            if token in loaded.chat.stop_ids:
                break
            ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
        new = ids[0, len(prompt) :].tolist()
        text = loaded.chat.tokenizer.decode(new, skip_special_tokens=True)
        assert made.text.strip() == text.strip()


# --- families ----------------------------------------------------------------------------------

SMALL = {
    "vocab_size": 90,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
}


def mamba2():
    sizes = {"num_heads": 8, "head_dim": 8, "state_size": 16, "n_groups": 2, "chunk_size": 8}
    return Mamba2ForCausalLM(
        Mamba2Config(vocab_size=90, hidden_size=32, num_hidden_layers=2, expand=2, **sizes)
    )


def test_all_linear_leaves_out_what_peft_refuses_and_says_so(tiny):
    model = add_lora(replace(tiny, model=mamba2()), **SETTINGS).model
    assert {n.split(".")[-4] for n in trainable(model)} == {"in_proj"}
    (found,) = left_out(model)
    of_out = sum(p.numel() for n, p in model.named_parameters() if n.endswith("out_proj.weight"))
    all_of_base = sum(p.numel() for n, p in model.named_parameters() if "lora_" not in n)
    assert found == LeftOut(("mixer.out_proj",), of_out / all_of_base, linear=True)


def test_a_layer_whose_weight_is_read_past_it_gets_no_adapter(tiny):
    def mamba():
        sizes = {"hidden_size": 32, "num_hidden_layers": 1, "state_size": 8, "time_step_rank": 4}
        return replace(tiny, model=MambaForCausalLM(MambaConfig(vocab_size=90, **sizes)))

    loaded = add_lora(mamba(), **SETTINGS)
    assert {n.split(".")[-4] for n in trainable(loaded.model)} == {"in_proj", "x_proj"}
    (found,) = left_out(loaded.model)
    assert set(found.layers) == {"mixer.dt_proj", "mixer.out_proj"}
    with pytest.raises(ModelError, match="'dt_proj' would do nothing"):
        add_lora(mamba(), **(SETTINGS | {"target_modules": ["in_proj", "dt_proj"]}))


def test_all_linear_leaves_out_a_router_that_is_more_than_a_product(tiny):
    config = Llama4TextConfig(
        **SMALL, head_dim=8, intermediate_size_mlp=48, interleave_moe_layer_step=1
    )
    loaded = add_lora(replace(tiny, model=Llama4ForCausalLM(config)), **SETTINGS)
    loaded.model(input_ids=torch.arange(3, 15)[None])
    assert LeftOut(("feed_forward.router",), 2 * 4 * 32 / base_parameters(loaded.model), True) in (
        left_out(loaded.model)
    )


def test_all_linear_leaves_out_layers_whose_weight_is_read_past_them(tiny):
    sizes = {"hidden_size": 32, "state_size": 8, "num_hidden_layers": 1, "time_step_rank": 4}
    mamba = MambaForCausalLM(MambaConfig(vocab_size=90, **sizes))
    model = add_lora(replace(tiny, model=mamba), **SETTINGS).model
    assert {n.split(".")[-4] for n in trainable(model)} == {"in_proj", "x_proj"}


def test_all_linear_means_products_that_a_family_computes_in_its_own_way(tiny):
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 1}
    falcon = FalconForCausalLM(FalconConfig(vocab_size=90, **sizes))
    model = add_lora(replace(tiny, model=falcon), **SETTINGS).model
    assert {"query_key_value", "dense_4h_to_h"} < {n.split(".")[-4] for n in trainable(model)}


@pytest.mark.parametrize("name", ["Zamba", "T5Gemma"])
def test_layers_that_share_weights_are_merged_each_with_its_own_adapter(tiny, tmp_path, name):
    """Zamba uses one attention layer twice; T5Gemma's head is tied to its decoder alone."""
    model = families.build(name)
    loaded = add_lora(replace(tiny, model=model), **SETTINGS)
    assert not any("lm_head" in weight for weight in trainable(loaded.model))
    torch.manual_seed(1)
    with torch.no_grad():
        for p in trainable(loaded.model).values():
            p.add_(torch.randn_like(p), alpha=0.1)
        ids = torch.arange(30, 40)[None]
        also = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
        wanted = loaded.model.eval()(input_ids=ids, **also).logits
        merged(loaded).model.save_pretrained(tmp_path)
        again = families.auto_class(model.config).from_pretrained(tmp_path).eval()
        torch.testing.assert_close(again(input_ids=ids, **also).logits, wanted, atol=1e-3, rtol=0)


def test_a_layer_that_peft_refuses_is_told(tiny):
    with pytest.raises(ModelError, match=r"out_proj.*incompatible"):
        add_lora(replace(tiny, model=mamba2()), **(SETTINGS | {"target_modules": ["out_proj"]}))


def test_expert_layers_without_an_adapter_are_told_with_their_share(tiny):
    gpt_oss = GptOssForCausalLM(
        GptOssConfig(
            **SMALL, head_dim=8, rope_parameters={"rope_type": "default", "rope_theta": 1e4}
        )
    )
    (found,) = left_out(add_lora(replace(tiny, model=gpt_oss), **SETTINGS).model)
    experts = 2 * 4 * (2 * 48 * 32 + 48 * 32)
    every = sum(p.numel() for p in gpt_oss.parameters() if p.requires_grad is False)
    assert found.layers == ("experts.gate_up_proj", "experts.down_proj")
    assert found.share == pytest.approx(experts / every)
    assert not found.linear


def test_expert_layers_that_peft_has_a_mapping_for_get_an_adapter(tiny):
    mixtral = MixtralForCausalLM(MixtralConfig(**SMALL))
    model = add_lora(replace(tiny, model=mixtral), **SETTINGS).model
    assert left_out(model) == ()
    assert any(".experts." in name for name in trainable(model))


def test_dropout_is_refused_where_expert_layers_cannot_have_it(tiny):
    mixtral = MixtralForCausalLM(MixtralConfig(**SMALL))
    with pytest.raises(ModelError, match=r"lora\.lora_dropout: 0"):
        add_lora(replace(tiny, model=mixtral), **(SETTINGS | {"lora_dropout": 0.1}))


def test_adapters_of_an_encoder_decoder_model_say_so(tiny):
    t5 = T5ForConditionalGeneration(
        T5Config(vocab_size=90, d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4)
    )
    model = add_lora(replace(tiny, model=t5), **SETTINGS).model
    assert model.peft_config["default"].task_type == "SEQ_2_SEQ_LM"
    assert add_lora(tiny, **SETTINGS).model.peft_config["default"].task_type == "CAUSAL_LM"


def test_an_adapter_on_embeddings_that_are_never_read_is_refused(tiny):
    def t5():
        return T5ForConditionalGeneration(
            T5Config(vocab_size=90, d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4)
        )

    with pytest.raises(ModelError, match="'shared' would do nothing"):
        add_lora(replace(tiny, model=t5()), **(SETTINGS | {"target_modules": ["shared"]}))
    add_lora(replace(tiny, model=t5()), **(SETTINGS | {"target_modules": ["embed_tokens"]}))


def test_a_folder_s_layers_are_known_without_its_weights(tiny_folder, tmp_path):
    llama = ModelFolder("tiny", tiny_folder, "none")
    assert "model.layers.0.self_attn.q_proj" in linear_layers(skeleton(llama))
    T5Config(
        vocab_size=90, d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4, num_decoder_layers=2
    ).save_pretrained(tmp_path)
    t5 = ModelFolder("t5", tmp_path, "none")
    assert "decoder.block.1.layer.1.EncDecAttention.q" in linear_layers(skeleton(t5))
    planned = planned_adapter(t5, Lora())
    assert {p.device.type for p in planned.parameters()} == {"meta"}
    assert left_out(planned) == ()
