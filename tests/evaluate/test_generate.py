from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, MistralConfig

from builds import PLAIN
from instil.evaluate import generate as module
from instil.evaluate.generate import generate
from instil.model.engine.layout import rounded_count
from instil.model.engine.proof import prove
from instil.types import Example, Message

SIZES = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.3,
    "sliding_window": 7,
    "tie_word_embeddings": False,
}


def example(text: str, name: str) -> Example:
    return Example(f"t/{name}/a", "t", "a", name, "g", (Message("user", text),), "good")


def reference(loaded, item: Example, limit: int) -> tuple[str, bool]:
    """One prompt alone, all of it read anew for every token."""
    ids = loaded.chat.prompt(item.messages)
    start = len(ids)
    for _ in range(limit):
        with torch.inference_mode():
            token = int(loaded.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        if token in loaded.chat.stop_ids:
            return loaded.chat.tokenizer.decode(ids[start:], skip_special_tokens=True).strip(), True
        ids = [*ids, token]
    return loaded.chat.tokenizer.decode(ids[start:], skip_special_tokens=True).strip(), False


def new_tokens(loaded, item: Example, limit: int) -> list[int]:
    ids = torch.tensor([loaded.chat.prompt(item.messages)])
    with torch.inference_mode():
        for _ in range(limit):
            token = loaded.model(input_ids=ids).logits[:, -1:].argmax(-1)
            ids = torch.cat([ids, token], 1)
    return ids[0, -limit:].tolist()


def other_model(tiny, config):
    """Another build, random weights, behind the tiny model's tokenizer."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config).eval()
    return replace(tiny, model=model, build=prove(model))


BUILDS = {
    "llama": lambda tiny: tiny,
    "the model's own forward pass": lambda tiny: replace(tiny, build=PLAIN),
    "every layer slides": lambda tiny: other_model(tiny, MistralConfig(**SIZES)),
    "every other layer slides": lambda tiny: other_model(
        tiny, Gemma2Config(**SIZES, attn_logit_softcapping=None)
    ),
}


@pytest.mark.parametrize("build", BUILDS)
def test_batched_generation_equals_one_token_at_a_time(tiny, monkeypatch, build):
    monkeypatch.setattr(module, "BATCH_TOKENS", 60)  # several batches, rows of unequal length
    loaded = BUILDS[build](tiny)
    items = [example("phone book film. " + "good " * n, str(n)) for n in (1, 9, 4, 20)]
    found = generate(loaded, items, max_new_tokens=12)
    assert [p.example_id for p in found] == [i.id for i in items]
    for item, taken in zip(items, found, strict=True):
        assert (taken.text, taken.stopped) == reference(loaded, item, 12)
        assert taken.prompt_tokens == len(loaded.chat.prompt(item.messages))
        assert 1 <= taken.new_tokens <= 12


def test_prompts_that_share_nothing_and_a_prompt_alone(tiny, monkeypatch):
    monkeypatch.setattr(module, "common_prefix", lambda prompts: 0)
    items = [example("good bad " * n, str(n)) for n in (1, 3)]
    for asked in (items, items[:1]):
        found = generate(tiny, asked, max_new_tokens=8)
        assert [(p.text, p.stopped) for p in found] == [reference(tiny, i, 8) for i in asked]


def test_rows_that_have_ended_leave_the_batch(tiny, monkeypatch):
    """Rows stop at different steps; what is computed for the others stays as it was."""
    items = [example(f"{a} {b}", f"{a}{b}") for a in ("good", "slow") for b in "12345"]
    common = Counter(token for i in items for token in new_tokens(tiny, i, 12))
    stops = tuple(token for token, _ in common.most_common(3))
    loaded = replace(tiny, chat=replace(tiny.chat, stop_ids=stops))
    wanted = {i.id: reference(loaded, i, 12) for i in items}
    sizes = []
    original = module.next_logits

    def counted(model, batch, **how):
        sizes.append(batch.ids.shape[1])
        return original(model, batch, **how)

    monkeypatch.setattr(module, "next_logits", counted)
    found = generate(loaded, items, max_new_tokens=12)
    assert {p.example_id: (p.text, p.stopped) for p in found} == wanted
    steps = [p.new_tokens for p in found]
    assert len(set(steps)) > 3, "the rows must end at different steps"
    sizes = sizes[2:]  # those before read the prefix and the prompts
    for step, size in enumerate(sizes, start=1):
        going = sum(n > step for n in steps)
        assert going <= size <= rounded_count(going)
    assert len(sizes) == max(steps) - 1


def test_a_model_that_says_stop_is_heard_though_stop_is_the_padding(tiny, monkeypatch):
    """Make the stop token the likeliest everywhere: every row ends at once, with no text."""
    loaded = replace(tiny, build=PLAIN)
    forward = tiny.model.forward

    def eager_to_stop(*args, **kwargs):
        out = forward(*args, **kwargs)
        out.logits[..., tiny.chat.stop_id] = 1e4
        return out

    monkeypatch.setattr(tiny.model, "forward", eager_to_stop)
    found = generate(loaded, [example("good", "1"), example("good bad", "2")], max_new_tokens=5)
    assert [(p.text, p.stopped, p.new_tokens) for p in found] == [("", True, 1)] * 2


@pytest.mark.parametrize(
    ("plain", "shots", "shown", "text", "stopped"),
    [
        (True, 1, "Rome", "Paris", True),
        (True, 0, "", "Paris\n\nCapital of Italy?\nRome", False),  # nothing taught it to stop
        (True, 1, "One.\n\nTwo.", "Paris\n\nCapital of Italy?\nRome", False),
        (False, 1, "Rome", "Paris\n\nCapital of Italy?\nRome", False),
    ],
)
def test_a_base_model_s_answer_ends_as_the_worked_examples_do(plain, shots, shown, text, stopped):
    said = "Paris\n\nCapital of Italy?\nRome"
    tokenizer = SimpleNamespace(decode=lambda ids, **_: said)
    loaded = SimpleNamespace(chat=SimpleNamespace(plain=plain, stop_ids=(0,), tokenizer=tokenizer))
    turns = (Message("user", "Italy?"), Message("assistant", shown)) if shots else ()
    asked = replace(example("France?", "t/1/x"), shots=shots)
    asked = replace(asked, messages=(*turns, *asked.messages))
    found = module._prediction(loaded, asked, [5, 6, 7], 3)
    assert (found.text, found.stopped) == (text, stopped)
