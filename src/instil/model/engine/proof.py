"""Which short cuts give a model's own figures: tried on the model itself, when it is loaded.

A few rows of random tokens are computed one by one, by transformers' own forward pass with the
model's own attention. The same rows then go through each short cut (`Build`), in one pack with a
shared prefix, segments and branches, and through the memory of generation; a short cut is taken
only where all logits come out the same. A model whose layers carry something else than attention
from token to token (a state, a convolution), or attend by a rule that ours does not know, fails,
and is computed row by row::

    prefix 3 | A 7 | B 4, branches 3 and 1 | C 5 | D 7      rows of 10, 10, 8, 8 and 10 tokens

The weights are the model's own; they are read in float32 meanwhile where that fits, so that two
orders of adding cannot hide a difference, and the windows of sliding attention are narrowed, so
that they can be seen.

What was found is kept in the cache by the model's files, the versions of the libraries, the device
and the type: a proof is made once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from instil.encode.batch import Batch, make_batch
from instil.errors import ModelError
from instil.files import cache_dir, write_whole
from instil.memory_limits import free_memory, is_out_of_memory
from instil.model.engine import attention
from instil.model.engine.layers import fits
from instil.model.engine.layout import Shape
from instil.model.engine.memory import Memory, read_batch, step_batch
from instil.model.engine.packed import (
    Build,
    decoder_of,
    float_logits,
    head_of,
    hidden_states,
    model_logits,
    next_logits,
)
from instil.model.engine.rows import Rows, compute_rows
from instil.model.nf4 import NF4, is_packed

PREFIX = 3
SHAPES = ((7,), (4, 3, 1), (5,), (7,))
"""Segments behind the prefix: 32 tokens at most, and rows of two lengths, so that it is quick."""
WINDOW = 4
"""Windows of sliding attention while the proof is made."""
_WIDTHS = ("sliding_window", "attention_chunk_size", "index_topk", "keep_window_size")
"""How many tokens a query sees: the nearest, or those that an indexer picks."""
CLOSE = 1e-4
"""Difference of logits that float32 may make, root mean square, as a share of their spread."""
NOISE = 0.1
"""The same in bfloat16: on 30 layers and random tokens it was .04."""
LEAK = 1e-2
"""How far a segment's logits may move when another segment's tokens change, of their spread."""
FLOAT32_BYTES = 8 * 2**30
"""A model that takes more in float32, or half of what is free, is tried in its own type."""
_VERSION = 2
"""Raised when the proof changes, so that an old one is made again."""
_SWITCHING = ("dynamic", "longrope")
"""Rotary positions that depend on how long the whole batch is."""


def proved(model: Any, *, files: Path, computed: Sequence[str]) -> Build:
    """Return the proof of a model that was just loaded; made where it is not kept yet.

    Args:
        model: As it came from transformers.
        files: Its folder.
        computed: What else the figures depend on: the device, the type, a quantization.

    Raises:
        ModelError: As `prove`.
    """
    kept = kept_proof(files, computed=computed)
    if kept is not None:
        return kept
    build = prove(model)
    path = _place(files, computed)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(asdict(build)).encode())
    return build


def kept_proof(files: Path, *, computed: Sequence[str]) -> Build | None:
    """Return the proof of an earlier day, if files, versions and the rest are still the same."""
    path = _place(files, computed)
    if not path.is_file():
        return None
    try:
        return Build(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):  # cut off, or of another version: made again
        return None


def _place(files: Path, computed: Sequence[str]) -> Path:
    parts = [str(_VERSION), *computed]
    libraries = ["torch", "transformers", "instil", *(["bitsandbytes"] if NF4 in computed else [])]
    parts += [f"{name} {version(name)}" for name in libraries]
    parts.append((files / "config.json").read_text(encoding="utf-8"))
    for file in sorted(files.glob("*.safetensors")):
        facts = file.stat()
        parts.append(f"{file.resolve()} {facts.st_size} {facts.st_mtime_ns}")
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return cache_dir() / "proofs" / f"{digest[:32]}.json"


def prove(model: Any) -> Build:
    """Try every short cut on a transformers model.

    Raises:
        ModelError: What the model says of a token depends on later ones: it cannot write. Or it
            is no finite number.
    """
    with _in_float32(model) as close, _narrow_windows(model), torch.inference_mode():
        trials = _Trials(model, close)
        if not trials.whole.wanted.isfinite().all():
            what = "this model's logits are no finite numbers (NaN or infinite)"
            fix = "get the model's folder again: config.json or weights are broken"
            raise ModelError(what, where="model", fix=fix)
        if not model.config.is_encoder_decoder:
            _require_causal(model, trials.whole.batch, close)
        build = next(filter(trials.hold, _candidates(model)), Build())
        build = replace(build, longest=_longest(model))
        remembers = build.prefix and _remembers(model, trials.whole, build, close)
        return replace(build, own_memory=remembers)


def _candidates(model: Any) -> Iterator[Build]:
    """Yield what may hold, the fastest first."""
    ways = [Build(padding=True), Build()]
    if attention.can_take_over(model) and not model.config.is_encoder_decoder:
        packs = Build(segments=True, prefix=True, branches=True)
        if fits(model.base_model):
            yield replace(packs, own_layers=True, own_head=True)
        fewer = replace(packs, branches=False), replace(packs, prefix=False)
        apart = Build(segments=True)
        ways = [packs, *fewer, apart, replace(apart, arguments=True), *ways]
    for way in ways:
        yield replace(way, own_head=True)
        yield way


# --- what is tried -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Trial:
    """A pack of random tokens, and what the model itself says of it."""

    batch: Batch
    """Every token behind the prefix is predicted from; of an encoder-decoder model, those that its
    decoder reads."""
    wanted: torch.Tensor
    """(S, V) float32 logits, computed row by row."""


class _Trials:
    """The same tokens laid out with and without prefix and branches, as a short cut needs it."""

    def __init__(self, model: Any, close: float) -> None:
        self._model, self._close = model, close
        self._made: dict[tuple[bool, bool], _Trial] = {}

    @property
    def whole(self) -> _Trial:
        """With a prefix and branches."""
        return self._made_with(prefix=True, branches=True)

    def hold(self, build: Build) -> bool:
        """Whether a way to compute gives the wanted logits; one that fails does not."""
        trial = self.whole
        if build.prefix != build.branches:
            trial = self._made_with(prefix=build.prefix, branches=build.branches)
        try:
            logits = _logits(self._model, trial.batch, build)
            if not _same(logits, trial.wanted, self._close):
                return False
            exact = self._close < NOISE or not build.segments
            return exact or not _leaks(self._model, trial.batch, build)
        except Exception as error:  # a short cut that a model has no place for fails in any way
            if is_out_of_memory(error):
                raise
            return False

    def _made_with(self, *, prefix: bool, branches: bool) -> _Trial:
        if (prefix, branches) not in self._made:
            shapes = SHAPES if branches else tuple((sum(shape),) for shape in SHAPES)
            batch = _trial_pack(self._model, prefix=PREFIX if prefix else 0, shapes=shapes)
            wanted = _logits(self._model, batch, Build())
            self._made[prefix, branches] = _Trial(batch, wanted)
        return self._made[prefix, branches]


def _trial_pack(model: Any, *, prefix: int, shapes: Sequence[Shape]) -> Batch:
    table = model.get_input_embeddings().weight
    positions = list(range(prefix))
    for trunk, *branches in shapes:
        positions += range(prefix, prefix + trunk)
        for branch in branches:
            positions += range(prefix + trunk, prefix + trunk + branch)
    generator = torch.Generator().manual_seed(0)
    # Special tokens, which may stand for an image, lie at the ends of a vocabulary.
    low, high = table.shape[0] // 4, table.shape[0] * 3 // 4
    ids = torch.randint(low, max(low + 1, high), (len(positions),), generator=generator)
    encoded = prefix + 2 if model.config.is_encoder_decoder else 0
    first = max(prefix, encoded - 1)
    predict = torch.tensor([n for n, place in enumerate(positions) if place >= first])
    return make_batch(
        ids.tolist(),
        positions,
        segments=tuple(shapes),
        shared_prefix=prefix,
        predict_from=predict,
        labels=torch.zeros_like(predict),
        device=table.device,
        prompts=(encoded,) * len(shapes) if encoded else (),
    )


def _logits(model: Any, trial: Batch, build: Build) -> torch.Tensor:
    """Float32 logits at the predicted places, (S, V)."""
    if not build.own_head:
        return model_logits(model, trial, trial.predict_from, build=build).float()
    hidden = hidden_states(model, trial, trial.predict_from, build=build).float()
    return float_logits(hidden, head_of(model), slice(None))


def _same(logits: torch.Tensor, wanted: torch.Tensor, close: float) -> bool:
    """Whether logits differ by less than `close`, root mean square, as a share of their spread."""
    return bool((logits - wanted).pow(2).mean().sqrt() < close * wanted.std())


def _leaks(model: Any, batch: Batch, build: Build) -> bool:
    """Whether other tokens in the first segment change logits of the last one.

    In bfloat16 the rounding would hide a small leak from the comparison with single rows.
    """
    first = slice(batch.shared_prefix, batch.shared_prefix + sum(batch.segments[0]))
    ids = batch.ids.clone()
    ids[:, first] = ids[:, first].roll(1, 1)
    last = slice(-SHAPES[-1][0], None)
    before, after = (_logits(model, each, build)[last] for each in (batch, replace(batch, ids=ids)))
    return not _same(after, before, LEAK)


def _remembers(model: Any, trial: _Trial, build: Build, close: float) -> bool:
    """Whether generation's memory gives the wanted logits: behind prompts, and for two tokens."""
    try:
        ids, device = trial.batch.ids[0], trial.batch.ids.device
        prefix = Memory([PREFIX], device=device)
        front = read_batch(prefix, [ids[:PREFIX].tolist()], device=device)
        next_logits(model, front, build=build, memory=prefix.read)
        starts = [PREFIX + sum(map(sum, SHAPES[:n])) for n in (0, 2, 3)]
        ends = torch.tensor([start + SHAPES[2][0] - 2 for start in starts], device=device)
        prompts = [ids[start:end].tolist() for start, end in zip(starts, ends, strict=True)]
        memory = Memory([len(p) for p in prompts], prefix=prefix, room=2, device=device)
        first = read_batch(memory, prompts, device=device)
        logits = [next_logits(model, first, build=build, memory=memory.read)]
        for step in range(2):
            token = step_batch(memory, ids[ends + step])
            logits.append(next_logits(model, token, build=build, memory=memory.step))
            memory.move_on()
        places = torch.cat([ends - 1 + step for step in range(3)]) - PREFIX
        return _same(torch.cat(logits).float(), trial.wanted[places], close)
    except Exception as error:  # as in `hold`
        if is_out_of_memory(error):
            raise
        return False


