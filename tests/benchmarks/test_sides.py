"""instil's own sides on tiny models: they keep up with the library that they call."""

import argparse
import json

import generate_instil
import pytest
import rows
import score_instil
import train_instil
from cases import TINY
from hardware import matrix_peaks, model_size
from shapes import make_model

from instil.types import Example, Message


def told(capsys) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.fixture
def six(tmp_path):
    """Rows whose prompts begin with the same words."""
    path = tmp_path / "rows.jsonl"
    asked = ["good film", "bad film", "great book", "poor sound", "I love it", "I hate it"]
    rows.write(
        path,
        [
            Example(
                str(n),
                "t",
                "w",
                "",
                "",
                (Message("user", f"Is this good: {text}"),),
                "good",
                ("good", "very bad"),
            )
            for n, text in enumerate(asked)
        ],
    )
    return path


def options(rows_path, model, method="lora"):
    return argparse.Namespace(
        rows=rows_path, model=str(model), method=method, batch=3, max_length=256, micro=256
    )


@pytest.mark.parametrize("method", ["lora", "full"])
def test_training_tells_all_steps_and_times_all_but_the_first(six, tiny_folder, method, capsys):
    train_instil.train(options(six, tiny_folder, method))
    found = told(capsys)
    assert len(found["loss"]) == len(found["supervised"]) == 2
    assert found["seconds"] == pytest.approx(sum(found["step_seconds"][1:]))
    assert found["places"] == found["supervised"][1]
    assert 0 < found["computed"] < found["tokens"], "the prefix stands once"


def test_the_account_of_the_first_step_is_its_loss(six, tiny_folder, capsys):
    train_instil.train(options(six, tiny_folder))
    trained = told(capsys)
    train_instil.agree(options(six, tiny_folder))
    found = told(capsys)
    assert found["loss"] == pytest.approx(trained["loss"][0], rel=0.02)  # bfloat16 may round
    assert sum(map(len, found["trained"])) == trained["supervised"][0]


def test_scoring_counts_a_shared_prefix_once(six, tiny_folder, capsys):
    score_instil.main(str(six), str(tiny_folder))
    found = told(capsys)
    assert [len(nats) for nats in found["nats"]] == [2] * 6
    assert 0 < found["computed"] < found["tokens"]
    assert found["places"] > 12, "one of the choices takes several tokens"


def test_generation_counts_prompts_and_new_tokens(six, tiny_folder, capsys):
    generate_instil.main(str(six), str(tiny_folder), 3)
    found = told(capsys)
    assert len(found["texts"]) == 6
    assert 0 < found["new_tokens"] <= 18
    assert found["tokens"] > found["new_tokens"]


def test_a_shape_becomes_a_model_that_trains(tmp_path, capsys):
    folder = make_model(tmp_path / "model", {**TINY, "vocab_size": 600})
    path = tmp_path / "made_up.jsonl"
    rows.made_up_rows(path, rows=6, words=10, answer=3)
    train_instil.train(options(path, folder))
    assert len(told(capsys)["loss"]) == 2


def test_a_model_s_size_leaves_out_embedding_and_projection(tmp_path):
    tied = make_model(tmp_path / "tied", {**TINY, "vocab_size": 600})
    apart = make_model(
        tmp_path / "apart", {**TINY, "vocab_size": 600, "tie_word_embeddings": False}
    )
    size = model_size(tied)
    assert size.projection == 600 * 48
    assert size == model_size(apart)
    layer = 48 * 48 * 2 + 2 * 48 * 24 + 3 * 48 * 96 + 2 * 48
    assert size.weights == 2 * layer + 48


def test_the_peak_is_measured_at_several_sizes(monkeypatch):
    monkeypatch.setattr("hardware.CPU_SIZES", (32, 64))
    monkeypatch.setattr("hardware.SECONDS", 0.01)
    found = matrix_peaks("cpu")
    assert set(found) == {"32", "64"}
    assert min(found.values()) > 1e6
