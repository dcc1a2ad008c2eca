"""How likely a model finds given completions: choice scoring, and cross-entropy of a target.

Prompts of one call share what they have in common (system message, worked examples, the template's
opening words): that prefix is computed once. Behind each prompt its completions branch off, and all
of them are scored in the same forward pass; a mask keeps the branches apart::

    prefix (once)  | padding  prompt's rest | choice A  | choice B b B
    --- cache ---- | -------- one row of the batch ------------------

The scoring rules for choices:

- `raw`: the sum of the completion's token log-probabilities;
- `normalised`: that sum divided by the completion's number of tokens;
- `calibrated`: `raw` minus the `raw` of the same choice behind the same prompt with a content-free
  input (Zhao et al. 2021, arXiv:2102.09690, with W = diag(p_cf)^-1 and b = 0).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from instil.encode.mask import ChatFormat
from instil.model.load import LoadedModel
from instil.types import Example, Prediction

RAW, NORMALISED, CALIBRATED = "raw", "normalised", "calibrated"

# Cells (rows x tokens of padded suffix) in one forward pass: bounds the memory of a batch.
BATCH_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class Likelihood:
    """One completion behind one prompt."""

    nats: float
    """Sum of the completion's token log-probabilities (negative)."""
    tokens: int
    """Tokens of the completion."""


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt and the completions to score behind it, as token ids."""

    prompt: tuple[int, ...]
    """At least one token."""
    completions: tuple[tuple[int, ...], ...]
    """Each of at least one token."""


def choice_request(example: Example, chat: ChatFormat) -> Request:
    """Tokenize an example and its choices.

    The stop token is scored along only where one choice's tokens begin another's ("1", "10"): there
    it alone tells them apart.
    """
    plain = [tuple(chat.completion(choice, stop=False)) for choice in example.choices]
    prefixed = any(a != b and b[: len(a)] == a for a in plain for b in plain)
    ends = (chat.stop_id,) if prefixed else ()
    return Request(tuple(chat.prompt(example.messages)), tuple(c + ends for c in plain))


def target_request(example: Example, chat: ChatFormat) -> Request:
    """Tokenize an example with its target, stop token included, as the one completion."""
    return Request(tuple(chat.prompt(example.messages)), (tuple(chat.completion(example.target)),))


def likelihoods(
    loaded: LoadedModel,
    requests: Sequence[Request],
    *,
    on_done: Callable[[int], None] = lambda _: None,
) -> list[tuple[Likelihood, ...]]:
    """Score every completion of every request; results in the order of the requests.

    Args:
        loaded: The model.
        requests: Prompts with completions.
        on_done: Called with the number of requests finished, batch by batch.
    """
    if not requests:
        return []
    loaded.model.eval()
    with torch.inference_mode():
        shared = common_prefix([r.prompt for r in requests])
        cache = _prefix_cache(loaded, requests[0].prompt[:shared]) if shared else None
        found: dict[int, tuple[Likelihood, ...]] = {}
        for numbers in _batches(requests, shared):
            rows = [requests[n] for n in numbers]
            found |= zip(numbers, _score(loaded, rows, cache, shared), strict=True)
            on_done(len(numbers))
    return [found[n] for n in range(len(requests))]


def common_prefix(prompts: Sequence[tuple[int, ...]]) -> int:
    """Return how many leading tokens all prompts share, leaving each at least one of its own.

    >>> common_prefix([(1, 2, 3), (1, 2, 4, 5)]), common_prefix([(1, 2)])
    (2, 1)
    """
    low, high = min(prompts), max(prompts)
    shared = 0
    limit = min(len(p) for p in prompts) - 1
    while shared < limit and low[shared] == high[shared]:
        shared += 1
    return shared


def _batches(requests: Sequence[Request], shared: int) -> Iterator[list[int]]:
    """Cut the requests, sorted by length, into batches of about `BATCH_TOKENS` cells."""

    def width(number: int) -> int:
        request = requests[number]
        return len(request.prompt) - shared + sum(len(c) - 1 for c in request.completions)

    batch: list[int] = []
    for number in sorted(range(len(requests)), key=width, reverse=True):
        if batch and (len(batch) + 1) * width(batch[0]) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(number)
    yield batch


def _prefix_cache(loaded: LoadedModel, prefix: Sequence[int]) -> DynamicCache:
    cache = DynamicCache()
    ids = torch.tensor([list(prefix)], device=loaded.device)
    loaded.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache


def _expanded(cache: DynamicCache, rows: int) -> DynamicCache:
    """Lay the prefix's keys and values under every row, without copying them."""
    data = [
        (layer.keys.expand(rows, -1, -1, -1), layer.values.expand(rows, -1, -1, -1))
        for layer in cache.layers
    ]
    return DynamicCache(data)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where a batch's tokens lie; B rows of L columns, behind a prefix of P tokens."""

    ids: torch.Tensor
    """(B, L)."""
    positions: torch.Tensor
    """(B, L)."""
    mask: torch.Tensor
    """(B, 1, L, P + L), True where a query may look."""
    last: int
    """The column of every prompt's last token."""
    starts: list[list[int]]
    """Row -> completion -> column of its first branch token."""


