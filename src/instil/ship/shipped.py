"""The model of a finished run, as it was judged: from its `model/` folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from instil.config.recipe import load_recipe
from instil.errors import RunError
from instil.stages.origins import base_files, is_base_file
from instil.stages.runfiles import RECIPE, load_manifest, load_summary, require_same, require_whole

if TYPE_CHECKING:
    from instil.encode.chat_template import ChatRules
    from instil.model.load import LoadedModel

CHAT_TEMPLATE = "chat_template.jinja"
"""Beside the model, in transformers' own name."""


def load_run_model(folder: Path, *, dtype: str = "") -> LoadedModel:
    """Load a finished run's tuned model, from its `model/` folder.

    Args:
        folder: A finished run.
        dtype: What to compute in; empty: as the recipe says.

    Raises:
        RunError: The folder is no finished run, or is not what was written.
        ModelError: The base model or the adapter cannot be loaded.
    """
    from instil.model.adapter import load_shipped
    from instil.model.load import resolve_model

    load_summary(folder)
    require_whole(folder)
    recipe = load_recipe(folder / RECIPE)
    base = replace(resolve_model(recipe.model), chat=judged_chat(folder))
    if (folder / "model" / "adapter_config.json").is_file():
        require_same(folder, base_files(base.path), which=is_base_file)
    return load_shipped(
        folder / "model",
        base=base,
        device=recipe.device,
        dtype=dtype or recipe.dtype,
        quantize=recipe.quantize,
    )


def proven_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a run that noted its id and fingerprints, as runs from format 2 on do.

    Raises:
        RunError: The run is older.
    """
    manifest = load_manifest(folder)
    if manifest.get("format_version", 1) == 1:
        raise RunError(
            "this run was made by an earlier version of instil, which kept no fingerprints",
            where=str(folder),
            fix="make the run anew",
        )
    return manifest


def load_run_base(folder: Path, *, dtype: str = "") -> LoadedModel:
    """Load a finished run's base model, its weights not packed, with the chat rules of the run."""
    from instil.model.load import load_model, resolve_model

    recipe = load_recipe(folder / RECIPE)
    base = replace(resolve_model(recipe.model), chat=judged_chat(folder))
    return load_model(base, device=recipe.device, dtype=dtype or recipe.dtype)


def judged_chat(folder: Path) -> ChatRules:
    """Return the rules that the run was judged by, with the template that it exported."""
    from instil.encode.chat_template import ChatRules

    known = load_manifest(folder).get("chat")
    rules = TypeAdapter(ChatRules).validate_python(known) if known else ChatRules()
    shipped = folder / "model" / CHAT_TEMPLATE
    return replace(rules, template=str(shipped) if shipped.is_file() else rules.template)
