"""A run's model, written for use without instil: for transformers, PEFT, vLLM, llama.cpp, Ollama.

Tests: `tests/ship/test_export.py`.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instil.config.methods import METHODS
from instil.errors import Problem, RunError
from instil.files import write_whole
from instil.report.card import converted_card
from instil.results.prompts import Turn
from instil.results.run import RunSummary
from instil.ship.certificate import CERTIFICATE, card_section, certificate
from instil.ship.formats import Format, Quantization
from instil.ship.shipped import load_run_model
from instil.stages.runfiles import LINEAGE, load_summary, require_whole
from instil.types import Role, SystemTurn

if TYPE_CHECKING:
    from instil.model.load import LoadedModel

CARD = "README.md"
_OLLAMA_ROOM = 4096
"""Tokens of a conversation that Ollama holds at least, where the model can."""
_VLLM_RANKS = (16, 32, 64, 128, 256, 320, 512)
"""What vLLM's `--max-lora-rank` may be, the first unless said (its documentation of LoRA)."""


@dataclass(frozen=True, slots=True)
class Exported:
    """An exported model."""

    path: Path
    """The folder."""
    weights: Path
    """What `instil verify` takes: the folder, or the GGUF file in it."""
    bytes: int
    """Of all files."""
    notes: tuple[str, ...] = ()
    """What a user should know of it."""


