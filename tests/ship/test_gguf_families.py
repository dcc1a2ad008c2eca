"""Tiny models of every family that GGUF files are written of, run by llama.cpp itself."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import requests
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from builds import add_lora
from chat_templates import FAMILIES as CHATS
from chat_templates import byte_level, sentencepiece
from families import ALIKE, GEMMA, VOCABULARY
from instil.errors import ModelError
from instil.model.load import ModelFolder, load_model
from instil.ship.gguf.families import FAMILIES
from instil.ship.gguf.write import write_adapter, write_model
from instil.ship.llamacpp import llama_server
from instil.ship.targets import ServerTarget
from instil.types import Message

pytest.importorskip("xllamacpp")

IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
SIZES = {**ALIKE, "vocab_size": VOCABULARY, **IDS}
WIDE = {**SIZES, "head_dim": 32}
ROPE = {"rope_theta": 5000.0}
GEMMAS = {**GEMMA, "query_pre_attn_scalar": 16, "attn_logit_softcapping": 20.0}
MODELS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "llama": ("llama", {**SIZES, "rope_parameters": {"rope_type": "default", **ROPE}}),
    "llama with wide heads and biases": ("llama", {**WIDE, "attention_bias": True}),
    "llama 3.1": (
        "llama",
        {
            **SIZES,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
    ),
    "llama, linear": (
        "llama",
        {**SIZES, "rope_parameters": {"rope_type": "linear", "factor": 4.0, **ROPE}},
    ),
    "llama, untied": ("llama", {**SIZES, "tie_word_embeddings": False}),
    "mistral": ("mistral", {**SIZES, "sliding_window": None}),
    "qwen2": ("qwen2", SIZES),
    "qwen3": ("qwen3", WIDE),
    "smollm3": ("smollm3", {**SIZES, "num_hidden_layers": 5}),
    "gemma2": ("gemma2", {**GEMMAS, "final_logit_softcapping": 30.0}),
    "gemma3": (
        "gemma3_text",
        {
            **GEMMAS,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "num_hidden_layers": 7,
        },
    ),
    "phi3": ("phi3", {**SIZES, "original_max_position_embeddings": 512}),
    "granite": (
        "granite",
        {
            **SIZES,
            "attention_multiplier": 0.2,
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.7,
            "logits_scaling": 2.0,
        },
    ),
    "olmo2": ("olmo2", SIZES),
    "gpt2": (
        "gpt2",
        {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512, **IDS}
        | {"vocab_size": VOCABULARY},
    ),
}
PROMPT = [1, 50, 77, 310, 42, 8, 199, 263, 15, 77, 50, 120, 333, 9, 61, 20, 71, 88, 140, 7, 2]
TEXTS = (
    "good film",
    "  two blanks, 12345 digits, it's don't WE'RE\n\n\tnew lines \n",
    "größer 漢字 emoji 🙂 <|im_end|> <|im_start|>user",
)


@pytest.fixture(params=MODELS)
def small(request, tmp_path: Path, tiny_folder: Path):
    """A small model of the family, whose weights can be heard, with the tests' tokenizer."""
    kind, settings = MODELS[request.param]
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * (0.15 if weight.dim() > 1 else 0.2))
    model.save_pretrained(tmp_path / "model")
    for file in tiny_folder.glob("*token*"):
        (tmp_path / "model" / file.name).write_bytes(file.read_bytes())
    for file in tiny_folder.glob("*.jinja"):
        (tmp_path / "model" / file.name).write_bytes(file.read_bytes())
    folder = ModelFolder(kind, tmp_path / "model", "none")
    return load_model(folder, device="cpu", dtype="float32")


@pytest.mark.slow
def test_llama_cpp_reads_the_same_tokens_and_says_the_same(small, tmp_path: Path):
    file = tmp_path / "small.gguf"
    write_model(small, file, kind="f32", name="small", certificate={})
    with llama_server(file, threads=1) as address:
        for text in TEXTS:
            body = {"content": text, "add_special": False, "parse_special": True}
            found = requests.post(f"{address}/tokenize", json=body, timeout=60).json()["tokens"]
            assert found == small.chat.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert worst(address, small) < room(small)