def _require_causal(model: Any, batch: Batch, close: float) -> None:
    """Refuse a model that looks at later tokens: BERT's kind, made to fill gaps.

    Raises:
        ModelError: It does.
    """
    ids = tuple(batch.ids[0, : PREFIX + SHAPES[0][0]].tolist())
    half = len(ids) // 2
    rows = Rows((ids, ids[:half]), (0, 0), ((0, half - 1), (1, half - 1)))
    long, short = compute_rows(model, rows, decoder=decoder_of(model), padding=False).float()
    if not _same(long, short, max(close, LEAK)):
        raise ModelError(
            "this model reads a text in both directions (an encoder), and cannot write one",
            where="model",
            found=str(model.config.model_type),
            allowed="a causal language model, or an encoder-decoder model such as T5",
        )


# --- how it is read meanwhile ------------------------------------------------------------------


@contextlib.contextmanager
def _in_float32(model: Any) -> Iterator[float]:
    """Within the block the weights are float32, where that fits; yields how close is the same."""
    tensors = [*model.parameters(), *model.buffers()]
    rounded = [t for t in tensors if t.is_floating_point() and t.dtype is not torch.float32]
    size = sum(4 * t.numel() for t in rounded)
    on_gpu = model.device.type == "cuda"
    free = torch.cuda.mem_get_info(model.device)[0] if on_gpu else free_memory().bytes
    if any(map(is_packed, model.modules())) or size > min(FLOAT32_BYTES, free // 2):
        yield NOISE
        return
    before = [t.data for t in rounded]
    try:
        for t in rounded:
            t.data = t.data.float()
        yield CLOSE
    finally:
        for t, data in zip(rounded, before, strict=True):
            t.data = data


@contextlib.contextmanager
def _narrow_windows(model: Any) -> Iterator[None]:
    """Within the block windows, chunks and choices of tokens to look at are `WINDOW` wide."""
    configs = {id(c): c for m in model.modules() if (c := getattr(m, "config", None)) is not None}
    changed = [
        (owner, name, width)
        for owner in (*configs.values(), *model.modules())
        for name in _WIDTHS
        if type(width := getattr(owner, name, None)) is int and width > WINDOW
    ]
    try:
        for owner, name, _ in changed:
            setattr(owner, name, WINDOW)
        yield
    finally:
        for owner, name, width in changed:
            setattr(owner, name, width)


def _longest(model: Any) -> int | None:
    """Return the length from which rotary positions depend on all that a batch holds."""
    config = model.config.get_text_config(decoder=True)
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [rope, *(each for each in rope.values() if isinstance(each, dict))]
    lengths = [
        kind.get("original_max_position_embeddings")
        or getattr(config, "original_max_position_embeddings", None)
        or config.max_position_embeddings
        for kind in kinds
        if kind.get("rope_type") in _SWITCHING
    ]
    return min(lengths, default=None)
