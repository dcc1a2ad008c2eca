"""Greedy generation in batches by length, each row until its own stop token.

Prompts of one call share what they have in common (system message, worked examples, the template's
opening words): that prefix is read once for all batches (see `model.engine.memory`). A batch's
prompts are read in one pack, without padding; then every row gets a token at a time. Rows that have
ended leave the batch, not one by one but down to the next round number, since new shapes cost
oneDNN milliseconds.

A model whose figures this memory does not give (`model.engine.proof`) goes through transformers'
own `generate`, prompts of one length together.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from functools import partial
from itertools import groupby

import torch
from transformers import GenerationConfig
from transformers.generation import BaseStreamer

from instil.encode.batch import Batch
from instil.encode.chat_template import PLAIN_END
from instil.evaluate.calls import as_in_data
from instil.evaluate.choices import OnDone, common_prefix
from instil.model.engine.attention import Remembering
from instil.model.engine.layout import rounded_count
from instil.model.engine.memory import Memory, read_batch, step_batch
from instil.model.engine.packed import base_of, next_logits
from instil.model.engine.rows import forget_lengths
from instil.model.export import generation_config
from instil.model.load import LoadedModel
from instil.model.shortage import halved
from instil.types import Example, Prediction

BATCH_TOKENS = 8192
"""Tokens kept for the rows of a batch, the new ones too; a shared prefix is not counted."""

Ids = tuple[int, ...]


def generate(
    loaded: LoadedModel,
    examples: Sequence[Example],
    *,
    max_new_tokens: int,
    on_done: OnDone = lambda _: None,
) -> list[Prediction]:
    """Complete every example greedily; results in the order of the examples.

    `Prediction.stopped` says whether the model ended by itself within `max_new_tokens`.
    """
    prompts = [tuple(loaded.chat.prompt(e.messages, tools=e.tools)) for e in examples]
    loaded.model.eval()
    build = loaded.build
    short = build.longest is None or max(map(len, prompts)) + max_new_tokens < build.longest
    way = _in_memory if build.own_memory and short else _by_transformers
    made: dict[int, Prediction] = {}
    with torch.inference_mode():
        for numbers, rows in way(loaded, prompts, max_new_tokens=max_new_tokens):
            for n, new in zip(numbers, rows, strict=True):
                made[n] = _prediction(loaded, examples[n], new, len(prompts[n]))
            on_done(len(numbers))
    return [made[n] for n in range(len(examples))]


def _in_memory(
    loaded: LoadedModel, prompts: Sequence[Ids], *, max_new_tokens: int
) -> Iterator[tuple[list[int], list[list[int]]]]:
    """Yield numbers of prompts, and the new tokens of each, batch by batch."""
    shared = common_prefix(prompts) if len(prompts) > 1 else 0
    own = [prompt[shared:] for prompt in prompts]
    prefix = _read(loaded, [prompts[0][:shared]])[0] if shared else None
    batches: list[list[int]] = []
    for n in _by_length(own):
        longest = len(own[batches[-1][0]] if batches else own[n]) + max_new_tokens
        if not batches or (len(batches[-1]) + 1) * longest > BATCH_TOKENS:
            batches.append([])
        batches[-1].append(n)
    for numbers in batches:
        go_on = partial(_continue, loaded, prefix=prefix, max_new_tokens=max_new_tokens)
        yield numbers, halved(go_on, [own[n] for n in numbers])


def _by_transformers(
    loaded: LoadedModel, prompts: Sequence[Ids], *, max_new_tokens: int
) -> Iterator[tuple[list[int], list[list[int]]]]:
    """The same through transformers' own caches; prompts of one length together, unpadded."""
    stops = frozenset(loaded.chat.stop_ids)
    config = generation_config(loaded)
    config.max_new_tokens = max_new_tokens
    for length, group in groupby(_by_length(prompts), key=lambda n: len(prompts[n])):
        alike, most = list(group), max(1, BATCH_TOKENS // (length + max_new_tokens))
        for numbers in (alike[n : n + most] for n in range(0, len(alike), most)):
            ids = torch.tensor([prompts[n] for n in numbers], device=loaded.device)
            new = continue_ids(loaded, ids, config=config)
            yield numbers, [up_to_stop(row, stops) for row in new.tolist()]


def up_to_stop(row: Sequence[int], stops: Container[int]) -> list[int]:
    """Cut off what fills a row up behind its first stop token."""
    end = next((n for n, token in enumerate(row) if token in stops), len(row))
    return list(row[: end + 1])


def continue_ids(
    loaded: LoadedModel,
    ids: torch.Tensor,
    *,
    config: GenerationConfig,
    streamer: BaseStreamer | None = None,
    until: Callable[[], bool] = lambda: False,
) -> torch.Tensor:
    """Generate with transformers' own loop.

    What the model's own generation_config asks for (beams, penalties, a temperature) is left out.

    Args:
        loaded: The model.
        ids: (n, L) prompts.
        config: How to generate.
        streamer: Given each token as it comes; with one prompt alone.
        until: Asked after each token whether to end.

    Returns:
        The new tokens, (n, new); rows that have ended are filled up.
    """
    base = base_of(loaded.model)
    forget_lengths(base)
    own, base.generation_config = base.generation_config, GenerationConfig()
    try:
        written: torch.Tensor = loaded.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            generation_config=config,
            streamer=streamer,
            stopping_criteria=[lambda ids, scores: until()],
            synced_gpus=False,  # of a model that is dealt out, the first process generates alone
        )
    finally:
        base.generation_config = own
    return written[:, 1 if base.config.is_encoder_decoder else ids.shape[1] :]


