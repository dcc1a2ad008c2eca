"""GGUF files to folders of safetensors, with the tokenizer that the model was trained with.

A GGUF file has no tokenizer.json: transformers builds one from the vocabulary. For two kinds it
leaves out a rule that the file only names, so that some texts get other tokens than the model saw
in its training. `TOKENIZER_RULES` puts these rules back::

    smollm   digits stand alone before anything else: "a  12" is a, two blanks, 1, 2
    gemma    of a run of one character the longest token wins: 50 blanks are 31 + 19, not 16 + 34;
             <unused0> and its kin are no special tokens
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def convert(gguf: Path, out: Path, *, rule: str = "") -> None:
    """Write a GGUF file's weights, in bfloat16, and its tokenizer as transformers' own files.

    Args:
        gguf: Weights and vocabulary; quantized weights are unpacked.
        out: The folder to write.
        rule: A key of `TOKENIZER_RULES`; empty: the tokenizer as transformers reads it.
    """
    where, name = str(gguf.parent), gguf.name
    with contextlib.redirect_stderr(io.StringIO()):  # a bar that no switch turns off
        model = AutoModelForCausalLM.from_pretrained(
            where,
            gguf_file=name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
        )
        tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=name)
    # What is left of the GGUF quantizer would refuse to save plain weights.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    if rule:
        file = out / "tokenizer.json"
        state = json.loads(file.read_text(encoding="utf-8"))
        for apply in TOKENIZER_RULES[rule]:
            apply(state)
        file.write_text(json.dumps(state, ensure_ascii=False), encoding="utf-8")


def digits_alone(state: dict[str, Any]) -> None:
    """Split off every digit before the byte-level rule splits words, as SmolLM's tokenizer does.

    Source: llama.cpp, `LLAMA_VOCAB_PRE_TYPE_SMOLLM`.
    """
    digits = {"type": "Digits", "individual_digits": True}
    words = state["pre_tokenizer"]
    state["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, words]}


def longest_runs_first(state: dict[str, Any]) -> None:
    """Merge runs of one character (blanks, tabs, newlines) longest first, as SentencePiece does.

    All of Gemma's run tokens have one score, and SentencePiece takes the longest of equal ones.
    """
    merges: list[list[str]] = state["model"]["merges"]
    runs = [m for m in merges if set("".join(m)) in ({"▁"}, {"\t"}, {"\n"})]
    runs.sort(key=lambda merge: (len(merge[0]), len(merge[1])), reverse=True)
    ranked = set(map(tuple, runs))
    state["model"]["merges"] = [*runs, *(m for m in merges if tuple(m) not in ranked)]


def unused_not_special(state: dict[str, Any]) -> None:
    """Make reserved tokens plain ones, as Gemma's own tokenizer.json has them.

    There are over six thousand: to search a text for each, as for a mark that could forge a turn,
    takes longer than to tokenize it.
    """
    for token in state["added_tokens"]:
        if token["content"].startswith("<unused"):
            token["special"] = False


TOKENIZER_RULES: dict[str, tuple[Callable[[dict[str, Any]], None], ...]] = {
    "smollm": (digits_alone,),
    "gemma": (longest_runs_first, unused_not_special),
}
