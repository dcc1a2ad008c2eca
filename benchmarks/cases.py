"""The benchmarks: for each its rows, the command of each side, and what instil is to reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import rows

INSTIL, ZERO_SHOT = "instil", "instil, zero-shot"
TRL_DEFAULT, TRL_BEST, LM_EVAL = "TRL default", "TRL best", "lm-eval"
PRODUCTS = "its products alone"
SIZES = (25_000, 50_000, 100_000)
QUICK_SIZES = (500, 1000, 2000)
MILLION, QUICK_MILLION = 1_000_000, 15_000  # the fewer are enough for processes to be started


@dataclass(frozen=True, slots=True)
class Side:
    """One contender: a script of `sides/` and its arguments behind rows and model."""

    script: str
    """File name."""
    arguments: tuple[str, ...] = ()
    """Behind rows and model."""
    peer: bool = False
    """Runs in the peers' environment."""
    candidates: tuple[tuple[str, ...], ...] = ((),)
    """More arguments: each tried once, the fastest kept for the repeats."""
    trying: tuple[str, ...] = ()
    """Arguments of a try alone, to keep it short."""
    rows: str = "rows"
    """Which file of rows it sees; a side that makes its own names their task instead."""


@dataclass(frozen=True, slots=True)
class Target:
    """What "Done when" asks for; judged by the median over the repeats."""

    figure: str
    """`speed`, `memory`: instil's as a multiple of `against`'s; `peak`: share of the measured
    matrix products; `seconds`, `growth`, `gigabytes`: of instil itself."""
    bound: float
    """The least (speed, peak) or the most (the others)."""
    against: str = ""
    """The other side."""

    @property
    def at_least(self) -> bool:
        """Whether more is better."""
        return self.figure in ("speed", "peak")


