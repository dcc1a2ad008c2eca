"""`instil models`: the base models that install by name."""

from __future__ import annotations


def models() -> None:
    """List the base models that a recipe can name; folders and hub ids work too."""
    from instil import format as fmt
    from instil.cli.show import make_console, make_table
    from instil.model.catalogue import CATALOGUE

    rows = [
        (name, fmt.parameters(entry.parameters), entry.licence, entry.description)
        for name, entry in CATALOGUE.items()
    ]
    console = make_console()
    console.print(make_table(("model", "weights", "licence", "what"), rows, left=4, fold=True))
    for name, entry in CATALOGUE.items():
        parts = f" and {len(entry.members) - 1} more parts" if len(entry.members) > 1 else ""
        console.print(f"{name} comes from {entry.source}{parts}")
        if entry.accept:
            console.print(f"  to accept its terms, {entry.terms}: INSTIL_ACCEPT={entry.accept}")
    console.print("\nIn a recipe: `model: NAME`, `model: ./folder` or `model: org/name` (hub).")
