"""Attention within segments, against plain attention with a mask, and long segments in blocks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from instil.model.engine import attention
from instil.model.engine.attention import attend_rows
from instil.model.engine.layout import lay_out

HEADS, KEY_HEADS, WIDTH = 4, 2, 8
SCALING = 2 * WIDTH**-0.5
CPU = torch.device("cpu")

SEGMENTS = st.lists(
    st.tuples(st.integers(1, 150), st.lists(st.integers(1, 20), max_size=3)).map(
        lambda shape: (shape[0], *shape[1])
    ),
    min_size=1,
    max_size=4,
).map(tuple)


def sees(segments, shared: int, window: int | None) -> torch.Tensor:
    """(T, T): which token looks at which, one pair after another."""
    owner, place = [(-1, -1)] * shared, [*range(shared)]
    for number, (trunk, *branches) in enumerate(segments):
        owner += [(number, -1)] * trunk
        place += range(shared, shared + trunk)
        for branch, length in enumerate(branches):
            owner += [(number, branch)] * length
            place += range(shared + trunk, shared + trunk + length)

    def may(a: int, b: int) -> bool:
        segment, branch = owner[b]
        ours = segment in (-1, owner[a][0]) and branch in (-1, owner[a][1])
        near = window is None or place[a] - place[b] < window
        return ours and place[b] <= place[a] and near

    total = len(place)
    return torch.tensor([[may(a, b) for b in range(total)] for a in range(total)])


def plain(q, k, v, sinks, seen, softcap):
    """Attention by the formula, over all pairs; a sink is one more key, whose value is nought."""
    k, v = (t.repeat_interleave(HEADS // KEY_HEADS, dim=1) for t in (k, v))
    scores = torch.einsum("ahd,bhd->hab", q, k) * SCALING
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~seen, float("-inf"))
    if sinks is not None:
        scores = torch.cat([scores, sinks[:, None, None].expand(-1, len(q), 1)], -1)
    weights = scores.softmax(-1)[..., : len(q)]
    return torch.einsum("hab,bhd->ahd", weights, v)


def with_gradients(compute, tensors, direction):
    own = [None if t is None else t.clone().requires_grad_() for t in tensors]
    out = compute(*own)
    out.backward(direction)
    return [out.detach(), *(t.grad for t in own if t is not None)]


@settings(max_examples=25, deadline=None)
@given(
    segments=SEGMENTS,
    shared=st.integers(0, 40),
    window=st.sampled_from([None, 24]),
    block=st.sampled_from([16, 32, 128]),
    kept=st.sampled_from([0, 512]),
    sinking=st.booleans(),
    softcap=st.sampled_from([None, 1.5]),
)
def test_it_is_plain_attention_whatever_is_computed_at_once(
    segments, shared, window, block, kept, sinking, softcap
):
    layout = lay_out(segments, shared, window, CPU)
    total = shared + sum(map(sum, segments))
    generator = torch.Generator().manual_seed(total)

    def some(heads: int) -> torch.Tensor:
        return torch.randn(total, heads, WIDTH, generator=generator)

    sinks = torch.randn(HEADS, generator=generator) if sinking else None
    tensors = (some(HEADS), some(KEY_HEADS), some(KEY_HEADS), sinks)
    direction = some(HEADS)
    seen = sees(segments, shared, window)
    wanted = with_gradients(lambda *each: plain(*each, seen, softcap), tensors, direction)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "QUERY_BLOCK", block)
        patch.setattr(attention, "KEPT_WEIGHTS", kept)
        found = with_gradients(
            lambda q, k, v, sinks: attend_rows(
                q, k, v, layout, SCALING, sinks=sinks, softcap=softcap
            ),
            tensors,
            direction,
        )
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
