"""What llama.cpp knows of a model's family: its settings, and how its weights lie in memory.

llama.cpp computes a family by a graph of its own. A model whose config asks for what this graph
lacks (another activation, a window, a scaling of rotary positions) is refused by name: it would
load, and say something else. Three things differ from transformers' weights:

    rotary positions   transformers pairs dimension i with i + d/2, llama.cpp's older families pair
                       2i with 2i + 1: rows of query and key are put in that order
    norms              Gemma multiplies by 1 + weight, llama.cpp by weight: 1 is added
    GPT-2              keeps its matrices as inputs x outputs: they are transposed

Source: the names and keys of the `gguf` package, and what llama.cpp reads of them.

Tests: `tests/ship/test_gguf_families.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from gguf import MODEL_ARCH, RopeScalingType
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

Weights = dict[str, torch.Tensor]
Settings = dict[str, Any]
"""What `GGUFWriter.add_...` is called with, by the rest of the method's name."""


@dataclass(frozen=True, slots=True)
class Family:
    """One family of models, as llama.cpp has it."""

    architecture: MODEL_ARCH
    """Its name there."""
    settings: Callable[[Any], Settings]
    """Of a config."""
    limits: Callable[[Any], Iterator[str]]
    """What of a config llama.cpp's graph does not know, in words."""
    weight: Callable[[str, torch.Tensor, Any], torch.Tensor] = lambda name, weight, config: weight
    """A weight as llama.cpp wants it: its name in transformers, the weight, the config."""
    pairs: bool = False
    """Whether rotary positions pair neighbours, so that query and key have another order."""
    extra: Callable[[Any], Weights] = lambda config: {}
    """Tensors that are made from the config, by their whole name."""


