"""What is saved loads again, in transformers and PEFT alike, and is the model that was trained."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    GPT2Config,
    GptOssConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Mamba2Config,
    MixtralConfig,
    T5Config,
    UMT5Config,
)

from builds import add_lora
from instil.errors import ModelError
from instil.model.adapter import load_adapter, merged, trainable
from instil.model.export import generation_config, save_model

SETTINGS = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": "all-linear", "seed": 0}
SIZES = {
    "vocab_size": 90,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
CONFIGS = {
    "llama": LlamaConfig(**SIZES),
    "llama, tied": LlamaConfig(**SIZES, tie_word_embeddings=True),
    "gpt2": GPT2Config(
        vocab_size=90, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.3,
        bos_token_id=1, eos_token_id=2,
    ),
    "mixtral": MixtralConfig(**SIZES, **EXPERTS),
    "gpt-oss": GptOssConfig(
        **SIZES, **EXPERTS, head_dim=8, rope_parameters={"rope_type": "default", "rope_theta": 1e4},
    ),
    "mamba2": Mamba2Config(
        vocab_size=90, hidden_size=32, num_heads=8, head_dim=8, num_hidden_layers=2, state_size=16,
        n_groups=2, expand=2, chunk_size=8, initializer_range=0.3,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    ),
    "flan-t5": T5Config(
        vocab_size=90, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0,
    ),
    "t5": T5Config(
        vocab_size=90, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
        decoder_start_token_id=0,
    ),
    "umt5": UMT5Config(
        vocab_size=90, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
        tie_word_embeddings=True, decoder_start_token_id=0,
    ),
    "bart": BartConfig(
        vocab_size=90, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, init_std=0.3,
        max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        decoder_start_token_id=2, forced_eos_token_id=None,
    ),
}  # fmt: skip
EMBEDDINGS = (
    ["embed_tokens"],
    ["lm_head"],
    ["embed_tokens", "lm_head"],
    ["embed_tokens", "v_proj"],
)


def auto_class(name):
    return AutoModelForSeq2SeqLM if CONFIGS[name].is_encoder_decoder else AutoModelForCausalLM


def built(name, tiny):
    """A loud model of a family behind the tiny one's tokenizer."""
    torch.manual_seed(0)
    model = auto_class(name).from_config(deepcopy(CONFIGS[name])).eval()
    if name == "flan-t5":  # a T5 config ties always; weights that are saved and differ stay apart
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().flip(0))
    return replace(tiny, model=model)


def trained(loaded, **settings):
    loaded = add_lora(loaded, **(SETTINGS | settings))
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in trainable(loaded.model).values():
            weight.normal_(std=0.1)
    loaded.model.eval()
    return loaded


def logits(model):
    """By the model's own forward pass."""
    ids = torch.arange(3, 40)[None]
    more = {"decoder_input_ids": ids[:, :9]} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False, **more).logits


@pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::UserWarning", "ignore::RuntimeWarning"
)
@pytest.mark.parametrize("name", CONFIGS)
def test_saved_reloaded_and_merged_are_the_model_that_was_trained(tiny, name, tmp_path):
    base = logits(built(name, tiny).model)
    loaded = trained(built(name, tiny))
    wanted = logits(loaded.model)
    assert (wanted - base).abs().max() > 0.1, "the adapter says something"

    save_model(loaded, tmp_path / "adapter")
    ours = load_adapter(built(name, tiny), tmp_path / "adapter")
    torch.testing.assert_close(logits(ours.model), wanted)
    pefts = PeftModel.from_pretrained(built(name, tiny).model, tmp_path / "adapter").eval()
    torch.testing.assert_close(logits(pefts), wanted)

    whole = merged(loaded)
    torch.testing.assert_close(logits(whole.model), wanted, atol=1e-4, rtol=1e-4)
    save_model(whole, tmp_path / "whole")
    again = auto_class(name).from_pretrained(tmp_path / "whole").eval()
    torch.testing.assert_close(logits(again), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("targets", EMBEDDINGS, ids=" and ".join)
@pytest.mark.parametrize("name", ["llama", "llama, tied"])
def test_adapters_on_embeddings_are_merged_into_what_they_were_on(tiny, name, targets, tmp_path):
    loaded = trained(built(name, tiny), target_modules=targets)
    wanted = logits(loaded.model)
    whole = merged(loaded)
    torch.testing.assert_close(logits(whole.model), wanted, atol=1e-4, rtol=1e-4)
    assert not whole.model.config.tie_word_embeddings
    save_model(whole, tmp_path / "whole")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "whole").eval()
    torch.testing.assert_close(logits(again), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("targets", EMBEDDINGS[:3], ids=" and ".join)
@pytest.mark.parametrize("name", ["t5", "flan-t5", "bart"])
def test_so_are_those_of_an_encoder_decoder_model(tiny, name, targets, tmp_path):
    loaded = trained(built(name, tiny), target_modules=targets)
    wanted = logits(loaded.model)
    whole = merged(loaded)
    torch.testing.assert_close(logits(whole.model), wanted, atol=1e-4, rtol=1e-4)
    save_model(whole, tmp_path / "whole")
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "whole").eval()
    torch.testing.assert_close(logits(again), wanted, atol=1e-4, rtol=1e-4)


def test_a_family_that_ties_whatever_its_config_says_is_refused(tiny, monkeypatch):
    loaded = trained(built("llama, tied", tiny), target_modules=["embed_tokens"])
    tied = {"lm_head.weight": "model.embed_tokens.weight"}
    monkeypatch.setattr(
        LlamaForCausalLM, "get_expanded_tied_weights_keys", lambda self, all_submodels: tied
    )
    with pytest.raises(ModelError, match="without --merge"):
        merged(loaded)


def test_a_family_that_computes_otherwise_when_untied_is_refused(tiny):
    with pytest.raises(ModelError, match="computes something else"):
        merged(trained(built("umt5", tiny), target_modules=["lm_head"]))


def test_tied_embeddings_stay_tied_where_neither_has_an_adapter(tiny):
    model = merged(trained(built("llama, tied", tiny))).model
    assert model.config.tie_word_embeddings
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


def test_tokens_beyond_the_embeddings_are_not_named(tiny):
    rows = tiny.chat.pad_id  # so that the model has none for pad and stop, which are one token here
    tiny.model.resize_token_embeddings(rows)
    config = generation_config(tiny)
    assert config.pad_token_id is None
    assert config.eos_token_id is None
    assert config.bos_token_id == tiny.chat.tokenizer.bos_token_id
