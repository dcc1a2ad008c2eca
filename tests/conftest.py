"""Shared fixtures: a tiny llama with a chat template, built on the spot, and golden files."""

from __future__ import annotations

import gc
import os
import signal
import sys

# Under nohup SIGHUP is ignored, and tests send it.
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
# The models of the tests are tiny: a second thread costs more in waiting than it computes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

# The same examples at each run, so that a red run is this change's; `--hypothesis-profile=explore`
# looks for new ones.
hypothesis.settings.register_profile("same", derandomize=True, database=None)
hypothesis.settings.register_profile("explore", derandomize=False)
hypothesis.settings.load_profile("same")

# As SmolLM2's GGUF has it: pad and EOS are one token, BOS opens every turn.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'"
    " + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WORDS = (
    "the a it is was this that not very good bad great poor lovely awful works broke price quality "
    "I love hate it review positive negative sentiment answer question text of and or with for "
    "phone book film plot actor battery screen sound camera cheap dear fast slow happy sad "
    "1 2 3 4 5"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write golden files anew")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture
def golden(update_golden: bool) -> Callable[[Path, str], None]:
    """Compare text with a golden file, or write it under --update-golden."""

    def check(path: Path, text: str) -> None:
        if update_golden:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"no golden file {path.name}: run pytest --update-golden"
        assert text == path.read_text(encoding="utf-8")

    return check


@pytest.fixture(scope="session")
def proofs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where what was proved of a model is kept, for all tests: the tiny one is proved once."""
    return tmp_path_factory.mktemp("proofs")


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proofs: Path) -> None:
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    if (module := sys.modules.get("instil.model.engine.proof")) is not None:
        monkeypatch.setattr(module, "cache_dir", lambda: proofs)


_set_aside = 0


@pytest.fixture(autouse=True)
def libraries_set_aside() -> None:
    """Keep libraries out of garbage collection once they are loaded: runs collect often."""
    global _set_aside
    if len(sys.modules) > _set_aside + 200:
        gc.collect()
        gc.freeze()
        _set_aside = len(sys.modules)


def build_tiny_model(folder: Path, *, chat: bool = True) -> Path:
    """Save a 2-layer llama with grouped keys and a byte-level tokenizer; a few hundred KB."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([WORDS] * 20, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
    )
    fast.chat_template = CHAT_TEMPLATE if chat else None
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        tie_word_embeddings=True,
        initializer_range=0.3,  # wide, so that the untrained model has opinions to compare
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without a chat template: a base model."""
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny-base", chat=False)


@pytest.fixture
def tiny(tiny_folder: Path):
    """The tiny model, loaded in float32 on the CPU."""
    from instil.model.load import ModelFolder, load_model

    return load_model(ModelFolder("tiny", tiny_folder, "none"), device="cpu", dtype="float32")


@pytest.fixture
def tiny_chat(tiny_folder: Path):
    """The tiny model's chat format alone."""
    from instil.model.load import ModelFolder, load_tokenizer

    return load_tokenizer(ModelFolder("tiny", tiny_folder, "none"))
