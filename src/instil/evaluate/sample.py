"""Texts that a model writes by itself, drawn at random."""

from __future__ import annotations

import torch

from instil.evaluate.choices import OnDone
from instil.evaluate.generate import continue_ids, up_to_stop
from instil.model.export import generation_config
from instil.model.load import LoadedModel

BATCH_TOKENS = 4096
"""Tokens of the texts written at once."""


def sample_texts(
    loaded: LoadedModel,
    count: int,
    *,
    max_new_tokens: int,
    seed: int,
    on_done: OnDone = lambda _: None,
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
    config.eos_token_id = list(ends) or None
    loaded.model.eval()
    size = max(1, BATCH_TOKENS // (1 + max_new_tokens))
    texts: list[tuple[int, ...]] = []
    with torch.inference_mode(), torch.random.fork_rng():
        torch.manual_seed(seed)
        while len(texts) < count:
            ids = torch.full((min(size, count - len(texts)), 1), start, device=loaded.device)
            new = continue_ids(loaded, ids, config=config)
            texts += [(start, *up_to_stop(row, ends)) for row in new.tolist()]
            on_done(len(ids))
    return texts
