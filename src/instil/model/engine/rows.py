"""The plain path: every example of a pack as a row of its own, through the model's own code.

A pack shares a prefix among its segments and branches off behind a trunk (see
`model.engine.attention`). Here it is taken apart again, and each row is computed as anyone would
compute it with transformers, with the model's own attention::

    prefix | trunk 0 | branch A | branch B B | trunk 1        row 0: prefix trunk 0 branch A
                                                              row 1: prefix trunk 0 branch B B
                                                              row 2: prefix trunk 1

Rows of one length are computed together; rows of several lengths too, filled up on the right, where
that is proved to change nothing (`Build.padding`): no token looks at what follows it.

An encoder-decoder model reads a row's prompt in its encoder, and the rest in its decoder, behind
its own start token::

    p p p c c        encoder: p p p        decoder: start c c
        ^ ^ predicted from here                      ^   ^ is read off here
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from instil.encode.batch import Batch, make_batch

_LONGEST_SEEN = "max_seq_len_cached"
ROW_TOKENS = 4096
"""Tokens of the rows that are computed together, filling included."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Examples one by one, and where the S wanted places of their pack stand in them."""

    ids: tuple[tuple[int, ...], ...]
    """Token ids of each row: all of them, since what some models say of a token depends on how
    long its row is (LongRoPE)."""
    prompts: tuple[int, ...]
    """Tokens of each row that an encoder reads."""
    places: tuple[tuple[int, int], ...]
    """(row, position in it) of each wanted place."""


def take_apart(batch: Batch, places: torch.Tensor) -> Rows:
    """Return the rows that hold the wanted places of a pack, (S,)."""
    ids, wanted = batch.ids[0].tolist(), places.tolist()
    needed, rows = set(wanted), list[list[int]]()
    prompts: list[int] = []
    stands: dict[int, tuple[int, int]] = {}  # place of the pack -> (row, position in it)
    start = batch.shared_prefix
    for number, (trunk, *branches) in enumerate(batch.segments):
        head = [*range(batch.shared_prefix), *range(start, start + trunk)]
        start += trunk
        tails = [range(0)]
        for length in branches:
            tails.append(range(start, start + length))
            start += length
        # The trunk alone comes last: where a branch is wanted, its row has the trunk's places too.
        for tail in (*tails[1:], tails[0]):
            row = [*head, *tail]
            new = [n for n in (tail or head) if n in needed and n not in stands]
            if not new:
                continue
            stands.update({n: (len(rows), at) for at, n in enumerate(row) if n not in stands})
            rows.append(row)
            prompts.append(batch.prompts[number] if batch.prompts else 0)
    return Rows(
        tuple(tuple(ids[n] for n in row) for row in rows),
        tuple(prompts),
        tuple(stands[n] for n in wanted),
    )


def side_by_side(batch: Batch, places: torch.Tensor) -> tuple[Batch, torch.Tensor]:
    """Return the same rows as plain segments of one pack, and where the wanted places are in it."""
    rows = take_apart(batch, places)
    starts, total = list[int](), 0
    for row in rows.ids:
        starts.append(total)
        total += len(row)
    wanted = torch.tensor([starts[row] + at for row, at in rows.places], device=places.device)
    made = make_batch(
        [token for row in rows.ids for token in row],
        [place for row in rows.ids for place in range(len(row))],
        segments=tuple((len(row),) for row in rows.ids),
        shared_prefix=0,
        predict_from=wanted,
        labels=batch.labels,
        device=batch.ids.device,
    )
    return made, wanted


def compute_rows(
    model: Any,
    rows: Rows,
    *,
    decoder: Any,
    padding: bool,
    longest: int | None = None,
    encoder: Any = None,
) -> torch.Tensor:
    """Run rows through a model; return its values at the wanted places.

    Args:
        model: A transformers model, or PEFT's around one.
        rows: What to compute.
        decoder: The part of the model whose final hidden states are wanted; None: logits are.
        padding: Whether rows of several lengths are computed together.
        longest: From how many tokens on a row is only computed with others of its length.
        encoder: The part of the model that reads whole rows, and whose hidden states are wanted.

    Returns:
        (S, hidden) or (S, V).
    """
    device = model.get_input_embeddings().weight.device
    values: list[torch.Tensor] = []
    order: list[int] = []
    for numbers in _together(rows, padding=padding, longest=longest):
        index = {number: line for line, number in enumerate(numbers)}
        where = [n for n, (row, _) in enumerate(rows.places) if row in index]
        line = torch.tensor([index[rows.places[n][0]] for n in where])
        at = torch.tensor([rows.places[n][1] for n in where])
        ids = [rows.ids[n] for n in numbers]
        prompts = [rows.prompts[n] for n in numbers]
        if longest is not None:
            forget_lengths(model)
        if encoder is not None:
            values.append(_encode(encoder, ids, line, at, device))
        elif model.config.is_encoder_decoder:
            values.append(_encode_decode(model, ids, prompts, line, at, decoder=decoder))
        else:
            values.append(_decode(model, ids, line, at, decoder=decoder))
        order += where
    back = torch.tensor(order).argsort().to(values[0].device)
    return torch.cat(values).index_select(0, back)


