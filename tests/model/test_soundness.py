"""What is wrong with a model's folder is said before it is loaded, and what is right passes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from instil.errors import ModelError
from instil.model.load import ModelFolder, load_model, require_loadable
from instil.model.soundness import check_adapter, check_folder, require_finite, weight_files

Change = Callable[[Path], object]


@pytest.fixture
def model(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def loadable(path: Path) -> list[str]:
    """Check a folder as `check` and `run` do, and return what is said of it."""
    said: list[str] = []
    require_loadable(ModelFolder("tiny", check_folder(path), "none"), say=said.append)
    return said


def config(**changes: object) -> Change:
    def change(path: Path) -> None:
        file = path / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **changes}), "utf-8")

    return change


def weights(edit: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def change(path: Path) -> None:
        tensors = load_file(path / "model.safetensors")
        edit(tensors)
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})

    return change


def indexed(name: str = "part.safetensors", **moved: str) -> Change:
    """Put the weights into a part, and write an index that names `name` for all but `moved`."""

    def change(path: Path) -> None:
        places = {key: moved.get(key, name) for key in load_file(path / "model.safetensors")}
        os.replace(path / "model.safetensors", path / "part.safetensors")
        shutil.copy(path / "part.safetensors", path.parent / "outside.safetensors")
        index = {"metadata": {}, "weight_map": {**places, **moved}}
        (path / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")

    return change


def index_text(text: str) -> Change:
    def change(path: Path) -> None:
        indexed()(path)
        (path / "model.safetensors.index.json").write_text(text, "utf-8")

    return change


def test_a_sound_folder_passes_without_a_word(model: Path) -> None:
    assert loadable(model) == []
    indexed()(model)
    assert loadable(model) == []
    assert weight_files(model) == [model / "part.safetensors"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (config(hidden_size=64), "another shape"),
        (config(hidden_size=47), "not a multiple"),
        (config(hidden_size=10**9), "another shape"),
        (config(vocab_size=300), "another shape"),
        (config(num_key_value_heads=4), "k_proj"),
        (config(num_hidden_layers=3), "lacks weights"),
        (config(num_hidden_layers=3, quantization_config=None), "lacks weights"),
        (config(num_hidden_layers=1), "layers that its config.json leaves out"),
        (config(num_hidden_layers=0), "layers that its config.json leaves out"),
        (config(num_hidden_layers=10**9), "more layers than"),
        (config(hidden_act="nope"), "hidden_act: nope"),
        (config(rope_parameters={"rope_type": "nope", "rope_theta": 1e4}), "rope_type: nope"),
        (config(model_type="lama"), "did you mean: llama"),
        (config(model_type="mine", auto_map={"AutoConfig": "mine.Mine"}), "own code"),
        (config(model_type="vit"), "writes no text"),
        (config(quantization_config={"quant_method": "nope"}), "quant_method: nope"),
        (config(quantization_config={"quant_method": "gptq", "bits": 4}), "quant_method: gptq"),
        (config(quantization_config=[]), "no mapping"),
    ],
)  # fmt: skip
def test_a_config_that_is_not_of_the_weights(model: Path, change: Change, says: str) -> None:
    change(model)
    with pytest.raises(ModelError) as refused:
        loadable(model)
    assert says in str(refused.value)
    assert len(str(refused.value)) < 1500


UP = "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (weights(lambda w: w[UP].__setitem__((0, 0), float("nan"))), "no finite numbers"),
        (weights(lambda w: w["model.norm.weight"].fill_(float("inf"))), "model.norm.weight"),
        (weights(lambda w: w.pop(UP)), "lacks weights"),
        (weights(lambda w: w.update({UP.replace("1", "2"): w[UP] + 1})), "leaves out"),
        (weights(lambda w: w.update({UP: w[UP][:-1].clone()})), "another shape"),
        (indexed("gone.safetensors"), "gone.safetensors, which is not there"),
        (indexed(**{UP: "gone.safetensors"}), "gone.safetensors, which is not there"),
        (indexed("../outside.safetensors"), "of its own folder"),
        (indexed("/etc/passwd"), "of its own folder"),
        (indexed("config.json"), "of its own folder"),
        (indexed("part.safetensors", more=["x"]), "no index of weights"),
        (index_text("{"), "not JSON"),
        (index_text("[" * 9999), "not JSON"),
        (index_text("[]"), "no index of weights"),
        (index_text('{"weight_map": []}'), "no index of weights"),
        (index_text('{"weight_map": {}}'), "names no weights"),
        (lambda path: (path / "generation_config.json").write_text("[]"), "no mapping"),
        (lambda path: (path / "adapter_config.json").write_text("{}"), "holds an adapter"),
    ],
)  # fmt: skip
def test_weights_that_are_not_of_the_model(model: Path, change: Change, says: str) -> None:
    change(model)
    with pytest.raises(ModelError) as refused:
        loadable(model)
    assert says in str(refused.value)


def test_weights_under_another_name(model: Path) -> None:
    os.replace(model / "model.safetensors", model / "mine.safetensors")
    with pytest.raises(ModelError, match=r"no file named model\.safetensors"):
        loadable(model)
    config(transformers_weights="mine.safetensors")(model)
    assert loadable(model) == []


def test_weights_of_another_part_and_code_that_is_not_run_are_told(model: Path) -> None:
    weights(lambda w: w.update({"vision.layers.0.weight": torch.ones(2)}))(model)
    config(auto_map={"AutoModelForCausalLM": "mine.Mine"})(model)
    code, surplus = loadable(model)
    assert "auto_map" in code
    assert "1 weights" in surplus
    assert "vision.layers.0.weight" in surplus


def test_layers_that_predict_ahead_are_told(model: Path) -> None:
    weights(lambda w: w.update({UP.replace("1", "2"): w[UP] + 1}))(model)
    config(num_nextn_predict_layers=1)(model)
    assert "layers.2" in " ".join(loadable(model))


def test_a_large_tensor_is_tried_in_steps(tmp_path: Path) -> None:
    large = torch.zeros(800, 200)
    large[400:] = torch.nan
    save_file({"a": torch.zeros(0, 9), "b": torch.ones(3, dtype=torch.int8)}, tmp_path / "well")
    require_finite([tmp_path / "well"])
    save_file({"large": large}, tmp_path / "broken")
    with pytest.raises(ModelError, match="found: large"):
        require_finite([tmp_path / "broken"])


def test_logits_that_are_no_numbers_are_refused_when_the_model_is_loaded(model: Path) -> None:
    config(rms_norm_eps=-1e9)(model)
    assert loadable(model) == []
    with pytest.raises(ModelError, match="logits are no finite numbers"):
        load_model(ModelFolder("tiny", model, "none"), device="cpu", dtype="float32")


def test_an_adapter_is_safetensors_alone(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no adapter"):
        check_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"has no adapter_model\.safetensors"):
        check_adapter(tmp_path)
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match="a pickle, which could run code"):
        check_adapter(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"x")
    with pytest.raises(ModelError, match="no whole safetensors file"):
        check_adapter(tmp_path)
    save_file({"a": torch.tensor([torch.nan])}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="no finite numbers"):
        check_adapter(tmp_path)
    save_file({"a": torch.ones(1)}, tmp_path / "adapter_model.safetensors")
    check_adapter(tmp_path)


def test_weights_in_8_bits_are_made_whole(model: Path) -> None:
    packed = load_file(model / "model.safetensors")
    for name in [n for n in packed if n.startswith("model.layers") and n.endswith("proj.weight")]:
        rows, columns = packed[name].shape
        packed[name] = packed[name].to(torch.float8_e4m3fn)
        scales = torch.full((-(-rows // 16), -(-columns // 16)), 2.0)
        packed[name.replace("weight", "weight_scale_inv")] = scales
    save_file(packed, model / "model.safetensors", metadata={"format": "pt"})
    fp8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [16, 16]}
    config(quantization_config={**fp8, "modules_to_not_convert": ["lm_head"]})(model)
    assert loadable(model) == []
    folder = ModelFolder("tiny", model, "")
    loaded = load_model(folder, device="cpu", dtype="float32")
    name = "model.layers.0.mlp.up_proj.weight"
    weight = dict(loaded.model.named_parameters())[name]
    torch.testing.assert_close(weight.detach(), 2 * packed[name].float())
    with pytest.raises(ModelError, match="quantized already"):
        load_model(folder, device="cpu", dtype="float32", quantize="nf4")
