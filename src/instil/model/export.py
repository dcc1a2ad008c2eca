"""What is exported: an adapter in PEFT's format or full weights, with all that serving needs."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import GenerationConfig

from instil.errors import ModelError
from instil.files import is_full
from instil.model.engine.packed import base_of
from instil.model.engine.rows import decoder_start
from instil.model.load import LoadedModel, folder_bytes, quiet
from instil.model.soundness import brief


def save_model(loaded: LoadedModel, out: Path) -> int:
    """Write weights, tokenizer, chat template and generation config; return the weights' bytes.

    The folder appears whole or not at all, and replaces an earlier one.

    Raises:
        ModelError: The disk is full.
    """
    model: Any = loaded.model
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    try:
        with quiet():
            if isinstance(model, PeftModel):
                # The base's embeddings are never trained: asked to decide, PEFT would look for the
                # base model's config on the hub.
                model.save_pretrained(str(scratch), save_embedding_layers=False)
                (scratch / "README.md").unlink(missing_ok=True)  # PEFT's; ours is written later
            else:
                model.to(loaded.dtype).save_pretrained(scratch)
            loaded.chat.tokenizer.save_pretrained(scratch)
            generation_config(loaded).save_pretrained(scratch)
        # A scratch folder is private: give it the rights that the umask gives any other.
        mask = os.umask(0)
        os.umask(mask)
        scratch.chmod(0o777 & ~mask)
        for file in scratch.iterdir():
            file.chmod(0o666 & ~mask)
        if out.exists():
            shutil.rmtree(out)
        os.replace(scratch, out)
    except Exception as error:
        if not is_full(error):
            raise
        raise ModelError(
            f"the model cannot be written: {brief(error)}",
            where=str(out),
            fix="make room, then resume: what was finished is kept",
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder_bytes(out)


def generation_config(loaded: LoadedModel) -> GenerationConfig:
    """Greedy generation that stops where the model was taught to stop.

    A tokenizer may know more tokens than the model: those have no embedding, so they are neither
    named nor ever generated.
    """
    model = base_of(loaded.model)
    rows = model.get_input_embeddings().weight.shape[0]

    def known(token: int | None) -> int | None:
        return token if token is not None and token < rows else None

    stops = [token for token in loaded.chat.stop_ids if token < rows]
    encoded = (
        {
            "decoder_start_token_id": decoder_start(model),
            "forced_bos_token_id": known(getattr(model.config, "forced_bos_token_id", None)),
        }
        if model.config.is_encoder_decoder
        else {}
    )
    return GenerationConfig(
        **encoded,
        do_sample=False,
        bos_token_id=known(loaded.chat.tokenizer.bos_token_id),
        eos_token_id=stops if len(stops) > 1 else next(iter(stops), None),
        pad_token_id=known(loaded.chat.pad_id),
    )
