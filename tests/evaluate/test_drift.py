"""The distance from the base model: zero at the start, and what brute force says."""

from dataclasses import replace

import pytest
import torch

from builds import PLAIN, add_lora
from instil.evaluate import choices
from instil.evaluate.drift import base_states, drift
from instil.model.adapter import adapter_off, trainable
from instil.model.engine import divergence
from instil.model.engine.divergence import States
from instil.model.load import ModelFolder, load_model
from instil.types import Example, Message

SETTINGS = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": "all-linear", "seed": 0}
ANSWERS = ("positive", "negative", "the battery works", "good and cheap")


def examples(count: int = 9) -> list[Example]:
    return [
        Example(
            f"q/{n}/a",
            "q",
            "a",
            str(n),
            str(n),
            (Message("user", f"the review {n}: phone was {'very ' * (n % 4)}good"),),
            ANSWERS[n % 4],
        )
        for n in range(count)
    ]


def adapted(tiny):
    loaded = add_lora(tiny, **SETTINGS)
    return loaded


def shaken(loaded, *, std: float = 0.2):
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in trainable(loaded.model).values():
            weight.add_(torch.randn_like(weight) * std)
    return loaded


def brute_force(loaded, example: Example) -> float:
    """Both whole distributions at every place, from the model's own forward pass."""
    prompt = loaded.chat.prompt(example.messages)
    answer = loaded.chat.target(example).completions[0]
    ids = torch.tensor([[*prompt, *answer]])
    with torch.inference_mode():
        tuned = loaded.model(input_ids=ids).logits[0].double().log_softmax(-1)
        with adapter_off(loaded.model):
            base = loaded.model(input_ids=ids).logits[0].double().log_softmax(-1)
    kl = (base.exp() * (base - tuned)).sum(-1)
    return float(kl[len(prompt) - 1 : -1].mean())


def test_a_fresh_adapter_has_not_moved_at_all(tiny):
    loaded = adapted(tiny)
    found = drift(loaded, examples(), base=base_states(loaded, examples()))
    assert [score.value for score in found] == [0.0] * 9


@pytest.mark.parametrize("own_head", [True, False])
def test_it_is_what_brute_force_over_the_vocabulary_says(tiny, monkeypatch, own_head):
    monkeypatch.setattr(divergence, "VOCABULARY_BLOCK", 64)
    monkeypatch.setattr(divergence, "ROWS", 5)
    monkeypatch.setattr(choices, "PACK_TOKENS", 120)  # several packs
    loaded = shaken(adapted(tiny))
    if not own_head:
        loaded = replace(loaded, build=PLAIN)
    asked = examples()
    found = drift(loaded, asked, base=base_states(loaded, asked))
    assert [score.example_id for score in found] == [e.id for e in asked]
    wanted = [brute_force(loaded, e) for e in asked]
    assert min(wanted) > 0.01
    assert [s.value for s in found] == pytest.approx(wanted, rel=1e-4)


def test_full_weights_against_states_that_were_kept(tiny, tiny_folder):
    """The base is gone by the time the tuned model is asked, all but its head and its states."""
    asked = examples()
    kept = list(base_states(tiny, asked))
    assert all(each.head is not None and each.values.shape[1] == 48 for each in kept)
    tuned = load_model(ModelFolder("tiny", tiny_folder, "none"), device="cpu", dtype="float32")
    assert [s.value for s in drift(tuned, asked, base=kept)] == [0.0] * 9
    shaken(tuned, std=0.02)
    prompt, answer = tiny.chat.prompt(asked[2].messages), tiny.chat.target(asked[2]).completions[0]
    ids = torch.tensor([[*prompt, *answer]])
    with torch.inference_mode():
        p, q = (m.model(input_ids=ids).logits[0].double().log_softmax(-1) for m in (tiny, tuned))
    wanted = (p.exp() * (p - q)).sum(-1)[len(prompt) - 1 : -1].mean()
    found = drift(tuned, asked, base=kept)
    assert found[2].value == pytest.approx(float(wanted), rel=1e-4)


def test_it_is_the_forward_direction():
    p, q = torch.tensor([[0.9, 0.1]]), torch.tensor([[0.5, 0.5]])
    found = divergence.divergence(States(p.log(), None), States(q.log(), None))
    assert float(found) == pytest.approx(
        0.9 * torch.tensor(1.8).log() + 0.1 * torch.tensor(0.2).log()
    )
