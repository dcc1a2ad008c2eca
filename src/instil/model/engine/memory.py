"""What the rows of a batch look back at while they are continued: their keys and values.

Prompts of one template begin alike; that prefix is read once and kept once, not copied to the rows.
Behind it each row keeps its own tokens, filled up on the left, so that all rows write their next
token into the same slot::

    prefix     own tokens, and room for new ones
    p p p p    . . a a a | . . . .
               b b b b b | . . . .

transformers' caches hold one block a row, the prefix in each, and copy it for every new token.

`Memory.read` and `Memory.step` are attention functions: a forward pass is given one of them as
`memory` (see `model.engine.attention`), and calls it in every layer.

Tests: `tests/model/engine/test_packed.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from instil.encode.batch import Batch, make_batch
from instil.model.engine.attention import attend_rows
from instil.model.engine.layout import lay_out, rounded_length

NOWHERE = 2**30
"""The position of a slot that holds no token: no query comes after it."""


class Memory:
    """Keys and values of n rows in every layer, behind a prefix that they share.

    Args:
        lengths: Own tokens of each row, without the prefix.
        prefix: A memory of one row, which has been read.
        room: For how many new tokens.
        device: Where the model computes.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        device: torch.device,
        prefix: Memory | None = None,
        room: int = 0,
    ) -> None:
        self.lengths = tuple(lengths)
        self.prefix = prefix
        self.slot: int = max(lengths)
        self.shared: int = prefix.slot if prefix else 0
        slots = rounded_length(self.slot + room) if room else self.slot
        own = torch.tensor(lengths)[:, None]
        place = torch.arange(slots) - (self.slot - own)  # within the row's own tokens
        ends = own.cumsum(0) - own
        self._taken = (ends + place[:, : self.slot]).clamp(min=0).flatten().to(device)
        places = (self.shared + place).masked_fill(place < 0, NOWHERE)
        before = torch.arange(self.shared).expand(len(lengths), -1)
        self._places = torch.cat([before, places], dim=1).to(device)
        self._kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._blocked: dict[int | None, torch.Tensor] = {}

    def positions(self) -> torch.Tensor:
        """Return where each row's next token stands, (n,)."""
        return self._places[:, self.shared + self.slot]

    def read(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        scaling: float,
        window: int | None,
        sinks: torch.Tensor | None = None,
        softcap: float | None = None,
    ) -> torch.Tensor:
        """Attend within the prompts, a pack of all rows' own tokens; keep their keys and values.

        Args:
            layer: Its number.
            query: (T, heads, d), T at least the sum of `lengths`.
            key: (T, key heads, d).
            value: (T, key heads, d).
            scaling: Of the scores.
            window: How far back a query sees, if not all the way.
            sinks: As `attention.attend_rows` takes them.
            softcap: As well.
        """
        fill = len(query) - sum(self.lengths)
        segments = tuple((length,) for length in (*self.lengths, *([fill] if fill else [])))
        self._kept[layer] = (self._rows(key), self._rows(value))
        if self.prefix is not None:
            front = (t[0].transpose(0, 1) for t in self.prefix._kept[layer])
            key, value = (torch.cat(pair) for pair in zip(front, (key, value), strict=True))
        layout = lay_out(segments, self.shared, window, query.device, own_queries=True)
        return attend_rows(query, key, value, layout, scaling, sinks=sinks, softcap=softcap)

    def _rows(self, pack: torch.Tensor) -> torch.Tensor:
        """(T, key heads, d) -> (n, key heads, slots, d)."""
        count, slots = len(self.lengths), self._places.shape[1] - self.shared
        kept = pack.new_zeros(count, pack.shape[1], slots, pack.shape[2])
        rows = pack.index_select(0, self._taken).view(count, self.slot, *pack.shape[1:])
        kept[:, :, : self.slot] = rows.transpose(1, 2)
        return kept

    def step(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        scaling: float,
        window: int | None,
        sinks: torch.Tensor | None = None,
        softcap: float | None = None,
    ) -> torch.Tensor:
        """Keep one new token a row, and attend from it to all that its row has read.

        Arguments as those of `read`, with T = n.
        """
        keys, values = self._kept[layer]
        keys[:, :, self.slot], values[:, :, self.slot] = key, value
        # A round number of slots: every new shape costs oneDNN a compilation.
        end = min(rounded_length(self.slot + 1), keys.shape[2])
        count, heads, width = query.shape
        q = (query * scaling).view(count, keys.shape[1], -1, width)
        scores = [q @ keys[:, :, :end].transpose(2, 3)]
        if self.prefix is not None:
            front, front_values = (t[0] for t in self.prefix._kept[layer])
            together = q.transpose(0, 1).flatten(1, 2)  # (key heads, n group, d)
            scores.insert(0, self._apart(together @ front.transpose(1, 2), count))
        joined = torch.cat(scores, -1).float()
        if softcap:
            joined = (joined / softcap).tanh() * softcap
        joined += self._mask(window, end)
        if sinks is not None:  # as one more key, whose value is nought
            own = sinks.float().view(1, keys.shape[1], -1, 1).expand(count, -1, -1, -1)
            joined = torch.cat([joined, own], -1)
        weights = joined.softmax(-1)[..., : self.shared + end].to(query.dtype)
        out: torch.Tensor = weights[..., self.shared :] @ values[:, :, :end]
        if self.prefix is not None:
            of_front = weights[..., : self.shared].transpose(0, 1).flatten(1, 2)
            out = out + self._apart(of_front @ front_values, count)
        return out.view(count, heads, -1)

    @staticmethod
    def _apart(together: torch.Tensor, count: int) -> torch.Tensor:
        """(key heads, n group, width) -> (n, key heads, group, width)."""
        return together.view(len(together), count, -1, together.shape[-1]).transpose(0, 1)

    def _mask(self, window: int | None, end: int) -> torch.Tensor:
        """(n, 1, 1, prefix and slots): 0 where the new tokens may look, -inf where they may not."""
        if window not in self._blocked:
            place, own = self._places[:, : self.shared + end], self.positions()[:, None]
            seen = place <= own
            if window:
                seen &= own - place < window
            blocked = torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, float("-inf"))
            self._blocked[window] = blocked[:, None, None]
        return self._blocked[window]

    def move_on(self) -> None:
        """Go to the next slot: the token of this one has been kept in every layer."""
        self.slot += 1
        self._blocked.clear()

    def keep(self, rows: Sequence[int]) -> None:
        """Let go of all rows but these, by their number."""
        wanted = torch.tensor(rows, device=self._places.device)
        self.lengths = tuple(self.lengths[n] for n in rows)
        self._places = self._places[wanted]
        self._kept = {n: (k[wanted], v[wanted]) for n, (k, v) in self._kept.items()}
        self._blocked.clear()


# --- what a model reads with a memory ----------------------------------------------------------

_NO_LABELS = torch.empty(0, dtype=torch.long)


def read_batch(memory: Memory, prompts: Sequence[Sequence[int]], *, device: torch.device) -> Batch:
    """Lay the own tokens of a memory's rows out in one pack, for `Memory.read`."""
    return make_batch(
        [token for prompt in prompts for token in prompt],
        [memory.shared + place for prompt in prompts for place in range(len(prompt))],
        segments=(),
        shared_prefix=0,
        predict_from=torch.tensor(memory.lengths).cumsum(0) - 1,
        labels=_NO_LABELS,
        device=device,
    )


def step_batch(memory: Memory, tokens: torch.Tensor) -> Batch:
    """Lay out one new token a row, (n,), for `Memory.step`."""
    return Batch(
        ids=tokens[None],
        positions=memory.positions()[None],
        segments=(),
        shared_prefix=0,
        predict_from=torch.arange(len(tokens), device=tokens.device),
        labels=_NO_LABELS,
    )
