"""How likely a model finds given completions: choice scoring, and cross-entropy of a target.

Prompts of one call share what they have in common (system message, worked examples, the template's
opening words): that prefix is computed once a pack. Behind each prompt its completions branch off,
and all are scored in the same forward pass, without padding (see `model.engine.attention`)::

    prefix | prompt 0 | choice A | choice B b B | prompt 1 | choice A | choice B b B

The scoring rules for choices:

- `raw`: the sum of the completion's token log-probabilities;
- `normalised`: that sum divided by the completion's number of tokens;
- `calibrated`: `raw` minus the `raw` of the same choice behind the same prompt with a content-free
  input (Zhao et al. 2021, arXiv:2102.09690, with W = diag(p_cf)^-1 and b = 0).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from instil.encode.batch import Batch, make_batch
from instil.encode.chat_format import ChatFormat
from instil.encode.store import common_start
from instil.model.engine.packed import log_chances
from instil.model.load import LoadedModel
from instil.model.shortage import halved
from instil.types import Example, Prediction

OnDone = Callable[[int], None]
"""Progress: called with the number of examples, prompts or rows that are finished."""
RAW, NORMALISED, CALIBRATED = "raw", "normalised", "calibrated"

PACK_TOKENS = 4096
"""Tokens computed in one forward pass."""


@dataclass(frozen=True, slots=True)
class Likelihood:
    """One completion behind one prompt."""

    nats: float
    """Sum of the completion's token log-probabilities (negative)."""
    tokens: int
    """Tokens of the completion."""
    last: float = 0.0
    """Log-probability of its last token alone."""


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt and the completions to score behind it, as token ids."""

    prompt: tuple[int, ...]
    """At least one token."""
    completions: tuple[tuple[int, ...], ...]
    """Each of at least one token."""

    @property
    def tokens(self) -> int:
        """Tokens to compute: the prompt, and all of each completion but its last token."""
        return len(self.prompt) + sum(len(c) - 1 for c in self.completions)


def one_begins_another(completions: Sequence[tuple[int, ...]]) -> bool:
    """Whether one choice's tokens begin another's, without the stop token that tells them apart.

    >>> one_begins_another([(1,), (1, 0)]), one_begins_another([(1, 2), (1, 3)])
    (True, False)
    """
    return any(a != b and b[: len(a)] == a for a in completions for b in completions)


def choice_request(example: Example, chat: ChatFormat, *, stop: bool | None = None) -> Request:
    """Tokenize an example and its choices.

    The stop token is scored along where `stop` says so; None: only where it is needed.
    """
    ask = partial(chat.answered, example.messages, example.choices, tools=example.tools)
    asked = ask(stop=bool(stop))
    if stop is None and one_begins_another(asked.completions):
        asked = ask(stop=True)
    return Request(asked.prompt, asked.completions)


def without_stop(scored: Likelihood) -> Likelihood:
    """Take the stop token, scored last, off again."""
    return Likelihood(scored.nats - scored.last, scored.tokens - 1)


def target_request(example: Example, chat: ChatFormat) -> Request:
    """Tokenize an example with its target, stop token included, as the one completion."""
    asked = chat.target(example)
    return Request(asked.prompt, asked.completions)


def likelihoods(
    loaded: LoadedModel,
    requests: Sequence[Request],
    *,
    on_done: OnDone = lambda _: None,
) -> list[tuple[Likelihood, ...]]:
    """Score every completion of every request; results in the order of the requests.

    Args:
        loaded: The model.
        requests: Prompts with completions.
        on_done: Called with the number of requests finished, pack by pack.
    """
    if not requests:
        return []
    loaded.model.eval()
    shared = common_prefix([r.prompt for r in requests])
    scored: list[tuple[Likelihood, ...]] = []
    with torch.inference_mode():
        for rows in packs(requests, shared):
            most = max(len(r.prompt) + max(map(len, r.completions)) for r in rows)
            together = most < (loaded.build.longest or sys.maxsize)
            score = _score if together else _score_apart
            scored += halved(partial(score, loaded, shared=shared), rows)
            on_done(len(rows))
    return scored


def _score_apart(
    loaded: LoadedModel, rows: Sequence[Request], *, shared: int
) -> list[tuple[Likelihood, ...]]:
    """Score each completion in a row of its own, which is read whole, as in training.

    Where rotary positions change with the length of the row (`Build.longest`), what is said of any
    token depends on all of the row.
    """
    apart = [Request(row.prompt, (completion,)) for row in rows for completion in row.completions]
    scored = iter(_score(loaded, apart, shared=shared, whole=True))
    return [tuple(next(scored)[0] for _ in row.completions) for row in rows]


def common_prefix(prompts: Sequence[tuple[int, ...]]) -> int:
    """Return how many leading tokens all prompts share, leaving each at least one of its own.

    >>> common_prefix([(1, 2, 3), (1, 2, 4, 5)]), common_prefix([(1, 2)])
    (2, 1)
    """
    return common_start(min(prompts), max(prompts), limit=min(map(len, prompts)) - 1)


def packs(requests: Sequence[Request], shared: int) -> Iterator[list[Request]]:
    """Cut the requests, in order, into packs of about `PACK_TOKENS` computed tokens."""
    rows: list[Request] = []
    filled = shared
    for request in requests:
        own = request.tokens - shared
        if rows and filled + own > PACK_TOKENS:
            yield rows
            rows, filled = [], shared
        rows.append(request)
        filled += own
    yield rows


def lay_out(
    rows: Sequence[Request], shared: int, *, device: torch.device, whole: bool = False
) -> Batch:
    """Lay requests out in one pack behind their shared prefix; every completion is predicted.

    With `whole` the last token of each completion is read too, though nothing depends on it but the
    length of its row.
    """
    ids, places = list(rows[0].prompt[:shared]), list(range(shared))
    keep: list[int] = []  # the places whose next token is scored: a completion's, one after another
    segments: list[tuple[int, ...]] = []
    for request in rows:
        start = len(request.prompt)
        ids += request.prompt[shared:]
        places += range(shared, start)
        last, branches = len(ids) - 1, list[int]()
        for completion in request.completions:
            read = completion if whole else completion[:-1]  # the last token is only predicted
            keep += [last, *range(len(ids), len(ids) + len(completion) - 1)]
            ids += read
            places += range(start, start + len(read))
            branches.append(len(read))
        segments.append((start - shared, *branches))
    wanted = [token for r in rows for completion in r.completions for token in completion]
    return make_batch(
        ids,
        places,
        segments=tuple(segments),
        shared_prefix=shared,
        predict_from=torch.tensor(keep),
        labels=torch.tensor(wanted),
        device=device,
        prompts=tuple(len(r.prompt) for r in rows),
    )


def _score(
    loaded: LoadedModel, rows: Sequence[Request], *, shared: int, whole: bool = False
) -> list[tuple[Likelihood, ...]]:
    """Compute the rows in one pack, and read every completion's probability off."""
    batch = lay_out(rows, shared, device=loaded.device, whole=whole)
    chances = iter(log_chances(loaded.model, batch, build=loaded.build).tolist())
    scored = []
    for request in rows:
        nats = [[next(chances) for _ in completion] for completion in request.completions]
        scored.append(tuple(Likelihood(sum(each), len(each), each[-1]) for each in nats))
    return scored


def choice_scores(
    choices: Sequence[Likelihood], *, content_free: Sequence[Likelihood] | None = None
) -> Mapping[str, tuple[float, ...]]:
    """Apply every scoring rule to one example: rule -> one figure a choice."""
    scores = {
        RAW: tuple(like.nats for like in choices),
        NORMALISED: tuple(like.nats / like.tokens for like in choices),
    }
    if content_free is not None:
        pairs = zip(choices, content_free, strict=True)
        scores[CALIBRATED] = tuple(like.nats - free.nats for like, free in pairs)
    return scores


def prediction(example: Example, scores: Sequence[float], *, prompt_tokens: int) -> Prediction:
    """Take the likeliest choice; the first of equals."""
    best = max(range(len(scores)), key=lambda n: scores[n])
    return Prediction(
        example.id,
        example.choices[best],
        choice_scores=tuple(scores),
        prompt_tokens=prompt_tokens,
    )
