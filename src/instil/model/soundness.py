"""Whether a model's folder is whole and of one piece: config, weights and tokenizer."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from instil.encode.chat_format import ChatFormat
from instil.errors import ModelError, Problem

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_model.safetensors"
_LONGEST_TOLD = 300
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len")
_LAYER_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "encoder_layers", "decoder_layers")
_AGAIN = "get the model's folder again"
_OF_ONE_MODEL = "config.json and weights must be of one model: get the folder again"
_NUMBER = re.compile(r"(?<=\.)[0-9]+(?=\.)")
# Values of a tensor that are tried: all of a small one, of a large one a few rows in even steps.
_WHOLE = 1 << 16
_ROWS = 8
_TENSORS = 1000
_FLOATS = ("BF16", "F16", "F32", "F64")


def check_folder(path: Path) -> Path:
    """Make sure that a folder holds a model that can be loaded safely.

    Raises:
        ModelError: no config.json or one that is no mapping, an adapter instead of a model, no
            safetensors or damaged ones, an index that names files which are not in the folder.
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
    if (path / "adapter_config.json").exists():
        # transformers would load the adapter as well, and the base that it names, from anywhere.
        problems.append(
            Problem(
                f"{path} holds an adapter (adapter_config.json), not a model alone",
                where="model",
                fix="name a model that the adapter is merged into (instil export RUN OUT --merge), "
                "or take adapter_config.json out where the weights are whole without it",
            )
        )
    problems += [
        *_config_problems(path / "config.json"),
        *_config_problems(path / "generation_config.json"),
        *_whole_files(sorted(path.glob("*.safetensors"))),
        *_index_problems(path),
    ]
    if problems:
        raise ModelError(*problems)
    return path


def _config_problems(path: Path) -> Iterator[Problem]:
    try:
        config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (ValueError, RecursionError) as error:
        yield Problem("this is not JSON", where=str(path), found=brief(error), fix=_AGAIN)
        return
    if not isinstance(config, dict):
        yield Problem("this is no mapping of JSON", where=str(path), fix=_AGAIN)
        return
    method = config.get("quantization_config")
    if method is not None and not isinstance(method, dict):
        what = "quantization_config is no mapping"
        yield Problem(what, where=str(path), found=str(method), fix=_AGAIN)


def _whole_files(files: Sequence[Path]) -> Iterator[Problem]:
    """Open each file of weights, which reads its list of tensors and compares it with its size."""
    for file in files:
        try:
            with safe_open(str(file), framework="pt"):
                pass
        except SafetensorError as error:
            size = f"{file.stat().st_size:,} bytes"
            with file.open("rb") as start:
                pointer = start.read(40).startswith(b"version https://git-lfs")
            yield Problem(
                f"this is no whole safetensors file: {brief(error)}",
                where=str(file),
                found=f"{size} (a Git LFS pointer)" if pointer else size,
                fix="get the file again (git lfs pull, in a clone)",
            )


def _index_problems(path: Path) -> Iterator[Problem]:
    """Weights in several files have an index: tensor -> name of a file beside it."""
    index = path / INDEX
    if (path / WEIGHTS).exists() or not index.exists():
        return
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(places.values()))
    except (OSError, ValueError, RecursionError) as error:
        yield Problem("this is not JSON", where=str(index), found=brief(error), fix=_AGAIN)
        return
    except (KeyError, TypeError, AttributeError):
        yield Problem("this is no index of weights (weight_map)", where=str(index), fix=_AGAIN)
        return
    if not names:
        yield Problem("this index names no weights", where=str(index), fix=_AGAIN)
    for name in map(str, names):
        if "/" in name or "\\" in name or not name.endswith(".safetensors"):
            what = "the index names something else than a safetensors file of its own folder"
            yield Problem(what, where=str(index), found=name, fix=_AGAIN)
        elif not (path / name).is_file():
            what = f"the index names {name}, which is not there"
            yield Problem(what, where=str(index), fix="get that file as well")


def check_adapter(path: Path) -> None:
    """Make sure that a folder holds an adapter in safetensors; else PEFT would ask the hub for one.

    Raises:
        ModelError: No adapter_config.json, no adapter_model.safetensors, or one that is damaged.
    """
    weights = path / ADAPTER
    if not (path / "adapter_config.json").is_file():
        raise ModelError(f"{path} holds no adapter (adapter_config.json)")
    if not weights.is_file():
        pickle = path / "adapter_model.bin"
        raise ModelError(
            f"{path} has no {ADAPTER}",
            where=str(path),
            found=f"{pickle.name}, a pickle, which could run code" if pickle.exists() else "",
            fix="save the adapter with save_pretrained, which writes safetensors, or copy the "
            "folder again",
        )
    if problems := [*_whole_files([weights])]:
        raise ModelError(*problems)
    require_finite([weights])