@pytest.mark.slow
def test_an_adapter_beside_the_base_model(small, tmp_path: Path):
    tuned = with_adapter(small, tmp_path)
    base, adapter = tmp_path / "base.gguf", tmp_path / "adapter.gguf"
    write_model(small, base, kind="f32", name="small", certificate={})
    assert write_adapter(tuned, adapter, name="small", certificate={}) > 0
    with llama_server(base, adapter=adapter, threads=1) as address:
        assert worst(address, tuned) < room(small)
    with llama_server(base, threads=1) as address:
        assert worst(address, tuned) > 0.05


def with_adapter(loaded, folder: Path):
    """Put an adapter that can be heard around a model that is loaded anew."""
    again = load_model(loaded.folder, device="cpu", dtype="float32")
    tuned = add_lora(
        again, r=4, lora_alpha=8, lora_dropout=0.0, target_modules="all-linear", seed=0
    )
    with torch.no_grad():
        for name, weight in tuned.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.05)
    tuned.model.eval()
    return tuned


def room(loaded) -> float:
    """Return what log-probabilities may differ by: ggml rounds GELU to 16 bits."""
    config = loaded.model.config
    names = [
        getattr(config, name, "") or "" for name in ("hidden_activation", "activation_function")
    ]
    return 5e-3 if any("gelu" in name for name in names) else 2e-4


def worst(address: str, loaded) -> float:
    """Return the largest difference between two log-probabilities of the next token."""
    for last in range(20, 200):  # of half a character llama.cpp tells no probabilities
        prompt = [*PROMPT, last]
        body = {"prompt": prompt, "n_predict": 1, "n_probs": VOCABULARY, "temperature": 0}
        said = requests.post(f"{address}/completion", json=body, timeout=60).json()
        if "completion_probabilities" in said:
            break
    (first,) = said["completion_probabilities"]
    theirs = {each["id"]: each["logprob"] for each in first["top_logprobs"]}
    with torch.no_grad():
        logits = loaded.model(torch.tensor([prompt])).logits[0, -1]
    own = logits.float().log_softmax(-1).tolist()
    assert len(theirs) == len(own)
    return max(abs(own[token] - each) for token, each in theirs.items() if math.isfinite(each))


def test_every_family_is_tried():
    assert {kind for kind, _ in MODELS.values()} == set(FAMILIES)


KINDS = {"byte_level": byte_level, "sentencepiece": sentencepiece}


@pytest.mark.slow
@pytest.mark.parametrize("family", CHATS)
@pytest.mark.parametrize("kind", KINDS)
def test_llama_cpp_writes_turns_as_the_run_did(family, kind, tmp_path: Path, tiny_folder: Path):
    tokenizer = KINDS[kind](family)
    settings = {**SIZES, "vocab_size": len(tokenizer), "pad_token_id": None}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **settings))
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    loaded = load_model(ModelFolder("x", tmp_path / "model", "none"), device="cpu", dtype="float32")
    file = tmp_path / "small.gguf"
    write_model(loaded, file, kind="f16", name="small", certificate={})
    talk = [("user", "is it  good?\n 123"), ("assistant", "yes, it is"), ("user", "and größer 漢?")]
    with llama_server(file, threads=1) as address:
        target = ServerTarget(address, vocabulary=len(tokenizer))
        for turns in (talk[:1], talk):
            prompt = loaded.chat.prompt([Message(role, text) for role, text in turns])
            asked = [{"role": role, "content": text} for role, text in turns]
            assert target.tokens(asked) == tuple(prompt)


@pytest.mark.parametrize("tied", [True, False])
def test_an_adapter_on_output_embeddings_that_are_the_inputs_is_refused(
    tied: bool, tiny_folder: Path, tmp_path: Path
):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    config = AutoConfig.from_pretrained(folder)
    config.tie_word_embeddings = tied
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    loaded = load_model(ModelFolder("tiny", folder, "none"), device="cpu", dtype="float32")
    tuned = add_lora(
        loaded, r=4, lora_alpha=8, lora_dropout=0.0, target_modules=["q_proj", "lm_head"], seed=0
    )
    out = tmp_path / "adapter.gguf"
    if tied:
        with pytest.raises(ModelError, match="output embeddings that are the input's"):
            write_adapter(tuned, out, name="tiny", certificate={})
        assert not out.exists()
    else:
        assert write_adapter(tuned, out, name="tiny", certificate={}) > 1
