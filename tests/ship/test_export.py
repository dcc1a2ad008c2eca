"""What is written for use without instil, and the certificate that goes along."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import pytest
from typer.testing import CliRunner

from instil.cli.main import app
from instil.errors import ModelError, RunError
from instil.files import file_sha256
from instil.ship.certificate import certificate
from instil.ship.export import export
from instil.ship.formats import Format, Quantization
from instil.ship.gguf.write import CERTIFICATE
from instil.stages.runfiles import load_manifest, load_summary

pytestmark = pytest.mark.slow  # many whole runs


def test_the_certificate_is_what_the_run_proved(done_lora: Path):
    known, summary = certificate(done_lora), load_summary(done_lora)
    weights = done_lora / "model" / "adapter_model.safetensors"
    assert known["weights"] == {weights.name: file_sha256(weights)}
    assert known["base_model"]["sha256"] == load_manifest(done_lora)["model"]["sha256"]
    assert known["test_opened"] == [summary.test_opened]
    (task,) = known["test"]
    tuned = summary.tasks[0].arms[0].summaries["accuracy"]
    assert task["arms"]["tuned"]["accuracy"] == {
        "metric": "accuracy",
        "mean": tuned.mean,
        "low": tuned.low,
        "high": tuned.high,
    }
    assert set(task["tuned_minus"]) == {"prompting", "zero_shot", "tfidf", "probe"}
    assert len(known["forgetting"]) == len(summary.forgetting)
    assert known["verdict"] == list(summary.verdict)


@pytest.mark.parametrize("form", Format)
def test_every_format_carries_it_and_no_path(form: Format, done_lora: Path, tmp_path: Path):
    made = export(done_lora, out=tmp_path / "out", form=form)
    known = json.loads((made.path / "certificate.json").read_text())
    assert known == json.loads(json.dumps(certificate(done_lora)))
    card = (made.path / "README.md").read_text()
    assert known["run"] in card
    library = {Format.HF: "peft", Format.MERGED: "transformers"}.get(form, "gguf")
    assert f"\nlibrary_name: {library}\n" in card
    assert ("PeftModel" in card) == (form is Format.HF)
    if form in (Format.GGUF, Format.GGUF_LORA):
        assert made.weights.name in card
    for file in made.path.iterdir():
        data = file.read_bytes()
        for place in (done_lora.parent, Path.home()):
            assert str(place).encode() not in data, file.name
    if made.weights.suffix == ".gguf":
        field = gguf.GGUFReader(made.weights).get_field(CERTIFICATE)
        assert json.loads(field.contents()) == known
    assert made.bytes == sum(file.stat().st_size for file in made.path.iterdir())
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".out")] == []


@pytest.mark.parametrize("kind", Quantization)
def test_matrices_are_kept_as_asked_and_vectors_in_full(kind, done_lora: Path, tmp_path: Path):
    made = export(done_lora, out=tmp_path / "out", form=Format.GGUF, quantize=kind)
    tensors = {t.name: t for t in gguf.GGUFReader(made.weights).tensors}
    assert tensors["output_norm.weight"].tensor_type.name == "F32"
    # 48 numbers in a row fill no blocks of 32.
    wanted = kind.name if kind in ("f32", "f16", "bf16") else "F16"
    assert tensors["blk.0.attn_q.weight"].tensor_type.name == wanted
    down = kind.name
    assert tensors["blk.0.ffn_down.weight"].tensor_type.name == down


def test_an_ollama_folder_is_whole(done_lora: Path, tmp_path: Path):
    made = export(done_lora, out=tmp_path / "mine", form=Format.OLLAMA)
    lines = (made.path / "Modelfile").read_text().splitlines()
    assert lines[0] == f"FROM ./{made.weights.name}"
    assert 'PARAMETER stop "<|im_end|>"' in lines
    assert any(line.startswith("TEMPLATE") for line in lines)
    (room,) = (int(line.split()[-1]) for line in lines if "num_ctx" in line)
    assert max(line.lengths[2] for line in load_summary(done_lora).mix) < room <= 4096
    assert any("ollama create" in note for note in made.notes)


def test_what_cannot_be_exported(done: Path, done_lora: Path, tmp_path: Path, monkeypatch):
    with pytest.raises(RunError, match="no adapter"):
        export(done, out=tmp_path / "out", form=Format.GGUF_LORA)
    with pytest.raises(RunError, match="into itself"):
        export(done, out=done / "model" / "copy")
    from instil.ship.gguf import write

    monkeypatch.setattr(write, "FAMILIES", {"qwen2": write.FAMILIES["qwen2"]})
    with pytest.raises(ModelError, match="family llama"):
        export(done_lora, out=tmp_path / "out", form=Format.GGUF)
    assert not (tmp_path / "out").exists()


def test_the_command_exports_and_verifies(done: Path, tmp_path: Path):
    run = CliRunner().invoke
    found = run(app, ["export", str(done), str(tmp_path / "hf")])
    assert found.exit_code == 0, found.output
    assert "verified: equal" in found.output
    found = run(app, ["export", str(done), str(tmp_path / "m"), "--merge", "--format", "gguf"])
    assert found.exit_code == 2
    found = run(app, ["export", str(done), str(tmp_path / "m"), "--quantize", "q8_0"])
    assert found.exit_code == 2
    config = tmp_path / "hf" / "generation_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"eos_token_id": 399}))
    found = run(app, ["verify", str(tmp_path / "hf"), "--run", str(done)])
    assert found.exit_code == 4, found.output
    assert "stop token missing" in found.output
