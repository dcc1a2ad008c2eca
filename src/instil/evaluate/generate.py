"""Greedy generation in batches by length, each row until its own stop token.

Prompts of one call share what they have in common (system message, worked examples, the template's
opening words): that prefix is read once for all batches (see `model.memory`). A batch's prompts are
read in one pack, without padding; then every row gets a token at a time. Rows that have ended leave
the batch, not one by one but down to the next round number, since new shapes cost oneDNN
milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from instil.encode.batch import Batch, make_batch
from instil.evaluate.choices import common_prefix
from instil.model.layout import rounded_count
from instil.model.load import LoadedModel
from instil.model.memory import Memory
from instil.model.packed import next_tokens
from instil.types import Example, Prediction

BATCH_TOKENS = 8192
"""Tokens kept for the rows of a batch, the new ones too; a shared prefix is not counted."""

NO_LABELS = torch.empty(0, dtype=torch.long)
Ids = tuple[int, ...]


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
    prompts = [tuple(loaded.chat.prompt(e.messages)) for e in examples]
    shared = common_prefix(prompts) if len(prompts) > 1 else 0
    own = [prompt[shared:] for prompt in prompts]
    loaded.model.eval()
    found: dict[int, Prediction] = {}
    with torch.inference_mode():
        prefix = _read(loaded, [prompts[0][:shared]])[0] if shared else None
        for numbers in _batches(own, max_new_tokens):
            rows = _continue(
                loaded, [own[n] for n in numbers], prefix=prefix, max_new_tokens=max_new_tokens
            )
            for n, new in zip(numbers, rows, strict=True):
                found[n] = _prediction(loaded, examples[n], new, len(prompts[n]))
            on_done(len(numbers))
    return [found[n] for n in range(len(examples))]


def _batches(prompts: Sequence[Ids], new: int) -> list[list[int]]:
    batches: list[list[int]] = [[]]
    for n in sorted(range(len(prompts)), key=lambda n: len(prompts[n]), reverse=True):
        first = batches[-1][0] if batches[-1] else n
        if batches[-1] and (len(batches[-1]) + 1) * (len(prompts[first]) + new) > BATCH_TOKENS:
            batches.append([])
        batches[-1].append(n)
    return [batch for batch in batches if batch]


def _continue(
    loaded: LoadedModel, prompts: Sequence[Ids], *, prefix: Memory | None, max_new_tokens: int
) -> list[list[int]]:
    """Return the new tokens of each row, its stop token included."""
    stops = frozenset(loaded.chat.stop_ids)
    found: list[list[int]] = [[] for _ in prompts]
    memory, tokens = _read(loaded, prompts, prefix=prefix, room=max_new_tokens)
    there = list(range(len(prompts)))  # which row of the call each row of the batch is
    while True:
        going = []
        for place, token in enumerate(tokens.tolist()):
            row = found[there[place]]
            if not (row and row[-1] in stops):
                row.append(token)
                if token not in stops and len(row) < max_new_tokens:
                    going.append(place)
        if not going:
            return found
        if rounded_count(len(going)) < len(there):
            memory.keep(going)
            there = [there[place] for place in going]
            tokens = tokens[going]
        step = Batch(
            ids=tokens[None],
            positions=memory.positions()[None],
            segments=(),
            shared_prefix=0,
            predict_from=torch.arange(len(there), device=tokens.device),
            labels=NO_LABELS,
        )
        tokens = next_tokens(loaded.model, step, build=loaded.build, memory=memory.step)
        memory.move_on()


def _read(
    loaded: LoadedModel, prompts: Sequence[Ids], *, prefix: Memory | None = None, room: int = 0
) -> tuple[Memory, torch.Tensor]:
    """Read prompts in one pack; return what is kept of them, and the token behind each."""
    memory = Memory([len(p) for p in prompts], prefix=prefix, room=room, device=loaded.device)
    batch = make_batch(
        [token for prompt in prompts for token in prompt],
        [memory.shared + place for prompt in prompts for place in range(len(prompt))],
        segments=(),
        shared_prefix=0,
        predict_from=torch.tensor(memory.lengths).cumsum(0) - 1,
        labels=NO_LABELS,
        device=loaded.device,
    )
    return memory, next_tokens(loaded.model, batch, build=loaded.build, memory=memory.read)


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
