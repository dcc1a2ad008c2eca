"""`instil push`: an exported model to the model hub, by the hub's own client.

What is sent is listed first: files, sizes, and what the card says of licence and data. Private
unless said; nothing beside the exported folder leaves the machine.

Tests: `tests/ship/test_push.py`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from instil.errors import RunError
from instil.ship.export import export
from instil.ship.formats import Format, Quantization
from instil.stages.runfiles import LINEAGE

_MODEL_FILES = [
    *("adapter_config.json", "adapter_model.safetensors", "config.json", "Modelfile"),
    *("model.safetensors", "model-*.safetensors", "model.safetensors.index.json"),
]
"""What goes from the repository where this push does not bring it: an adapter of an earlier push
beside a merged model would be loaded on top of it. GGUF files of several kinds stay side by side.
"""


@dataclass(frozen=True, slots=True)
class Sent:
    """A file on its way."""

    name: str
    """In the repository."""
    bytes: int
    """Its size."""


def push(
    run: Path,
    name: str,
    *,
    form: Format = Format.HF,
    quantize: Quantization = Quantization.F16,
    public: bool = False,
    dry_run: bool = False,
    on_files: Callable[[tuple[Sent, ...]], None] = lambda files: None,
) -> str:
    """Export a run's model, and send it.

    Args:
        run: A finished run.
        name: `OWNER/NAME` on the hub.
        form: What is exported.
        quantize: As `export` takes it.
        public: Whether everybody may see it; where the repository exists it stays as it is.
        dry_run: Send nothing.
        on_files: Called with all that is to be sent, before anything is.

    Returns:
        The address of what was sent; empty after a dry run.

    Raises:
        RunError: The name is none, or the hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
        if name.count("/") != 1:
            raise HFValidationError("OWNER/NAME")
    except HFValidationError as error:
        raise RunError(
            "this cannot be a name on the hub", found=name, allowed="OWNER/NAME"
        ) from error
    with tempfile.TemporaryDirectory(prefix="instil-push-") as scratch:
        folder = Path(scratch) / "model"
        export(run, out=folder, form=form, quantize=quantize)
        (folder / LINEAGE).unlink(missing_ok=True)  # it tells which texts were trained on
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        on_files(tuple(Sent(f.relative_to(folder).as_posix(), f.stat().st_size) for f in files))
        if dry_run:
            return ""
        api = HfApi()
        try:
            api.create_repo(name, private=not public, exist_ok=True)
            done = api.upload_folder(
                repo_id=name,
                folder_path=folder,
                commit_message="Model and certificate by instil",
                delete_patterns=_MODEL_FILES,
            )
        except Exception as error:  # the hub's client raises many unrelated kinds
            status = getattr(getattr(error, "response", None), "status_code", None)
            refused = isinstance(error, HfHubHTTPError) and status is not None
            raise RunError(
                "the model could not be sent",
                where=name,
                found=f"the hub answered {status}" if refused else type(error).__name__,
                fix="log in with a token that may write: hf auth login"
                if status in (401, 403)
                else "try again: files that have arrived are not sent twice",
            ) from error
    return str(getattr(done, "commit_url", "") or name)
