"""Greedy generation in batches by length, each row until its own stop token."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from instil.model.export import generation_config
from instil.model.load import LoadedModel
from instil.types import Example, Prediction

# Cells (rows x prompt tokens, padded) in one batch.
BATCH_TOKENS = 4096


def generate(
    loaded: LoadedModel,
    examples: Sequence[Example],
    *,
    max_new_tokens: int,
    on_done: Callable[[int], None] = lambda _: None,
) -> list[Prediction]:
    """Complete every example greedily; results in the order of the examples.

    `Prediction.stopped` says whether the model ended by itself within `max_new_tokens`.
    """
    prompts = [loaded.chat.prompt(e.messages) for e in examples]
    loaded.model.eval()
    found: dict[int, Prediction] = {}
    for numbers in _batches(prompts, max_new_tokens):
        rows = _continue(loaded, [prompts[n] for n in numbers], max_new_tokens)
        for n, new in zip(numbers, rows, strict=True):
            found[n] = _prediction(loaded, examples[n], new, len(prompts[n]))
        on_done(len(numbers))
    return [found[n] for n in range(len(examples))]


def _batches(prompts: Sequence[Sequence[int]], new: int) -> list[list[int]]:
    batches: list[list[int]] = [[]]
    for n in sorted(range(len(prompts)), key=lambda n: len(prompts[n]), reverse=True):
        first = batches[-1][0] if batches[-1] else n
        if batches[-1] and (len(batches[-1]) + 1) * (len(prompts[first]) + new) > BATCH_TOKENS:
            batches.append([])
        batches[-1].append(n)
    return [batch for batch in batches if batch]


def _continue(
    loaded: LoadedModel, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> list[list[int]]:
    """Return the new tokens of each row, padding and all."""
    width = max(len(p) for p in prompts)
    # Padded on the left and masked by position: the padding token may well be the stop token.
    ids = torch.full((len(prompts), width), loaded.chat.pad_id)
    mask = torch.zeros((len(prompts), width), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    config = generation_config(loaded)
    config.max_new_tokens = max_new_tokens
    with torch.inference_mode():
        out = loaded.model.generate(
            input_ids=ids.to(loaded.device),
            attention_mask=mask.to(loaded.device),
            generation_config=config,
        )
    return [[int(token) for token in row[width:]] for row in out]


def _prediction(
    loaded: LoadedModel, example: Example, new: Sequence[int], prompt_tokens: int
) -> Prediction:
    stops = set(loaded.chat.stop_ids)
    end = next((n for n, token in enumerate(new) if token in stops), None)
    kept = new if end is None else new[:end]
    return Prediction(
        example.id,
        loaded.chat.tokenizer.decode(kept, skip_special_tokens=True).strip(),
        stopped=end is not None,
        prompt_tokens=prompt_tokens,
        new_tokens=len(kept) + (end is not None),
    )
