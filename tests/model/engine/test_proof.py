"""A short cut is taken only where it gives the model's own figures."""

import copy
import os
from dataclasses import replace

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BertConfig,
    BloomConfig,
    Gemma3TextConfig,
    LlamaConfig,
    Mamba2Config,
    Phi3Config,
    T5Config,
)

from builds import OWN, PACKED_HEAD, PADDED, SIDE_BY_SIDE
from instil.encode.batch import make_batch
from instil.errors import ModelError
from instil.memory_limits import Free
from instil.model.engine import packed, proof
from instil.model.engine.packed import Build
from instil.model.engine.proof import kept_proof, prove, proved
from instil.model.load import ModelFolder, load_model

SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
}
DECODER = {**SIZES, "intermediate_size": 64, "num_key_value_heads": 2, "pad_token_id": 0}
LLAMA = LlamaConfig(**DECODER)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Here nothing is known that another test has proved."""
    monkeypatch.setattr(proof, "cache_dir", lambda: tmp_path / "cache")


def build(config, dtype=torch.float32):
    torch.manual_seed(0)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    return kind.from_config(config, dtype=dtype).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_llamas_kin_goes_through_our_own_layers(dtype):
    assert prove(build(LLAMA, dtype)) == OWN


@pytest.mark.parametrize(
    "config",
    [
        BloomConfig(vocab_size=96, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3),
        Mamba2Config(
            vocab_size=96,
            hidden_size=32,
            num_hidden_layers=2,
            num_heads=8,
            head_dim=8,
            n_groups=1,
            initializer_range=0.3,
        ),
    ],
    ids=["attention with a bias of distance", "layers with a state"],
)
def test_other_builds_go_row_by_row(config):
    assert prove(build(config)) == replace(PADDED, own_head=True)


def test_an_encoder_decoder_goes_row_by_row():
    config = T5Config(
        vocab_size=96, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, pad_token_id=0
    )
    config.decoder_start_token_id = 0
    assert prove(build(config)) == PADDED


def test_a_model_that_reads_both_ways_is_refused():
    with pytest.raises(ModelError, match="in both directions") as caught:
        prove(build(BertConfig(**SIZES, intermediate_size=64)))
    assert caught.value.problems[0].found == "bert"


def test_windows_are_seen_however_wide_and_stay_as_they_were():
    model = build(Gemma3TextConfig(**DECODER, head_dim=8, sliding_window=512))
    assert prove(model) == replace(PACKED_HEAD, own_memory=True)
    assert model.config.sliding_window == 512
    layers = model.model.layers
    assert {layer.self_attn.sliding_window for layer in layers} <= {512, None}


def test_a_window_that_our_attention_does_not_hear_of_is_noticed(monkeypatch):
    """Attention that drops the window gives the same logits on rows that are shorter than it."""
    model = build(Gemma3TextConfig(**DECODER, head_dim=8, sliding_window=512))
    original = proof.attention.lay_out
    monkeypatch.setattr(
        proof.attention,
        "lay_out",
        lambda shape, shared, window, device: original(shape, shared, None, device),
    )
    assert not prove(model).segments


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_that_mix_segments_are_not_taken(monkeypatch, dtype):
    original = packed.run_layers

    def one_segment(decoder, batch, places, **how):
        whole = replace(batch, segments=((batch.ids.shape[1],),), shared_prefix=0)
        return original(decoder, whole, places, **how)

    monkeypatch.setattr(packed, "run_layers", one_segment)
    found = prove(build(LLAMA, dtype))
    assert not found.own_layers
    assert found.segments, "transformers' layers are not concerned"


@pytest.mark.parametrize("short", ["allowed", "free"])
def test_a_small_leak_is_found_in_bfloat16_too(monkeypatch, short):
    """Where a model is too large for float32, rounding hides it from the comparison."""
    if short == "allowed":
        monkeypatch.setattr(proof, "FLOAT32_BYTES", 0)
    else:
        monkeypatch.setattr(proof, "free_memory", lambda: Free(1000, "a test"))
    model = build(LLAMA, torch.bfloat16)
    assert prove(model) == OWN
    original = packed.run_layers

    def leaking(decoder, batch, places, **how):
        hidden = original(decoder, batch, places, **how)
        first = batch.ids[0, proof.PREFIX : proof.PREFIX + 7].float() - 48
        sign = torch.arange(7).remainder(2) * 2 - 1
        return hidden + 0.003 * (first * sign).sum().to(hidden.dtype) * hidden.std()

    monkeypatch.setattr(packed, "run_layers", leaking)
    assert not prove(model).own_layers


def test_a_memory_that_is_wrong_is_not_used(monkeypatch):
    original = proof.Memory.positions
    monkeypatch.setattr(proof.Memory, "positions", lambda self: original(self) + 1)
    assert prove(build(LLAMA)) == replace(OWN, own_memory=False)


def test_weights_come_back_bit_for_bit():
    model = build(LLAMA, torch.bfloat16)
    before = {name: p.clone() for name, p in model.named_parameters()}
    prove(model)
    for name, p in model.named_parameters():
        assert p.dtype is torch.bfloat16
        assert torch.equal(p, before[name]), name


def test_positions_that_depend_on_the_whole_batch_set_a_limit():
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [4.0] * 4,
        "original_max_position_embeddings": 40,
    }
    config = Phi3Config(**DECODER, rope_parameters=rope, max_position_embeddings=160)
    config.original_max_position_embeddings = 40
    assert prove(build(config)).longest == 40


LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
    "original_max_position_embeddings": 24,
}


@pytest.mark.parametrize(
    ("kind", "rope", "most"),
    [
        (LlamaConfig, {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}, {}),
        (Phi3Config, LONGROPE, {"original_max_position_embeddings": 24}),
    ],
    ids=["dynamic", "longrope"],
)
def test_rows_that_are_longer_than_positions_bear_find_a_fresh_model(kind, rope, most):
    """transformers may keep the frequencies of rows before; the order must not matter."""
    most = {"max_position_embeddings": 24, **most}
    model = build(kind(**DECODER, rope_parameters=dict(rope), **most))
    fresh = copy.deepcopy(model)
    how = prove(model)
    assert how.longest == 24
    lengths = (40, 24, 30, 9, 35)
    draw = torch.Generator().manual_seed(1)
    rows = [torch.randint(96, (length,), generator=draw).tolist() for length in lengths]
    for together in (rows, rows[::-1], *([row] for row in rows)):
        batch = make_batch(
            [token for row in together for token in row],
            [place for row in together for place in range(len(row))],
            segments=tuple((len(row),) for row in together),
            shared_prefix=0,
            predict_from=torch.tensor([len(row) for row in together]).cumsum(0) - 2,
            labels=torch.tensor([row[-1] for row in together]),
            device=torch.device("cpu"),
        )
        ours = packed.log_chances(model, batch, build=how)
        alone = []
        with torch.inference_mode():
            for row in together:
                logits = copy.deepcopy(fresh)(input_ids=torch.tensor([row])).logits[0, -2]
                alone.append(logits.log_softmax(-1)[row[-1]])
        torch.testing.assert_close(ours, torch.stack(alone), rtol=1e-4, atol=1e-4)


# --- kept ------------------------------------------------------------------------------------


def test_a_proof_is_made_once(tiny_folder, monkeypatch):
    folder = ModelFolder("tiny", tiny_folder, "none")
    first = load_model(folder, device="cpu", dtype="float32").build
    assert first == OWN
    monkeypatch.setattr(proof, "prove", lambda model: pytest.fail("it is kept"))
    assert load_model(folder, device="cpu", dtype="float32").build == first
    computed = ("cpu", "torch.float32", "")
    assert kept_proof(tiny_folder, computed=computed) == first
    assert kept_proof(tiny_folder, computed=("cuda", "torch.float32", "")) is None


@pytest.mark.parametrize("change", ["weights", "config", "cut off", "of another version"])
def test_a_proof_of_something_else_is_made_anew(tmp_path, monkeypatch, change):
    model = build(LLAMA)
    model.save_pretrained(tmp_path / "model")
    files, kept = tmp_path / "model", tmp_path / "cache" / "proofs"
    proved(model, files=files, computed=("cpu",))
    (path,) = kept.iterdir()
    if change == "weights":
        os.utime(files / "model.safetensors", ns=(1, 1))
    elif change == "config":
        (files / "config.json").write_text((files / "config.json").read_text() + "\n")
    else:
        path.write_text("{" if change == "cut off" else '{"unknown": 1}')
    assert kept_proof(files, computed=("cpu",)) is None
    monkeypatch.setattr(proof, "prove", lambda model: Build(own_head=True))
    assert proved(model, files=files, computed=("cpu",)) == Build(own_head=True)
    assert kept_proof(files, computed=("cpu",)) == Build(own_head=True)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (OWN, "packed, through instil's own layers; generated with instil's memory"),
        (SIDE_BY_SIDE, "prefix and branches not shared"),
        (PADDED, "row by row, several at a time, through transformers' own code"),
        (Build(), "row by row, one by one"),
        (replace(OWN, longest=4096), "from 4096 tokens on one by one"),
    ],
)
def test_it_is_said_in_words(how, said):
    assert said in str(how)
