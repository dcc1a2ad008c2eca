"""What is trained: an adapter around the frozen base, or all of its weights.

The adapters are PEFT's own. Untrained each is the identity, and its weights are float32 whatever
the base is in::

    lora    W x + s B A x    B is zero at first; s = alpha / r, or alpha / sqrt(r) with use_rslora
    oft     W R x            R rotates blocks of inputs: R = (I + Q)^-1 (I - Q), Q = -Q^T, Q zero
    shira   (W + S) x        S is zero but at r (in + out) places, drawn from the seed

(Hu et al. 2021, arXiv:2106.09685; Kalajdzievski 2023, arXiv:2312.03732; Qiu et al. 2023,
arXiv:2306.07280; Bhardwaj et al. 2024, arXiv:2406.13175.)
"""

from __future__ import annotations

import contextlib
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import (
    LoraConfig,
    OFTConfig,
    PeftConfig,
    PeftModel,
    ShiraConfig,
    TaskType,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from peft.tuners.oft.layer import OFTLayer, OFTRotationModule
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.tuners.tuners_utils import _check_lora_target_modules_mamba as refuse_incompatible
from torch.distributed.tensor import DTensor
from torch.nn.modules.conv import _ConvNd as AnyConvolution
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers.pytorch_utils import Conv1D

from instil.config.methods import Adapter, Lora, Oft, Shira
from instil.errors import ModelError, Problem
from instil.model import nf4
from instil.model.engine.fused import fuse_lora
from instil.model.engine.packed import base_of
from instil.model.engine.sparse import lean_shira
from instil.model.load import (
    LoadedModel,
    ModelFolder,
    library_errors,
    load_model,
    parameter_count,
    quiet,
    unreadable,
)
from instil.model.nf4 import is_packed, packing, whole
from instil.model.soundness import brief, check_adapter, check_folder
from instil.results.training import LeftOut

ALL_LINEAR = "all-linear"
"""PEFT's word for every linear layer but the output embeddings; of some families PEFT has a mapping
that adds expert layers, or refuses layers."""
_KINDS: Mapping[type[Adapter], type[PeftConfig]] = {
    Lora: LoraConfig,
    Oft: OFTConfig,
    Shira: ShiraConfig,
}
"""A recipe's section -> PEFT's settings, which have the same fields."""
_LINEAR = (torch.nn.Linear, Conv1D)
_PARTS = {
    "attention": re.compile(r"attn|attention"),
    "mlp": re.compile(r"mlp|feed_?forward|ffn|layerff|dense_?relu"),
}
"""Part of a block -> what stands in the name or the class of its module."""
_PASSED_BY = frozenset({"dt_proj", "classifier"})
"""Layers of Mamba, Falcon-Mamba and Jamba, and LongCat's router, whose weight is multiplied past
its module: an adapter on it is never seen, until it is merged."""


def add_adapter(loaded: LoadedModel, settings: Adapter, *, seed: int) -> LoadedModel:
    """Wrap the model in a fresh adapter, initialised from `seed`; the base is frozen.

    `all-linear` leaves out what PEFT refuses in the model's family; `left_out` says what.

    Args:
        loaded: The base model.
        settings: Of the kind of adapter that is wanted.
        seed: Draws LoRA's first weights, and the places that SHiRA changes.

    Raises:
        ModelError: `target_modules` names no layer of this model, one that PEFT refuses, or one
            that the model never reads.
    """
    config = _config(settings)
    if isinstance(config, ShiraConfig):
        config.random_seed = seed
    torch.manual_seed(seed)
    model = _wrapped(loaded.model, config)
    # Not where it lies: the path of a user's folder is nobody else's business.
    base = loaded.folder.hub_id or loaded.folder.name
    model.peft_config["default"].base_model_name_or_path = base
    return _with_adapter(loaded, model)


def planned_adapter(folder: ModelFolder, settings: Adapter) -> PeftModel:
    """Wrap the folder's model as `add_adapter` would, without any weights.

    Raises:
        ModelError: As `add_adapter`, or the folder's config is of no model.
    """
    config = _config(settings)
    if isinstance(config, ShiraConfig):
        config.mask_fn = None  # places are drawn among weights, and here are none
    with torch.device("meta"):
        return _wrapped(skeleton(folder), config)


def _config(settings: Adapter) -> Any:
    given = settings.model_dump()
    targets = given.pop("target_modules")
    wanted = targets if isinstance(targets, str) else list(targets)
    config: Any = _KINDS[type(settings)](**given, target_modules=wanted)
    if isinstance(config, OFTConfig):
        config.use_cayley_neumann = False  # a series of five terms, which is only nearly a rotation
    return config


def _wrapped(model: Any, config: Any) -> PeftModel:
    # A recipe's section is called as PEFT calls the kind.
    section = config.peft_type.value.lower()
    encoder_decoder = model.config.is_encoder_decoder
    config.task_type = TaskType.SEQ_2_SEQ_LM if encoder_decoder else TaskType.CAUSAL_LM
    if config.target_modules == ALL_LINEAR:
        _leave_out(model, config)
    elif isinstance(config.target_modules, str):
        config.target_modules = _layers_of(model, config)
    elif passed_by := _PASSED_BY.intersection(config.target_modules):
        why = "its weight is multiplied past the layer"
        raise ModelError(*(_does_nothing(name, why, section) for name in sorted(passed_by)))
    # T5 and BART have a table that only lends its weight: `shared`.
    unread = ""
    if encoder_decoder:
        table = model.get_input_embeddings()
        parts = (model.get_encoder(), model.get_decoder())
        if not any(module is table for part in parts for module in part.modules()):
            unread = next(name for name, module in model.named_modules() if module is table)
    try:
        with _hushed():
            wrapped = get_peft_model(model, config)
    except (ValueError, TypeError) as error:
        head = model.get_output_embeddings()
        linear = [m for m in model.modules() if isinstance(m, _LINEAR) and m is not head]
        kinds = sorted({type(m).__name__ for m in linear})
        if "lora_dropout" in str(error):
            problem = Problem(
                "the adapters of this model's expert layers cannot drop out inputs",
                where="lora.lora_dropout",
                found=str(config.lora_dropout),
                fix="lora.lora_dropout: 0, or name other layers in lora.target_modules",
            )
        elif "more shira params" in str(error):
            most = min(filter(None, map(_most_changes, linear)), default=0)
            problem = Problem(
                "a layer has fewer weights than are to be trained of it",
                where="shira.r",
                found=str(config.r),
                allowed=f"at most {most}, to have them on all layers",
                fix="a lower shira.r, or name larger layers in shira.target_modules",
            )
        elif section != "lora" and kinds and not any(_has_place(m, config) for m in linear):
            problem = Problem(
                "this method has no adapter for this model's kind of linear layer",
                where="method",
                found=f"{section}, and layers of {', '.join(kinds)}",
                fix="method: lora",
            )
        else:
            what = f"the adapter does not fit: {error}"
            problem = Problem(what, where=f"{section}.target_modules")
        raise ModelError(problem) from error
    if unread and isinstance(model.get_submodule(unread), BaseTunerLayer):
        why = "encoder and decoder look tokens up in embeddings of their own (embed_tokens)"
        raise ModelError(_does_nothing(unread, why, section))
    if isinstance(config, OFTConfig):
        _require_whole_blocks(wrapped, config.oft_block_size)
    return wrapped


def _has_place(layer: torch.nn.Module, config: PeftConfig) -> bool:
    """Whether a linear layer is of the one kind that OFT and SHiRA know, and not too small."""
    if isinstance(config, OFTConfig) and isinstance(layer, torch.nn.Linear):
        return bool(layer.in_features >= config.oft_block_size)
    # What SHiRA computes with is the weight, not the layer: Falcon's adds its bias apart.
    return type(layer) is torch.nn.Linear and _most_changes(layer) > 0


def _most_changes(layer: torch.nn.Module) -> int:
    """Return the highest `shira.r` that a linear layer has weights for; 0: too few for any."""
    assert isinstance(layer.weight, torch.Tensor)
    return layer.weight.numel() // sum(layer.weight.shape)


def _require_whole_blocks(model: Any, size: int) -> None:
    """Refuse blocks that a layer's inputs do not divide into: PEFT would take others unasked.

    Raises:
        ModelError: There is such a layer.
    """
    layers = {n: m for n, m in model.get_base_model().named_modules() if isinstance(m, OFTLayer)}
    widths = {layer.in_features: name for name, layer in layers.items()}
    if odd := {width: name for width, name in widths.items() if width % size}:
        common = math.gcd(*widths)
        fits = [n for n in range(2, min(common, 1024) + 1) if common % n == 0]
        raise ModelError(
            "the layers' inputs do not divide into blocks of this size",
            where="oft.oft_block_size",
            found=f"{size}, but {', '.join(f'{n} reads {width}' for width, n in odd.items())}",
            allowed=", ".join(map(str, fits)) or "nothing fits all of the layers",
            fix=f"oft.oft_block_size: {min(fits, key=lambda n: abs(n - size))}"
            if fits
            else "name other layers in oft.target_modules",
        )


def _does_nothing(layer: str, why: str, section: str) -> Problem:
    return Problem(
        f"an adapter on {layer!r} would do nothing: {why}",
        where=f"{section}.target_modules",
        found=layer,
        fix=f"leave out {layer}",
    )


def _with_adapter(loaded: LoadedModel, model: PeftModel) -> LoadedModel:
    fuse_lora(model)
    lean_shira(model)
    for module in model.modules():
        if isinstance(module, OFTRotationModule):
            module.forward = _row_by_row(module.forward)
    build = loaded.build
    if adapts_head(model):
        build = replace(build, own_head=False)
    return replace(loaded, model=model, build=build)


def _row_by_row(forward: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return a rotation that is computed in float32 in training too, as it is when merged.

    And of rows: PEFT takes what has four dimensions for images, which DeepSeek's latents are not.
    """

    def run(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return forward(x.reshape(-1, x.shape[-1])).view(x.shape)

    return run


def adapts_head(model: Any) -> bool:
    """Whether the output embeddings carry an adapter: then their weight alone is not the head."""
    return isinstance(base_of(model).get_output_embeddings(), BaseTunerLayer)


def _leave_out(model: Any, config: Any) -> None:
    """Let `all-linear` leave out what `_refused` says."""
    if isinstance(config, ShiraConfig):  # which knows no `exclude_modules`
        config.target_modules = _taken(model, config)
    else:
        config.exclude_modules = _refused(model, config) or None


def _taken(model: Any, config: PeftConfig) -> list[str]:
    """Name the linear layers that PEFT has such an adapter for."""
    refused = {*_refused(model, config)}
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, _LINEAR) and not refused & {name, name.rpartition(".")[2]}
    ]


def _layers_of(model: Any, config: Any) -> list[str]:
    """Name the linear layers of the blocks' MLPs, or of their attention, by what holds them.

    Of the modules that a layer lies in the innermost one counts whose name or class says what it
    is: `self_attn`, `BloomAttention`, `feed_forward`, `T5DenseReluDense`. Where MLPs have no module
    of their own (OPT, BART) their layers are called `fc1` and `fc2`.

    Raises:
        ModelError: No layer can be told, or some are experts' stacked weights, which are no layers.
    """
    part, section = config.target_modules, config.peft_type.value.lower()
    modules = dict(model.named_modules())

    def part_of(name: str) -> str:
        if name.rpartition(".")[2] in ("fc1", "fc2"):
            return "mlp"
        # Attention may have experts too (JetMoE); other than these they are the MLP.
        unless = "mlp" if "moe" in name or "expert" in name else ""
        while name:
            words = f"{name.rpartition('.')[2]} {type(modules[name]).__name__}".lower()
            for other, marks in _PARTS.items():
                if marks.search(words):
                    return other
            name = name.rpartition(".")[0]
        return unless

    held = {name: module for name, module in modules.items() if part_of(name) == part}
    for name, module in held.items():
        if isinstance(module, (*_LINEAR, torch.nn.Embedding, AnyConvolution)):
            continue
        for own, weight in module.named_parameters(recurse=False):
            # Cohere's norms have a line a head.
            if weight.dim() > 1 < min(weight.shape[:2]) and "Norm" not in type(module).__name__:
                raise ModelError(
                    f"the {part} of this model has weights that are in no linear layer (experts)",
                    where=f"{section}.target_modules",
                    found=f"{part}: {_short(f'{name}.{own}')}",
                    fix=f"{section}.target_modules: all-linear",
                )
    named = [name for name in _taken(model, config) if name in held]
    if not named:
        short = dict.fromkeys(name.rpartition(".")[2] for name in linear_layers(model))
        raise ModelError(
            f"no layer of this model can be told to be of its {part}",
            where=f"{section}.target_modules",
            found=part,
            allowed=f"all-linear, or some of {', '.join(short)}",
            fix=f"name the layers: {section}.target_modules: [...]",
        )
    return named


def _refused(model: Any, config: PeftConfig) -> list[str]:
    """Return the last names of the linear layers that PEFT has no such adapter for.

    And the whole names of those within the output embeddings: PEFT leaves these out by their own
    name alone, which T5Gemma's layer does not have.
    """
    linear = {n: m for n, m in model.named_modules() if isinstance(m, _LINEAR)}
    within = {id(module) for module in model.get_output_embeddings().modules()}
    head = {name for name, module in linear.items() if id(module) in within}
    named = {name.rpartition(".")[2]: linear[name] for name in linear.keys() - head}

    def refused(name: str) -> bool:
        if name in _PASSED_BY or not _maps_rows(named[name]):
            return True
        if not isinstance(config, LoraConfig) and not _has_place(named[name], config):
            return True
        try:  # asked as for LoRA: these weights are read past their layer, whatever is on it
            refuse_incompatible(LoraConfig(), model, name)
        except ValueError:
            return True
        return False

    return sorted({*head, *filter(refused, named)})


def _maps_rows(layer: torch.nn.Module) -> bool:
    """Whether a kind of linear layer gives one row for one row, to which an adapter's can be added.

    Falcon's own kind does; Llama 4's router gives several values, which PEFT's layer cannot add to.
    """
    if type(layer) in _LINEAR or is_packed(layer):
        return True
    assert isinstance(layer.weight, torch.Tensor)
    # Weights that are dealt out are not here: zeros of their shape do.
    weights = {
        name: torch.zeros(p.shape, dtype=p.dtype, device=p.device) if isinstance(p, DTensor) else p
        for name, p in layer.named_parameters()
    }
    rows = torch.zeros_like(weights["weight"][:1])
    with torch.no_grad():
        out = torch.func.functional_call(layer, weights, (rows,))
    return isinstance(out, torch.Tensor) and out.shape == (1, layer.weight.shape[0])


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Hush PEFT's advice as well: what it warns of (tied embeddings, Conv1D) is seen to here."""
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        # Ranks of expert layers are looked for among modules, and used all the same.
        warnings.filterwarnings("ignore", "The following (rank|alpha)_pattern keys", RuntimeWarning)
        yield


def left_out(model: PeftModel) -> tuple[LeftOut, ...]:
    """Say what carries no adapter though `all-linear` asks for every linear layer.

    The output embeddings, which `all-linear` does not mean, are not counted.
    """
    base = model.get_base_model()
    adapted = set()
    for layer in (module for module in base.modules() if isinstance(module, BaseTunerLayer)):
        parameter = getattr(layer, "parameter_name", None) or "weight"  # of expert layers: theirs
        adapted.add(id(getattr(layer.get_base_layer(), parameter, None)))
    head = base.get_output_embeddings()
    plain: dict[str, list[tuple[str, torch.Tensor]]] = {"stacked": [], "linear": []}
    for name, module in base.named_modules():
        for own, weight in module.named_parameters(recurse=False):
            if _is_added(model, name) or id(weight) in adapted or module is head:
                continue
            if isinstance(module, _LINEAR) and own == "weight":
                plain["linear"].append((name, weight))
            elif weight.dim() == 3 and not isinstance(module, AnyConvolution):
                plain["stacked"].append((f"{name}.{own}", weight))
    total = base_parameters(model)
    return tuple(
        LeftOut(
            tuple(dict.fromkeys(_short(name) for name, _ in weights)),
            sum(nf4.count(weight) for _, weight in weights) / total,
            linear=kind == "linear",
        )
        for kind, weights in plain.items()
        if weights
    )


def _short(name: str) -> str:
    """Return the last two names of a path.

    >>> _short("model.layers.0.mlp.experts.base_layer.gate_up_proj")
    'experts.gate_up_proj'
    """
    return ".".join(name.replace(".base_layer", "").split(".")[-2:])


def train_all(loaded: LoadedModel) -> LoadedModel:
    """Make every weight trainable (full fine-tuning)."""
    loaded.model.requires_grad_(True)
    return loaded


def skeleton(folder: ModelFolder) -> Any:
    """Build the folder's model without its weights: its layers can be named, and wrapped.

    Raises:
        ModelError: The folder's config is of no model.
    """
    with library_errors(partial(unreadable, folder)), torch.device("meta"):
        config = AutoConfig.from_pretrained(folder.path, trust_remote_code=False)
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        return kind.from_config(config, trust_remote_code=False)


def linear_layers(model: torch.nn.Module) -> tuple[str, ...]:
    """Name the layers that can have an adapter."""
    kinds = (*_LINEAR, torch.nn.Embedding)
    return tuple(name for name, module in model.named_modules() if isinstance(module, kinds))


def load_adapter(loaded: LoadedModel, path: Path) -> LoadedModel:
    """Put a saved adapter on a base model.

    Raises:
        ModelError: the folder holds no adapter in safetensors, or one for another model.
    """
    check_adapter(path)

    def unfit(error: Exception) -> ModelError:
        return ModelError(
            f"the adapter cannot be put on the model: {brief(error)}",
            where=str(path),
            fix="copy the folder again, or make the run anew",
        )

    with library_errors(unfit), _hushed():
        model = PeftModel.from_pretrained(loaded.model, str(path))
    model.eval()
    return _with_adapter(loaded, model)


def trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Name -> weight of everything that is trained, tied weights once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def trainable_share(model: torch.nn.Module) -> tuple[int, float]:
    """Number of trained weights, and their share of all."""
    count = sum(p.numel() for p in trainable(model).values())
    return count, count / parameter_count(model)


def base_parameters(model: torch.nn.Module) -> int:
    """Number of the base model's weights, without those of an adapter."""
    added = sum(p.numel() for name, p in model.named_parameters() if _is_added(model, name))
    return parameter_count(model) - added


def _is_added(model: Any, name: str) -> bool:
    """Whether a module or weight of this name is the adapter's: `lora_A`, `oft_R` ..."""
    return isinstance(model, PeftModel) and model.base_model.prefix in name


def snapshot(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copy the trained weights to the CPU; this process's parts of weights that are dealt out."""
    return {name: own(p).to("cpu", copy=True) for name, p in trainable(model).items()}


def restore(model: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Put copied weights back, bit for bit."""
    here = trainable(model)
    assert here.keys() == weights.keys(), "the copy is of another set of weights"
    with torch.no_grad():
        for name, p in here.items():
            own(p).copy_(weights[name])


def own(p: torch.Tensor) -> torch.Tensor:
    """Return what this process has of a tensor: all, or its part of one that is dealt out."""
    held = p.detach()
    return held.to_local() if isinstance(held, DTensor) else held


@contextlib.contextmanager
def adapter_off(model: Any) -> Iterator[None]:
    """Within the block a model with an adapter is its base model, exactly."""
    if isinstance(model, PeftModel):
        with model.disable_adapter():
            yield
    else:
        yield


def load_shipped(
    path: Path, *, base: ModelFolder, device: str, dtype: str, quantize: str | None = None
) -> LoadedModel:
    """Load what a run exported: an adapter on its base model, or full weights.

    Args:
        path: The run's `model/` folder.
        base: The base model's folder, for an adapter.
        device: auto, cpu or cuda.
        dtype: auto, bfloat16 or float32.
        quantize: nf4 for an adapter on a 4-bit base; None: on whole weights.

    Raises:
        ModelError: The folder holds neither.
    """
    if (path / "adapter_config.json").is_file():
        return load_adapter(load_model(base, device=device, dtype=dtype, quantize=quantize), path)
    # The template that was exported is the one chosen; no other is beside it.
    chat = replace(base.chat, template="")
    folder = replace(base, path=check_folder(path), chat=chat)
    return load_model(folder, device=device, dtype=dtype)


def merged(loaded: LoadedModel) -> LoadedModel:
    """Fold the adapter into the base weights; added in float32, so only the sum is rounded.

    A 4-bit base is unpacked first: what the adapter was trained on is what it is added to. Where
    an adapted layer shares its weight with another one (tied embeddings), the two are untied.

    Raises:
        ModelError: This family ties them again, whatever its config says.
    """
    model = loaded.model
    if isinstance(model, PeftModel):
        if any(map(is_packed, model.modules())):
            model = _unpacked(model)
        model = model.to(torch.float32)
        names: dict[int, list[str]] = {}
        for name, weight in model.get_base_model().named_parameters(remove_duplicate=False):
            names.setdefault(id(weight), []).append(name.replace(".base_layer", ""))
        were_tied = [group for group in names.values() if len(group) > 1]
        ties = model.config.tie_word_embeddings
        # What shares an adapted layer's weight would change with it: an adapter on the input
        # embeddings is none on the output embeddings, though they are one weight. All are untied,
        # since a config says it of all: Zamba's layers and its embeddings alike.
        base = model.get_base_model()
        sharing = Counter(id(p) for m in base.modules() for p in m.parameters(recurse=False))
        adapted = [m.get_base_layer() for m in base.modules() if isinstance(m, BaseTunerLayer)]
        shared = [layer for layer in adapted if sharing[id(getattr(layer, "weight", None))] > 1]
        for layer in shared:
            _own(layer, "weight")
        wanted = _few_logits(model) if shared else None
        with _hushed():
            model = model.merge_and_unload()
        # PEFT takes embeddings of an encoder and of a decoder for ones that were tied.
        model.config.tie_word_embeddings = ties
        if wanted is not None:
            _break_ties(model, were_tied)
            # UMT5 scales what a tied head reads.
            if (_few_logits(model) - wanted).abs().max() > 1e-3 * wanted.abs().max():
                raise _cannot_merge("untied, this family computes something else")
    return replace(loaded, model=model)


def _break_ties(model: Any, were_tied: list[list[str]]) -> None:
    """Make every weight one of its own, in the config too: it ties all or none.

    Raises:
        ModelError: Whatever the config says, they will be tied when the model is loaded.
    """
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = False
    for first, *others in were_tied:
        for other in others:
            if model.get_parameter(other) is model.get_parameter(first):
                parent, _, name = other.rpartition(".")
                _own(model.get_submodule(parent), name)
    for one, other in model.get_expanded_tied_weights_keys(all_submodels=True).items():
        if any(one in names and other in names for names in were_tied):
            raise _cannot_merge(f"{one} and {other} are one weight in this family")


def _few_logits(model: Any) -> torch.Tensor:
    config = base_of(model).config
    ids = torch.arange(1, 9, device=model.device)[None]
    inputs = {"decoder_input_ids": ids} if config.is_encoder_decoder else {}
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=ids, use_cache=False, **inputs).logits
    return logits


def _cannot_merge(why: str) -> ModelError:
    return ModelError(
        f"an adapter on tied embeddings cannot be merged: {why}",
        where="lora.target_modules",
        fix="export the adapter as it is, without --merge and --format, or train without adapters "
        "on the embeddings",
    )


def _own(module: Any, name: str) -> None:
    weight = getattr(module, name).detach().clone()
    setattr(module, name, torch.nn.Parameter(weight, requires_grad=False))


def _unpacked(model: PeftModel) -> PeftModel:
    """Put the adapter around the same base with whole weights."""
    config = model.peft_config["default"]
    weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    base = model.unload()
    read = {n: whole(m.weight, packing(m.weight)) for n, m in base.named_modules() if is_packed(m)}
    with _hushed(), torch.no_grad():
        plain = base.dequantize()  # the right modules; `nf4.whole` has the right numbers
        for name, weight in read.items():
            plain.get_submodule(name).weight.copy_(weight)
        around = get_peft_model(plain, config)
        set_peft_model_state_dict(around, weights)
    return around
