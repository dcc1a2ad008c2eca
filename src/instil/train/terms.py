"""The terms of the loss beside plain cross-entropy, each with its name, key and sentence.

A term either weighs each supervised token's cross-entropy, or adds the mean of a distance from the
base model over chosen places. Another one is a function of the recipe's `keep` section in `TERMS`:
steps, the memory and time forecast, summary and report take it from there (`docs/extending.md`).

Tests: `tests/train/test_objective.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from instil import format as fmt
from instil.config.sections import Keep
from instil.model.engine.losses import Distance, Weigh, entropy_weights, forward_kl
from instil.types import KlOn


@dataclass(frozen=True, slots=True)
class Term:
    """One term; with `weigh`, or with `distance` and where it is taken."""

    name: str
    """In `Step.terms`."""
    what: str
    """The sentence that says what was done, without its full stop."""
    figure: str
    """What is said of the mean over the steps, behind `what`: a text with one `{}`."""
    digits: int
    """Decimals of that mean."""
    weight: float = 1.0
    """Of the distance's mean over its places, in the loss."""
    weigh: Weigh | None = None
    """What each supervised token's cross-entropy is multiplied with."""
    distance: Distance | None = None
    """From the base model, at each place."""
    on: KlOn = KlOn.PROMPT
    """At which places."""
    shown: bool = False
    """Whether the base model has read the example with its answer before (`encode.shown`)."""

    def sentence(self, mean: float | None) -> str:
        """Return what was done and what came of it, for people; `mean`: over the steps."""
        figure = "" if mean is None else self.figure.format(fmt.fixed(mean, self.digits))
        return f"{self.what}{figure}."


def kl(keep: Keep) -> Term | None:
    """Return `keep.kl`: KL(base || tuned), so that the model is held to what it said before."""
    if not keep.kl:
        return None
    where = {
        KlOn.PROMPT: "where tokens of the prompts are predicted",
        KlOn.COMPLETION: "where the answers are predicted",
        KlOn.REPLAY: "where what is replayed is predicted",
    }[keep.kl_on]
    return Term(
        "kl",
        f"Held to the base model {where}: forward KL with a weight of {keep.kl:g}",
        "; {} nats on average",
        4,
        weight=keep.kl,
        distance=forward_kl,
        on=keep.kl_on,
    )


def entropy(keep: Keep) -> Term | None:
    """Return `keep.entropy_weighted`: what the model is sure of is changed least."""
    if not keep.entropy_weighted:
        return None
    what = "Each token's loss was weighted by how unsure the model was there"
    return Term("entropy_weight", what, ", {} on average", 3, weigh=entropy_weights)


def distil(keep: Keep) -> Term | None:
    """Return `keep.distil`: what the base model says once it has been shown the answer is learned.

    KL(base, shown the answer || tuned) where the answers are predicted, beside the cross-entropy:
    the teacher of self-distillation (Shenfeld et al. 2026, arXiv:2601.19897), which is the same
    model with a demonstration before it, on the reference answers as in Yang et al. 2024
    (arXiv:2402.13669). Both draw texts; here the whole distribution is learned at each place.
    """
    if not keep.distil:
        return None
    return Term(
        "distil",
        "Distilled from the base model, which was shown each answer: forward KL with a weight of "
        f"{keep.distil:g}",
        "; {} nats on average",
        4,
        weight=keep.distil,
        distance=forward_kl,
        on=KlOn.COMPLETION,
        shown=True,
    )


TERMS: tuple[Callable[[Keep], Term | None], ...] = (kl, entropy, distil)


def terms_of(keep: Keep) -> tuple[Term, ...]:
    """Return the terms that a recipe asks for."""
    return tuple(term for make in TERMS if (term := make(keep)) is not None)


def asks_base(keep: Keep) -> bool:
    """Whether the base model is run along: a forward pass more for each batch, or two."""
    return base_passes(keep) > 0


def base_passes(keep: Keep) -> int:
    """Return how often a batch's tokens are read by the base model too; twice where it is shown."""
    asked = {term.shown for term in terms_of(keep) if term.distance is not None}
    return sum(2 if shown else 1 for shown in asked)