def weight_files(path: Path) -> list[Path]:
    """Return the files that a checked folder's weights are read from: one, or those of its index.

    Where neither is there, all: config.json may name one of them (transformers_weights).
    """
    if (path / WEIGHTS).exists():
        return [path / WEIGHTS]
    if not (path / INDEX).exists():
        return sorted(path.glob("*.safetensors"))
    places = json.loads((path / INDEX).read_text(encoding="utf-8"))["weight_map"]
    return [path / name for name in sorted(set(places.values()))]


def require_layers(path: Path) -> None:
    """Refuse a config that asks for more layers than there are tensors, before they are built.

    Raises:
        ModelError: It does.
    """
    tensors = 0
    for file in weight_files(path):
        with safe_open(str(file), framework="pt") as weights:
            tensors += len(weights.keys())
    config = read_config(path)
    nested = [value for value in config.values() if isinstance(value, dict)]
    for values in (config, *nested):
        for key in _LAYER_KEYS:
            wanted = values.get(key)
            if isinstance(wanted, int) and wanted > tensors:
                raise ModelError(
                    f"config.json asks for more layers than the {tensors} tensors in {path}",
                    where="model",
                    found=f"{key}: {wanted}",
                    fix=_OF_ONE_MODEL,
                )


def require_finite(files: Sequence[Path]) -> None:
    """Refuse weights that are not numbers (NaN), or infinite; of large tensors a few rows are read.

    Raises:
        ModelError: There are some; the first tensor of each file is named.
    """
    problems = []
    for file in files:
        with safe_open(str(file), framework="pt") as weights:
            names = sorted(weights.keys())
            step = max(1, len(names) // _TENSORS)
            broken = next((n for n in names[::step] if not _finite(weights.get_slice(n))), "")
        if broken:
            problems.append(
                Problem(
                    "there are weights that are no finite numbers (NaN or infinite)",
                    where=str(file),
                    found=broken,
                    fix="get the file again, or save the model anew from before it went wrong",
                )
            )
    if problems:
        raise ModelError(*problems)


def _finite(tensor: Any) -> bool:
    """Whether the values of a tensor in a file, or those of a few of its rows, are finite."""
    if tensor.get_dtype() not in _FLOATS:
        return True
    shape = tensor.get_shape()
    if not shape or prod(shape) <= _WHOLE:
        parts = [tensor[...]]
    else:
        rows = range(0, shape[0], max(1, shape[0] // _ROWS))
        parts = [tensor[row : row + 1].reshape(-1)[:_WHOLE] for row in rows]
    return all(bool(part.isfinite().all()) for part in parts)


def brief(error: Exception) -> str:
    """Return the first lines of a library's message, which may go on with advice for its caller."""
    text = " ".join(str(error).strip().partition("\n\n")[0].split()) or repr(error)
    return text if len(text) <= _LONGEST_TOLD else text[: _LONGEST_TOLD - 3] + "..."


def require_all_weights(path: Path, report: Mapping[str, Any]) -> None:
    """Refuse a model of which transformers has made up weights, at random."""
    problems = []
    missing = sorted(report["missing_keys"])
    if missing:
        what = f"{path} lacks weights that its config.json asks for"
        problems.append(Problem(what, where="model", found=some(missing), fix=_OF_ONE_MODEL))
    other = [str(item[0]) for item in sorted(report["mismatched_keys"])]
    if other:
        what = f"weights in {path} have another shape than its config.json says"
        problems.append(Problem(what, where="model", found=some(other), fix=_OF_ONE_MODEL))
    if problems:
        raise ModelError(*problems)


def require_every_layer(path: Path, model: Any, surplus: Iterable[str]) -> None:
    """Refuse weights of layers that config.json leaves out, counting those that predict ahead.

    Other weights that are not used belong to a part that a model of text has none of, such as an
    encoder of images.

    Args:
        path: The model's folder.
        model: As transformers built it.
        surplus: Names of the weights that it has no use for: `model.layers.7.mlp.up_proj.weight`.

    Raises:
        ModelError: There are some.
    """
    modules = dict(model.named_modules())
    ahead = read_config(path).get("num_nextn_predict_layers")

    def beyond(name: str) -> bool:
        for number in _NUMBER.finditer(name):
            layers: Any = modules.get(name[: number.start() - 1])
            if type(layers).__name__ == "ModuleList":
                built = len(layers)
                return int(number[0]) >= built + (ahead if isinstance(ahead, int) else 0)
        return False

    if layers := [name for name in sorted(surplus) if beyond(name)]:
        what = f"{path} has weights of layers that its config.json leaves out"
        raise ModelError(what, where="model", found=some(layers), fix=_OF_ONE_MODEL)


def some(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
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
            f"the tokenizer in {path} is not this model's, which knows {rows} tokens",
            where="model",
            found=f"token {token!r} with the id {beyond[token]}",
            fix="put the model's own tokenizer into its folder",
        )


def setting_of(path: Path, value: object) -> str:
    """Return the first key of config.json that has a value, with it; empty where none has."""
    config = read_config(path)
    nested = [inner for inner in config.values() if isinstance(inner, dict)]
    keys = (key for values in (config, *nested) for key in values if values[key] == value)
    return next((f"{key}: {value}" for key in keys), "")


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