def head_size(config: Any) -> int:
    """Return the dimensions of one head."""
    own = getattr(config, "head_dim", None)
    return int(own or config.hidden_size // config.num_attention_heads)


def in_pairs(weight: torch.Tensor, *, heads: int) -> torch.Tensor:
    """Put each head's rows in the order that pairs neighbours.

    Args:
        weight: Outputs x inputs, or outputs.
        heads: Of the query, or of the key.
    """
    size = weight.shape[0] // heads
    parts = weight.reshape(heads, 2, size // 2, *weight.shape[1:])
    return parts.swapaxes(1, 2).reshape(weight.shape)


def of_query_or_key(name: str, config: Any) -> int:
    """Return the number of heads where a weight makes queries or keys, else 0."""
    if "self_attn.q_proj" in name:
        return int(config.num_attention_heads)
    if "self_attn.k_proj" in name:
        return int(config.num_key_value_heads)
    return 0


def _rope(config: Any) -> Mapping[str, Any]:
    """Return the settings of rotary positions; with several kinds of layers those of the full."""
    rope = config.rope_parameters
    return rope.get("full_attention", rope) if rope else {}


def _decoder(config: Any) -> Settings:
    rope = _rope(config)
    settings = {
        "vocab_size": config.vocab_size,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "head_count": config.num_attention_heads,
        "head_count_kv": config.num_key_value_heads,
        "key_length": head_size(config),
        "value_length": head_size(config),
        "layer_norm_rms_eps": config.rms_norm_eps,
        "rope_dimension_count": int(head_size(config) * rope.get("partial_rotary_factor", 1.0)),
        "rope_freq_base": rope["rope_theta"],
    }
    kind = rope.get("rope_type", "default")
    if kind == "linear":
        settings["rope_scaling_type"] = RopeScalingType.LINEAR
        settings["rope_scaling_factor"] = rope["factor"]
    if kind == "yarn":
        first = rope.get("original_max_position_embeddings") or config.max_position_embeddings
        settings["rope_scaling_type"] = RopeScalingType.YARN
        settings["rope_scaling_factor"] = rope["factor"]
        settings["rope_scaling_orig_ctx_len"] = first
    return settings


def _windowless(config: Any) -> Settings:
    """A family whose window llama.cpp does not know: exact for as long as the window is."""
    longest = config.max_position_embeddings
    window = getattr(config, "sliding_window", None) or longest
    return {**_decoder(config), "context_length": min(longest, window)}


def _rope_factors(config: Any) -> Weights:
    """Llama 3 divides some rotary frequencies: by how much, for each of them."""
    if _rope(config).get("rope_type") != "llama3":
        return {}
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, device=torch.device("cpu"))
    size = head_size(config)
    places = torch.arange(0, size, 2, dtype=torch.int64).float() / size
    return {"rope_freqs.weight": (1.0 / _rope(config)["rope_theta"] ** places) / scaled}


def _phi3_factors(config: Any) -> Weights:
    rope = _rope(config)
    return {
        f"rope_factors_{which}.weight": torch.tensor(rope[f"{which}_factor"], dtype=torch.float32)
        for which in ("long", "short")
        if f"{which}_factor" in rope
    }


def _limits(
    *, activation: str, scalings: tuple[str, ...] = ("default", "linear", "yarn")
) -> Callable[[Any], Iterator[str]]:
    """Hold a config against what most graphs know."""

    def limits(config: Any) -> Iterator[str]:
        name = getattr(config, "hidden_activation", None) or config.hidden_act
        if name not in (activation, _ALIKE.get(activation)):
            yield f"activation {name} (llama.cpp: {activation})"
        kind = _rope(config).get("rope_type", "default")
        if kind not in scalings:
            yield f"rotary positions scaled by {kind}"

    return limits


_ALIKE = {"silu": "swish", "gelu_pytorch_tanh": "gelu_new"}


def _qwen_limits(config: Any) -> Iterator[str]:
    yield from _limits(activation="silu")(config)
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        yield "layers with a window"


def _smollm3_limits(config: Any) -> Iterator[str]:
    yield from _limits(activation="silu")(config)
    without = [place for place, has in enumerate(config.no_rope_layers) if not has]
    if without != list(range(3, config.num_hidden_layers, 4)):
        yield "other layers without positions than every fourth"
    if "sliding_attention" in config.layer_types:
        yield "layers with a window"


def _gemma_limits(config: Any) -> Iterator[str]:
    yield from _limits(activation="gelu_pytorch_tanh", scalings=("default", "linear"))(config)
    if config.query_pre_attn_scalar != head_size(config):
        yield f"queries scaled by {config.query_pre_attn_scalar}, not by the size of a head"
    if getattr(config, "use_bidirectional_attention", None):
        yield "attention in both directions"


def _gemma2(config: Any) -> Settings:
    return {
        **_decoder(config),
        "attn_logit_softcapping": config.attn_logit_softcapping,
        "final_logit_softcapping": config.final_logit_softcapping,
        "sliding_window": config.sliding_window,
    }


def _gemma2_limits(config: Any) -> Iterator[str]:
    yield from _gemma_limits(config)
    yield from _pattern_limit(config, every=2)
    if not config.attn_logit_softcapping or not config.final_logit_softcapping:
        yield "no cap on attention or on logits"


def _gemma3(config: Any) -> Settings:
    local = config.rope_parameters.get("sliding_attention", {})
    return {
        **_decoder(config),
        "sliding_window": config.sliding_window,
        **({"rope_freq_base_swa": local["rope_theta"]} if local else {}),
    }


def _gemma3_limits(config: Any) -> Iterator[str]:
    yield from _gemma_limits(config)
    yield from _pattern_limit(config, every=6)
    if config.final_logit_softcapping or config.attn_logit_softcapping:
        yield "a cap on attention or on logits"


def _pattern_limit(config: Any, *, every: int) -> Iterator[str]:
    full = [place for place, kind in enumerate(config.layer_types) if kind == "full_attention"]
    if full != list(range(every - 1, config.num_hidden_layers, every)):
        yield f"other layers with full attention than each {every}th"


def _phi3(config: Any) -> Settings:
    settings = _decoder(config)
    if _rope(config).get("rope_type") == "longrope":
        settings["rope_scaling_orig_ctx_len"] = _rope(config)["original_max_position_embeddings"]
        settings["rope_scaling_attn_factors"] = ROPE_INIT_FUNCTIONS["longrope"](
            config, device=torch.device("cpu"), seq_len=1
        )[1]
    window = config.sliding_window
    return {**settings, "sliding_window": window} if window else settings


def _granite(config: Any) -> Settings:
    return {
        **_decoder(config),
        "attention_scale": config.attention_multiplier,
        "embedding_scale": config.embedding_multiplier,
        "residual_scale": config.residual_multiplier,
        "logit_scale": config.logits_scaling,
    }


def _gpt2(config: Any) -> Settings:
    return {
        "vocab_size": config.vocab_size,
        "context_length": config.n_positions,
        "embedding_length": config.n_embd,
        "block_count": config.n_layer,
        "feed_forward_length": config.n_inner or 4 * config.n_embd,
        "head_count": config.n_head,
        "layer_norm_eps": config.layer_norm_epsilon,
    }


def _gpt2_limits(config: Any) -> Iterator[str]:
    if config.activation_function not in ("gelu_new", "gelu_pytorch_tanh"):
        yield f"activation {config.activation_function} (llama.cpp: gelu_new)"
    if config.scale_attn_by_inverse_layer_idx or not config.scale_attn_weights:
        yield "attention scaled otherwise than by the size of a head"


def _add_one(name: str, weight: torch.Tensor, config: Any) -> torch.Tensor:
    return weight + 1 if name.endswith("norm.weight") else weight


def _transpose(name: str, weight: torch.Tensor, config: Any) -> torch.Tensor:
    return weight.T if weight.dim() == 2 and ".h." in name else weight


_SILU = _limits(activation="silu")
_LLAMA = Family(
    MODEL_ARCH.LLAMA,
    _windowless,
    _limits(activation="silu", scalings=("default", "linear", "yarn", "llama3")),
    pairs=True,
    extra=_rope_factors,
)
FAMILIES: Mapping[str, Family] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": Family(MODEL_ARCH.QWEN2, _decoder, _qwen_limits),
    "qwen3": Family(MODEL_ARCH.QWEN3, _decoder, _qwen_limits),
    "smollm3": Family(MODEL_ARCH.SMOLLM3, _decoder, _smollm3_limits, pairs=True),
    "gemma2": Family(MODEL_ARCH.GEMMA2, _gemma2, _gemma2_limits, _add_one),
    "gemma3_text": Family(MODEL_ARCH.GEMMA3, _gemma3, _gemma3_limits, _add_one),
    "phi3": Family(
        MODEL_ARCH.PHI3,
        _phi3,
        _limits(activation="silu", scalings=("default", "longrope")),
        extra=_phi3_factors,
    ),
    "granite": Family(MODEL_ARCH.GRANITE, _granite, _SILU, pairs=True),
    "olmo2": Family(MODEL_ARCH.OLMO2, _decoder, _SILU),
    "gpt2": Family(MODEL_ARCH.GPT2, _gpt2, _gpt2_limits, _transpose),
}
"""transformers' `model_type` -> what is known of it."""
