"""What a model can be exported as."""

from __future__ import annotations

from enum import StrEnum

USE_MERGED = "export it as `merged`, for transformers and what reads its format"
"""What to do where a model cannot be written as a GGUF file."""


class Format(StrEnum):
    """What a model is exported as."""

    HF = "hf"
    """As the run saved it: an adapter in PEFT's format, or a transformers model."""
    MERGED = "merged"
    """One transformers model, the adapter merged into the weights."""
    GGUF = "gguf"
    """One file for llama.cpp, the adapter merged into the weights."""
    GGUF_LORA = "gguf-lora"
    """The adapter alone, for llama.cpp's `--lora`."""
    OLLAMA = "ollama"
    """A GGUF file with a Modelfile."""


class Quantization(StrEnum):
    """How a GGUF file keeps matrices: those kinds that the `gguf` package writes by itself."""

    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    Q8_0 = "q8_0"
    Q5_1 = "q5_1"
    Q5_0 = "q5_0"
    Q4_1 = "q4_1"
    Q4_0 = "q4_0"