def _by_length(prompts: Sequence[Ids]) -> list[int]:
    """Numbers of prompts, the longest first."""
    return sorted(range(len(prompts)), key=lambda n: len(prompts[n]), reverse=True)


def _continue(
    loaded: LoadedModel, prompts: Sequence[Ids], *, prefix: Memory | None, max_new_tokens: int
) -> list[list[int]]:
    """Return the new tokens of each row, its stop token included."""
    stops = frozenset(loaded.chat.stop_ids)
    written: list[list[int]] = [[] for _ in prompts]
    memory, tokens = _read(loaded, prompts, prefix=prefix, room=max_new_tokens)
    there = list(range(len(prompts)))  # which row of the call each row of the batch is
    while True:
        going = []
        for place, token in enumerate(tokens.tolist()):
            row = written[there[place]]
            if not (row and row[-1] in stops):
                row.append(token)
                if token not in stops and len(row) < max_new_tokens:
                    going.append(place)
        if not going:
            return written
        if rounded_count(len(going)) < len(there):
            memory.keep(going)
            there = [there[place] for place in going]
            tokens = tokens[going]
        step = step_batch(memory, tokens)
        tokens = _likeliest(loaded, step, memory.step)
        memory.move_on()


def _read(
    loaded: LoadedModel, prompts: Sequence[Ids], *, prefix: Memory | None = None, room: int = 0
) -> tuple[Memory, torch.Tensor]:
    """Read prompts in one pack; return what is kept of them, and the token behind each."""
    memory = Memory([len(p) for p in prompts], prefix=prefix, room=room, device=loaded.device)
    batch = read_batch(memory, prompts, device=loaded.device)
    return memory, _likeliest(loaded, batch, memory.read)


def _likeliest(loaded: LoadedModel, batch: Batch, memory: Remembering) -> torch.Tensor:
    """The likeliest token behind each of a batch's places, (S,)."""
    return next_logits(loaded.model, batch, build=loaded.build, memory=memory).argmax(-1)


def _prediction(
    loaded: LoadedModel, example: Example, new: Sequence[int], prompt_tokens: int
) -> Prediction:
    stops = set(loaded.chat.stop_ids)
    end = next((n for n, token in enumerate(new) if token in stops), None)
    kept = new if end is None else new[:end]
    decode = loaded.chat.tokenizer.decode
    text = decode(kept, skip_special_tokens=True).strip()
    if example.tools or example.target_calls:
        marked = decode(kept).strip()  # a call's marks may be special tokens
        called = as_in_data(marked)
        text = text if called == marked else called
    # Worked examples teach a base model to end an answer as theirs end; behind it come more.
    shown = [m.content for m in example.messages if m.role == "assistant"]
    ended = bool(loaded.chat.plain and example.shots and PLAIN_END in text)
    ended = ended and not any(PLAIN_END in answer for answer in shown)
    return Prediction(
        example.id,
        text.split(PLAIN_END)[0] if ended else text,
        stopped=ended or end is not None,
        prompt_tokens=prompt_tokens,
        new_tokens=len(kept) + (end is not None),
    )