def export(
    folder: Path, *, out: Path, form: Format = Format.HF, quantize: Quantization = Quantization.F16
) -> Exported:
    """Write a run's model for use without instil.

    Args:
        folder: A finished run.
        out: The folder to make; appears whole or not at all.
        form: What for.
        quantize: How a GGUF file keeps matrices.

    Raises:
        RunError: The folder is no finished run, its model holds links, or it has no adapter where
            one is asked for.
        ModelError: llama.cpp does not know the model's family.
    """
    summary = load_summary(folder)
    if out.resolve().is_relative_to((folder / "model").resolve()):
        raise RunError("a model is not exported into itself", where=str(out), fix="name another")
    if not (folder / "model").is_dir():
        raise RunError(f"{folder / 'model'} is gone", fix="bring it back, or make the run anew")
    # What links lead to would be copied, whatever it is.
    links = [path for path in sorted((folder / "model").rglob("*")) if path.is_symlink()]
    if links:
        raise RunError(
            *(
                Problem(
                    "a link in a run's model is not exported",
                    where=str(link),
                    found=f"it leads to {link.readlink()}",
                    fix="put the file itself there, or take the link out",
                )
                for link in links[:3]
            )
        )
    require_whole(folder)
    tuning = METHODS[summary.training.method]
    if form is Format.GGUF_LORA and tuning.section != "lora":
        raise RunError(
            f"llama.cpp adds no other adapter than LoRA's, and the run trained {tuning.word}"
            if tuning.adapter
            else "the run trained all weights: there is no adapter to export",
            where="--format gguf-lora",
            fix="--format gguf",
        )
    if form is Format.GGUF_LORA and summary.pruning is not None:
        raise RunError(
            "the run's update was pruned and merged: there is no adapter to export",
            where="--format gguf-lora",
            fix="--format gguf",
        )
    known = certificate(folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        part = Path(scratch) / out.name
        if form is Format.HF:
            shutil.copytree(folder / "model", part)
            weights, notes = part, _served_by_vllm(part)
        else:
            loaded = load_run_model(folder)
            weights, notes = _convert(loaded, part, form, quantize, summary, known)
        card = (folder / "model" / CARD).read_text(encoding="utf-8")
        if form is not Format.HF:
            library = "transformers" if form is Format.MERGED else "gguf"
            commands = _serving(form, weights.name, summary)
            card = converted_card(card, summary, library=library, commands=commands)
        write_whole(part / CARD, (card + card_section(known)).encode())
        write_whole(part / CERTIFICATE, json.dumps(known, indent=1).encode())
        if (folder / LINEAGE).is_file():
            shutil.copyfile(folder / LINEAGE, part / LINEAGE)
        os.replace(part, out)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    return Exported(out, out / weights.relative_to(part), size, tuple(notes))


def _serving(form: Format, file: str, summary: RunSummary) -> tuple[str, ...]:
    """Return the shell commands that serve an exported model; none for transformers."""
    name = shlex.quote(summary.name)
    return {
        Format.GGUF: (f"llama-server --jinja -m {shlex.quote(file)}",),
        Format.GGUF_LORA: (f"llama-server --jinja -m BASE.gguf --lora {shlex.quote(file)}",),
        Format.OLLAMA: (f"ollama create {name} -f Modelfile", f"ollama run {name}"),
    }.get(form, ())


def _convert(
    loaded: LoadedModel,
    out: Path,
    form: Format,
    quantize: Quantization,
    summary: RunSummary,
    known: dict[str, Any],
) -> tuple[Path, list[str]]:
    """Write all formats but `hf`; returns what `verify` takes, and notes."""
    from instil.model.adapter import merged
    from instil.model.export import save_model

    if form is Format.MERGED:
        save_model(merged(loaded), out)
        return out, []
    from instil.ship.gguf.write import require_known, write_adapter, write_model

    require_known(loaded)
    name = summary.name
    if form is Format.GGUF_LORA:
        file = out / f"{name}-lora.gguf"
        write_adapter(loaded, file, name=name, certificate=known)
        return file, ["llama.cpp takes it beside a GGUF file of the base model: --lora FILE"]
    file = out / f"{name}-{quantize}.gguf"
    # Before the weights are merged: it may be refused.
    modelfile = _modelfile(loaded, file.name, summary) if form is Format.OLLAMA else ""
    counts = write_model(merged(loaded), file, kind=quantize, name=name, certificate=known)
    notes = [", ".join(f"{count} tensors in {kind}" for kind, count in counts.items())]
    if modelfile:
        write_whole(out / "Modelfile", modelfile.encode())
        notes.append(f"ollama create {name} -f {out.name}/Modelfile && ollama run {name}")
        if _system_text(summary.turns) and loaded.chat.rules.system is SystemTurn.MERGE:
            notes.append(
                "Ollama cannot put the system text before the user's: begin each question with it "
                "and an empty line, as the run did"
            )
    return file, notes


def _system_text(turns: Sequence[Turn]) -> str:
    """Return the system text that every prompt begins with.

    Empty where they differ (by template or task), or where it holds a part of the row.
    """
    texts = {
        next((part.content for part in turn.wording if part.role == "system"), "")
        for turn in turns
        if turn.role is Role.ANSWER
    }
    system = texts.pop() if len(texts) == 1 else ""
    return "" if any(mark in system for mark in ("{{", "{%", '"""')) else system


def _modelfile(loaded: LoadedModel, file: str, summary: RunSummary) -> str:
    """Return what Ollama needs to know: greedy answers that stop where the model was taught to.

    Raises:
        ModelError: The chat template cannot be put into Ollama's words.
    """
    from instil.model.soundness import context_length
    from instil.ship.ollama import frame

    turns = frame(loaded.chat)
    told = loaded.chat.rules.system is not SystemTurn.MERGE and turns.system != ("", "")
    system = _system_text(summary.turns) if told else ""
    # Memory is taken for all of it before the first token: enough for twice the longest example.
    window, _ = context_length(loaded.folder.path)
    longest = max((line.lengths[2] for line in summary.mix), default=0)
    room = max(_OLLAMA_ROOM, 1 << (2 * longest).bit_length())
    room = min(room, window or room)
    stops = [loaded.chat.tokenizer.convert_ids_to_tokens(token) for token in loaded.chat.stop_ids]
    lines = [
        f"FROM ./{file}",
        f'TEMPLATE """{turns.template()}"""',
        *([f'SYSTEM """{system}"""'] if system else []),
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
        f"PARAMETER num_ctx {room}",
        *(f'PARAMETER stop "{stop}"' for stop in stops),  # Ollama knows no escapes
    ]
    return "\n".join(lines) + "\n"


def _served_by_vllm(model: Path) -> list[str]:
    """Say what vLLM will not take of an adapter: its documented limits on rank and modules."""
    path = model / "adapter_config.json"
    if not path.is_file():
        return []
    config = json.loads(path.read_text(encoding="utf-8"))
    if config["peft_type"] != "LORA":
        return ["vLLM loads no other adapter than LoRA's: --format merged"]
    notes = []
    rank = max([config["r"], *config.get("rank_pattern", {}).values()])
    room = next((each for each in _VLLM_RANKS if each >= rank), None)
    if room is None:
        notes.append(f"vLLM takes adapters up to rank {_VLLM_RANKS[-1]}: --format merged")
    elif room > _VLLM_RANKS[0]:
        notes.append(f"vLLM: --enable-lora --max-lora-rank {room}, since the rank is {rank}")
    if config.get("use_dora") or config.get("modules_to_save"):
        notes.append("vLLM does not load DoRA or modules_to_save: --format merged")
    return notes
