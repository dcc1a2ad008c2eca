"""One tiny model of each family that transformers knows, with weights that can be heard.

A model as transformers initialises it says almost the same of every token, whatever its attention
does: an error in it would hide. Here each matrix gets noise about eight times as wide as its
initialisation, and biases, norms, gates and attention sinks some of their own. Windows are narrow
enough to matter in rows of twenty tokens.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

VOCABULARY = 400
"""As many tokens as the tests' tokenizer has, or a few more."""
MATRIX, VECTOR = 0.16, 0.3
"""Standard deviations of the noise on matrices, and on vectors and tensors of more dimensions."""

ALIKE: Mapping[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
"""Sizes under the names that most families give them."""
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
ROUTED = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "moe_intermediate_size": 48,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
}
DELTA = {
    "head_dim": 16,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "full_attention"],
}
STATE = {
    "mamba_d_state": 8,
    "mamba_d_head": 16,
    "mamba_n_heads": 8,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_chunk_size": 8,
}
BART = {
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 96,
    "decoder_ffn_dim": 96,
    "max_position_embeddings": 128,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}
T5 = {
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 96,
    "num_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
    "decoder_start_token_id": 2,
}
GEMMA = {
    **ALIKE,
    "vocab_size": VOCABULARY,
    "head_dim": 16,
    "sliding_window": 6,
    "query_pre_attn_scalar": 8,
    "attn_logit_softcapping": 2.0,
    "final_logit_softcapping": 5.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
SWITCHING = {
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 8,
        "long_factor": [2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0],
    },
    "original_max_position_embeddings": 16,
}


@dataclass(frozen=True, slots=True)
class Family:
    """A tiny model: transformers' name of its family, and what differs from the usual sizes."""

    kind: str
    """`model_type` in its config.json."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of its config; they come before `ALIKE`."""
    weights: tuple[str, ...] = ()
    """Parts of names of weights without which it says something else."""
    without: Mapping[str, Any] = field(default_factory=dict)
    """Settings with which it says something else."""
    note: str = ""
    """What is special about it, for docs/models.md."""
    alike: bool = True
    """Whether its config knows the names of `ALIKE`."""


