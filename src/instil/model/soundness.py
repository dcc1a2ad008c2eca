"""Whether a model's folder is whole and of one piece: config, weights and tokenizer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from instil.encode.chat_format import ChatFormat
from instil.errors import ModelError, Problem

_LONGEST_TOLD = 300
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len")


def check_folder(path: Path) -> Path:
    """Make sure that a folder holds a model that can be loaded safely.

    Raises:
        ModelError: no config.json or one that is not JSON, no safetensors or damaged ones.
    """
    problems = []
    if not (path / "config.json").is_file():
        problems.append(
            Problem(f"{path} has no config.json", where="model", allowed="a transformers folder")
        )
    if not any(path.glob("*.safetensors")):
        other = sorted(p.name for p in path.glob("*.bin")) if path.is_dir() else []
        problems.append(
            Problem(
                f"{path} has no weights (*.safetensors)",
                where="model",
                found=", ".join(other),
                fix="save the weights with save_pretrained, which writes safetensors",
            )
        )
    template = path / "chat_template.jinja"
    if os.path.lexists(template) and not template.is_file():
        problems.append(Problem("this is not a file", where=str(template)))
    problems += [*_config_problems(path / "config.json"), *_weights_problems(path)]
    if problems:
        raise ModelError(*problems)
    return path


def _config_problems(path: Path) -> Iterator[Problem]:
    try:
        if path.is_file():
            json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        fix = "get the model's folder again"
        yield Problem("this is not JSON", where=str(path), found=brief(error), fix=fix)


def _weights_problems(path: Path) -> Iterator[Problem]:
    """Open each file of weights, which reads its list of tensors and compares it with its size."""
    for file in sorted(path.glob("*.safetensors")):
        try:
            with safe_open(str(file), framework="pt"):
                pass
        except SafetensorError as error:
            size = f"{file.stat().st_size:,} bytes"
            yield Problem(
                f"this is no whole safetensors file: {brief(error)}",
                where=str(file),
                found=f"{size} (a Git LFS pointer)" if _is_pointer(file) else size,
                fix="get the file again (git lfs pull, in a clone)",
            )


def _is_pointer(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(40).startswith(b"version https://git-lfs")


def brief(error: Exception) -> str:
    """Return the first lines of a library's message, which may go on with advice for its caller."""
    text = " ".join(str(error).strip().partition("\n\n")[0].split()) or repr(error)
    return text if len(text) <= _LONGEST_TOLD else text[: _LONGEST_TOLD - 3] + "..."


def require_all_weights(path: Path, report: Mapping[str, Any]) -> None:
    """Refuse a model of which transformers has made up weights, at random."""
    found: list[Problem] = []
    missing = sorted(report["missing_keys"])
    if missing:
        what = f"{path} lacks weights that its config.json asks for"
        found.append(Problem(what, where="model", found=_some(missing)))
    other = [str(item[0]) for item in sorted(report["mismatched_keys"])]
    if other:
        what = f"weights in {path} have another shape than its config.json says"
        found.append(Problem(what, where="model", found=_some(other)))
    if found:
        fix = "config.json and weights must be of one model: get the folder again"
        raise ModelError(*(replace(problem, fix=fix) for problem in found))


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def require_own_tokenizer(path: Path, chat: ChatFormat, *, rows: int) -> None:
    """Refuse a tokenizer with tokens that the model has no embedding for.

    Special ones are let pass: some models ship one for images, which no text contains.
    """
    special = {t for t, added in chat.tokenizer.added_tokens_decoder.items() if added.special}
    beyond = {t: i for t, i in chat.tokenizer.get_vocab().items() if i >= rows and i not in special}
    if beyond:
        token = max(beyond, key=lambda name: beyond[name])
        raise ModelError(
            Problem(
                f"the tokenizer in {path} is not this model's, which knows {rows} tokens",
                where="model",
                found=f"token {token!r} with the id {beyond[token]}",
                fix="put the model's own tokenizer into its folder",
            )
        )


def read_config(path: Path) -> dict[str, Any]:
    """Return the model's config.json; an empty mapping where it holds none."""
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    return config if isinstance(config, dict) else {}


def context_length(path: Path) -> tuple[int, str]:
    """Return the most tokens that the model takes, and its config's name for that; 0: no limit."""
    config = read_config(path)
    for values in (config, config.get("text_config") or {}):
        for key in _CONTEXT_KEYS:
            if isinstance(values.get(key), int):
                return values[key], key
    return 0, ""
