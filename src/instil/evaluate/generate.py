"""Generation in batches: greedy, each row until its own stop token; and texts drawn at random."""

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


def sample_texts(
    loaded: LoadedModel,
    count: int,
    *,
    max_new_tokens: int,
    seed: int,
    on_done: Callable[[int], None] = lambda _: None,
) -> list[tuple[int, ...]]:
    """Let the model write from its beginning-of-text token: plain sampling at temperature 1.

    The texts are draws from what the model itself takes for text, cut off at `max_new_tokens`.

    Args:
        loaded: The model.
        count: Texts wanted.
        max_new_tokens: Longest text.
        seed: Of the draws; the random state outside is left as it is.
        on_done: Called with the number of texts finished, batch by batch.

    Returns:
        Token ids, the beginning-of-text token first, the end-of-text token last where it was said.
    """
    start, ends = loaded.chat.text_start, loaded.chat.text_ends
    config = generation_config(loaded)
    config.update(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=max_new_tokens
    )
    # Without an end: a token that there is none of. Given none, transformers would take the model's
    # own, and fill the rest of the text up.
    config.eos_token_id = list(ends) or loaded.model.get_input_embeddings().weight.shape[0]
    loaded.model.eval()
    size = max(1, BATCH_TOKENS // (1 + max_new_tokens))
    texts: list[tuple[int, ...]] = []
    with torch.inference_mode(), torch.random.fork_rng():
        torch.manual_seed(seed)
        while len(texts) < count:
            ids = torch.full((min(size, count - len(texts)), 1), start, device=loaded.device)
            found = loaded.model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config
            )
            texts += [_up_to_end(row.tolist(), ends) for row in found]
            on_done(len(ids))
    return texts


def _up_to_end(ids: Sequence[int], ends: Sequence[int]) -> tuple[int, ...]:
    """Cut off what fills a row up behind its end; the first token may well be the same one."""
    end = next((n for n, token in enumerate(ids) if n and token in ends), len(ids))
    return tuple(ids[: end + 1])


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
