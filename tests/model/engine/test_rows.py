"""The plain path: packs taken apart give what each row gives alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSeq2SeqLM, BartConfig, T5Config

from instil.encode.batch import make_batch, to_batch
from instil.model.engine.rows import compute_rows, decoder_start, side_by_side, take_apart
from instil.types import Pack

CPU = torch.device("cpu")


def laid_out(prefix, shapes, predict, *, prompts=()):
    """Token n of a pack has the id n; its position is that in its own row."""
    positions = list(range(prefix))
    for trunk, *branches in shapes:
        positions += range(prefix, prefix + trunk)
        for branch in branches:
            positions += range(prefix + trunk, prefix + trunk + branch)
    return make_batch(
        list(range(len(positions))),
        positions,
        segments=tuple(shapes),
        shared_prefix=prefix,
        predict_from=torch.tensor(predict),
        labels=torch.zeros(len(predict), dtype=torch.long),
        device=CPU,
        prompts=prompts,
    )


def test_prefix_trunk_and_branch_make_a_row():
    batch = laid_out(2, [(3, 1, 2), (2,)], [4, 5, 7, 4, 9])
    rows = take_apart(batch, batch.predict_from)
    assert rows.ids == ((0, 1, 2, 3, 4, 5), (0, 1, 2, 3, 4, 6, 7), (0, 1, 8, 9))
    assert rows.places == ((0, 4), (0, 5), (1, 6), (0, 4), (2, 3))


def test_rows_are_whole_though_only_their_first_tokens_are_wanted():
    batch = laid_out(0, [(5, 3), (4,)], [1])
    assert take_apart(batch, batch.predict_from).ids == ((0, 1, 2, 3, 4),)


@st.composite
def packs(draw):
    prefix = draw(st.integers(0, 3))
    shape = st.lists(st.integers(0, 3), max_size=3).map(tuple)
    shapes = [(draw(st.integers(1, 4)), *draw(shape)) for _ in range(draw(st.integers(1, 4)))]
    total = prefix + sum(map(sum, shapes))
    predict = draw(st.lists(st.integers(prefix, total - 1), min_size=1, max_size=8))
    return laid_out(prefix, shapes, predict)


@given(packs())
@settings(max_examples=200, deadline=None)
def test_every_place_is_found_at_its_own_position(batch):
    rows = take_apart(batch, batch.predict_from)
    for place, (row, at) in zip(batch.predict_from.tolist(), rows.places, strict=True):
        assert rows.ids[row][at] == place, "ids are places"
        assert at == batch.positions[0, place]
    assert len(set(rows.ids)) == len(rows.ids), "no row is computed twice"
    together, places = side_by_side(batch, batch.predict_from)
    assert together.shared_prefix == 0
    assert together.ids[0, places].tolist() == batch.predict_from.tolist()
    assert (together.positions[0, places] == batch.positions[0, batch.predict_from]).all()


@pytest.mark.parametrize("padding", [True, False])
@pytest.mark.parametrize("limit", [1, 9, 4096])
def test_rows_computed_together_are_what_each_is_alone(tiny, monkeypatch, padding, limit):
    monkeypatch.setattr("instil.model.engine.rows.ROW_TOKENS", limit)
    batch = laid_out(2, [(3, 1, 2), (2,), (4,)], [4, 7, 5, 9, 12, 4])
    rows = take_apart(batch, batch.predict_from)
    with torch.inference_mode():
        found = compute_rows(tiny.model, rows, decoder=None, padding=padding)
        for (row, at), logits in zip(rows.places, found, strict=True):
            alone = tiny.model(input_ids=torch.tensor([rows.ids[row]])).logits[0, at]
            torch.testing.assert_close(logits, alone, rtol=1e-4, atol=1e-4)


def test_long_rows_are_not_filled_up(tiny, monkeypatch):
    widths = []
    forward = tiny.model.forward
    monkeypatch.setattr(
        tiny.model,
        "forward",
        lambda input_ids, **how: widths.append(input_ids.shape) or forward(input_ids, **how),
    )
    batch = laid_out(0, [(3,), (9,), (5,), (8,)], [2, 11, 16, 24])
    rows = take_apart(batch, batch.predict_from)
    with torch.inference_mode():
        compute_rows(tiny.model, rows, decoder=None, padding=True, longest=8)
    assert [tuple(shape) for shape in widths] == [(2, 5), (1, 8), (1, 9)]


SEQ2SEQ = {
    "t5": T5Config(
        vocab_size=64, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, dropout_rate=0.0
    ),
    "bart": BartConfig(
        vocab_size=64,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
    ),
}


@pytest.mark.parametrize("name", SEQ2SEQ)
def test_an_encoder_reads_the_prompt_and_a_decoder_says_the_rest(name):
    """The loss over a pack is transformers' own for each pair of prompt and answer."""
    config = SEQ2SEQ[name]
    config.decoder_start_token_id = 2
    torch.manual_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(config).eval()
    pack = Pack(
        ids=(5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
        mask=(False, False, False, True, True, False, True, True, False, False, True),
        positions=(0, 1, 2, 3, 4, 2, 3, 4, 2, 3, 4),
        segments=(-1, -1, 0, 0, 0, 1, 1, 1, 2, 2, 2),
        example_ids=("a", "b", "c"),
        shared=2,
    )
    batch = to_batch(pack, device=CPU)
    assert batch.prompts[:3] == (3, 3, 4)
    rows = take_apart(batch, batch.predict_from)
    with torch.inference_mode():
        found = compute_rows(model, rows, decoder=None, padding=True).log_softmax(-1)
        wanted = []
        for prompt, answer in [
            ((5, 6, 7), (8, 9)),
            ((5, 6, 10), (11, 12)),
            ((5, 6, 13, 14), (15,)),
        ]:
            labels = torch.tensor([answer])
            out = model(input_ids=torch.tensor([prompt]), labels=labels)
            wanted += out.logits[0].log_softmax(-1)[range(len(answer)), labels[0]].tolist()
    ours = found[range(len(wanted)), batch.labels]
    torch.testing.assert_close(ours, torch.tensor(wanted), rtol=1e-4, atol=1e-5)


def test_the_decoder_begins_with_the_token_that_the_config_names():
    config = replace_start(SEQ2SEQ["bart"], 7)
    assert decoder_start(AutoModelForSeq2SeqLM.from_config(config)) == 7


def replace_start(config, token):
    copy = type(config).from_dict(config.to_dict())
    copy.decoder_start_token_id = token
    return copy