FAMILIES: Mapping[str, Family] = {
    "Llama": Family("llama", note="grouped keys"),
    "Llama 4": Family(
        "llama4_text",
        {
            **LOCAL_EXPERTS,
            "num_hidden_layers": 3,
            "head_dim": 16,
            "intermediate_size_mlp": 96,
            "attention_chunk_size": 8,
            "no_rope_layer_interval": 3,
            "interleave_moe_layer_step": 2,
        },
        ("experts",),
        {"attention_chunk_size": 64},
        "attention in chunks, experts, layers without positions",
    ),
    "Mistral": Family("mistral", {"sliding_window": 6}, (), {"sliding_window": None}, "window"),
    "Ministral": Family(
        "ministral",
        {
            "head_dim": 16,
            "sliding_window": 6,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        (),
        {"sliding_window": 64},
        "window in some layers",
    ),
    "Mixtral": Family("mixtral", LOCAL_EXPERTS, ("experts",), note="experts"),
    "Qwen2": Family("qwen2", weights=("q_proj.bias",), note="biases"),
    "Qwen2-MoE": Family(
        "qwen2_moe",
        {**EXPERTS, "shared_expert_intermediate_size": 48},
        ("experts", "shared_expert_gate"),
        note="experts, one of them shared",
    ),
    "Qwen3": Family("qwen3", {"head_dim": 24}, ("q_norm",), note="norms of queries and keys"),
    "Qwen3-MoE": Family("qwen3_moe", {**EXPERTS, "head_dim": 16}, ("experts",), note="experts"),
    "Qwen3-Next": Family(
        "qwen3_next",
        {**EXPERTS, **DELTA, "shared_expert_intermediate_size": 48},
        ("linear_attn.conv1d", "shared_expert_gate"),
        note="linear attention (a state) in some layers, experts",
    ),
    "Qwen3.5": Family(
        "qwen3_5_text",
        DELTA,
        ("linear_attn.conv1d", "linear_attn.A_log"),
        note="linear attention (a state) in some layers",
    ),
    "Gemma": Family("gemma", {"head_dim": 16}, note="scaled embeddings"),
    "Gemma 2": Family(
        "gemma2",
        {
            "head_dim": 16,
            "sliding_window": 6,
            "query_pre_attn_scalar": 8,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 5.0,
        },
        (),
        {
            "sliding_window": 64,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
        },
        "soft caps on scores and logits, window in some layers",
    ),
    "Gemma 3": Family(
        "gemma3_text",
        {
            "head_dim": 16,
            "sliding_window": 6,
            "query_pre_attn_scalar": 8,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        ("q_norm",),
        {"sliding_window": 64},
        "window and rotary positions of two kinds",
    ),
    "Gemma 3n": Family(
        "gemma3n_text",
        {
            "num_hidden_layers": 4,
            "intermediate_size": [96] * 4,
            "head_dim": 16,
            "sliding_window": 6,
            "vocab_size_per_layer_input": VOCABULARY,
            "hidden_size_per_layer_input": 16,
            "altup_num_inputs": 2,
            "num_kv_shared_layers": 2,
            "laurel_rank": 8,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "activation_sparsity_pattern": [0.5, 0.5, 0.0, 0.0],
        },
        ("altup", "laurel", "embed_tokens_per_layer"),
        {"sliding_window": 64},
        "layers that share keys, embeddings in each layer",
    ),
    "Gemma 4": Family(
        "gemma4_text",
        {
            "num_hidden_layers": 4,
            "head_dim": 16,
            "sliding_window": 6,
            "vocab_size_per_layer_input": VOCABULARY,
            "hidden_size_per_layer_input": 16,
            "num_kv_shared_layers": 2,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "per_layer_config": {"1": {"head_dim": 32}, "3": {"head_dim": 32}},
        },
        ("embed_tokens_per_layer",),
        {"sliding_window": 64},
        "layers that share keys, heads of two widths",
    ),
    "VaultGemma": Family(
        "vaultgemma",
        {"head_dim": 16, "sliding_window": 6, "query_pre_attn_scalar": 8},
        (),
        {"sliding_window": 64},
        "window in some layers",
    ),
    "RecurrentGemma": Family(
        "recurrent_gemma",
        {
            "num_hidden_layers": 3,
            "num_key_value_heads": 1,
            "lru_width": 64,
            "attention_window_size": 6,
            "head_dim": 16,
            "block_types": ["recurrent", "recurrent", "attention"],
        },
        ("rg_lru.recurrent_gate_weight",),
        {"attention_window_size": 64},
        "recurrent layers (a state), window",
    ),
    "Phi": Family(
        "phi",
        {"num_key_value_heads": 4, "partial_rotary_factor": 0.5},
        ("lm_head.bias",),
        note="partly rotary, bias on logits",
    ),
    "Phi-3": Family(
        "phi3", {"sliding_window": 6, "pad_token_id": 2}, (), {"sliding_window": None}, "window"
    ),
    "Phi-3 (LongRoPE)": Family(
        "phi3",
        {**SWITCHING, "pad_token_id": 2},
        (),
        {"original_max_position_embeddings": 500},
        "rotary positions that depend on the row's length",
    ),
    "Phi-3.5-MoE": Family(
        "phimoe",
        {**LOCAL_EXPERTS, "attention_bias": True, "lm_head_bias": True},
        ("experts", "lm_head.bias"),
        note="experts",
    ),
    "OLMo": Family(
        "olmo",
        {"clip_qkv": 1.0, "eos_token_id": 2},
        (),
        {"clip_qkv": None},
        "clipped queries and keys",
    ),
    "OLMo 2": Family("olmo2", {"eos_token_id": 2}, ("q_norm",), note="norms behind the layers"),
    "OLMo 3": Family(
        "olmo3",
        {
            "sliding_window": 6,
            "eos_token_id": 2,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        (),
        {"sliding_window": 64},
        "window in some layers",
    ),
    "OLMoE": Family("olmoe", {**EXPERTS, "eos_token_id": 2}, ("experts",), note="experts"),
    "OLMo Hybrid": Family(
        "olmo_hybrid",
        {k: v for k, v in DELTA.items() if k != "head_dim"},
        ("linear_attn",),
        note="linear attention (a state) in some layers",
    ),
    "FlexOLMo": Family("flex_olmo", {**EXPERTS, "eos_token_id": 2}, ("experts",), note="experts"),
    "Granite": Family(
        "granite",
        {
            "embedding_multiplier": 3.0,
            "logits_scaling": 0.5,
            "residual_multiplier": 0.7,
            "attention_multiplier": 0.4,
        },
        (),
        {"logits_scaling": 1.0, "attention_multiplier": 1.0},
        "multipliers",
    ),
    "Granite-MoE": Family(
        "granitemoe",
        {**LOCAL_EXPERTS, "logits_scaling": 0.5},
        ("block_sparse_moe",),
        note="experts",
    ),
    "Granite 4 H": Family(
        "granitemoehybrid",
        {
            **LOCAL_EXPERTS,
            **STATE,
            "shared_intermediate_size": 48,
            "layer_types": ["mamba", "attention"],
            "logits_scaling": 0.5,
        },
        ("mamba.conv1d", "block_sparse_moe"),
        note="Mamba layers (a state), experts",
    ),
    "SmolLM3": Family(
        "smollm3",
        {"no_rope_layers": [1, 0], "pad_token_id": 2},
        (),
        {"no_rope_layers": [1, 1]},
        "layers without positions",
    ),
    "OPT": Family(
        "opt",
        {"ffn_dim": 96, "word_embed_proj_dim": 32, "pad_token_id": 2},
        ("embed_positions", "project_out"),
        note="learned positions",
    ),
    "GPT-2": Family(
        "gpt2",
        {
            "n_embd": 64,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 128,
            "scale_attn_by_inverse_layer_idx": True,
        },
        ("wpe",),
        {"scale_attn_by_inverse_layer_idx": False},
        "learned positions",
        alike=False,
    ),
    "GPT-Neo": Family(
        "gpt_neo",
        {
            "hidden_size": 64,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 6,
            "max_position_embeddings": 128,
        },
        ("wpe",),
        note="learned positions, local attention",
        alike=False,
    ),
    "GPT-NeoX": Family(
        "gpt_neox",
        {"rotary_pct": 0.5},
        ("query_key_value.bias",),
        note="partly rotary, parallel layers",
    ),
    "GPT-J": Family(
        "gptj",
        {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128, "rotary_dim": 8},
        ("lm_head.bias",),
        note="partly rotary, parallel layers",
        alike=False,
    ),
    "CodeGen": Family(
        "codegen",
        {
            "n_embd": 64,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 128,
            "n_ctx": 128,
            "rotary_dim": 8,
        },
        ("lm_head.bias",),
        note="partly rotary",
        alike=False,
    ),
    "GPTBigCode": Family(
        "gpt_bigcode",
        {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128},
        ("wpe",),
        note="one head of keys, learned positions",
        alike=False,
    ),
    "GPT": Family(
        "openai-gpt",
        {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128},
        ("positions_embed",),
        note="learned positions, no cache",
        alike=False,
    ),
    "CTRL": Family(
        "ctrl",
        {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128, "dff": 96},
        ("lm_head.bias",),
        note="sinusoidal positions",
        alike=False,
    ),
    "StarCoder2": Family(
        "starcoder2",
        {"sliding_window": 6},
        ("q_proj.bias",),
        {"sliding_window": None},
        "window, biases",
    ),
    "StableLM": Family(
        "stablelm",
        {"use_parallel_residual": True, "qk_layernorm": True},
        ("q_layernorm",),
        note="partly rotary, parallel layers",
    ),
    "GLM-4 (first)": Family(
        "glm", {"head_dim": 16, "pad_token_id": 2}, note="partly rotary, interleaved"
    ),
    "GLM-4": Family(
        "glm4",
        {"head_dim": 16, "pad_token_id": 2},
        ("post_self_attn_layernorm",),
        note="partly rotary, norms behind the layers",
    ),
    "GLM-4.5 (MoE)": Family(
        "glm4_moe",
        {**ROUTED, "head_dim": 16, "use_qk_norm": True},
        ("experts",),
        note="experts in groups",
    ),
    "Cohere": Family(
        "cohere",
        {"logit_scale": 0.5, "use_qk_norm": True},
        ("q_norm",),
        {"logit_scale": 1.0},
        "parallel layers, scaled logits",
    ),
    "Cohere 2": Family(
        "cohere2",
        {
            "logit_scale": 0.5,
            "head_dim": 16,
            "sliding_window": 6,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        (),
        {"logit_scale": 1.0, "sliding_window": 64},
        "window in some layers, scaled logits",
    ),
    "LFM2": Family(
        "lfm2",
        {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
        ("conv.conv",),
        note="convolutions",
    ),
    "LFM2-MoE": Family(
        "lfm2_moe",
        {**EXPERTS, "layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
        ("conv.conv", "experts"),
        note="convolutions, experts",
    ),
    "EXAONE 4": Family(
        "exaone4",
        {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]},
        (),
        {"sliding_window": 64},
        "window in some layers, positions there alone",
    ),
    "ERNIE 4.5": Family(
        "ernie4_5",
        {"head_dim": 16, "use_bias": True},
        ("q_proj.bias",),
        note="interleaved rotary positions",
    ),
    "ERNIE 4.5 (MoE)": Family(
        "ernie4_5_moe",
        {
            "moe_num_experts": 4,
            "moe_k": 2,
            "moe_intermediate_size": 48,
            "moe_num_shared_experts": 1,
            "moe_layer_start_index": 1,
            "moe_layer_end_index": 1,
        },
        ("experts",),
        note="experts",
    ),
    "Apertus": Family("apertus", {"pad_token_id": 2}, ("act_fn",), note="xIELU"),
    "Seed-OSS": Family(
        "seed_oss", {"head_dim": 16, "pad_token_id": 2}, ("q_proj.bias",), note="biases"
    ),
    "Hunyuan": Family(
        "hunyuan_v1_dense", {"head_dim": 16}, ("query_layernorm",), note="norms of queries and keys"
    ),
    "Hunyuan (MoE)": Family(
        "hunyuan_v1_moe",
        {"head_dim": 16, "num_experts": 4, "moe_topk": 2},
        ("experts",),
        note="experts",
    ),
    "MiniMax": Family(
        "minimax",
        {
            **LOCAL_EXPERTS,
            "head_dim": 16,
            "block_size": 8,
            "layer_types": ["linear_attention", "full_attention"],
        },
        ("output_gate",),
        note="linear attention (a state) in some layers, experts",
    ),
    "MiniMax-M2": Family(
        "minimax_m2",
        {**LOCAL_EXPERTS, "head_dim": 16, "eos_token_id": 2, "bos_token_id": 1},
        ("experts",),
        note="experts",
    ),
    "Bamba": Family(
        "bamba",
        {**STATE, "attn_layer_indices": [1]},
        ("mamba.conv1d",),
        note="Mamba layers (a state)",
    ),
    "Falcon-H1": Family(
        "falcon_h1",
        {
            **STATE,
            "mamba_d_ssm": 128,
            "lm_head_multiplier": 0.5,
            "key_multiplier": 0.5,
            "ssm_multipliers": [1.0, 0.5, 2.0, 1.0, 1.0],
        },
        ("mamba.conv1d", "self_attn"),
        {"lm_head_multiplier": 1.0},
        "Mamba and attention side by side in each layer",
    ),
    "Falcon": Family(
        "falcon",
        {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "eos_token_id": 2},
        note="one head of keys, parallel layers, attention of its own",
        alike=False,
    ),
    "Falcon (ALiBi)": Family(
        "falcon",
        {
            "num_hidden_layers": 2,
            "hidden_size": 64,
            "num_attention_heads": 4,
            "alibi": True,
            "multi_query": False,
            "parallel_attn": False,
            "bias": True,
            "eos_token_id": 2,
        },
        ("query_key_value.bias",),
        note="ALiBi, attention of its own",
        alike=False,
    ),
    "Falcon-Mamba": Family(
        "falcon_mamba",
        {
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "state_size": 8,
            "time_step_rank": 4,
            "eos_token_id": 2,
        },
        ("conv1d", "x_proj"),
        note="a state, no attention",
        alike=False,
    ),
    "Mamba": Family(
        "mamba",
        {
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "state_size": 8,
            "time_step_rank": 4,
            "eos_token_id": 2,
        },
        ("conv1d", "x_proj"),
        note="a state, no attention",
        alike=False,
    ),
    "Mamba-2": Family(
        "mamba2",
        {
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "state_size": 8,
            "num_heads": 8,
            "head_dim": 16,
            "n_groups": 2,
            "chunk_size": 8,
        },
        ("conv1d", "dt_bias"),
        note="a state, no attention",
        alike=False,
    ),
    "Jamba": Family(
        "jamba",
        {
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "num_hidden_layers": 3,
            "attn_layer_period": 3,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "mamba_d_state": 8,
            "mamba_dt_rank": 4,
            "use_mamba_kernels": False,
        },
        ("mamba.conv1d", "experts"),
        note="Mamba layers (a state), experts",
    ),
    "Zamba": Family(
        "zamba",
        {
            "num_hidden_layers": 4,
            "num_key_value_heads": 4,
            "attention_hidden_size": 128,
            "attention_head_dim": 32,
            "n_mamba_heads": 2,
            "mamba_d_state": 8,
            "mamba_dt_rank": 4,
            "layers_block_type": ["linear_attention", "hybrid"] * 2,
            "use_mamba_kernels": False,
        },
        ("mamba.conv1d",),
        note="Mamba layers (a state), one attention layer used again",
    ),
    "Zamba2": Family(
        "zamba2",
        {
            "num_hidden_layers": 4,
            "num_key_value_heads": 4,
            "mamba_d_state": 8,
            "n_mamba_heads": 8,
            "mamba_ngroups": 1,
            "chunk_size": 8,
            "adapter_rank": 8,
            "use_shared_attention_adapter": True,
            "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
            "use_mem_rope": True,
            "use_mamba_kernels": False,
        },
        ("mamba.conv1d",),
        note="Mamba layers (a state), one attention layer used again",
    ),
    "Nemotron": Family(
        "nemotron", {"head_dim": 16}, note="partly rotary, norms of one plus a weight"
    ),
    "Nemotron-H": Family(
        "nemotron_h",
        {
            "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"],
            "num_hidden_layers": None,
            "head_dim": 16,
            "ssm_state_size": 8,
            "mamba_num_heads": 8,
            "mamba_head_dim": 16,
            "n_groups": 2,
            "chunk_size": 8,
            "n_routed_experts": 4,
            "moe_intermediate_size": 48,
            "moe_shared_expert_intermediate_size": 48,
            "use_mamba_kernels": False,
        },
        ("conv1d", "experts"),
        note="Mamba layers (a state), experts",
    ),
    "Bloom": Family(
        "bloom",
        {"hidden_size": 64, "n_layer": 2, "n_head": 4},
        ("query_key_value.bias",),
        note="ALiBi, attention of its own",
        alike=False,
    ),
    "MPT": Family(
        "mpt",
        {"d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 128, "expansion_ratio": 2},
        note="ALiBi, attention of its own",
        alike=False,
    ),
    "gpt-oss": Family(
        "gpt_oss",
        {
            **LOCAL_EXPERTS,
            "head_dim": 16,
            "sliding_window": 6,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        ("sinks", "experts", "router.bias"),
        {"sliding_window": 64},
        "attention sinks, experts, window in some layers",
    ),
    "DeepSeek-V2": Family(
        "deepseek_v2",
        {**ROUTED, **LATENT, "topk_method": "group_limited_greedy"},
        ("experts", "kv_a_layernorm"),
        note="latent attention, experts",
    ),
    "DeepSeek-V3": Family(
        "deepseek_v3",
        {**ROUTED, **LATENT},
        ("experts", "kv_a_layernorm"),
        note="latent attention, experts in groups",
    ),
    "DeepSeek-V3.2": Family(
        "deepseek_v32",
        {**ROUTED, **LATENT, "index_topk": 8, "index_head_dim": 16, "index_n_heads": 16},
        ("indexer",),
        {"index_topk": 64},
        "latent attention to tokens that an indexer picks, experts in groups",
    ),
    "MiMo-V2-Flash": Family(
        "mimo_v2_flash",
        {
            **ROUTED,
            "head_dim": 16,
            "v_head_dim": 12,
            "sliding_window": 6,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        ("sinks",),
        {"sliding_window": 64},
        "attention sinks in some layers, values narrower than keys, experts",
    ),
    "LongCat-Flash": Family(
        "longcat_flash",
        {
            **{
                k: v
                for k, v in ALIKE.items()
                if k not in ("num_hidden_layers", "intermediate_size")
            },
            **LATENT,
            "num_layers": 1,
            "ffn_hidden_size": 96,
            "moe_topk": 2,
            "n_routed_experts": 4,
            "zero_expert_num": 2,
            "expert_ffn_hidden_size": 48,
            "head_dim": 8,
        },
        ("experts",),
        note="latent attention, experts that do nothing",
        alike=False,
    ),
    "Kimi Linear": Family(
        "kimi_linear",
        {
            **{k: v for k, v in LATENT.items() if k != "q_lora_rank"},
            "num_experts": 4,
            "num_experts_per_token": 2,
            "moe_intermediate_size": 48,
            "layer_types": ["linear_attention", "full_attention"],
            "mlp_layer_types": ["dense", "sparse"],
            "linear_head_dim": 8,
            "linear_num_heads": 4,
        },
        ("conv1d", "A_log", "experts"),
        note="linear attention (a state) in some layers, latent attention, experts",
    ),
    "DBRX": Family(
        "dbrx",
        {
            "d_model": 64,
            "n_heads": 4,
            "n_layers": 2,
            "max_seq_len": 128,
            "attn_config": {"kv_n_heads": 2, "clip_qkv": 1.0, "rope_theta": 10000.0},
            "ffn_config": {
                "ffn_hidden_size": 48,
                "hidden_size": 64,
                "moe_num_experts": 4,
                "moe_top_k": 2,
            },
        },
        ("ffn.experts",),
        note="experts, clipped queries and keys",
        alike=False,
    ),
    "XGLM": Family(
        "xglm",
        {
            "d_model": 64,
            "ffn_dim": 96,
            "num_layers": 2,
            "attention_heads": 4,
            "max_position_embeddings": 128,
        },
        ("fc1.bias",),
        note="sinusoidal positions",
        alike=False,
    ),
    "BioGPT": Family(
        "biogpt", {"max_position_embeddings": 128}, ("embed_positions",), note="learned positions"
    ),
    "Persimmon": Family("persimmon", {}, ("q_layernorm",), note="partly rotary"),
    "RWKV": Family(
        "rwkv",
        {
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "attention_hidden_size": 64,
            "intermediate_size": 96,
            "context_length": 128,
            "rescale_every": 0,
        },
        ("time_decay",),
        note="a state, no attention",
        alike=False,
    ),
    "xLSTM": Family(
        "xlstm",
        {
            "hidden_size": 64,
            "num_heads": 4,
            "num_hidden_layers": 2,
            "num_blocks": 2,
            "qk_dim_factor": 1.0,
            "chunk_size": 16,
            "ffn_round_up_to_multiple_of": 32,
        },
        ("igate",),
        note="a state, no attention",
        alike=False,
    ),
    "Helium": Family("helium", {"head_dim": 16}, note="interleaved rotary positions"),
    "Arcee": Family(
        "arcee", {"head_dim": 16, "bos_token_id": 1, "eos_token_id": 2}, note="squared ReLU"
    ),
    "BitNet": Family(
        "bitnet",
        {"bos_token_id": 1, "eos_token_id": 2},
        ("attn_sub_norm",),
        note="norms inside the layers",
    ),
    "DiffLlama": Family(
        "diffllama",
        {"num_key_value_heads": 2},
        ("lambda_q1",),
        note="the difference of two attentions",
    ),
    "Doge": Family(
        "doge",
        {"keep_window_size": 6},
        ("self_attn.A",),
        {"keep_window_size": 512},
        "masks that depend on the values",
    ),
    "dots.llm1": Family("dots1", ROUTED, ("experts",), note="experts in groups"),
    "JetMoE": Family(
        "jetmoe",
        {
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_key_value_heads": 2,
            "num_attention_heads": 4,
            "kv_channels": 16,
            "max_position_embeddings": 512,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
        },
        ("mlp.router", "self_attention.experts"),
        note="experts in the attention too",
        alike=False,
    ),
    "nanochat": Family(
        "nanochat",
        {"final_logit_softcapping": 5.0},
        (),
        {"final_logit_softcapping": 50.0},
        "soft cap on logits",
    ),
    "ModernBERT decoder": Family(
        "modernbert-decoder",
        {
            "local_attention": 12,
            "eos_token_id": 2,
            "bos_token_id": 1,
            "pad_token_id": 2,
            "cls_token_id": 1,
            "sep_token_id": 2,
        },
        note="window in some layers",
    ),
    "T5": Family(
        "t5",
        {**T5, "feed_forward_proj": "relu"},
        ("relative_attention_bias",),
        note="encoder-decoder, relative positions",
        alike=False,
    ),
    "FLAN-T5": Family(
        "t5",
        {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        ("relative_attention_bias", "wi_0"),
        note="encoder-decoder, gated",
        alike=False,
    ),
    "mT5": Family(
        "mt5",
        {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        ("relative_attention_bias",),
        note="encoder-decoder",
        alike=False,
    ),
    "UMT5": Family(
        "umt5",
        T5,
        ("relative_attention_bias",),
        note="encoder-decoder, relative positions in each layer",
        alike=False,
    ),
    "LongT5": Family(
        "longt5",
        {**T5, "local_radius": 3, "encoder_attention_type": "local"},
        ("relative_attention_bias",),
        note="encoder-decoder, local attention",
        alike=False,
    ),
    "T5Gemma": Family(
        "t5gemma",
        {"encoder": GEMMA, "decoder": GEMMA},
        ("cross_attn",),
        note="encoder-decoder, soft caps, window in some layers",
        alike=False,
    ),
    "BART": Family(
        "bart",
        BART,
        ("embed_positions", "final_logits_bias"),
        note="encoder-decoder, learned positions",
        alike=False,
    ),
    "mBART": Family(
        "mbart", BART, ("embed_positions",), note="encoder-decoder, learned positions", alike=False
    ),
    "Pegasus": Family("pegasus", BART, note="encoder-decoder, sinusoidal positions", alike=False),
    "BlenderBot": Family(
        "blenderbot", BART, ("embed_positions",), note="encoder-decoder", alike=False
    ),
    "M2M-100": Family("m2m_100", BART, note="encoder-decoder", alike=False),
    "Marian": Family("marian", BART, note="encoder-decoder", alike=False),
    "LED": Family(
        "led",
        {
            **BART,
            "attention_window": 4,
            "max_encoder_position_embeddings": 128,
            "max_decoder_position_embeddings": 128,
        },
        note="encoder-decoder, local attention",
        alike=False,
    ),
}


def config_of(name: str, **changes: Any) -> Any:
    """Return a family's config; its special tokens are those of the tests' tokenizer."""
    family = FAMILIES[name]
    settings = {**(ALIKE if family.alike else {}), "bos_token_id": 1, "eos_token_id": 2}
    settings |= {"pad_token_id": 2, **family.settings, **changes}
    return AutoConfig.for_model(family.kind, vocab_size=VOCABULARY, **settings)


def auto_class(config: Any) -> Any:
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def build(name: str) -> Any:
    """Return a family's model with loud weights."""
    config = config_of(name)
    torch.manual_seed(0)
    return make_loud(auto_class(config).from_config(config, dtype=torch.float32)).eval()


@torch.no_grad()
def make_loud(model: torch.nn.Module) -> torch.nn.Module:
    """Add noise to every weight, and to the biases that are no parameters."""
    generator = torch.Generator().manual_seed(1)
    biases = [b for name, b in model.named_buffers() if "bias" in name or "scalar" in name]
    for tensor in [*(p for p in model.parameters() if p.requires_grad), *biases]:
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator)
            tensor += noise * (MATRIX if tensor.ndim == 2 else VECTOR)
    return model


def save(name: str, folder: Path, *, tokenizer: Path) -> Path:
    """Save a family's model, with the tokenizer that lies in another folder."""
    build(name).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tokenizer / file, folder / file)
    return folder
