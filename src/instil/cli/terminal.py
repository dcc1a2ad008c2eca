"""What is written to the terminal: text from outside has its control characters written out.

Every line that the command line prints passes `say` or a `VisibleConsole`; see `instil.sanitize`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from instil.sanitize import visible


class VisibleConsole(Console):
    """A console that writes out the control characters of all that it prints."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Make a text of what is written as one, for a table to measure."""
        return super().render_str(visible(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render as rich does; the codes that rich itself gives the terminal stay as they are."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


def say(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Print a text as it stands, its control characters written out."""
    typer.echo(visible(str(text)), err=err, nl=nl)


def say_answer(text: str, *, nl: bool = True) -> None:
    """Print what a model wrote: as it stands into a file or a pipe, made visible on a terminal."""
    typer.echo(visible(text) if sys.stdout.isatty() else text, nl=nl, color=True)


def prepare_streams() -> None:
    """Let what the terminal's encoding lacks be escaped, where it would end in an error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