@dataclass(frozen=True, slots=True)
class Case:
    """One benchmark."""

    name: str
    """For the table."""
    make_rows: Callable[[Path], None]
    """Writes the files of rows that the sides see into a folder."""
    sides: Mapping[str, Side]
    """Name -> side; instil's own first."""
    operations: int = 0
    """Per weight and token: 2 forward, 4 with gradients through frozen weights, 6 with gradients
    of all weights; 0: nothing is multiplied."""
    same_work: bool = True
    """Every side's tokens are those of the same rows; else sides are compared by seconds."""
    targets: tuple[Target, ...] = ()
    """What it is to reach."""
    note: str = ""
    """What a reader must know."""
    agree: tuple[Side, ...] = ()
    """instil's and the peer's account of the first step's loss in float32; neither trains."""
    gpu: bool = False
    """Run with --gpu alone."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """A llama config to fill with random weights; empty: the model of the benchmark."""
    beside: int = 0
    """Processes that keep a core busy each, as long as the case is measured."""


SHORT = ("positive_or_negative", "good_or_bad", "satisfied", "for_or_against", "mood")
# The likeliest first. `pure` (108 tokens/s), `eager-padding-free` (113), `grouped` (129),
# `padding-free` (136) and `packing` (148) are left out: on the same short prompts `eager-small`
# made 166.
TRL_CPU = ("eager-small", "eager", "small", "padded", "default")
TRL_GPU = ("padded", "checkpointed", "padding-free", "liger", "liger-checkpointed")
SPARING = (
    Target("memory", 0.45, TRL_DEFAULT),
    Target("memory", 0.45, TRL_BEST),
    Target("speed", 0.6, PRODUCTS),
)
LORA = (
    Target("speed", 10.0, TRL_DEFAULT),
    Target("speed", 5.0, TRL_BEST),
    *SPARING,
    Target("peak", 0.6),
)
LORA_LONG = (Target("speed", 5.0, TRL_DEFAULT), *SPARING)
FULL = (Target("speed", 4.0, TRL_BEST),)
BUSY = (Target("speed", 5.0, TRL_BEST),)


def training_sides(
    method: str, *, batch: int, settings: tuple[str, ...], instil: tuple[str, ...] = ()
) -> dict[str, Side]:
    common = ("--method", method, "--batch", str(batch))
    candidates = tuple(("--settings", name) for name in settings)
    return {
        INSTIL: Side("train_instil.py", (*common, *instil)),
        TRL_DEFAULT: Side("train_trl.py", (*common, "--settings", "default"), peer=True),
        TRL_BEST: Side(
            "train_trl.py", common, peer=True, candidates=candidates, trying=("--steps", "2")
        ),
    }


def agreeing_sides(method: str, *, batch: int) -> tuple[Side, Side]:
    common = ("--method", method, "--batch", str(batch), "--agree")
    return (
        Side("train_instil.py", common),
        Side("train_trl.py", (*common, "--settings", "float32"), peer=True),
    )


def train_case(
    name: str,
    method: str,
    *,
    task: str,
    templates: tuple[str, ...],
    batch: int,
    steps: int,
    targets: tuple[Target, ...],
    note: str = "",
    beside: int = 0,
) -> Case:
    def make(folder: Path) -> None:
        rows.training_rows(
            folder / "rows.jsonl", task=task, rows=batch * steps, templates=templates
        )

    sides = training_sides(method, batch=batch, settings=TRL_CPU)
    if not beside:
        sides[PRODUCTS] = replace(sides[INSTIL], script="products_instil.py")
    return Case(
        name,
        make,
        sides,
        operations=4 if method == "lora" else 6,
        targets=targets,
        note=note,
        agree=agreeing_sides(method, batch=batch),
        beside=beside,
    )


def score_case(
    name: str,
    *,
    task: str,
    template: str,
    count: int,
    bound: float,
    shots: int = 0,
    note: str = "",
    beside: int = 0,
) -> Case:
    def make(folder: Path) -> None:
        made = partial(rows.scoring_rows, task=task, rows=count, template=template)
        made(folder / "rows.jsonl", shots=shots)
        if shots:
            made(folder / "zero.jsonl")

    sides = {
        INSTIL: Side("score_instil.py"),
        LM_EVAL: Side("score_lm_eval.py", peer=True, candidates=(("16",), ("4",), ("64",))),
    }
    targets = [Target("speed", bound, LM_EVAL)]
    if shots:
        sides[ZERO_SHOT] = Side("score_instil.py", rows="zero")
        targets.append(Target("seconds", 1.3, ZERO_SHOT))
    return Case(name, make, sides, operations=2, targets=tuple(targets), note=note, beside=beside)


def generate_case(*, count: int) -> Case:
    def make(folder: Path) -> None:
        rows.scoring_rows(
            folder / "rows.jsonl", task="bbc_headline", rows=count, template="headline"
        )

    new = ("24",)
    return Case(
        "generation",
        make,
        {
            INSTIL: Side("generate_instil.py", new),
            LM_EVAL: Side(
                "generate_lm_eval.py", new, peer=True, candidates=(("16",), ("8",), ("32",))
            ),
        },
        operations=2,
        same_work=False,
        note="greedy, at most 24 new tokens; tokens are those of prompts and answers, and the "
        "ratio is that of the seconds for the same rows",
    )


def data_case(sizes: tuple[int, ...]) -> Case:
    sides = {
        f"instil, {size:,} rows": Side("data_instil.py", (str(size),), rows="amazon_reviews")
        for size in reversed(sizes)
    }
    largest, *_, smallest = sides
    return Case(
        "rows rendered, encoded, packed",
        lambda folder: None,
        sides,
        targets=(Target("seconds", 60.0), Target("growth", 1.25, smallest)),
        note="real rows drawn with repetition, each made unique by a number behind its text; "
        f"memory counts as flat where {largest.split(', ')[1]} peak at most 1.25 times as high "
        f"as {smallest.split(', ')[1]}",
    )


def million_case(size: int) -> Case:
    side = Side("data_instil.py", (str(size),), rows="amazon_reviews")
    return Case(
        "a million rows",
        lambda folder: None,
        {f"instil, {size:,} rows": side},
        targets=(Target("seconds", 300.0), Target("gigabytes", 2.0)),
        note="a process a core, shards kept on disk on the way; memory is that of all processes "
        "together, the pages that they share counted in each",
    )


LONG_NOTE = "first 300 words of news stories, their headlines as completions"
BUSY_NOTE = "a process that keeps a core busy beside every side"


def cases(*, quick: bool = False) -> tuple[Case, ...]:
    """The cases of a CPU; `quick` ones show that everything works, and measure nothing."""
    batch, steps, count = (4, 2, 12) if quick else (16, 5, 120)
    short = {"task": "amazon_reviews", "templates": SHORT, "batch": batch, "steps": steps}
    one = {"task": "amazon_reviews", "template": "for_or_against", "count": count}
    return (
        train_case("LoRA, short prompts", "lora", **short, targets=LORA),
        train_case(
            "LoRA, long prompts",
            "lora",
            task="bbc_headline",
            templates=("long_story",),
            batch=max(2, batch // 4),
            steps=steps,
            targets=LORA_LONG,
            note=LONG_NOTE,
        ),
        train_case(
            "LoRA, short prompts, busy", "lora", **short, targets=BUSY, beside=1, note=BUSY_NOTE
        ),
        train_case("full, short prompts", "full", **short, targets=FULL),
        score_case("choices of one token", **one, bound=1.5),
        score_case("choices of one token, busy", **one, bound=1.5, beside=1, note=BUSY_NOTE),
        score_case(
            "choices of several tokens",
            task="bbc_topic",
            template="sentences",
            count=count // 2,
            bound=3.0,
            note="five choices, whole sentences",
        ),
        score_case(
            "two choices of several tokens",
            task="quartz",
            template="words",
            count=count,
            bound=3.0,
            note="the library's own wording",
        ),
        score_case("choices, five-shot", **one, shots=5, bound=4.0),
        generate_case(count=6 if quick else 48),
        data_case(QUICK_SIZES if quick else SIZES),
        million_case(QUICK_MILLION if quick else MILLION),
    )


# Llama 3.2 1B and 3B, Llama 3.1 8B: the shapes alone, no weights.
SHAPES = {
    "1B": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": True,
    },
    "3B": {
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "tie_word_embeddings": True,
    },
    "8B": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": False,
    },
}
GPU_VOCABULARY = 128_256
TINY = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}


def gpu_cases(*, tiny: bool = False) -> tuple[Case, ...]:
    """The cases of a GPU; `tiny` ones take the same paths on any machine, and measure nothing."""
    if tiny:
        return tuple(_gpu_case("tiny", m, {**TINY, "vocab_size": 1024}, tiny) for m in METHODS)
    return tuple(
        _gpu_case(name, method, {**shape, "vocab_size": GPU_VOCABULARY}, tiny)
        for name, shape in SHAPES.items()
        for method in METHODS
    )


METHODS = ("lora", "full")


def _gpu_case(shape: str, method: str, config: dict[str, Any], tiny: bool) -> Case:
    batch, steps, words, answer = (2, 2, 20, 4) if tiny else (16, 4, 500, 60)

    def make(folder: Path) -> None:
        rows.made_up_rows(folder / "rows.jsonl", rows=batch * steps, words=words, answer=answer)

    sides = training_sides(
        method,
        batch=batch,
        settings=("padded",) if tiny else TRL_GPU,
        instil=() if tiny else ("--micro", "4096"),
    )
    return Case(
        f"GPU: {shape} shape, {method}",
        make,
        sides,
        operations=4 if method == "lora" else 6,
        note="random weights, made-up rows",
        agree=agreeing_sides(method, batch=batch) if tiny else (),
        gpu=True,
        model=config,
    )
