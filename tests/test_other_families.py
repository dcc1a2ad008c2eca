"""The whole story beyond llama: an encoder-decoder model, and layers with a state."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    Gemma3TextConfig,
    Mamba2Config,
    Qwen3Config,
    T5Config,
)

from instil.compare import forgetting
from instil.errors import RecipeError
from instil.model.load import quiet
from instil.ship.chat import chat
from instil.ship.export import export
from instil.ship.formats import Format
from instil.ship.predict import predict_text
from instil.stages.runfiles import load_manifest, load_scores, load_summary
from moods import lay_out, make_recipe, run

pytestmark = pytest.mark.slow  # many whole runs


SIZES = {"vocab_size": 400, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
LAYERS = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "initializer_range": 0.2,
}
CONFIGS = {
    "encoder-decoder": T5Config(
        **SIZES,
        d_model=48,
        d_kv=12,
        d_ff=96,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=2,
        dropout_rate=0.0,
    ),
    "a state in its layers": Mamba2Config(
        **SIZES,
        hidden_size=48,
        num_hidden_layers=2,
        num_heads=8,
        head_dim=12,
        n_groups=1,
        state_size=16,
        chunk_size=16,
        initializer_range=0.3,
    ),
    "norms of queries": Qwen3Config(**SIZES, **LAYERS),
    "norms of queries, transformers' layers": Gemma3TextConfig(
        **SIZES, **LAYERS, sliding_window=64
    ),
}


def save(kind: str, tiny_folder: Path, out: Path) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    config = CONFIGS[kind]
    config.vocab_size = len(tokenizer)
    torch.manual_seed(0)
    cls = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    cls.from_config(config).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


HOW = {"encoder-decoder": ("lora", 0.02, 4), "a state in its layers": ("full", 0.01, 6)}
"""Method, learning rate and epochs."""


KINDS = [
    "encoder-decoder",
    pytest.param("a state in its layers", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=KINDS)
def done(request, tmp_path_factory, tiny_folder) -> Path:
    folder = lay_out(tmp_path_factory.mktemp("other"))
    model = save(request.param, tiny_folder, folder / "base")
    method, rate, epochs = HOW[request.param]
    recipe = make_recipe(
        folder,
        model,
        f"method={method}",
        "dtype=float32",
        "baselines.shots=[0]",
        f"train.num_train_epochs={epochs}",
        f"train.learning_rate={rate}",
        "keep.kl=0.05",
        "keep.kl_on=completion",
        "keep.replay.share=0.1",
        task="moods.yaml",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forgetting, "TEXT_FROM", str(folder / "echo.yaml"))
        return run(recipe, folder / "run")


@pytest.mark.parametrize("kind", [kind for kind in CONFIGS if kind.startswith("norms")])
def test_full_fine_tuning_in_bfloat16(kind, tmp_path, tiny_folder):
    """Trained over float32 masters, asked and exported."""
    folder = lay_out(tmp_path)
    recipe = make_recipe(
        folder,
        save(kind, tiny_folder, folder / "base"),
        "method=full",
        "dtype=bfloat16",
        "baselines.shots=[0]",
        "forgetting.text=false",
        "train.num_train_epochs=6",
        "train.learning_rate=0.005",
        task="moods.yaml",
    )
    done = run(recipe, folder / "run")
    summary = load_summary(done)
    assert load_manifest(done)["model"]["computed"].startswith("packed")
    assert summary.tasks[0].arms[0].summaries["accuracy"].mean > 0.6
    assert predict_text(done, "phone 1: it is good and great")


def test_a_run_from_rows_to_report(done):
    summary, manifest = load_summary(done), load_manifest(done)
    assert manifest["model"]["computed"].startswith("row by row")
    (task,) = summary.tasks
    tuned = task.arms[0]
    assert tuned.summaries["accuracy"].mean > 0.6, "the words of the mood are easily learned"
    (kl,) = summary.training.means.terms
    assert kl.name == "kl"
    assert kl.mean > 0
    assert [g.task for g in summary.forgetting] == ["echo", "echo", "general text"]
    assert load_scores(done, "test-moods")
    page = (done / "report.html").read_text(encoding="utf-8")
    assert "row by row" in page


def test_it_answers_talks_and_is_exported(done, tmp_path):
    said = predict_text(done, "phone 3: it is good and lovely").text
    assert said in ("positive", "negative", "good", "bad")
    assert isinstance("".join(chat(done).reply("Hello")), str)
    whole = export(done, out=tmp_path / "whole", form=Format.MERGED).path
    shipped = export(done, out=tmp_path / "shipped").path
    base, ids = done.parent / "base", torch.arange(3, 13)[None]
    inputs, kind = {"input_ids": ids}, AutoModelForCausalLM
    if AutoConfig.from_pretrained(base).is_encoder_decoder:
        inputs["decoder_input_ids"], kind = ids[:, :4], AutoModelForSeq2SeqLM
    with quiet():
        if (shipped / "adapter_config.json").exists():
            plain = PeftModel.from_pretrained(kind.from_pretrained(base), str(shipped))
        else:
            plain = kind.from_pretrained(shipped)
    with torch.inference_mode():
        merged = kind.from_pretrained(whole).eval()(**inputs).logits
        torch.testing.assert_close(merged, plain.eval()(**inputs).logits, rtol=1e-3, atol=1e-4)


def test_prompts_of_an_encoder_are_no_places_to_hold_a_model(tmp_path, tiny_folder):
    folder = lay_out(tmp_path)
    model = save("encoder-decoder", tiny_folder, folder / "base")
    with pytest.raises(RecipeError, match="nothing within its prompts"):
        run(make_recipe(folder, model, "keep.kl=0.1"), folder / "run")


def test_an_encoder_decoder_model_takes_no_chat_template(tmp_path, tiny_folder):
    folder = lay_out(tmp_path)
    model = save("encoder-decoder", tiny_folder, folder / "base")
    template = Path(folder / "own.jinja")
    template.write_text("{{ messages }}", encoding="utf-8")
    with pytest.raises(RecipeError, match="takes no chat template"):
        run(make_recipe(folder, model, f"chat_template={template}"), folder / "run")
