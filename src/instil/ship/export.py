"""A run's model, written for use without instil: for transformers, PEFT, vLLM, llama.cpp, Ollama.

Tests: `tests/ship/test_export.py`.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from instil.errors import Problem, RunError
from instil.files import write_whole
from instil.ship.certificate import card_section, certificate
from instil.ship.formats import Format, Quantization
from instil.ship.shipped import load_run_model
from instil.stages.directory import load_summary, require_whole
from instil.types import Role

if TYPE_CHECKING:
    from instil.model.load import LoadedModel

CARD, CERTIFICATE = "README.md", "certificate.json"
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
    if not (folder / "model").is_dir():
        raise RunError(f"{folder / 'model'} is gone", fix="bring it back, or make the run anew")
    _refuse_links(folder / "model")
    require_whole(folder)
    if form is Format.GGUF_LORA and summary.training.method != "lora":
        raise RunError(
            "the run trained all weights: there is no adapter to export",
            where="--format gguf-lora",
            fix="--format gguf",
        )
    known = certificate(folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        made = Path(scratch) / out.name
        weights, notes = made, []
        if form is Format.HF:
            shutil.copytree(folder / "model", made)
            notes += _served_by_vllm(made)
        else:
            weights, notes = _written(folder, made, form, quantize, summary.name, known)
        card = (folder / "model" / CARD).read_text(encoding="utf-8")
        write_whole(made / CARD, (card + card_section(known)).encode())
        write_whole(made / CERTIFICATE, json.dumps(known, indent=1).encode())
        os.replace(made, out)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    return Exported(out, out / weights.relative_to(made), size, tuple(notes))


def _written(
    folder: Path,
    made: Path,
    form: Format,
    quantize: Quantization,
    name: str,
    known: dict[str, object],
) -> tuple[Path, list[str]]:
    """Write all formats but `hf`; returns what `verify` takes, and notes."""
    from instil.model.adapter import merged
    from instil.model.export import save_model

    loaded = load_run_model(folder)
    if form is Format.MERGED:
        save_model(merged(loaded), made)
        return made, []
    from instil.ship.gguf.write import require_known, write_adapter, write_model

    require_known(loaded)
    if form is Format.GGUF_LORA:
        file = made / f"{name}-lora.gguf"
        write_adapter(loaded, file, name=name, certificate=known)
        return file, ["llama.cpp takes it beside a GGUF file of the base model: --lora FILE"]
    modelfile = ""
    if form is Format.OLLAMA:
        modelfile = _modelfile(loaded, f"{name}-{quantize}.gguf", system=_system_text(folder))
    file = made / f"{name}-{quantize}.gguf"
    counts = write_model(merged(loaded), file, kind=quantize, name=name, certificate=known)
    kept = ", ".join(f"{count} tensors in {kind}" for kind, count in counts.items())
    notes = [kept]
    if modelfile:
        write_whole(made / "Modelfile", modelfile.encode())
        notes.append(f"ollama create {name} -f {made.name}/Modelfile && ollama run {name}")
    return file, notes


def _system_text(folder: Path) -> str:
    """Return the system text that every prompt of the run begins with; empty where there is none.

    Of several tasks, or where it holds a part of the row, there is no such text.
    """
    turns = [turn for turn in load_summary(folder).turns if turn.role is Role.ANSWER]
    first = {
        next((each.content for each in turn.wording if each.role == "system"), "") for turn in turns
    }
    text = first.pop() if len(first) == 1 else ""
    return "" if any(mark in text for mark in ("{{", "{%", '"""')) else text


def _modelfile(loaded: LoadedModel, file: str, *, system: str) -> str:
    """Return what Ollama needs to know: greedy answers that stop where the model was taught to.

    Raises:
        ModelError: The chat template cannot be put into Ollama's words.
    """
    from instil.model.soundness import context_length
    from instil.ship.ollama import frame

    longest, _ = context_length(loaded.folder.path)
    stops = [loaded.chat.tokenizer.convert_ids_to_tokens(each) for each in loaded.chat.stop_ids]
    lines = [
        f"FROM ./{file}",
        f'TEMPLATE """{frame(loaded.chat).template()}"""',
        *([f'SYSTEM """{system}"""'] if system else []),
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
        *([f"PARAMETER num_ctx {longest}"] if longest else []),
        *(f"PARAMETER stop {json.dumps(stop)}" for stop in stops),
    ]
    return "\n".join(lines) + "\n"


def _served_by_vllm(made: Path) -> list[str]:
    """Say what vLLM will not take of an adapter: its documented limits on rank and modules."""
    path = made / "adapter_config.json"
    if not path.is_file():
        return []
    config = json.loads(path.read_text(encoding="utf-8"))
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


def _refuse_links(model: Path) -> None:
    """Refuse links in a model's folder: what they lead to would be copied, whatever it is."""
    links = [path for path in sorted(model.rglob("*")) if path.is_symlink()]
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
