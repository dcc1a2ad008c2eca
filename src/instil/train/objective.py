"""What a batch's loss is made of, beside plain cross-entropy.

::

    loss = sum(w * nats) / sum of all shares  +  for each distance: weight * sum / places

over the *whole* batch, so that cutting it into more packs changes nothing. `w` is a token's share,
times what the terms weigh it with (`train.terms`). The share is 1 where the loss is over tokens,
and one over the tokens trained on of the token's example where it is over examples: a batch's
shares sum to its supervised tokens, or to its examples. The base model is the same one with
its adapter switched off, or a frozen copy; it is run without gradient.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from instil.encode.batch import Batch, to_batch
from instil.encode.places import places, same_start
from instil.encode.shown import shown
from instil.model.adapter import adapter_off
from instil.model.engine.divergence import states
from instil.model.engine.losses import Anchor, Losses
from instil.model.load import LoadedModel
from instil.train.ranks import totals
from instil.train.terms import Term
from instil.types import REPLAY_LOSS, KlOn, LossOver, Pack


@dataclass(frozen=True, slots=True)
class Objective:
    """What is minimised; by default plain cross-entropy."""

    over_what: LossOver = LossOver.TOKENS
    """What counts alike."""
    terms: tuple[Term, ...] = ()
    """What is done beside."""
    base: LoadedModel | None = None
    """The base model; None: the trained one with its adapter switched off."""
    seed: int = 0
    """Of the places that are drawn."""

    def over(self, packs: Sequence[Pack], *, step: int) -> BatchObjective:
        """Return the objective over one whole batch, before any of it is cut."""
        supervised = sum(sum(pack.mask) for pack in packs)
        whole = BatchObjective(
            self,
            supervised=supervised,
            examples=sum(len(trained_tokens(pack)) for pack in packs),
            step=step,
        )
        if not self.terms:
            return whole
        if any(term.distance and term.on is KlOn.PROMPT for term in self.terms):
            whole = replace(whole, skip=same_start(packs))
        counts = (
            supervised if term.weigh else sum(len(whole.chosen(term, pack)) for pack in packs)
            for term in self.terms
        )
        return replace(whole, counts=tuple(counts))


@dataclass(frozen=True, slots=True)
class BatchObjective:
    """The objective, with the numbers of the whole batch by which its packs' sums are divided."""

    objective: Objective
    """What is minimised."""
    supervised: int
    """Tokens trained on."""
    examples: int = 0
    """Examples with any of these."""
    counts: tuple[int, ...] = ()
    """Of each term: places at which it is taken."""
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

    def chosen(self, term: Term, pack: Pack) -> list[int]:
        """Return the places of a pack of this batch at which a term's distance is taken."""
        seed = self.objective.seed
        return places(pack, term.on, seed=seed, step=self.step, skip=self.skip)

    def anchors(self, loaded: LoadedModel, pack: Pack, batch: Batch) -> tuple[Anchor, ...]:
        """Ask the base model at the chosen places of each term with a distance.

        It computes the supervised places too, as the trained one does: rows of matrix products may
        round otherwise among fewer, and a model that has not moved would not be at zero. For a term
        with `shown` it reads each example with its answer first, in a pass of its own.

        Where it is dealt out (`train.dealt_base`) all processes must ask it as often, so that it is
        also asked of a pack without such places.
        """
        held = [(term, self.chosen(term, pack)) for term in self.objective.terms if term.distance]
        untouched = self.objective.base or loaded
        in_step = untouched.through is not None
        nowhere = not any(chosen for _, chosen in held)
        if not held or (nowhere and not in_step):
            return ()
        where = [torch.tensor(chosen, dtype=torch.long, device=loaded.device) for _, chosen in held]
        before, teaches = None, any(term.shown for term, _ in held)
        if teaches:
            before = shown(pack, bos=loaded.chat.tokenizer.bos_token_id)
        anchors = []
        with torch.no_grad(), adapter_off(loaded.model), _at_rest(untouched.model):
            if before is not None:
                twice = to_batch(before, device=loaded.device)
                taught = states(untouched.model, twice, build=untouched.build)
            elif teaches and in_step and not all(term.shown for term, _ in held):
                states(untouched.model, batch, build=untouched.build)
            if before is None or not all(term.shown for term, _ in held):
                plain = [at for (term, _), at in zip(held, where, strict=True) if not term.shown]
                asked = replace(batch, predict_from=torch.cat([batch.predict_from, *plain]))
                said = states(untouched.model, asked, build=untouched.build)
        if nowhere:
            return ()
        begin = batch.predict_from.shape[0]
        for (term, _), at in zip(held, where, strict=True):
            assert term.distance is not None
            if term.shown and before is not None:
                theirs = taught  # at its places alone, which are `at` in the same order
            else:
                theirs = said.rows(slice(begin, begin := begin + len(at)))
            anchors.append(Anchor(at, theirs, term.distance))
        return tuple(anchors)

    @property
    def nothing(self) -> Sums:
        """What no pack at all adds to the figures."""
        return Sums(terms=(0.0,) * len(self.objective.terms))

    def sums(self, pack: Pack, losses: Losses) -> Sums:
        """Return what a pack adds to the figures, from what the model said of it."""
        trained = zip(pack.mask, pack.segments, strict=True)
        again = torch.tensor([pack.replayed[segment] for mask, segment in trained if mask])
        nats, weights = losses.nats.cpu(), iter(losses.weights.sum(0).tolist())
        distances = iter(distance.detach() for distance in losses.distances)
        return Sums(
            nats=float(nats[~again].sum()),
            tokens=int((~again).sum()),
            replay_nats=float(nats[again].sum()),
            replay_tokens=int(again.sum()),
            terms=tuple(
                next(weights) if term.weigh else float(next(distances, 0.0))
                for term in self.objective.terms
            ),
        )

    def loss(self, losses: Losses) -> torch.Tensor:
        """Return a pack's share of the batch's loss, a scalar."""
        loss = losses.total / self.all_shares
        held = [
            (term.weight, count)
            for term, count in zip(self.objective.terms, self.counts, strict=True)
            if term.distance
        ]
        for (weight, count), distance in zip(held, losses.distances, strict=False):
            if count:
                loss = loss + weight * distance / count
        return loss

    def means(self, sums: Sums) -> Mapping[str, float]:
        """Return what each term came to over the batch, by name; the replay's loss too."""
        named = zip(self.objective.terms, sums.terms, self.counts, strict=True)
        means = {term.name: total / count for term, total, count in named if count}
        if sums.replay_tokens:
            means[REPLAY_LOSS] = sums.replay_nats / sums.replay_tokens
        return means


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
    terms: tuple[float, ...] = ()
    """Of each term: its weights of the supervised tokens, or its distance over its places."""

    def __add__(self, other: Sums) -> Sums:
        return _sums_of([a + b for a, b in zip(self._values, other._values, strict=True)])

    def over_all(self) -> Sums:
        """Return the sums over all processes."""
        return _sums_of(totals(self._values))

    @property
    def _values(self) -> tuple[float, ...]:
        return (self.nats, self.tokens, self.replay_nats, self.replay_tokens, *self.terms)

    @property
    def loss(self) -> float:
        """Nats per supervised token of the tasks; of the replay where there is no other."""
        if not self.tokens:
            return self.replay_nats / self.replay_tokens
        return self.nats / self.tokens


def _sums_of(values: Sequence[float]) -> Sums:
    nats, tokens, replay_nats, replay_tokens, *terms = values
    return Sums(nats, round(tokens), replay_nats, round(replay_tokens), tuple(terms))
