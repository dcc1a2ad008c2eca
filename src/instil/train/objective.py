"""What a batch's loss is made of, beside plain cross-entropy.

::

    loss = sum(w * nats) / sum of all shares  +  kl * sum(KL(base || tuned)) / places

over the *whole* batch, so that cutting it into more packs changes nothing. `w` is a token's share,
times its weight by entropy where that is asked for. The share is 1 where the loss is over tokens,
and one over the tokens trained on of the token's example where it is over examples: a batch's
shares sum to its supervised tokens, or to its examples. The base model is the same one with
its adapter switched off, or a frozen copy; it is run without gradient.
"""

from __future__ import annotations

import contextlib
import operator
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import torch

from instil.encode.batch import Batch
from instil.encode.places import places, same_start
from instil.model.adapter import adapter_off
from instil.model.engine.divergence import states
from instil.model.engine.losses import Anchor
from instil.model.load import LoadedModel
from instil.train.ranks import totals
from instil.types import KlOn, LossOver, Pack


@dataclass(frozen=True, slots=True)
class Objective:
    """What is minimised; by default plain cross-entropy."""

    over_what: LossOver = LossOver.TOKENS
    """What counts alike."""
    entropy_weighted: bool = False
    """Whether a token's cross-entropy counts by how unsure the model is there."""
    kl: float = 0.0
    """Weight of the distance from the base model; 0: none."""
    kl_on: KlOn = KlOn.PROMPT
    """At which places that is taken."""
    base: LoadedModel | None = None
    """The base model; None: the trained one with its adapter switched off."""
    seed: int = 0
    """Of the places that are drawn."""

    def over(self, packs: Sequence[Pack], *, step: int) -> Terms:
        """Return the objective over one whole batch, before any of it is cut."""
        whole = Terms(
            self,
            supervised=sum(sum(pack.mask) for pack in packs),
            examples=sum(len(trained_tokens(pack)) for pack in packs),
            step=step,
        )
        if not self.kl:
            return whole
        whole = replace(whole, skip=same_start(packs) if self.kl_on is KlOn.PROMPT else 0)
        return replace(whole, places=sum(len(whole.chosen(pack)) for pack in packs))


@dataclass(frozen=True, slots=True)
class Terms:
    """The objective, with the numbers of the whole batch by which its packs' sums are divided."""

    objective: Objective
    """What is minimised."""
    supervised: int
    """Tokens trained on."""
    examples: int = 0
    """Examples with any of these."""
    places: int = 0
    """Places at which the model is held to the base model."""
    skip: int = 0
    """Tokens that all prompts begin with."""
    step: int = 0
    """Number of the optimizer step."""

    @property
    def all_shares(self) -> int:
        """What the shares of all tokens of the batch sum to."""
        return self.examples if self.objective.over_what is LossOver.EXAMPLES else self.supervised

    def shares(self, pack: Pack, *, device: torch.device) -> torch.Tensor | None:
        """Return (S,) what each token trained on counts; None: 1 each."""
        if self.objective.over_what is LossOver.TOKENS:
            return None
        counts = trained_tokens(pack)
        each = [1 / counts[s] for m, s in zip(pack.mask, pack.segments, strict=True) if m]
        return torch.tensor(each, dtype=torch.float32, device=device)

    def chosen(self, pack: Pack) -> list[int]:
        """Return the places of a pack of this batch."""
        wanted = self.objective
        return places(pack, wanted.kl_on, seed=wanted.seed, step=self.step, skip=self.skip)

    def anchor(self, loaded: LoadedModel, pack: Pack, batch: Batch) -> Anchor | None:
        """Ask the base model at the chosen places; None where there is none.

        It computes the supervised places too, as the trained one does: rows of matrix products may
        round otherwise among fewer, and a model that has not moved would not be at zero.
        """
        chosen = self.chosen(pack) if self.places else []
        if not chosen:
            return None
        where = torch.tensor(chosen, device=loaded.device)
        untouched = self.objective.base or loaded
        asked = replace(batch, predict_from=torch.cat([batch.predict_from, where]))
        with torch.no_grad(), adapter_off(loaded.model), _at_rest(untouched.model):
            found = states(untouched.model, asked, build=untouched.build)
        return Anchor(where, found.rows(slice(batch.predict_from.shape[0], None)))


def trained_tokens(pack: Pack) -> Counter[int]:
    """Return how many tokens of each segment are trained on; segments with none are left out."""
    return Counter(s for m, s in zip(pack.mask, pack.segments, strict=True) if m)


@contextlib.contextmanager
def _at_rest(model: Any) -> Iterator[None]:
    """Within the block nothing is dropped out."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@dataclass(frozen=True, slots=True)
class Sums:
    """What a pack adds to a batch's figures; they add up over its packs."""

    nats: float = 0.0
    """Plain cross-entropy over the tasks' supervised tokens."""
    tokens: int = 0
    """Those tokens."""
    replay_nats: float = 0.0
    """The same over what is replayed."""
    replay_tokens: int = 0
    """Those tokens."""
    weights: float = 0.0
    """Of all supervised tokens."""
    kl: float = 0.0
    """KL(base || tuned) over the places."""

    def __add__(self, other: Sums) -> Sums:
        return Sums(*map(operator.add, astuple(self), astuple(other)))

    def over_all(self) -> Sums:
        """Return the sums over all processes."""
        nats, tokens, replay_nats, replay_tokens, weights, kl = totals(astuple(self))
        return Sums(nats, round(tokens), replay_nats, round(replay_tokens), weights, kl)

    @property
    def loss(self) -> float:
        """Nats per supervised token of the tasks; of the replay where there is no other."""
        if not self.tokens:
            return self.replay_nats / self.replay_tokens
        return self.nats / self.tokens

    @property
    def replay_loss(self) -> float | None:
        """Nats per token of the replay."""
        return self.replay_nats / self.replay_tokens if self.replay_tokens else None
