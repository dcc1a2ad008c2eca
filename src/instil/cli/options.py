"""Arguments and options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from instil.ship.formats import Format, Quantization

RecipeFile = Annotated[Path, typer.Argument(help="The recipe, a YAML file.")]


def place(text: str) -> Path:
    """Return a folder of this machine; of an address, `s3://...`, the copy on this machine."""
    from instil.stages.mirror import fetch, is_address

    return fetch(text) if is_address(text) else Path(text)


def refuse_quantized(form: Format, quantize: Quantization) -> None:
    """Refuse `--quantize` for a format that keeps weights as they are."""
    if quantize is not Quantization.F16 and form in (Format.HF, Format.MERGED):
        raise typer.BadParameter("it goes with --format gguf or ollama", param_hint="--quantize")


RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", parser=place, help="A run directory, or its address.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe; may be repeated."),
]
