"""`instil preview`: rendered training examples with the trained-on tokens coloured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from instil.cli.options import Changes, RecipeFile


def preview(
    recipe: RecipeFile,
    each: Annotated[int, typer.Option("-n", "--each", min=1, help="Examples a template.")] = 1,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a page instead."),
    ] = None,
    changes: Changes = None,
) -> None:
    """Show training examples as the model reads them, with the trained-on tokens coloured.

    They are those of the first epoch, through the model's own chat template, few-shot prompts and
    the length policy included. No weights are loaded.
    """
    from instil.config.recipe import load_recipe, run_name

    loaded = load_recipe(recipe, overrides=changes or [])

    from instil import format as fmt
    from instil.cli.check import mask_text
    from instil.cli.show import make_console
    from instil.files import write_whole
    from instil.stages import preview as look

    examples = look.preview(loaded, each=each, say=make_console(stderr=True).print)
    console = make_console()
    if html is not None:
        page = look.preview_page(examples, name=run_name(recipe))
        write_whole(html, page.encode())
        console.print(f"{fmt.plural(len(examples), 'example')}: {html}")
        return
    from rich.text import Text

    for example in examples:
        trained, count = example.counts
        console.print(Text(example.title, style="bold"))
        console.print(mask_text(example.pieces))
        console.print(f"  {trained} of {count} tokens are trained on\n")
