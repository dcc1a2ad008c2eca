"""`instil models`: the base models that install by name."""

from __future__ import annotations


def models() -> None:
    """List the base models that a recipe can name; folders and hub ids work too."""
    from rich.text import Text

    from instil import format as fmt
    from instil.cli.show import make_console, plain_table
    from instil.model.catalogue import CATALOGUE

    table = plain_table()
    for heading in ("model", "weights", "licence", "what"):
        table.add_column(heading, overflow="fold")
    for name, entry in CATALOGUE.items():
        texts = (name, fmt.parameters(entry.parameters), entry.licence, entry.description)
        table.add_row(*(Text(text) for text in texts))
    console = make_console()
    console.print(table)
    for name, entry in CATALOGUE.items():
        parts = f" and {len(entry.members) - 1} more parts" if len(entry.members) > 1 else ""
        console.print(f"{name} comes from {entry.source}{parts}")
        if entry.accept:
            console.print(f"  to accept its terms, {entry.terms}: INSTIL_ACCEPT={entry.accept}")
    console.print("\nIn a recipe: `model: NAME`, `model: ./folder` or `model: org/name` (hub).")