def _layout(rows: Sequence[Request], shared: int, pad_id: int) -> _Layout:
    rest = [r.prompt[shared:] for r in rows]
    width = max(len(tokens) for tokens in rest)
    branch = max(sum(len(c) - 1 for c in r.completions) for r in rows)
    length = width + branch
    ids = torch.full((len(rows), length), pad_id)
    positions = torch.zeros((len(rows), length), dtype=torch.long)
    mask = torch.zeros((len(rows), 1, length, shared + length), dtype=torch.bool)
    mask[..., :shared] = True
    lower = torch.ones(length, length, dtype=torch.bool).tril()
    starts: list[list[int]] = []
    for b, (request, tokens) in enumerate(zip(rows, rest, strict=True)):
        begin = width - len(tokens)
        ids[b, begin:width] = torch.tensor(tokens)
        positions[b, begin:width] = torch.arange(shared, shared + len(tokens))
        mask[b, 0, begin:width, shared + begin : shared + width] = lower[
            : len(tokens), : len(tokens)
        ]
        column, places = width, []
        for completion in request.completions:
            n = len(completion) - 1  # the last token is only predicted, never read
            here = slice(column, column + n)
            ids[b, here] = torch.tensor(completion[:-1], dtype=torch.long)
            positions[b, here] = torch.arange(len(request.prompt), len(request.prompt) + n)
            mask[b, 0, here, shared + begin : shared + width] = True
            mask[b, 0, here, shared + column : shared + column + n] = lower[:n, :n]
            places.append(column)
            column += n
        starts.append(places)
        # A padding query must look somewhere, or its softmax is NaN: it looks at itself.
        mask[b, 0].diagonal(shared).fill_(True)
    return _Layout(ids, positions, mask, width - 1, starts)


def _score(
    loaded: LoadedModel, rows: Sequence[Request], cache: DynamicCache | None, shared: int
) -> list[tuple[Likelihood, ...]]:
    layout = _layout(rows, shared, loaded.chat.pad_id)
    keep = torch.arange(layout.last, layout.ids.shape[1], device=loaded.device)
    logits = loaded.model(
        input_ids=layout.ids.to(loaded.device),
        position_ids=layout.positions.to(loaded.device),
        attention_mask=_for_model(loaded.model, layout.mask.to(loaded.device)),
        past_key_values=_expanded(cache, len(rows)) if cache is not None else None,
        use_cache=cache is not None,
        logits_to_keep=keep,
    ).logits
    return [
        _row_likelihoods(logits[b], request, layout.starts[b], layout.last)
        for b, request in enumerate(rows)
    ]


def _for_model(model: Any, mask: torch.Tensor) -> Any:
    """Models with sliding-window layers take one mask a kind of layer."""
    kinds = set(getattr(model.config, "layer_types", None) or ())
    if kinds <= {"full_attention"}:
        return mask
    window = model.config.sliding_window
    columns = torch.arange(mask.shape[-1], device=mask.device)
    queries = columns[mask.shape[-1] - mask.shape[-2] :]
    near = (queries[:, None] - columns[None, :]) < window
    return {"full_attention": mask, "sliding_attention": mask & near}


def _row_likelihoods(
    logits: torch.Tensor, request: Request, starts: Sequence[int], last: int
) -> tuple[Likelihood, ...]:
    """logits: (columns kept, vocabulary), column 0 being the prompt's last token."""
    results = []
    for completion, start in zip(request.completions, starts, strict=True):
        columns = [0, *range(start - last, start - last + len(completion) - 1)]
        chances = logits[columns].float().log_softmax(-1)
        chosen = chances[range(len(completion)), list(completion)]
        results.append(Likelihood(float(chosen.sum()), len(completion)))
    return tuple(results)


def choice_scores(
    found: Sequence[Likelihood], *, content_free: Sequence[Likelihood] | None = None
) -> Mapping[str, tuple[float, ...]]:
    """Apply every scoring rule to one example: rule -> one figure a choice."""
    scores = {
        RAW: tuple(like.nats for like in found),
        NORMALISED: tuple(like.nats / like.tokens for like in found),
    }
    if content_free is not None:
        pairs = zip(found, content_free, strict=True)
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