def _together(rows: Rows, *, padding: bool, longest: int | None) -> Iterator[list[int]]:
    """Yield the numbers of rows that are computed at once; of one length, or about."""
    held: list[int] = []
    for number in sorted(range(len(rows.ids)), key=lambda n: len(rows.ids[n])):
        length = len(rows.ids[number])
        may_fill = padding and (longest is None or length < longest)
        same = held and length == len(rows.ids[held[0]])
        if held and not ((same or may_fill) and (len(held) + 1) * length <= ROW_TOKENS):
            yield held
            held = []
        held.append(number)
    if held:
        yield held


def _filled(
    rows: Sequence[Sequence[int]], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (n, L) ids, filled up on the right, and which of them are real."""
    lengths = torch.tensor([len(row) for row in rows])
    width = int(lengths.max())
    ids = torch.tensor([[*row, *[row[-1]] * (width - len(row))] for row in rows])
    real = torch.arange(width)[None] < lengths[:, None]
    return ids.to(device), real.to(device)


def _decode(
    model: Any,
    rows: Sequence[Sequence[int]],
    line: torch.Tensor,
    at: torch.Tensor,
    *,
    decoder: Any,
) -> torch.Tensor:
    """(k, hidden) or (k, V) at k places; what fills a row up stands behind all of them."""
    ids, _real = _filled(rows, model.get_input_embeddings().weight.device)
    line, at = line.to(ids.device), at.to(ids.device)
    inputs = {"input_ids": ids, "use_cache": False}
    if decoder is not None:
        hidden: torch.Tensor = decoder(**inputs).last_hidden_state
        return hidden[line, at]
    if keeps_logits(model):
        inputs["logits_to_keep"], at = at.unique(return_inverse=True)
    logits: torch.Tensor = model(**inputs).logits
    return logits[line, at]


def _encode(
    encoder: Any,
    rows: Sequence[Sequence[int]],
    line: torch.Tensor,
    at: torch.Tensor,
    device: torch.device,
) -> torch.Tensor:
    """(k, hidden) of an encoder at k places of the rows that it reads."""
    ids, real = _filled(rows, device)
    hidden: torch.Tensor = encoder(input_ids=ids, attention_mask=real.long()).last_hidden_state
    return hidden[line.to(device), at.to(device)]


def _encode_decode(
    model: Any,
    rows: Sequence[Sequence[int]],
    prompts: Sequence[int],
    line: torch.Tensor,
    at: torch.Tensor,
    *,
    decoder: Any,
) -> torch.Tensor:
    """(k, hidden) or (k, V) of the decoder; its start token stands for a prompt's last token."""
    device = model.get_input_embeddings().weight.device
    at = at - torch.tensor(prompts)[line] + 1
    assert bool((at >= 0).all()), "no decoder predicts a prompt"
    asked, real = _filled([r[:n] for r, n in zip(rows, prompts, strict=True)], device)
    start = decoder_start(model)
    answers, _ = _filled([[start, *r[n:]] for r, n in zip(rows, prompts, strict=True)], device)
    out = (decoder or model)(
        input_ids=asked, attention_mask=real.long(), decoder_input_ids=answers, use_cache=False
    )
    values: torch.Tensor = out.logits if decoder is None else out.last_hidden_state
    return values[line.to(device), at.to(device)]


def decoder_start(model: Any) -> int:
    """Return the token in front of what an encoder-decoder model's decoder says."""
    for each in (model.config, getattr(model, "generation_config", None)):
        for name in ("decoder_start_token_id", "bos_token_id", "pad_token_id"):
            token = getattr(each, name, None)
            if isinstance(token, int):
                return token
    return 0


def forget_lengths(model: Any) -> None:
    """Put rotary positions that grew with earlier, longer rows back to where they began.

    With dynamic NTK transformers keeps the frequencies of the longest row since the last short one,
    so that figures depended on the order of the rows; here each row finds a fresh model.
    """
    for module in model.modules():
        first = getattr(module, "original_max_seq_len", None)
        seen = [name for name in vars(module) if name.endswith(_LONGEST_SEEN)]
        for name in seen if first is not None else ():
            if getattr(module, name) <= first:
                continue
            prefix = name.removesuffix(_LONGEST_SEEN)
            now = getattr(module, f"{prefix}inv_freq", None)
            began = getattr(module, f"{prefix}original_inv_freq", None)
            if now is not None and began is not None:
                began = began.to(now.device)
                module.register_buffer(f"{prefix}inv_freq", began, persistent=False)
                setattr(module, name, first)


def keeps_logits(model: Any) -> bool:
    """Whether the model's forward pass can leave out logits that nobody asked for."""
    base = getattr(model, "get_base_model", lambda: model)()
    return "logits_to_keep" in inspect.signature(base.forward).parameters
